"""Writes tables as lines that stay true when they stand alone.

A table with column names becomes "name: value; ..." a row, a form "label: value". Where neither is
certain, cells stay side by side: a wrong pair of name and value is worse than none.
"""

import calendar
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice, pairwise, repeat, tee, zip_longest
from typing import Any, Literal, NamedTuple

from hanol.retrieval.documents._labels import is_label
from hanol.retrieval.documents._remarks import Grid, remark, told_now

WHOLE_CHARS = 8_000_000  # characters written of one table, or of all sheets of a workbook
_OVERVIEW_CELLS = 20_000  # a larger table begins with its columns and counts
_COUNTED_CELLS = 2_000_000  # where reading ends: about five seconds
_EXAMPLES = 5  # values shown of a text column
_SAMPLE = 65_536  # characters that decide on the delimiter
_SAMPLE_ROWS = 200  # rows that decide on the names of the columns
_CELL_CHARS = 200  # a longer cell names no column and is written once however far it reaches
_LABEL_CHARS = 60


class Cell(str):
    """Text of a cell with what its place tells.

    Args:
        text: What the cell shows.
        strong: It is bold or marked as a heading.
        below: It repeats the merged cell above, which reaches down to here.
    """

    strong: bool
    below: bool

    def __new__(cls, text: str, *, strong: bool = False, below: bool = False) -> "Cell":
        cell = super().__new__(cls, text)
        cell.strong, cell.below = strong, below
        return cell


# Cells from left to right, None where the cell to the left reaches over the column.
Row = Sequence[str | None]


@dataclass(frozen=True)
class _Plan:
    """How the rows of a table are written: its first ones, names of its columns, or a form.

    The first column of a form may hold groups of its fields. In a table with names, rows with
    nothing but their first cell may be headings; `group` stands above all rows.
    """

    titles: int = 0
    heads: int = 0
    names: tuple[str, ...] = ()
    form: bool = False
    groups: bool = False
    headings: Literal["none", "bold", "bare", "all"] = "none"
    group: str = ""


def table_text(rows: Iterable[Row], *, heads: int = 0, most: int = WHOLE_CHARS) -> str:
    """Write a table, one line per row; before the rows of a large one, its columns and counts.

    Args:
        rows: From top to bottom; an empty row may separate two tables of a sheet.
        heads: Number of first rows that the file marks as names of columns.
        most: Characters after which rows are left out; the text then says so.
    """
    lines: list[str] = []
    columns: dict[str, _Column] = {}
    count = written = cells = chars = 0
    told = told_now()
    for first, body, plan in _sections(rows, heads, []):
        lines += map(_beside, first)
        grid = Grid(told.page, plan.names)
        for row, line in _written(body, plan):
            count += line is not None
            cells += len(row)
            for place, cell in enumerate(row):
                if cell:
                    name = plan.names[place] if place < len(plan.names) else ""
                    columns.setdefault(name or f"column {place + 1}", _Column()).add(cell)
            if chars < most and told.grids is not None:
                grid.lines += [] if line is None else [line]
                grid.rows += [tuple(_shown(row, plan))] if row else []
            if chars < most and line is not None:
                lines.append(line)
                chars += len(line) + 1
                written += 1
            if cells > _COUNTED_CELLS:
                break
        if told.grids is not None:
            told.grids.append(grid)
        if cells > _COUNTED_CELLS:
            break
    if cells <= _OVERVIEW_CELLS and written == count:
        return "\n".join(lines)
    more = "more than " if cells > _COUNTED_CELLS else ""
    left = f"; only its first {written} rows are written out" if more or written < count else ""
    if left:
        remark(f"holds a table of {more}{count} rows, of which the first {written} are read",
               "split it")  # fmt: skip
    head = [f"Table of {more}{count} rows and {len(columns)} columns{left}.", ""]
    head += [f"{label}: {column}" for label, column in columns.items()]
    return "\n".join([*head, "", *lines])


def read_csv(text: str) -> str:
    """Text of a table in comma-, semicolon-, tab- or bar-separated lines."""
    try:
        delimiter = _delimiter(text[:_SAMPLE].splitlines()[:20])
        lines = io.StringIO(text.replace("\0", ""), newline="")
        return table_text(_checked(csv.reader(lines, delimiter=delimiter)))
    except csv.Error:
        return text  # a quote that never closes: no table, but still worth searching


def _checked(reader: Any) -> Iterator[list[str]]:
    """The rows of a csv, with a remark on the few that have more cells than the first one."""
    width = count = 0
    longer: list[int] = []  # numbers of lines
    for row in reader:
        width, count = (width or len(row), count + 1) if row else (0, count)
        if any(row[width:]):
            longer.append(reader.line_num)
        yield row
    if longer and _are_few(len(longer), count - 1):
        remark("has more cells than columns: its values may stand under wrong names",
               "put values with a comma into quotation marks", doubtful=True,
               part=f"line {longer[0]}{' and others' * (len(longer) > 1)}")  # fmt: skip


def _are_few(longer: int, rows: int) -> bool:
    """Whether rows with more cells than the names are faults: R writes no name for the first."""
    return longer < rows and (longer < 2 or longer * 5 <= rows)


def _delimiter(lines: list[str]) -> str:
    """The delimiter that splits most of the first lines into the same number of cells."""

    # `csv.Sniffer` may choose letters, and needs quadratic time on quotes.
    def score(delimiter: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        common = max(set(widths), key=lambda width: (widths.count(width), width), default=1)
        return (widths.count(common) if common > 1 else 0, common)

    return max((",", ";", "\t", "|"), key=score)


def _tidy(row: Row) -> Row:
    """A row without trailing empty cells, and with spaces for line breaks inside of cells."""
    tidy: list[str | None] = []
    for cell in row:
        if cell is None:
            tidy.append(None)
        elif isinstance(cell, Cell):
            text = "" if cell.below and len(cell) > _CELL_CHARS else " ".join(cell.split())
            tidy.append(Cell(text, strong=cell.strong, below=cell.below))
        else:
            tidy.append(" ".join(cell.split()))
    while tidy and (tidy[-1] == "" or not any(tidy)):
        tidy.pop()
    return tidy


def column_names(rows: Iterable[Row], before: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the columns of a table, which may be those of the table that it goes on from."""
    known = [_Known([*range(len(before))], before)] if before else []
    for _, _, plan in _sections(rows, 0, known):
        before = plan.names
    return before


class _Known(NamedTuple):
    """Names of columns above, the places of these, and what each holds; None if it is not known."""

    places: list[int]
    names: tuple[str, ...]
    holds: dict[int, set[str]] | None = None


def _sections(
    rows: Iterable[Row], heads: int, known: list[_Known], left: int = 0
) -> Iterator[tuple[list[Row], Iterable[Row], _Plan]]:
    """The parts of a table with a plan of their own: rows before it, its other rows, the plan.

    Nothing stands left of the column `left`.
    """
    for filled, block in groupby(map(_tidy, rows), key=bool):
        if not filled:
            continue
        rest = chain(block)
        sample = list(islice(rest, _SAMPLE_ROWS))
        starts = _side_by_side(sample) if not heads else [0]
        if len(starts) > 1:
            copies = tee(chain(sample, rest), len(starts))
            for start, end, copy in zip(starts, [*starts[1:], None], copies, strict=True):
                of_part = ([*[""] * start, *row[start:end]] for row in copy)
                yield from _sections(of_part, 0, known, start)
            continue
        is_whole = len(sample) < _SAMPLE_ROWS
        inner = range(1, len(sample) - 1) if is_whole else ()
        again = {0, *(_with_titles(sample, i) for i in inner if _is_header_again(sample, i))}
        parts = [sample[a:b] for a, b in pairwise([*sorted(again), len(sample)])]
        titled = [i for i, row in enumerate(sample) if row[1:] and {*row[1:]} == {None}]
        if is_whole and titled and len(again) == 1:
            plan = _plan(_only(sample, _filled_columns(sample)), heads, ())
            if not (plan.names or plan.form):
                # Headings over the whole row may begin tables of other kinds.
                parts = [sample[a:b] for a, b in pairwise([0, *titled, len(sample)]) if a < b]
        for part in parts:
            width = max(map(len, part))
            places = _filled_columns(part) if is_whole else [*range(left, width)]
            above = next((k for k in known[::-1] if {*places} <= {*k.places}), _Known([], ()))
            names = above.names if _goes_on(part, above) else ()
            plan = _plan(_only(part, places), heads, names)
            if plan.names and not plan.heads:
                places = above.places
            elif len(places) > 1:
                known[:] = [k for k in known if not {*places} & {*k.places}]
            if plan.heads:
                body = part[plan.titles + plan.heads :]
                known.append(_Known(places, plan.names, {i: _holds(body, i) for i in places}))
            part = _only(part, places)
            heads, at = 0, plan.titles + plan.heads
            plan = replace(plan, headings=_headings(part[at:], plan.names))
            if len(again) > 1 and plan.names and plan.titles:
                plan = replace(plan, group=part[plan.titles - 1][0] or "")
            named = {place for place, name in enumerate(plan.names) if name}
            # else a name without values is lost
            first = part[: at if named.difference(_filled_columns(part[at:])) else plan.titles]
            yield first, chain(part[at:], (row[left:] for row in rest)), plan


def _with_titles(rows: list[Row], at: int) -> int:
    """Where the titles above a row begin."""
    while at and sum(map(bool, rows[at - 1])) == 1:
        at -= 1
    return at


def _headings(rows: list[Row], names: tuple[str, ...]) -> Literal["none", "bold", "bare", "all"]:
    """Which rows with nothing but their first cell are headings; bare ones may be of no group."""
    alone = [i for i, row in enumerate(rows) if len(row) == 1 and not _is_note(row)]
    full = [row for row in rows if sum(map(bool, row)) > 1]
    if not alone or not full or len(names) < 2:
        return "none"
    if any(_strong(rows[i]) for i in alone) and not all(_strong(row[:1]) for row in full):
        return "bold"
    is_followed = alone[-1] < len(rows) - 1
    is_placed = alone[0] == 0 and is_followed and all(b - a > 1 for a, b in pairwise(alone))
    if len(names) == 2:
        numbers = all(_kind(row[1]) == "number" for row in full)
        are_few = 1 < len(alone) <= len(full) / 2
        return "all" if is_placed and numbers and are_few else "none"
    is_complete = all(len(row) == len(names) and "" not in row for row in full)
    if is_placed and (is_complete or len(alone) > 1):
        return "all"
    return "bare" if is_complete and is_followed else "none"


def _side_by_side(rows: list[Row]) -> list[int]:
    """First columns of tables beside each other, which empty columns part.

    A column of its own, and numbers alone, belong to the rows on the left.
    """
    rows = [row for row in rows if sum(map(bool, row)) > 1]  # without titles over all of them
    filled = _filled_columns(rows)
    starts = [0]
    for _, run in groupby(enumerate(filled), key=lambda pair: pair[1] - pair[0]):
        places = [place for _, place in run]
        before = [place for place in filled if starts[-1] <= place < places[0]]
        if min(len(places), len(before)) > 1:
            part = [row for row in _only(rows, places) if any(row)]
            names = {cell for row in _only(rows, before)[:1] for cell in row if cell}
            kinds = [[*map(_kind, filter(None, c))] for c in zip_longest(*(part[1:] or part))]
            numeric = all(2 * kinds.count("number") > len(kinds) for kinds in kinds if kinds)
            if not numeric or not names.isdisjoint(part[0]):
                starts.append(places[0])
    return starts


def _holds(rows: list[Row], place: int) -> set[str]:
    """What stands in a column: its words, and the kinds of all else."""
    cells = [row[place] for row in rows if place < len(row)]
    return {kind if (kind := _kind(cell)) in _MEASURED else cell for cell in cells if cell}


def _goes_on(rows: list[Row], above: _Known) -> bool:
    """Whether rows below an empty one hold what the columns above do; words alone tell nothing."""
    if above.holds is None:
        return True
    first = next((row for row in rows if sum(map(bool, row)) > 1), ())
    for place, cell in enumerate(first):
        is_word = _kind(cell) == "word" and not _MISSING.fullmatch(cell or "")
        if is_word and above.holds.get(place, set()) & _MEASURED:
            return False  # the name of a column
    return any(held & _holds(rows, place) for place, held in above.holds.items())


def _is_header_again(rows: list[Row], at: int) -> bool:
    """Whether a row inside of a table is marked as names of columns, and those around it not."""
    marked = (_strong(rows[i]) == 1 for i in (at - 1, at, at + 1))
    return sum(map(bool, rows[at])) > 1 and [*marked] == [False, True, False]


def _filled_columns(rows: list[Row]) -> list[int]:
    return sorted({place for row in rows for place, cell in enumerate(row) if cell != ""})


def _only(rows: list[Row], places: list[int]) -> list[Row]:
    return [[row[place] for place in places if place < len(row)] for row in rows]


# --- what the rows are --------------------------------------------------------

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
_NOTE = re.compile(r"[※*†]|.+[:：] |.+\.$|.{60}")  # below a table
_SUM = re.compile(
    r"(?:grand )?total|overall|sum|총?합?계|合[计計]|总计|[総總]計|gesamt|summe|итого|всего",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"[\d\s.,'()+−–-]+")
_MEASURED = {"period", "number", "date", "contact", "code"}
_MISSING = re.compile(r"[\W_]*|n/?a|none|tbd|unknown|없음|미정|미상", re.IGNORECASE)  # no value
_CONTACT = re.compile(r"\S+@\S+\.\S+|https?://\S+|www\.\S+|\+?\(?\d[\d() -]{6,}")


def _kind(cell: str | None) -> str:
    """Kind of what stands in a cell: nothing, period, number, date, contact, code, prose, word."""
    if not cell:
        return ""
    if len(cell) > _LABEL_CHARS:
        return "prose"
    if cell[0] == "=":
        return "number"  # a formula without its value
    if any(map(str.isdigit, cell)):
        patterns = {"period": _PERIOD, "contact": _CONTACT, "date": _DATE, "number": _NUMBER}
        return next((kind for kind, pattern in patterns.items() if pattern.fullmatch(cell)), "code")
    if cell.rstrip(".").lower() in _SEASONS:
        return "period"
    return "contact" if _CONTACT.fullmatch(cell) else "prose" if _SENTENCE.search(cell) else "word"


def _plan(rows: list[Row], heads: int, before: tuple[str, ...]) -> _Plan:
    """What a table is, by its marks, the kinds of its cells, and words that are often labels.

    Args:
        rows: The first rows of the table.
        heads: Number of rows that the file marks as names; 0 if it does not tell.
        before: Names of the table above it, from which an empty row may only seem to part it.
    """
    filled = [sum(map(bool, row)) for row in rows]
    titles = 0
    while (
        filled[titles] == 1
        and (heads - titles != 1 or None in rows[titles])
        and max(filled[titles + 1 :], default=1) > 1
    ):
        titles += 1
    rows, heads = rows[titles:], heads - titles
    while 1 < heads <= len(rows) and {*rows[heads - 1][1:]} == {None}:
        heads -= 1  # a heading of the first rows
    if 0 < heads < len(rows):
        return _Plan(titles, heads, _names(rows[:heads]))
    heads = 2 if _has_two_levels(rows) else 1
    names, body = _names(rows[:heads]), rows[heads:]
    contrast = _contrast(names, body)
    labels = _share(names)
    both = labels >= (1 if len(names) == 2 else 0.5)
    header = contrast + 0.5 * (labels > 0) + 0.5 * both + 0.5 * _repeats(body)
    header += 2.0 * (len(names) > 2 and {*map(_kind, names[1:])} == {"period"})
    header += 3.0 * (_strong(rows[0]) == 1 and min(map(_strong, body), default=1) < 1)
    header += 0.5 * (len(names) not in (2, 4))  # forms have pairs of columns
    header += 1.0 * (len(names) > 2 and not names[0] and all(names[1:]))
    header += 1.0 * any(_is_below(cell) for row in body for cell in row[:1])
    header += 1.0 * (names[0] != "" and names[:1] == before[:1])  # no value is its own name
    groups = any(_is_below(cell) for row in rows for cell in row[:1])
    fields = [row[groups:] for row in rows]
    widest = max(map(len, fields))
    pairs = widest % 2 == 0 and all(
        len(_cells(row)) % 2 == 0 or len(row) < widest or sum(map(bool, row)) == 1 for row in fields
    )
    form = _form_score(rows, pairs, groups)
    if _can_name(rows[:heads], names, body):
        enough = 1.5 if before else 1.0 if len(names) == 2 else 0.5
        if header >= enough and header >= form + 0.5 * (contrast < 1 or labels < 1):
            return _Plan(titles, heads, names)
    if pairs and form >= (2 if before or groups else 1):
        return _Plan(titles, form=True, groups=groups)
    if before and not all(map(_NOTE.match, _cells(rows[0]))):
        return _Plan(names=before)
    return _Plan(titles)


def _names(heads: list[Row]) -> tuple[str, ...]:
    """Names of the columns: of several rows, the group before the column."""
    width = max(map(len, heads))
    parts: list[list[str]] = [[] for _ in range(width)]
    for row in heads:
        cell = ""
        for place in range(width):
            found = row[place] if place < len(row) else ""
            cell = cell if found is None else found
            if cell and cell not in parts[place]:
                parts[place].append(cell)
    return tuple(" ".join(part) for part in parts)


def _has_two_levels(rows: list[Row]) -> bool:
    """Whether the second row divides groups of columns that the first one names."""
    if len(rows) < 3 or None not in rows[0]:
        return False
    for place, below in enumerate(rows[1]):
        above = rows[0][place] if place < len(rows[0]) else ""
        spans = above is None or rows[0][place + 1 : place + 2] == [None]
        if spans != bool(below and not _is_below(below)) and (above or not below):
            return False
    return all(_kind(cell) in ("", "word", "period", "code") for cell in rows[1])


def _can_name(heads: list[Row], names: tuple[str, ...], body: list[Row]) -> bool:
    """Whether rows can hold the names of the columns."""
    if len(names) < 2 or not _are_few(sum(len(row) > len(names) for row in body), len(body)):
        return False
    known = [cell for cell in (names if len(heads) > 1 else heads[0]) if cell]
    blank = sum(not name for name in names[1:])  # the corner may be empty
    if len(set(known)) < len(known) or blank * 4 > len(names) or (len(names) == 2 and blank):
        return False
    if any(_is_below(cell) for cell in body[0]):
        return False  # a cell of the first row reaches into the second
    kinds = [_kind(cell) for row in heads for cell in row if cell]
    if len(names) == 2 and kinds[-1] == "code" and not getattr(known[-1], "strong", False):
        return False
    known_kinds = ("word", "period", "code", *["prose"] * (_strong(heads[-1]) == 1))
    return all(kind in known_kinds for kind in kinds)


def _contrast(names: tuple[str, ...], body: list[Row]) -> float:
    """Number of columns whose values are of one kind, and their name of another."""
    found = 0.0
    for place, name in enumerate(names):
        kinds: Counter[str] = Counter()
        for row in body:
            if kind := _kind(row[place]) if place < len(row) else "":
                # 80 m² and 900 € are values of two fields, not of one column.
                cell = row[place] or ""
                unit = _DIGITS.sub("", cell) if kind == "number" and cell[0] != "=" else ""
                kinds[kind + unit] += 1
        kind, count = kinds.most_common(1)[0] if kinds else ("word", 0)
        if kind not in ("word", "prose", _kind(name)) and count * 5 >= kinds.total() * 4:
            found += 1.0 if count > 1 else 0.5
    return found


def _repeats(body: list[Row]) -> bool:
    """Whether a word stands twice in a column, as in records and not in forms."""
    columns: dict[int, list[str]] = {}
    for row in body:
        for place, cell in enumerate(row):
            if cell and not _is_below(cell) and _kind(cell) == "word":
                columns.setdefault(place, []).append(cell)
    return any(len(set(column)) < len(column) for column in columns.values())


def _is_below(cell: str | None) -> bool:
    return isinstance(cell, Cell) and cell.below


def _strong(row: Row) -> float:
    """Share of the cells of a row that are bold or marked as headings."""
    known = [getattr(cell, "strong", False) for cell in row if cell]
    return sum(known) / max(len(known), 1)


def _share(cells: Iterable[str]) -> float:
    known = [is_label(cell) for cell in cells if cell]
    return sum(known) / max(len(known), 1)


def _form_score(rows: list[Row], pairs: bool, groups: bool) -> float:
    """How much speaks for labels beside their values: in pairs, or else in the first column."""
    # One cell alone is a heading between the fields, or a field that was left empty.
    rows = [row for row in rows if sum(map(bool, row[groups:])) > 1]
    cells = [_cells(row[groups:] if pairs else row[groups : groups + 1]) for row in rows]
    if not cells:
        return 0.0
    first = cells[0][1::2] if pairs else _cells(rows[0][groups:])[1:]
    labels = [[cell for cell in row[::2] if cell and not _is_below(cell)] for row in cells]
    flat = [cell for row in labels for cell in row]
    whole = {
        (groups and row[0], cell)
        for row, of_row in zip(rows, labels, strict=True)
        for cell in of_row
    }
    if not labels[0] or len(whole) < len(flat) or max(map(len, flat)) > _LABEL_CHARS:
        return 0.0
    if sum(_kind(cell) not in ("word", "period", "code") for cell in flat) * 5 > len(flat):
        return 0.0
    below = _share(chain.from_iterable(labels[1:] or labels))
    beside = _share(first)
    score = 1.0 * (below > 0) + 1.0 * (below >= 0.5)
    score += 3.0 * (sum(cell[-1] in ":：" for cell in flat) * 5 >= len(flat) * 4)
    score += 3.0 * (_strong(flat) == 1 and _strong(first) < 1)
    plain = ("", "word", "period", *["code"] * (len(rows) == 1))
    score += 1.0 * any(_kind(cell) not in plain for cell in first)
    return score - 2.0 * (beside >= 0.5 and (below < 0.75 or not pairs))


# --- the lines ----------------------------------------------------------------


def _cells(row: Row) -> list[str]:
    """The cells of a row, without the places that they reach over."""
    return [cell for cell in row if cell is not None]


def _beside(row: Row) -> str:
    return " | ".join(_cells(row))


def _line(row: Row, plan: _Plan) -> str:
    if plan.form:
        group = f"{row[0]} " if plan.groups and any(row[1:]) else ""
        cells = _cells(row[plan.groups and any(row[1:]) :])
        pairs = zip(cells[::2], [*cells[1::2], ""], strict=False)
        lines = (f"{group}{a.rstrip(':： ')}: {b}" if a and b else a or b for a, b in pairs)
        return "; ".join(filter(None, lines))
    if not plan.names:
        return _beside(row)
    pairs = zip(chain(plan.names, repeat("")), _shown(row, plan), strict=False)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)


def _written(rows: Iterable[Row], plan: _Plan) -> Iterator[tuple[Row, str | None]]:
    """Rows with their lines, those of a group behind its name; None for headings that are there."""
    group, is_new, has_sum, sums = plan.group, False, False, 0
    for row, below in pairwise(chain(rows, [()])):
        if not (plan.names and _is_heading(row, plan)):
            is_sum = group and _SUM.fullmatch((row[0] or "").rstrip(":： "))
            # The last one may be that of all groups.
            is_own = not is_sum or _is_heading(below, plan) or (sums and not has_sum)
            has_sum, sums = bool(has_sum or is_sum), sums + bool(is_sum)
            line = _line(row, plan)
            yield row, f"{group}; {line}" if group and is_own else line
            is_new = False
        elif row[0] and plan.headings != "bare" and not _is_note(row):
            group = f"{group}; {row[0]}" if is_new else row[0]
            is_new, has_sum = True, False
            yield row, None
        else:
            group = ""
            yield row, _beside(row)
    if is_new:
        yield (), group


def _is_heading(row: Row, plan: _Plan) -> bool:
    """Whether a row is one cell over all columns, or its first one alone and that a heading."""
    if len(row) > 1:
        return sum(map(bool, row)) == 1 and row[-1] is None
    is_heading = {"none": False, "bold": _strong(row) == 1}.get(plan.headings, True)
    return bool(row) and len(plan.names) > 1 and (is_heading or _is_note(row))


def _is_note(row: Row) -> bool:
    return len(row) > 0 and _NOTE.match(row[0] or "") is not None


def _shown(row: Row, plan: _Plan) -> Iterator[str]:
    """The cells of a row as they are written: in a table with names, in each column they cover."""
    cell, is_once = "", True
    for place, found in enumerate(row):
        if found is not None:
            cell = found
            # the label of the row, or too long to be written for each column
            is_once = place == 0 or len(cell) > _CELL_CHARS or not plan.names
        yield "" if found is None and is_once else cell


def _number(cell: str) -> float | None:
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return None


class _Column:
    """Content of a column, collected in one pass with bounded memory."""

    def __init__(self) -> None:
        self.filled = self.numbers = 0
        self.low, self.high = float("inf"), float("-inf")
        self.examples: dict[str, None] = {}

    def add(self, cell: str) -> None:
        self.filled += 1
        if (value := _number(cell)) is not None:
            self.numbers += 1
            self.low, self.high = min(self.low, value), max(self.high, value)
        elif len(self.examples) < _EXAMPLES:
            self.examples[cell[:_CELL_CHARS]] = None

    def __str__(self) -> str:
        parts = [f"{self.filled} filled"]
        if self.numbers:
            parts.append(f"{self.numbers} numbers from {self.low:.15g} to {self.high:.15g}")
        if self.examples:
            parts.append("for example " + ", ".join(self.examples))
        return "; ".join(parts)
