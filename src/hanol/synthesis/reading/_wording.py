"""Questions in other words: synonyms, keywords as they are typed into a search field."""

import re
from random import Random

from hanol.synthesis.reading._lexicon import Lexicon


def word_set(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())


_STOP = word_set(
    """a about after all also am an and any are as at be because been before being between both but
    by can could did do does done during each for from had happens has have having he her him
    his how i if in into is it its just may me might more most much must my no nor not of off on
    once only or other our out over own same she should so some such than that the their them
    then there these they this those through to too under until up us very was way we were what
    when where whether which while who whom whose why will with within without would you your
    use used using please tell mean meaning explain define"""
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


def reworded(text: str, lexicon: Lexicon, rng: Random, share: float) -> str:
    """Replace a share of the plain words of a question by synonyms."""
    words = re.split(r"(\W+)", text)
    for i, word in enumerate(words):
        if word.islower() and word.isalpha() and word not in _STOP and rng.random() < share:
            words[i] = lexicon.other_word(word, rng) or word
    return "".join(words)


def keywords(text: str, rng: Random) -> str:
    """A question as it is typed into a search field: few words, not always in their order."""
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
