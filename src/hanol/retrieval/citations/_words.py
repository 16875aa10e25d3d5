"""Word lists for checking citations."""

import calendar
from pathlib import Path

MONTHS: dict[str, int] = {"sept": 9} | {
    name.lower(): number
    for names in (calendar.month_name, calendar.month_abbr)
    for number, name in enumerate(names)
    if name
}

# Multipliers of the number before them.
SCALES: dict[str, int] = {
    word: 10**power
    for power, words in (
        (2, "백"), (3, "thousand k 천 千"), (4, "만 万 萬"), (5, "십만"), (6, "million m 백만"),
        (7, "천만"), (8, "억 亿 億"), (9, "billion b"), (12, "trillion 조 兆"),
    )
    for word in words.split()
}  # fmt: skip

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety hundred"
NUMBER_WORDS: dict[str, int] = (
    {word: number for number, word in enumerate(_UNITS.split())}
    | {word: 10 * number for number, word in enumerate(_TENS.split(), start=2)}
    | {"half": 50, "first": 1, "second": 2, "third": 3}
)

_LISTS = {  # paragraphs of a name and its words
    name: frozenset(words)
    for name, *words in map(
        str.split, Path(__file__).with_name("words.txt").read_text("utf-8").split("\n\n")
    )
}
# Words without content of their own, and words that introduce a list.
STOP_WORDS: frozenset[str] = _LISTS["STOP_WORDS"]
# Korean words that ask, or say only that something is.
ASKING_WORDS: frozenset[str] = _LISTS["ASKING_WORDS"]
# Korean topics that refer back instead of naming something.
TOPIC_STOP_WORDS: frozenset[str] = _LISTS["TOPIC_STOP_WORDS"]
# Abbreviations that never end a sentence, that do not before a number, and that do only before a
# capital.
ABBREVIATIONS: frozenset[str] = _LISTS["ABBREVIATIONS"]
NUMBERED_ABBREVIATIONS: frozenset[str] = _LISTS["NUMBERED_ABBREVIATIONS"]
ENDING_ABBREVIATIONS: frozenset[str] = _LISTS["ENDING_ABBREVIATIONS"]
