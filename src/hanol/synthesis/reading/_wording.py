"""Questions in other words: synonyms, keywords as they are typed into a search field."""

import re
from random import Random

from hanol.synthesis.reading._lexicon import Lexicon


def _word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_STOP = _word_set(
    """a about after all also am an and any are as at be because been before being between both but
    by can could did do does done during each for from had happens has have having he her him
    his how i if in into is it its just may me might more most much must my no nor not of off on
    once only or other our out over own same she should so some such than that the their them
    then there these they this those through to too under until up us very was way we were what
    when where whether which while who whom whose why will with within without would you your
    use used using please tell mean meaning explain define definition
    word called call"""
)

WEAK = _word_set(
    """the a an of to in on at by for with from and or but as is are was were be been that which
    who it its their this these can may will not has have had if when than into such also"""
)
_SMALL = _word_set(
    """The A An Any Each Every All Some Most Many No If When This You Your Users People In On For
    One There Most Both Two Three Four Five Such Several Other"""
)


def content(text: str) -> list[str]:
    """The content words of a text by their stems, each once, numbers as they are."""
    found = []
    for token in re.findall(r"[A-Za-z_][\w.'’-]*|\d[\d.,]*", text):
        word = token.lower().strip(".,'’-")
        if word and word not in _STOP:
            found.append(_stem(word))
    return list(dict.fromkeys(found))


def _stem(word: str) -> str:
    if not word.isalpha() or len(word) < 4:
        return word
    word = re.sub(r"(?:ies|ied)$", "y", word)
    word = re.sub(r"(?:ations?|ating|ated?|ings?|edly|ed|ers?|es|s|ly|e)$", "", word)
    return word[:7]


def window(words: list[str], rng: Random, size: int) -> str:
    """Some words in a row that begin and end with a word of their own."""
    start = rng.randrange(max(1, len(words) - size + 1))
    found = [word.strip(",;:()") for word in words[start : start + size]]
    while len(found) > 3 and found[-1].lower() in WEAK:
        found.pop()
    while len(found) > 3 and found[0].lower() in WEAK:
        found.pop(0)
    return uncapital(" ".join(found))


def uncapital(text: str) -> str:
    """Small first letter, unless the word may be a name."""
    return text[0].lower() + text[1:] if text.split(" ", 1)[0] in _SMALL else text


def reworded(text: str, lexicon: Lexicon, rng: Random, share: float) -> str:
    """Replace a share of the plain words of a question by synonyms."""
    words = re.split(r"(\W+)", text)
    for i, word in enumerate(words):
        if word.islower() and word.isalpha() and word not in _STOP and rng.random() < share:
            words[i] = lexicon.other_word(word, rng) or word
    return "".join(words)


def keywords(text: str, rng: Random) -> str:
    """A question as it is typed into a search field: few words, not always in their order."""
    text = re.sub(r"\b[Hh]ow many\b", "number of", text)
    kept = [
        word
        for word in re.sub(r"[(),;:?\"“”]|\.$", " ", text).split()
        if word.lower() not in _STOP or rng.random() < 0.05
    ]
    while len(kept) > 4 and rng.random() < 0.5:
        plain = [i for i, word in enumerate(kept) if word.islower()]
        if not plain:
            break
        del kept[rng.choice(plain)]
    if len(kept) > 2 and rng.random() < 0.3:  # "of the file the owner" -> "owner file"
        cut = rng.randrange(1, len(kept))
        kept = kept[cut:] + kept[:cut]
    found = " ".join(kept)
    return found if rng.random() < 0.5 else found.lower()
