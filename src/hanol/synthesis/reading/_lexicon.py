"""Other words for the words of a question, and base forms of verbs, from WordNet's own files."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from hanol.errors import DataError
from hanol.files import open_regular
from hanol.synthesis.reading._patterns import SYNONYMS

_POS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
_USUAL = 0.7  # share of a word's uses that have its most frequent sense
_PERSON = "18"  # number of the file of nouns for people
# Endings of verbs, the most special first, and what may take their place in the base form.
_ENDINGS = (
    ("ies", ("y",)), ("sses", ("ss",)), ("ches", ("ch",)), ("shes", ("sh",)), ("xes", ("x",)),
    ("oes", ("o",)), ("s", ("",)), ("ied", ("y",)), ("ed", ("e", "")), ("ing", ("e", "")),
)  # fmt: skip


class Lexicon:
    """Synonyms, base forms and nouns for people.

    A word's synonyms are those that have the same most frequent sense, so that few are wrong.

    Args:
        folder: Folder with WordNet's files, such as /usr/share/wordnet. None: a short list of
            synonyms, and the regular verbs of English.

    Raises:
        DataError: The folder does not hold WordNet.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._same: dict[str, list[str]] = {}
        self._bases: dict[str, str] = {"has": "have", "does": "do", "is": "be"}
        self._verbs: set[str] | None = None
        self._people: set[str] = set()
        if folder is not None:
            try:
                self._read(folder)
            except (OSError, ValueError, IndexError) as err:
                raise DataError(
                    f"{str(folder)!r} does not hold the files of WordNet ({err}). Name the folder "
                    "with data.noun, such as /usr/share/wordnet of the package wordnet-base."
                ) from err
        self._add(SYNONYMS)

    def _add(self, groups: list[list[str]]) -> None:
        for words in groups:
            self._same |= {word: [each for each in words if each != word] for word in words}

    def _read(self, folder: Path) -> None:
        offsets: dict[tuple[str, str], list[str]] = {}
        for pos in ("noun", "verb", "adj", "adv"):
            for parts in _lines(folder / f"index.{pos}"):
                offsets[parts[0], pos] = parts[-int(parts[2]) :]
        self._verbs = {lemma for lemma, pos in offsets if pos == "verb"}
        for form, base, *_ in _lines(folder / "verb.exc"):
            self._bases.setdefault(form, base)
        usual: dict[str, tuple[int, str, str]] = {}
        total: Counter[str] = Counter()
        for key, number, times in _lines(folder / "cntlist.rev"):
            lemma, _, code = key.partition("%")
            senses = offsets.get((lemma, _POS[code[0]]), [])
            if int(number) <= len(senses):
                found = (int(times), _POS[code[0]], senses[int(number) - 1])
                total[lemma] += found[0]
                usual[lemma] = max(usual.get(lemma, found), found)
        groups: dict[tuple[str, str], list[str]] = {}
        for lemma, (count, pos, offset) in usual.items():
            if lemma.isalpha() and len(lemma) > 2 and count >= _USUAL * total[lemma]:
                groups.setdefault((pos, offset), []).append(lemma)
        self._add(list(groups.values()))
        people = {parts[0] for parts in _lines(folder / "data.noun") if parts[1] == _PERSON}
        self._people = {
            lemma for (lemma, pos), found in offsets.items() if pos == "noun" and found[0] in people
        }

    def base(self, verb: str) -> str | None:
        """The base form of an inflected verb, such as "take" of "took"; None if it is no verb."""
        verb = verb.lower()
        if verb in self._bases:
            return self._bases[verb]
        tries = [verb]
        for ending, others in _ENDINGS:
            if verb.endswith(ending):
                tries += [verb[: -len(ending)] + other for other in others]
        if doubled := re.fullmatch(r"(.+([^aeiousl]))\2(?:ed|ing)", verb):
            tries.insert(1, doubled[1])
        if self._verbs is None:
            return tries[1] if len(tries) > 1 and verb.endswith("s") else None
        return next((each for each in tries if each in self._verbs), None)

    def is_person(self, noun: str) -> bool:
        """Whether a noun usually names people, such as "composer"."""
        return noun.lower() in self._people

    def other_word(self, word: str, rng: Random) -> str | None:
        """A synonym of a word in its base form or with an s, or None."""
        if word in self._same:
            return rng.choice(self._same[word] or [word])
        if not word.endswith("s") or not (others := self._same.get(word[:-1])):
            return None
        other = rng.choice(others)
        ending = "es" if re.search("(?:s|x|ch|sh)$", other) else "s"
        return re.sub("(?<![aeiou])y$", "ie", other) + ending


def _lines(path: Path) -> Iterator[list[str]]:
    """The fields of a file of WordNet; its licence stands in lines that begin with a space."""
    with io.TextIOWrapper(open_regular(path), "latin-1") as file:
        yield from (line.split() for line in file if line.strip() and not line.startswith(" "))
