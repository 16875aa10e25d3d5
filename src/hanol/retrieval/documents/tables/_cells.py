"""Cells and rows of tables, and what kinds of things stand in them."""

import calendar
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

CELL_CHARS = 200  # a longer cell names no column and is written once however far it reaches
LABEL_CHARS = 60
_KNOWN_CHARS = 40  # of a label that is known


class Cell(str):
    """Text of a cell with what its place tells.

    Args:
        text: What the cell shows.
        strong: It is bold or marked as a heading.
        below: It repeats the merged cell above, which reaches down to here.
        short: It ends a row that has fewer cells than the next one, in a file without places.
    """

    strong: bool
    below: bool
    short: bool

    def __new__(
        cls, text: str, *, strong: bool = False, below: bool = False, short: bool = False
    ) -> "Cell":
        cell = super().__new__(cls, text)
        cell.strong, cell.below, cell.short = strong, below, short
        return cell


# Cells from left to right, None where the cell to the left reaches over the column.
Row = Sequence[str | None]

_UNIT = r"(?:[%‰°€£¥₩$]|[^\W\d_]{1,12}[²³.]?(?:[ /][^\W\d_]{1,12}[²³.]?)?)"
_NUMBER = re.compile(
    r"[(<>~≈±]? ?[-+−–]?(?:[$€£¥₩]|[A-Z]{3} )?[-−]? ?\.?\d[\d.,' ]*(?:[eE][-+]?\d+)? ?"
    rf"{_UNIT}?\)?"
)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    r"\d{1,4} ?[-./년年] ?\d{1,2}(?: ?[-./월月] ?\d{1,4} ?[일日]?)?(?:[ T].*)?|\d{1,2}:\d\d.*"
    rf"|{_MONTH} \d{{1,2}},? \d{{4}}.*|\d{{1,2}}\.?[ -]{_MONTH}[ -]\d{{2,4}}.*",
    re.IGNORECASE,
)
_PERIOD = re.compile(
    r"(?:FY ?)?(?:19|20)\d\d(?:년|年|년도|[/-]\d\d| ?[HQ][1-4])?|[HQ] ?[1-4](?: .*)?|[1-4]Q.*"
    r"|\d{1,2}(?:월|분기|주|주차|회|차|학년|월분|月|月分|季度|期|st|nd|rd|th)"
)
_SEASONS = {
    name.lower()
    for names in (calendar.month_name, calendar.month_abbr, calendar.day_name, calendar.day_abbr)
    for name in names
}
_SENTENCE = re.compile(r"(?:\S+ ){3,}.*[.!?]$|。$")
_NOTE = re.compile(r"[※*†]|.+[:：] |.+\.$|.{60}")
MEASURED = {"period", "number", "date", "contact", "code"}
_CONTACT = re.compile(r"\S+@\S+\.\S+|https?://\S+|www\.\S+|\+?\(?\d[\d() -]{6,}")
_PARENTHESES = re.compile(r"[(\[（【][^)\]）】]*[)\]）】]")
_SPLIT = re.compile(r"[\s_/.&,-]+")
_CJK_ENDING = re.compile(r"[가-힣\u3040-\u30ff\u4e00-\u9fff]$")


def kind_of(cell: str | None) -> str:
    """Kind of what stands in a cell: nothing, period, number, date, contact, code, prose, word."""
    if not cell:
        return ""
    if len(cell) > LABEL_CHARS:
        return "prose"
    if cell[0] == "=":
        return "number"  # a formula without its value
    if any(map(str.isdigit, cell)):
        patterns = {"period": _PERIOD, "contact": _CONTACT, "date": _DATE, "number": _NUMBER}
        return next((kind for kind, pattern in patterns.items() if pattern.fullmatch(cell)), "code")
    if cell.rstrip(".").lower() in _SEASONS:
        return "period"
    return "contact" if _CONTACT.fullmatch(cell) else "prose" if _SENTENCE.search(cell) else "word"


def is_below(cell: str | None) -> bool:
    """Whether a cell repeats the one above it."""
    return isinstance(cell, Cell) and cell.below


def strong(row: Row) -> float:
    """Share of the cells of a row that are bold or marked as headings."""
    known = [getattr(cell, "strong", False) for cell in row if cell]
    return sum(known) / max(len(known), 1)


def is_note(row: Row) -> bool:
    """Whether a row begins as what stands below a table does: a source, a remark, a sentence."""
    return len(row) > 0 and _NOTE.match(row[0] or "") is not None


def is_titled(row: Row) -> bool:
    """Whether a row is one cell over all columns."""
    return {*row[1:]} == {None}


def own_cells(row: Row) -> list[str]:
    """The cells of a row, without the places that they reach over."""
    return [cell for cell in row if cell is not None]


def num_filled(row: Row) -> int:
    """Number of cells of a row that show something."""
    return sum(map(bool, row))


@cache
def _known() -> tuple[frozenset[str], tuple[str, ...]]:
    """The words of labels.txt, and the endings."""
    _, words, endings = re.split(
        r"^#.*$", Path(__file__).with_name("labels.txt").read_text("utf-8"), flags=re.MULTILINE
    )
    return frozenset(words.split()), tuple(endings.split())


def is_label(cell: str) -> bool:
    """Whether a cell is, by its last word, what labels of forms and names of columns are."""
    text = _PARENTHESES.sub("", cell).strip(" :：*#?.").casefold()
    if not text or len(text) > _KNOWN_CHARS:
        return False
    known, endings = _known()
    if _CJK_ENDING.search(text):
        last = text.replace(" ", "")
        # One syllable says little at the end of a longer word: 서울 강남역 is a value.
        return any(last == end or (len(end) > 1 and last.endswith(end)) for end in endings)
    words = [word for word in _SPLIT.split(re.split(r" (?:of|de|du|der|des|di) ", text)[0]) if word]
    return bool(words) and (words[-1] in known or text in known)


def tidied(row: Row) -> Row:
    """A row without trailing empty cells, and with spaces for line breaks inside of cells."""
    tidy: list[str | None] = []
    for cell in row:
        if cell is None:
            tidy.append(None)
        elif isinstance(cell, Cell):
            text = "" if cell.below and len(cell) > CELL_CHARS else " ".join(cell.split())
            tidy.append(Cell(text, strong=cell.strong, below=cell.below, short=cell.short))
        else:
            tidy.append(" ".join(cell.split()))
    while tidy and (tidy[-1] == "" or not any(tidy)):
        tidy.pop()
    return tidy


def filled_columns(rows: list[Row]) -> list[int]:
    """Places of the columns that hold anything."""
    return sorted({place for row in rows for place, cell in enumerate(row) if cell != ""})


def only(rows: list[Row], places: list[int]) -> list[Row]:
    """Rows without the cells of other columns."""
    return [[row[place] for place in places if place < len(row)] for row in rows]
