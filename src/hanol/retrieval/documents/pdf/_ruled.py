"""Tables that a PDF page draws with lines, written row by row.

A page is left as it is where its lines are no grid, where much of its text crosses them, and where
the file does not have the text of the grid in one piece.
"""

import ctypes
import re
from bisect import bisect
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise, product, repeat
from typing import Any, NamedTuple

import pypdfium2.raw as c

from hanol.retrieval.documents.pdf._layout import LIGATURES, CharPlace, char_places, is_bold
from hanol.retrieval.documents.tables._cells import Cell, Row
from hanol.retrieval.documents.tables._lines import table_text
from hanol.retrieval.documents.tables._structure import column_names

_NEAR = 3.0  # points within which lines meet, and of a filled area that is a line
_LEAST = 6.0  # points of the sides of a cell
_OBJECTS, _SEGMENTS = 20_000, 400  # of a page, and of one of its paths, that are looked at
_LINES, _CELLS = 500, 3_000  # of a page and of a table; more are a drawing
_CELL_CHARS = 500  # a longer cell lays out a page
_FILLED = 0.3  # least share of the cells of a table that have text
_SIGNS, _DRAWN = 3, 0.9  # the same where cells hold fewer letters than this, as in drawings
_CROSSING = 4  # of the words, one in so many may be too long for its cell at most
_RULED = 4  # lines across a table from which all of its rows are parted by lines
_RAISED = 4.0  # points between letters of a line
_BEFORE = 200  # characters above a table that goes on from the page before: its header
_MARK = re.compile(r"^\n*(?:# )?(?=.)")  # what `set_apart` puts before a line
_Place = tuple[int, int]  # row and column


class _Rule(NamedTuple):
    at: float  # y of a horizontal line, x of a vertical one
    low: float
    high: float

    def reaches(self, place: float) -> bool:
        return self.low - _NEAR <= place <= self.high + _NEAR

    def meets(self, other: "_Rule") -> bool:
        return self.reaches(other.at) and other.reaches(self.at)


class Ruled:
    """Writes the tables of the pages of a document, in their order."""

    def __init__(self) -> None:
        self._widths: list[float] = []  # of the columns of the table that the last page ends with
        self._names: tuple[str, ...] = ()

    def write(self, page: Any, textpage: Any, chars: list[str], order: list[int]) -> None:
        """Put the rows of each table in the place of its text in `chars`, the page's characters.

        `order` has the number of each of them for PDFium.
        """
        (known, names), last = (self._widths, self._names), 0
        self._widths, self._names = [], ()
        grids = list(_grids(*_lines_of(page)))
        places: dict[int, CharPlace] = {}
        if grids:
            # A line ends where others that it crosses may be missing.
            sides = [(_sides(down, across), _sides(across, down)) for down, across in grids]
            x, y = (list(chain(*found)) for found in zip(*sides, strict=True))
            around = (min(x), max(x), min(y), max(y))
            placed = char_places(textpage, chars, order, around)
            places = {i: place for i, place in placed.items() if not chars[i].isspace()}
        tables = [
            found for grid in grids if (found := _content(*grid, places, chars, textpage, order))
        ]
        for (first, end), xs, rows in sorted(tables, key=lambda table: table[0]):
            if first < last:
                continue  # inside of another one
            # not the places: pages on the left and the right have different margins
            widths = [b - a for a, b in pairwise(xs)]
            goes_on = not last and _chars(chars[:first]) < _BEFORE and len(known) == len(widths)
            goes_on &= all(abs(a - b) < _NEAR for a, b in zip(known, widths, strict=False))
            before = names if goes_on else ()
            names = column_names(rows, before)
            heads = int(before != () and names == before)
            repeats = tuple(cell or "" for cell in rows[0]) == before
            text = table_text([before, *rows] if heads > repeats else rows, heads=heads)
            chars[first:end] = [f"\n{text}\n", *[""] * (end - first - 1)]
            known, last = widths, end
        if last and _chars(chars[last:]) < _BEFORE:
            self._widths, self._names = known, names


def _chars(items: Iterable[str]) -> int:
    return sum(map(len, map(str.strip, items)))


def _lines_of(page: Any) -> tuple[set[_Rule], set[_Rule]]:
    """The vertical and the horizontal lines that a page draws; none if there are very many."""
    found: tuple[list[_Rule], list[_Rule]] = [], []
    kind = ctypes.cast(c.FPDFPageObj_GetType, ctypes.PYFUNCTYPE(ctypes.c_int))
    count = min(c.FPDFPage_CountObjects(page), _OBJECTS)
    for path in map(c.FPDFPage_GetObject, repeat(page.raw), range(count)):
        if kind(path) == c.FPDF_PAGEOBJ_PATH:
            for points in _polygons(path):
                for (x, y), (u, v) in pairwise(points):
                    if abs(x - u) < 1 or abs(y - v) < 1:
                        line = (x, *sorted((y, v))) if abs(x - u) < 1 else (y, *sorted((x, u)))
                        found[abs(x - u) >= 1].append(_Rule(*line))
            if sum(map(len, found)) > 8 * _LINES:
                return set(), set()
    down, across = map(_joined, found)
    return (down, across) if len(down) + len(across) <= _LINES else (set(), set())


def _polygons(path: Any) -> Iterator[list[tuple[float, float]]]:
    """The parts of a path that are lines, before its first curve, in points of the page."""
    x, y, stroke, m = ctypes.c_float(), ctypes.c_float(), ctypes.c_int(), c.FS_MATRIX()
    c.FPDFPath_GetDrawMode(path, ctypes.c_int(), stroke)
    c.FPDFPageObj_GetMatrix(path, m)
    parts: list[list[tuple[float, float]]] = []
    for i in range(min(c.FPDFPath_CountSegments(path), _SEGMENTS)):
        segment = c.FPDFPath_GetPathSegment(path, i)
        kind = c.FPDFPathSegment_GetType(segment)
        if kind == c.FPDF_SEGMENT_BEZIERTO:
            break
        if kind == c.FPDF_SEGMENT_MOVETO or not parts:
            parts.append([])
        c.FPDFPathSegment_GetPoint(segment, x, y)
        a, b = x.value, y.value
        parts[-1].append((m.a * a + m.c * b + m.e, m.b * a + m.d * b + m.f))
        if c.FPDFPathSegment_GetClose(segment):
            parts[-1].append(parts[-1][0])
    for part in parts:
        # others are the ground of a cell or of a box
        if stroke.value or min(max(side) - min(side) for side in zip(*part, strict=True)) <= _NEAR:
            yield part


def _joined(lines: list[_Rule]) -> set[_Rule]:
    """Lines on top of each other, or end to end, as one."""
    found: list[_Rule] = []
    for line in sorted(lines, key=lambda line: (round(line.at), line.low)):
        last = found[-1] if found else line
        if found and round(last.at) == round(line.at) and line.low <= last.high + _NEAR:
            found[-1] = last._replace(high=max(last.high, line.high))
        else:
            found.append(line)
    return {line for line in found if line.high - line.low >= _LEAST}


def _grids(down: set[_Rule], across: set[_Rule]) -> Iterator[tuple[set[_Rule], set[_Rule]]]:
    """Vertical and horizontal lines that meet each other."""
    left = {*down}
    while left:
        new, columns, rows = {left.pop()}, set[_Rule](), set[_Rule]()
        while new:
            columns |= new
            met = {row for row in across - rows if any(map(row.meets, new))}
            rows |= met
            new = {column for column in left if any(map(column.meets, met))}
            left -= new
        if len(rows) > 1:
            yield columns, rows


def _sides(lines: Iterable[_Rule], crossing: Iterable[_Rule]) -> list[float]:
    """Places of lines in ascending order, and where those that cross them end, each once."""
    ends = [end for line in crossing for end in line[1:]]
    found: list[float] = []
    for place in sorted([*(line.at for line in lines), min(ends), max(ends)]):
        if not found or place - found[-1] >= _LEAST:
            found.append(place)
    return found


def _content(
    columns: set[_Rule],
    lines: set[_Rule],
    places: dict[int, CharPlace],
    chars: list[str],
    textpage: Any,
    order: list[int],
) -> tuple[_Place, list[float], list[Row]] | None:
    """First and last character of a table, sides of its columns, and cells; None if it is none."""
    xs, ys = _sides(columns, lines), _sides(lines, columns)
    inside = {i: at for i, at in places.items() if xs[0] < at.x < xs[-1] and ys[0] < at.y < ys[-1]}
    first, end = min(inside, default=0), max(inside, default=-1) + 1
    is_whole = len(inside) == sum(map(bool, map(str.strip, chars[first:end])))
    # Text with an angle lies on its side.
    if not is_whole or not inside or c.FPDFText_GetCharAngle(textpage, order[first]) > 0.1:
        return None
    ys = _all_rows(xs, ys, inside.values())
    if not 2 < len(xs) < _CELLS / len(ys) or not (cells := _cells(xs, ys, columns, lines)):
        return None
    parts: dict[_Place, list[str]] = {}
    begins: dict[_Place, int] = {}
    cell, last, gap, words, crossing = (-1, -1), None, False, 0, 0
    for i in range(first, end):
        if i not in inside:
            gap = gap or chars[i].isspace()
            continue
        char, before, item = inside[i], cell, chars[i]
        item = item if len(item) == 1 else _MARK.sub("", item)
        here = cells[len(ys) - 1 - bisect(ys, char.y), bisect(xs, char.x) - 1]
        is_one = last and abs(char.base - last.base) < 1 and abs(char.left - last.right) < 1
        if not is_one:  # a word stands where it begins, also one that is too long for its cell
            cell, words = here, words + 1
        crossing += here != cell
        begins.setdefault(cell, i)
        text = parts.setdefault(cell, [])
        if text and not is_one and (gap or cell != before):
            text.append("" if text[-1].endswith("-\n") else " ")
        text.append(item)
        last, gap = char, item.endswith("\n")
    texts = {
        place: re.sub(r"-\n(?=[a-zß-ÿ])", "", "".join(text)).translate(LIGATURES)
        for place, text in parts.items()
    }
    signs = sum(map(str.isalnum, "".join(texts.values())))
    least = _FILLED if signs > _SIGNS * len(texts) else _DRAWN
    if (
        min(len({place[side] for place in texts}) for side in (0, 1)) < 2
        or len(texts) < least * len({*cells.values()})
        or crossing * _CROSSING > words
        or max(map(len, texts.values())) > _CELL_CHARS
    ):
        return None
    rows: list[list[str | None]] = [[] for _ in ys[1:]]
    for (y, x), own in cells.items():
        strong = own in begins and is_bold(textpage, order[begins[own]])
        shown = Cell(texts.get(own, ""), strong=strong, below=own[0] < y)
        rows[y].append(None if own[1] < x else shown)
    return (first, end), xs, [*rows]


def _all_rows(xs: list[float], ys: list[float], inside: Iterable[CharPlace]) -> list[float]:
    """Sides of the rows, also of those that no line parts, as LaTeX sets tables.

    Lines of text that all columns have at the same heights are rows, if there are several.
    """
    found = [*ys]
    for bottom, top in pairwise(ys) if len(ys) <= _RULED else ():
        lines: list[list[CharPlace]] = []
        for char in sorted((at for at in inside if bottom < at.y < top), key=lambda at: -at.base):
            if not lines or lines[-1][-1].base - char.base > _RAISED:
                lines.append([])
            lines[-1].append(char)
        filled = {len({bisect(xs, char.x) for char in line}) for line in lines}
        if len(lines) + len(xs) > 6 and filled == {len(xs) - 1}:
            found += [line[0].base - _RAISED for line in lines[:-1]]
    return sorted(found)


def _cells(
    xs: list[float], ys: list[float], columns: set[_Rule], lines: set[_Rule]
) -> dict[_Place, _Place]:
    """For each place of the grid the first one of its cell; empty if cells are no rectangles."""

    def parted(lines: set[_Rule], at: float, middle: float) -> bool:
        near = [line for line in lines if abs(line.at - at) < _LEAST]
        return not near or any(line.reaches(middle) for line in near)

    owners: dict[_Place, _Place] = {}
    places: dict[_Place, list[_Place]] = {}
    rows = [*pairwise(ys)][::-1]
    for (y, (low, high)), (x, (left, right)) in product(enumerate(rows), enumerate(pairwise(xs))):
        found = set()
        if x and not parted(columns, left, (low + high) / 2):
            found.add(owners[y, x - 1])
        if y and not parted(lines, high, (left + right) / 2):
            found.add(owners[y - 1, x])
        if len(found) > 1:
            return {}
        owners[y, x] = found.pop() if found else (y, x)
        places.setdefault(owners[y, x], []).append((y, x))
    sizes = (
        (len({y for y, _ in own}), len({x for _, x in own}), len(own)) for own in places.values()
    )
    return owners if all(height * width == count for height, width, count in sizes) else {}
