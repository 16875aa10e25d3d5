"""The words that carry a text, as stems: a sentence that answers is not worded as its question."""

import re
from collections.abc import Iterator

import regex

from hanol.retrieval.citations._facts import strip_particle
from hanol.retrieval.citations._words import ASKING_WORDS, STOP_WORDS
from hanol.retrieval.index._cjk import RUN, WORD, fold, normalize, pairs

_WORD = regex.compile(rf"({RUN})|{WORD}(?:[.,]\d+)*", regex.V1)
_HANGUL = re.compile("[\uac00-\ud7a3]+")
_ASKS = re.compile(
    "(?:무엇|누구|언제|어디|얼마|몇|뭐|것|개|명|편|살|배|년|번|곳|가지|원|시간|점)?"
    "(?:인가요?|이?였나요?|이었나요?|일까요?|인지|입니까|이?었습니까)"
)
_SUFFIX = re.compile(
    "(?:ations?|ments?|ings?|i?ers?|iest|ied|ies|ily|ions?|eds?|ees?|es|ly|e|(?<![aeou])y|(?<!s)s)$"
)
_OF_NOUNS = re.compile("(?<=.{5})ships?$")  # membership
_DOUBLED = re.compile(r"([bdfgmnprt])\1$")  # stopp(ed)
_ONE_SYLLABLE = re.compile("[가-힣][은는을를]")  # and a particle; with others words end, too
_ENDINGS = frozenset((*"은는이가을를의에와과도로만", "로는", "에서", "으로"))
_SHORTEST = 3  # letters that a suffix leaves


def word_stems(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The words of a text that say something, in order, each with its stem.

    Stop words and question words are left out. The stem of a Korean, Chinese or Japanese word is
    its pairs of characters, without a particle; numbers are kept whole.

    Example:
        >>> list(word_stems("Which models were trained on 1,000 pages?"))
        [('models', ('model',)), ('trained', ('train',)), ('1000', ('1000',)), ('pages', ('pag',))]
        >>> list(word_stems("서울특별시의 인구는 얼마인가?"))
        [('서울특별시', ('서울', '울특', '특별', '별시')), ('인구', ('인구',))]
    """
    normal = normalize(text)
    for match in _WORD.finditer(normal):
        if match[1] is None:
            word = fold(match[0]).replace(",", "")
            if word not in STOP_WORDS:
                yield word, (_stem(word),)
            continue
        run = match[1]
        if run in _ENDINGS and match.start() and normal[match.start() - 1].isalnum():
            continue  # the particle of a Latin word or a number
        if _HANGUL.fullmatch(run):
            run = run if run in ASKING_WORDS else strip_particle(run)
            if run in ASKING_WORDS or _ASKS.fullmatch(match[0]):
                continue
            if _ONE_SYLLABLE.fullmatch(run):
                run = run[0]
        parts = tuple(token for token, _, _ in pairs(run))
        yield run, parts[:-1] or parts


def _stem(word: str) -> str:
    if not word.isalpha():
        return word
    stem = _SUFFIX.sub("", _OF_NOUNS.sub("", word))
    for found in (_DOUBLED.sub(r"\1", stem), stem):
        if len(found) >= _SHORTEST:
            return found
    return word[:-1] if len(word) > _SHORTEST and word[-1] == "s" != word[-2] else word
