"""Names in texts: how they are compared, found and put into sentences."""

import re
import unicodedata
from collections.abc import Iterable

from hanol.scoring import normalise

_BRACKETS = re.compile(r"\s*\([^()]*\)")
_ARTICLES = ("United ", "Netherlands", "Philippines", "Maldives", "Holy See", "Gaza", "West Bank")


def the(title: str) -> str:
    """A country in a sentence: the Netherlands, Norway."""
    is_plural = title.startswith(_ARTICLES) or title.endswith(("Republic", "Islands"))
    return f"the {title}" if is_plural or "Republic of" in title else title


def fold(text: str) -> str:
    """The form in which names and answers are compared: `normalise` without accents."""
    marks = unicodedata.normalize("NFD", text)
    return normalise("".join(char for char in marks if not unicodedata.combining(char)))


class Names:
    """Finds names in texts: the longest name that begins at a word counts.

    Args:
        known: Names with what they stand for; of equal names the first counts.
        have_short: Whether names in capitals are abbreviations, which texts have in capitals only:
            "US" is no "us".
    """

    def __init__(self, known: Iterable[tuple[str, str]], *, have_short: bool = False) -> None:
        self._known: dict[str, str] = {}
        self._short: dict[str, str] = {}
        for name, stands_for in known:
            if have_short and name.isupper():
                self._short.setdefault(name, stands_for)
            elif key := fold(name):
                self._known.setdefault(key, stands_for)
        self._longest = max((len(key.split()) for key in self._known), default=0)

    def of(self, name: str) -> str | None:
        """What a name stands for, brackets at its end aside."""
        plain = _BRACKETS.sub("", name).strip()
        found = self._short.get(plain) or self._known.get(fold(name))
        return found or self._known.get(fold(plain))

    def in_text(self, text: str) -> set[str]:
        """What the names in a text stand for."""
        capitals = re.findall(r"\b[A-Z]{2,}\b", text)
        found = {self._short[word] for word in capitals if word in self._short}
        words, place = fold(text).split(), 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                named = self._known.get(" ".join(words[place : place + length]))
                if named is not None:
                    found.add(named)
                    place += length
                    break
            else:
                place += 1
        return found
