"""Writes tables as text: small ones whole, large ones as columns, counts and first rows."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain

_WHOLE_CELLS = 20_000  # up to this many cells a table is written out in full ...
_WHOLE_CHARS = 2_000_000  # ... if its text is no longer than this
_FIRST_ROWS = 20  # rows shown of a larger table
_COUNTED_CELLS = 2_000_000  # where counting ends: about five seconds
_EXAMPLES = 5  # values shown of a text column
_SAMPLE = 65_536  # characters that decide on the delimiter
_CELL_CHARS = 200  # characters shown of a cell in the overview of a larger table

Row = list[str]


def table_text(rows: Iterable[Row]) -> str:
    """Write a table, "name: value; ..." a line; of a large one, its columns and its first rows."""
    source = (row for row in (_trim(row) for row in rows) if row)
    kept: list[Row] = []
    cells = chars = 0
    for row in source:
        kept.append(row)
        cells += len(row)
        chars += sum(map(len, row))
        if cells > _WHOLE_CELLS or chars > _WHOLE_CHARS:
            return _overview(kept, source)
    names = _names(kept)
    return "\n".join(_line(row, names) for row in kept[bool(names) :])


def read_csv(text: str) -> str:
    """Text of a table in comma-, semicolon-, tab- or bar-separated lines."""
    try:
        delimiter = _delimiter(text[:_SAMPLE].splitlines()[:20])
        lines = io.StringIO(text.replace("\0", ""), newline="")
        return table_text(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return text  # a quote that never closes: no table, but still worth searching


def _delimiter(lines: list[str]) -> str:
    """The delimiter that splits most of the first lines into the same number of cells."""

    # `csv.Sniffer` may choose letters, and needs quadratic time on quotes.
    def score(delimiter: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        common = max(set(widths), key=lambda width: (widths.count(width), width), default=1)
        return (widths.count(common) if common > 1 else 0, common)

    return max((",", ";", "\t", "|"), key=score)


def _trim(row: Row) -> Row:
    """A row without trailing empty cells, and with spaces for line breaks inside of cells."""
    row = [" ".join(cell.split()) for cell in row]
    while row and not row[-1]:
        row.pop()
    return row


def _names(rows: list[Row]) -> Row | None:
    head = rows[0] if len(rows) > 1 else []
    if len(head) < 2 or len(set(head)) < len(head) or not all(head):
        return None
    if any(_number(cell) is not None or len(cell) > _CELL_CHARS for cell in head):
        return None
    return head if max(map(len, rows)) <= len(head) else None


def _line(row: Row, names: Row | None) -> str:
    if not names:
        return " | ".join(row)
    return "; ".join(f"{name}: {cell}" for name, cell in zip(names, row, strict=False) if cell)


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


def _overview(kept: list[Row], rest: Iterator[Row]) -> str:
    names = _names(kept) or []
    body = kept[bool(names) :]
    columns: list[_Column] = []
    count = cells = 0
    more = ""
    for row in chain(body, rest):
        count += 1
        cells += len(row)
        columns += [_Column() for _ in range(max(len(row), len(names)) - len(columns))]
        for column, cell in zip(columns, row, strict=False):
            if cell:
                column.add(cell)
        if cells > _COUNTED_CELLS:
            more = "" if next(rest, None) is None else "more than "
            break
    labels = [*names, *(f"column {i + 1}" for i in range(len(names), len(columns)))]
    shown = [[cell[:_CELL_CHARS] for cell in row] for row in body[:_FIRST_ROWS]]
    return "\n".join(
        [
            f"Table of {more}{count} rows and {len(columns)} columns; "
            f"only its first {len(shown)} rows are written out.",
            "",
            *(f"{label}: {column}" for label, column in zip(labels, columns, strict=True)),
            "",
            *(_line(row, names) for row in shown),
        ]
    )
