"""Whether a text is a right answer: the same strings, numbers and dates, however they are written.

No part of an answer may be missing and none may be wrong: sets are compared as sets.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from hanol.worlds._encyclopedia._schema import MONTHS

_MONTHS = {month.casefold(): i for i, month in enumerate(MONTHS, start=1)}
_LINK = re.compile(r"\[([^\]\[]*)\]\([^()]*\)")
_CITATION = re.compile(r"\[\d+\]")
# A comma between digits groups them, and one before a year belongs to a date.
_SEPARATOR = re.compile(r",(?!\s*\d)|;|\n|\band\b", re.IGNORECASE)
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b")
_LONGEST = 2_000  # characters; no answer of this world comes near


def is_right(text: str, answers: Iterable[str], aliases: Mapping[str, str]) -> bool:
    """Whether a text names all of the answers and nothing else.

    Args:
        text: What was answered; Markdown links, citations, case and punctuation do not count.
        answers: What is right.
        aliases: Title by normalised alias.
    """
    if len(text) > _LONGEST:
        return False
    text = unicodedata.normalize("NFKC", text)
    text = _CITATION.sub(" ", _LINK.sub(r"\1", text))
    named = {normalized(part) for part in _SEPARATOR.split(text)} - {""}
    named = {normalized(aliases.get(part, part)) for part in named}
    return named == {normalized(answer) for answer in answers}


def normalized(text: str) -> str:
    """The words in lower case, the digits of a number together, dates as year, month, day.

    Example:
        >>> normalized("1,234"), normalized("12 34"), normalized("May 7, 1931")
        ('1234', '1234', '1931-5-7')
    """
    if date := _ISO_DATE.search(text):
        return "-".join(str(int(part)) for part in date.groups())
    text = re.sub(r"(?<=\d)\.0+\b", "", text.casefold())
    words: list[str] = re.findall(r"[^\W\d_]+|\d+", text)
    if words[:1] == ["the"]:
        words = words[1:]
    months = [_MONTHS[word] for word in words if word in _MONTHS]
    numbers = sorted(int(word) for word in words if word.isdecimal())
    if len(months) == 1 and len(numbers) == 2 and len(words) == 3:
        return f"{numbers[1]}-{months[0]}-{numbers[0]}"
    return re.sub(r"(?<=\d) (?=\d)", "", " ".join(words))
