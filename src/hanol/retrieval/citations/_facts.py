"""The comparable facts of a sentence: quotations, dates, numbers, names, words.

Everything is compared after normalisation: 1,000 = 1000, 7.0 = 7, 940만 = 9,400,000 = 9.4 million,
330 km = 330킬로미터, "5 March 2024" = 2024-03-05 = "2024년 3월 5일", Hangul without its particles.
"""

import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import NamedTuple

from hanol.retrieval.citations._units import is_unit, unit_after, unit_before
from hanol.retrieval.citations._words import (
    MONTHS,
    NUMBER_WORDS,
    SCALES,
    STOP_WORDS,
    TOPIC_STOP_WORDS,
)
from hanol.retrieval.documents._split import CJK
from hanol.retrieval.index._cjk import compose, fold, is_run, token_spans

Date = tuple[int | None, int, int | None]  # year, month, day
Number = tuple[tuple[Decimal, str], ...]  # values with their units, of which one is meant

_QUOTATION = re.compile(
    r'"([^"\n]{2,400})"|“([^”]{2,400})”|「([^」]{1,400})」|『([^』]{1,400})』|‘(?=[^’\s]{0,400}\s)([^’]{1,400})’'
)
_GAP = re.compile(r"\[?(?:\.\.\.|…)\]?")
_MONTH = "(?P<m>" + "|".join(sorted(MONTHS, key=len, reverse=True)) + r")\.?"
_DAY = r"(?P<d>[0-3]?\d)(?:st|nd|rd|th)?"
_DATES = (
    re.compile(
        r"(?<!\d)(?P<y>\d{4})\s*[-/.년年]\s*(?P<m>[01]?\d)\s*[-/.월月]\s*(?P<d>[0-3]?\d)(?!\d)(?:\s*[일日])?"
    ),
    re.compile(r"(?<!\d)(?P<y>\d{4})\s*[년年]\s*(?P<m>[01]?\d)\s*[월月]"),
    re.compile(r"(?<!\d)(?P<y>\d{4})-(?P<m>0[1-9]|1[0-2])(?![-\d])"),
    re.compile(r"(?<!\d)(?P<m>[01]?\d)\s*[월月]\s*(?P<d>[0-3]?\d)\s*[일日]"),
    re.compile(rf"\b{_DAY}(?:\s+of)?\s+{_MONTH},?\s+(?P<y>\d{{4}})\b", re.IGNORECASE),
    re.compile(rf"\b{_MONTH}(?:\s+{_DAY})?,?\s+(?P<y>\d{{4}})\b", re.IGNORECASE),
    re.compile(rf"\b{_MONTH}\s+{_DAY}\b", re.IGNORECASE),
    re.compile(rf"\b{_DAY}(?:\s+of)?\s+{_MONTH}\b", re.IGNORECASE),
)
_DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\w))?"
_SCALE = "|".join(sorted(map(re.escape, SCALES), key=len, reverse=True))
# Not inside of a name (GPT-4, H100, v2.1.3); a minus only where it cannot be a dash or a range.
_NUMBER = re.compile(
    rf"(?:(?<![\w)\]%])(?P<sign>[-−])|(?<![A-Za-z_.\d])(?<![A-Za-z]-))(?P<digits>{_DIGITS})(?!\.?\d)"
    rf"(?:\s?(?P<scale>(?:{_SCALE})(?![A-Za-z])))?",
    re.IGNORECASE,
)
_MARKS = re.compile(rf"(?i:{_NUMBER.pattern})|(?<!\w)[A-Z][^\W_{CJK}]*")
_YEAR = re.compile(r"(?:19|20)\d\d")
_PART = re.compile(r"(?<=[.!?。])\s+|\n")
_KOREAN_PART = re.compile(r"\s?(\d[\d,.]*)?\s?(천만|백만|십만|[조억만천백])")
# Taken as a whole: GPT-4, H100, FTS5, 1.2.3, 3:1.
_IDENTIFIER = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Za-z]{1,40}-){0,8}[A-Za-z]+-?\d(?:[A-Za-z0-9_.]*[A-Za-z0-9])?(?:-[A-Za-z0-9]+)*"
    r"|(?<!\d)\d+(?:\.\d+){2,}|(?<![\d.,])\d+(?::\d+)+(?![\d.,]\d)"
)
_WORD = re.compile(rf"(?<![^\W_])[^\W\d_{CJK}][^\W_{CJK}]*(?:[-'’][^\W_{CJK}]+)*")
_CJK_WORD = re.compile(f"[{CJK}]+")
_HANGUL = re.compile("[\uac00-\ud7a3]+")
_PARTICLES = re.compile(
    "(?:에서는|에서도|에게서|으로서|으로써|으로는|이라는|이라고|에서|에게|으로|까지|부터|보다|처럼|만큼|"
    "이나|이며|이고|이다|입니다|라는|들은|들이|들의|들을|은|는|이|가|을|를|의|에|와|과|도|로|만)$"
)
_TOPIC = re.compile("(?:들?(?:은|는|이|가|의)|에서는)$")


@dataclass(frozen=True)
class Facts:
    """Facts of a text in normalised form; keys are as written, for display."""

    quotes: dict[str, str] = field(default_factory=dict)
    dates: dict[str, Date] = field(default_factory=dict)
    numbers: dict[str, Number] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    cjk: bool = False
    text: str = ""

    def __len__(self) -> int:
        return len(self.quotes) + len(self.dates) + len(self.numbers) + len(self.names)

    def across_languages(self) -> "Facts":
        """The facts that are written the same in another script, unlike names and words."""
        names = {shown: name for shown, name in self.names.items() if any(map(str.isdigit, name))}
        return replace(self, names=names, words=frozenset())


def clean(text: str) -> str:
    """NFKC with single spaces, without Markdown emphasis and hyphenation."""
    text = re.sub("(?<=\\d)[\u00a0\u2009\u202f](?=\\d)", "", text)  # thousands
    text = compose(text)  # also without what the agent breaks tags with in what it shows a model
    text = re.sub(r"(?<=\w)-[^\S\n]*\n\s*(?=[^\W\d_])", "", text)
    text = re.sub(r"\*+|`+|(?<!\w)_+|(?<!_)_++(?!\w)", "", text)
    text = text.translate(str.maketrans("“”„‘’−–—‐‑", '"""\'\'-----'))
    text = re.sub(r"(?<=\d)\s*:\s*(?=\d)", ":", text)
    return " ".join(text.split())


def is_cjk(text: str) -> bool:
    """Whether most words are Korean, Chinese or Japanese."""
    return 2 * len(_CJK_WORD.findall(text)) > len(re.findall(r"[^\W\d_]+", text))


def sentence_facts(text: str) -> Facts:
    """The facts of a sentence without its citations."""
    # Before straightening quotation marks, because curly ones show where a quotation begins.
    quotes = {}
    for match in _QUOTATION.finditer(text):
        for part in _GAP.split(next(filter(None, match.groups()))):
            normal = clean(part).strip(" .,;:!?。、").lower()
            if any(c.isalnum() for c in normal):
                quotes[part.strip()] = normal
    normal = clean(_QUOTATION.sub(' " " ', text))
    rest, dates = _take_dates(normal)
    plain = _IDENTIFIER.sub(lambda name: name[0] if is_unit(name[0]) else " ", rest)
    found = _numbers(plain)
    numbers = {one.shown: one.meant for one in found}
    words = _words(clean(text))
    return Facts(quotes, dates, numbers, _names(_without_units(rest)), words, is_cjk(normal), text)


def _take_dates(text: str) -> tuple[str, dict[str, Date]]:
    """The dates of a text, and the text without them."""
    dates: dict[str, Date] = {}

    def note(match: "re.Match[str]") -> str:
        parts = match.groupdict()
        name = parts["m"].lower()
        month = MONTHS[name] if name in MONTHS else int(name)
        day = int(parts["d"]) if parts.get("d") else None
        if not 1 <= month <= 12 or (day is not None and not 1 <= day <= 31):
            return match[0]
        dates[match[0]] = (int(parts["y"]) if parts.get("y") else None, month, day)
        return " "

    for pattern in _DATES:
        text = pattern.sub(note, text)
    return text, dates


class _Found(NamedTuple):
    """A number of a text: as written, what it may mean, and what may be left out of it."""

    shown: str
    meant: Number
    short: Number  # without its scale, as under the name of a column
    span: tuple[int, int]  # with its unit


def _numbers(text: str) -> list[_Found]:
    """The numbers of a text with their scales (만, million, K) and units."""
    found = []
    at = 0
    while (match := _NUMBER.search(text, at)) is not None:
        at = match.end()
        sign = -1 if match["sign"] else 1
        bare = sign * Decimal(match["digits"].replace(",", ""))
        scale = (match["scale"] or "").lower()
        value = bare * SCALES.get(scale, 1)
        # 3억 2천만: the parts that follow a Korean scale belong to the same number.
        while scale and (part := _KOREAN_PART.match(text, at)) and part[1]:
            value += sign * Decimal(part[1].replace(",", "").strip(".")) * SCALES[part[2]]
            at = part.end()
        money, start = unit_before(text, match.start())
        unit, end = unit_after(text, at)
        meant = [(value, money or unit)]
        if match["scale"] in ("m", "K") and not money:  # metres or millions, kelvins or thousands
            meant.append((bare, match["scale"]))
        short = [(bare, f"{scale} {money or unit}")] if scale else []
        found.append(_Found(text[match.start() : at], tuple(meant), tuple(short), (start, end)))
    return found


def _without_units(text: str) -> str:
    """The text with its numbers, but not their units, which are no names."""
    parts, last = [], 0
    for one in _numbers(text):
        parts += [text[last : one.span[0]], one.shown]
        last = one.span[1]
    return "".join([*parts, text[last:]])


def _names(text: str) -> dict[str, str]:
    """Identifiers, capitalised words within a sentence, and the topic of Korean sentences."""
    names = {match[0]: match[0].lower() for match in _IDENTIFIER.finditer(text)}
    text = _IDENTIFIER.sub(" 0 ", text)
    words = list(_WORD.finditer(text))
    for i, match in enumerate(words):
        word = re.sub(r"['’]s?$", "", match[0])
        if not any(c.isupper() for c in word) or word.lower() in STOP_WORDS | MONTHS.keys():
            continue
        inner = any(c.isupper() for c in word[1:])
        before = text[max(0, match.start() - 64) : match.start()].rstrip(' "(')
        opens = not before or before[-1] in ".:;!?|"
        follows = i + 1 < len(words) and words[i + 1][0][0].isupper()
        if inner or not opens or (follows and words[i + 1].start() - match.end() == 1):
            names[word] = word.lower()
    for eojeol in _HANGUL.findall(text)[:2]:  # the topic comes first
        stem = _TOPIC.sub("", eojeol)
        if stem != eojeol and len(stem) >= 2 and stem not in TOPIC_STOP_WORDS:
            names[stem] = stem
            break
    return names


def _words(text: str) -> frozenset[str]:
    """Content words as their first five letters; in CJK text, pairs of characters."""
    without = _HANGUL.sub(lambda match: strip_particle(match[0]) + " ", text)
    found = set()
    for token, _, _ in token_spans(without):
        if is_run(token):
            if len(token) > 1:
                found.add(token)
        elif len(token) > 2 and not token.isdigit() and token not in STOP_WORDS:
            found.add(token[:5])
    return frozenset(found)


def strip_particle(eojeol: str) -> str:
    """A Korean word without its particle, unless that would leave one syllable."""
    stem = _PARTICLES.sub("", eojeol)
    return stem if len(stem) >= 2 else eojeol


Mark = Decimal | str  # a number, or what it may belong to: a year, a name


def _marks(text: str) -> list[Mark]:
    """The numbers, years and words with a capital of a text, in order."""
    marks: list[Mark] = []
    for found in _MARKS.finditer(clean(text)):
        if found["digits"] and not _YEAR.fullmatch(found[0]):
            scale = SCALES.get((found["scale"] or "").lower(), 1)
            marks.append(Decimal(found["digits"].replace(",", "")) * scale)
        elif found["digits"] or found[0].lower() not in STOP_WORDS:
            marks.append(found[0])
    return marks


def _pairs(marks: list[Mark]) -> set[frozenset[Mark]]:
    """What each of several numbers belongs to, if their order leaves no doubt."""
    half = len(marks) // 2
    if half < 2 or len({*marks}) < len(marks) or len(marks) % 2:
        return set()
    for firsts, seconds in ((marks[::2], marks[1::2]), (marks[:half], marks[half:])):
        pairs = [*zip(firsts, seconds, strict=True)]
        if all(isinstance(a, str) is not isinstance(b, str) for a, b in pairs):
            return {frozenset(pair) for pair in pairs}
    return set()


class PassageFacts:
    """A passage prepared for comparing facts with it."""

    def __init__(self, text: str) -> None:
        normal = clean(text)
        parts = map(_marks, (*_PART.split(text), text))
        self._marks = [marks for marks in parts if len(marks) > 3]  # two pairs
        self.cjk = is_cjk(normal)
        # First letters of words with a capital, so that KDA is found in "Kimi Delta Attention".
        self._initials = "".join(
            word[0].lower() if word[0].isupper() else " "
            for word in re.findall(r"[^\W\d_]+", normal)
        )
        self._text = normal.lower()
        self._packed = re.sub(r"[\s-]", "", self._text)
        rest, dates = _take_dates(normal)
        self._dates = set(dates.values())
        tokens = {token for token, _, _ in token_spans(self._text)}
        # The units of each number. Equal numbers are equal keys, whatever their type.
        self._numbers: dict[Decimal | int | None, set[str]] = {}
        for number, unit in (
            *(pair for one in _numbers(rest) for pair in (*one.meant, *one.short)),
            *((part, "") for date in dates.values() for part in date),
            *((NUMBER_WORDS[token], "") for token in tokens & NUMBER_WORDS.keys()),
        ):
            self._numbers.setdefault(number, set()).add(unit)
        self.words = frozenset(token if is_run(token) else token[:5] for token in tokens)

    def has_quote(self, quote: str) -> bool:
        """Whether the passage contains a quotation; long ones may differ in spaces and hyphens."""
        for found in re.finditer(f"(?={re.escape(quote)})", self._text):
            start = found.start()
            if not (_glued(self._text, start) or _glued(self._text, start + len(quote))):
                return True
        packed = re.sub(r"[\s-]", "", quote)
        return len(packed) >= 12 and packed in self._packed

    def swaps(self, sentence: str) -> bool:
        """Whether the passage gives numbers of a sentence to other years or names than it does.

        Only where both say it in an order that leaves no doubt: number and year by turns, or first
        all years and then all numbers.
        """
        own = _marks(sentence)
        years = {mark for mark in own if isinstance(mark, str) and _YEAR.fullmatch(mark)}
        for wanted in (years.union(m for m in own if isinstance(m, Decimal)), {*own} - years):
            known = []
            for marks in self._marks:
                theirs = [mark for mark in marks if mark in wanted]
                shared = wanted.intersection(theirs)
                ours = [mark for mark in own if mark in shared]
                if len(ours) == len(theirs) and (pairs := _pairs(ours)) and _pairs(theirs):
                    known.append(pairs == _pairs(theirs))
            if known:
                return not any(known)
        return False

    def has_number(self, number: Number) -> bool:
        """Whether the passage has a number of this value, and not always in another unit.

        Where either names no unit, as in a table with units in its head, the value decides. A
        decrease may lack its minus.
        """
        return any(
            units is not None and (not unit or unit in units or "" in units)
            for value, unit in number
            for units in (
                self._numbers.get(value),
                self._numbers.get(-value) if value > 0 else None,
            )
        )

    def has_date(self, date: Date) -> bool:
        """Whether the passage has this date or a more exact one; day and year may be apart."""
        year, month, day = date
        return any(
            month == other_month
            and day in (None, other_day)
            and (year in (None, other_year) or (other_year is None and year in self._numbers))
            for other_year, other_month, other_day in self._dates
        )

    def has_name(self, name: str) -> bool:
        """Whether the passage has a name as a word, also in plural, or the words it abbreviates."""
        if self.has_quote(name) or (ord(name[0]) > 0x1100 and name in self._text):
            return True
        single = fold(name).removesuffix("s")
        if len(single) < 2:
            return False
        if single in self._initials:
            return True
        # Digits may go before: the unit of "10GB".
        pattern = rf"(?<![^\W\d]){re.escape(single)}(?:s|es)?(?!\w)"
        return re.search(pattern, fold(self._text)) is not None


def _glued(text: str, at: int) -> bool:
    """Whether a position is inside of a word, except where a particle may follow Hangul or Han."""
    if not 0 < at < len(text):
        return False
    left, right = text[at - 1], text[at]
    if right.isdigit() and left in ".,":
        return True
    if left.isdigit() and right in ".,":
        return text[at + 1 : at + 2].isdigit()
    return left.isalnum() and right.isalnum() and max(ord(left), ord(right)) < 0x1100
