"""What is hard to translate in a pair of texts, with the places that show it.

Rules over word lists: they find candidates for people (or a model) to confirm, and miss much. The
classes are those of DITING (arXiv 2510.09116, section 3): idiom, lexical (an ambiguous word),
terminology, tense, zero (a dropped pronoun), security.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import regex
import yaml
from pydantic import BaseModel, ConfigDict

from hanol.errors import DataError, UnknownNameError
from hanol.files import read_text

Phenomenon = Literal["idiom", "lexical", "terminology", "tense", "zero", "security"]
PHENOMENA: tuple[Phenomenon, ...] = get_args(Phenomenon)
_KINDS = 2  # of time that a pair must speak of
_SPACED = regex.compile(r"^[\p{Latin}\p{N}' .-]+$")
_MARKED = regex.compile(r"[「『《“\"]([^「」『』《》“”\"\n]{1,30})[」』》”\"]")
_PERSONAL = {
    "a phone number": regex.compile(r"(?<!\d)(?:\+?\d{1,3}[- ])?\d{2,4}[- ]\d{3,4}[- ]\d{4}(?!\d)"),
    "a mail address": regex.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "a card or ID number": regex.compile(
        r"(?<!\d)(?:\d{4}[- ]?){3}\d{4}(?!\d)|(?<!\d)\d{6}-\d{7}(?!\d)|(?<!\d)\d{17}[\dXx](?!\w)"
    ),
}
_MINE_FROM = 2_000  # pairs at most that terms are mined from: time grows with their number
_LONGEST_TERM = 6  # characters of a term in Chinese, Japanese or Korean; words in others: 3
_PARTICLES = "은는이가을를의도와과께에로만"  # begin what may stand behind a Korean noun


class PhenomenonSpan(BaseModel):
    """A place that shows a phenomenon.

    Args:
        phenomenon: Its class.
        side: The text that it is in.
        begin: First character.
        end: Character behind the last one.
        text: What stands there.
        why: The rule, in words.
    """

    model_config = ConfigDict(frozen=True)

    phenomenon: Phenomenon
    side: Literal["source", "reference"]
    begin: int
    end: int
    text: str
    why: str


class PhenomenonFinder:
    """Finds phenomena in pairs of one direction.

    Args:
        source: Code of the source language.
        target: Code of the target language.
        words: A YAML file of word lists as the package's `phenomena.yaml`, which it extends.
        terms: Terms of the source language with their translations.

    Raises:
        DataError: The file cannot be read or has another form.
        UnknownNameError: It names a class that does not exist.
    """

    def __init__(
        self,
        source: str,
        target: str,
        *,
        words: str | Path | None = None,
        terms: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.source, self.target = source, target
        self.terms = {name: tuple(found) for name, found in (terms or {}).items()}
        lists = _read_words(Path(__file__).with_name("phenomena.yaml"))
        own = _read_words(Path(words)) if words is not None else {}
        self._words = {name: _joined(lists.get(name, {}), own.get(name, {})) for name in PHENOMENA}

    def is_common(self, word: str) -> bool:
        """Whether a word is one of time or a pronoun, and so no term."""
        time: Mapping[str, Sequence[str]] = self._words["tense"].get(self.source, {})
        known = {*self._words["zero"].get(self.source, ())}.union(*time.values())
        return any(one in word or word in one for one in known if len(one) > 1) or word in known

    def find(self, source: str, reference: str) -> list[PhenomenonSpan]:
        """All places, by class and place."""
        found = [
            *self._listed("idiom", source, "an idiom"),
            *self._listed("lexical", source, "a word of several meanings"),
            *self._terminology(source, reference),
            *self._tense(source),
            *self._zero(source, reference),
            *self._security(source),
        ]
        return sorted(set(found), key=lambda one: (one.phenomenon, one.side, one.begin, one.end))

    def _listed(self, name: Phenomenon, text: str, why: str) -> Iterable[PhenomenonSpan]:
        words = tuple(self._words[name].get(self.source, ()))
        places = _places(words, text)
        if name == "lexical":  # idioms and sensitive words may have endings
            places = _free(places, text, self.source)
        return (_span(name, "source", text, at, why) for at in places)

    def _terminology(self, source: str, reference: str) -> Iterable[PhenomenonSpan]:
        for term, translations in self.terms.items():
            for at in _places((term,), source):
                why = f"a term: {' | '.join(translations)}"
                yield _span("terminology", "source", source, at, why)
        marked = [match.span(1) for match in _MARKED.finditer(source)]
        if marked and _MARKED.search(reference):  # a name on both sides
            for at in marked:
                yield _span("terminology", "source", source, at, "a marked name")

    def _tense(self, source: str) -> list[PhenomenonSpan]:
        cues: Mapping[str, Sequence[str]] = self._words["tense"].get(self.source, {})
        found = [
            _span("tense", "source", source, at, f"time: {kind}")
            for kind, words in cues.items()
            for at in _places(tuple(words), source)
        ]
        return found if len({one.why for one in found}) >= _KINDS else []

    def _zero(self, source: str, reference: str) -> list[PhenomenonSpan]:
        """Pronouns of the reference where the source has fewer."""
        if self.source == "en":  # which drops none
            return []
        theirs = _places(tuple(self._words["zero"].get(self.target, ())), reference)
        own = _places(tuple(self._words["zero"].get(self.source, ())), source)
        # "It" alone is often the grammar's, not a dropped referent.
        is_referent = any(reference[slice(*at)].casefold() not in ("it", "its") for at in theirs)
        if not is_referent or _free(own, source, self.source):
            return []
        why = "a pronoun that the source does not have"
        return [_span("zero", "reference", reference, at, why) for at in theirs]

    def _security(self, source: str) -> Iterable[PhenomenonSpan]:
        yield from self._listed("security", source, "a sensitive word")
        for why, pattern in _PERSONAL.items():
            for match in pattern.finditer(source):
                yield _span("security", "source", source, match.span(), why)


def mine_terms(
    pairs: Sequence[tuple[str, str]], *, min_count: int = 4, min_dice: float = 0.75
) -> dict[str, list[str]]:
    """Terms that are nearly always translated by the same words, in text of one domain.

    Runs of letters of the source and the target that occur in the same pairs are terms (Dice's
    coefficient of the sets of pairs). Shorter ones inside of a longer one go.

    Args:
        pairs: Source and target; of more than 2,000 the first are read.
        min_count: Pairs that a term must be in.
        min_dice: Least share of pairs that both are in, of the mean of those that either is in.

    Returns:
        The best translation of each term, in a list as glossaries have it.
    """
    pairs = pairs[:_MINE_FROM]
    most = max(min_count, len(pairs) // 3)  # more frequent ones are words of the language
    in_source, in_target = (
        {
            gram: rows
            for gram, rows in _index(pair[side] for pair in pairs).items()
            if min_count <= len(rows) <= most
        }
        for side in (0, 1)
    )
    by_row: dict[int, list[str]] = defaultdict(list)
    for gram, rows in in_target.items():
        for row in rows:
            by_row[row].append(gram)
    found: dict[str, tuple[float, str]] = {}
    for gram, rows in in_source.items():
        shared = Counter(other for row in rows for other in by_row[row])
        scored = [
            (2 * count / (len(rows) + len(in_target[other])), len(other), other)
            for other, count in shared.items()
            if count >= min_count
        ]
        if scored and (best := max(scored))[0] >= min_dice:
            found[gram] = (best[0], best[2])
    whole = {
        gram: [best]
        for gram, (_, best) in found.items()
        if not any(
            gram != longer and gram in longer and in_source[gram] <= in_source[longer]
            for longer in found
        )
    }
    return dict(sorted(whole.items()))


def _index(texts: Iterable[str]) -> dict[str, set[int]]:
    """The rows that each run of letters or words occurs in."""
    found: dict[str, set[int]] = defaultdict(set)
    for row, text in enumerate(texts):
        for gram in _grams(text):
            found[gram].add(row)
    return found


def _grams(text: str) -> set[str]:
    grams: set[str] = set()
    for run in regex.findall(r"[\p{Han}\p{Hiragana}\p{Katakana}]+", text):
        for length in range(2, _LONGEST_TERM + 1):
            grams |= {run[i : i + length] for i in range(len(run) - length + 1)}
    for line in regex.split(r"[^\p{Latin}\p{Hangul}\p{N}' -]+", text):
        words = [word for word in line.split() if regex.search(r"[\p{Latin}\p{Hangul}]", word)]
        for length in range(1, 4):
            runs = (words[i : i + length] for i in range(len(words) - length + 1))
            grams |= {" ".join(run).casefold() for run in runs if len("".join(run)) > 2}
    return grams


def _span(
    name: Phenomenon, side: Literal["source", "reference"], text: str, at: tuple[int, int], why: str
) -> PhenomenonSpan:
    begin, end = at
    return PhenomenonSpan(
        phenomenon=name, side=side, begin=begin, end=end, text=text[begin:end], why=why
    )


def _places(words: tuple[str, ...], text: str) -> list[tuple[int, int]]:
    pattern = _pattern(words)
    return [] if pattern is None else [match.span() for match in pattern.finditer(text)]


@cache
def _pattern(words: tuple[str, ...]) -> Any:
    """Any of the words, the longest first; words of languages with spaces stand alone."""
    parts = [
        rf"\b{regex.escape(word)}\b" if _SPACED.match(word) else regex.escape(word)
        for word in sorted(words, key=len, reverse=True)
    ]
    return regex.compile("|".join(parts), regex.IGNORECASE) if parts else None


def _free(places: Sequence[tuple[int, int]], text: str, language: str) -> list[tuple[int, int]]:
    """Those that are words of their own; Korean ones perhaps with a particle."""
    return [
        (begin, end)
        for begin, end in places
        if language != "ko"
        or (
            (begin == 0 or not text[begin - 1].isalpha())
            and (end == len(text) or not text[end].isalpha() or text[end] in _PARTICLES)
        )
    ]


def _read_words(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path))
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise DataError(f"The word lists {str(path)!r} could not be read: {err}") from err
    if not isinstance(content, dict) or not all(isinstance(x, dict) for x in content.values()):
        raise DataError(f"{str(path)!r} has no word lists by class and language.")
    for name in content:
        if name not in PHENOMENA:
            raise UnknownNameError("class of phenomena", str(name), PHENOMENA)
    return content


def _joined(lists: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The lists of a class with those of the user behind them."""
    made: dict[str, Any] = {}
    for language in {*lists, *own}:
        first, second = lists.get(language, []), own.get(language, [])
        if isinstance(first, dict) or isinstance(second, dict):
            kinds = {**(first or {})}
            for kind, words in (second or {}).items():
                kinds[kind] = [*kinds.get(kind, []), *map(str, words)]
            made[language] = kinds
        else:
            made[language] = [*map(str, first), *map(str, second)]
    return made
