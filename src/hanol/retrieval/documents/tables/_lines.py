"""Writes tables as lines that stay true when they stand alone.

A table with column names becomes "name: value; ..." a row, a form "label: value". Where neither is
certain, cells stay side by side: a wrong pair of name and value is worse than none.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise, repeat
from typing import Any

from hanol.retrieval.documents._remarks import Grid, remark, told_now
from hanol.retrieval.documents.tables._cells import CELL_CHARS, Cell, Row, is_note, own_cells
from hanol.retrieval.documents.tables._structure import Plan, are_few, is_heading, sections

WHOLE_CHARS = 8_000_000  # characters written of one table, or of all sheets of a workbook
_OVERVIEW_CELLS = 20_000  # a larger table begins with its columns and counts
_COUNTED_CELLS = 2_000_000  # where reading ends: about five seconds
_SAMPLE = 65_536  # characters that decide on the delimiter of a csv
_EXAMPLES = 5  # values shown of a text column
_SUM = re.compile(
    r"(?:grand )?total|overall|sum|총?합?계|合[计計]|总计|[総總]計|gesamt|summe|итого|всего",
    re.IGNORECASE,
)


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
    for first, body, plan in sections(rows, heads, []):
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
    above: list[str] = []
    for row in reader:
        width, count = (width or len(row), count + 1) if row else (0, count)
        if any(row[width:]):
            longer.append(reader.line_num)
        if above and any(row[len(above) :]):
            above[-1] = Cell(above[-1], short=True)
        yield above
        above = row
    yield above
    if longer and are_few(len(longer), count - 1):
        remark("has more cells than columns: its values may stand under wrong names",
               "put values with a comma into quotation marks", doubtful=True,
               part=f"line {longer[0]}{' and others' * (len(longer) > 1)}")  # fmt: skip


def _delimiter(lines: list[str]) -> str:
    """The delimiter that splits most of the first lines into the same number of cells."""

    # `csv.Sniffer` may choose letters, and needs quadratic time on quotes.
    def score(delimiter: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        common = max(set(widths), key=lambda width: (widths.count(width), width), default=1)
        return (widths.count(common) if common > 1 else 0, common)

    return max((",", ";", "\t", "|"), key=score)


def _beside(row: Row) -> str:
    return " | ".join(own_cells(row))


def _line(row: Row, plan: Plan) -> str:
    if plan.form:
        has_group = plan.groups and any(row[1:])
        group, fields = f"{row[0]} " * has_group, own_cells(row[has_group:])
        pairs = zip(fields[::2], [*fields[1::2], ""], strict=False)
        lines = (f"{group}{a.rstrip(':： ')}: {b}" if a and b else a or b for a, b in pairs)
        return "; ".join(filter(None, lines))
    if not plan.names:
        return _beside(row)
    pairs = zip(chain(plan.names, repeat("")), _shown(row, plan), strict=False)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)


def _written(rows: Iterable[Row], plan: Plan) -> Iterator[tuple[Row, str | None]]:
    """Rows with their lines, those of a group behind its name; None for headings that are there."""
    group, is_new, has_sum, sums = plan.group, False, False, 0
    for row, below in pairwise(chain(rows, [()])):
        if not is_heading(row, plan):
            is_sum = group and _SUM.fullmatch((row[0] or "").rstrip(":： "))
            # The last one may be that of all groups.
            is_own = not is_sum or is_heading(below, plan) or (sums and not has_sum)
            has_sum, sums = bool(has_sum or is_sum), sums + bool(is_sum)
            line = _line(row, plan)
            yield row, f"{group}; {line}" if group and is_own else line
            is_new = False
        elif row[0] and plan.headings != "bare" and not is_note(row):
            group = f"{group}; {row[0]}" if is_new else row[0]
            is_new, has_sum = True, False
            yield row, None
        else:
            group = ""
            yield row, _beside(row)
    if is_new:
        yield (), group


def _shown(row: Row, plan: Plan) -> Iterator[str]:
    """The cells of a row as they are written: in a table with names, in each column they cover."""
    cell, is_once = "", True
    for place, found in enumerate(row):
        if found is not None:
            cell = found
            # the label of the row, or too long to be written for each column
            is_once = place == 0 or len(cell) > CELL_CHARS or not plan.names
        yield "" if found is None and is_once else cell


class _Column:
    """Content of a column, collected in one pass with bounded memory."""

    def __init__(self) -> None:
        self.filled = self.numbers = 0
        self.low, self.high = float("inf"), float("-inf")
        self.examples: dict[str, None] = {}

    def add(self, cell: str) -> None:
        self.filled += 1
        try:
            value = float(cell.replace(",", ""))
        except ValueError:
            if len(self.examples) < _EXAMPLES:
                self.examples[cell[:CELL_CHARS]] = None
        else:
            self.numbers += 1
            self.low, self.high = min(self.low, value), max(self.high, value)

    def __str__(self) -> str:
        parts = [f"{self.filled} filled"]
        if self.numbers:
            parts.append(f"{self.numbers} numbers from {self.low:.15g} to {self.high:.15g}")
        if self.examples:
            parts.append("for example " + ", ".join(self.examples))
        return "; ".join(parts)
