"""Paragraphs and headings of a PDF page, by how its lines are set."""

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, repeat
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pypdfium2.raw as c

_APART = 1.3  # times the usual distance of lines, from which a paragraph begins
_LARGER = 1.12  # times the usual size, from which a line is a heading
_LONGEST = 120  # characters of a heading
_BOLD = re.compile(r"bold|black|heavy|medi(?!um)|semib|demi|cmb|bx\d", re.IGNORECASE)
LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
_NO_PLACE = {"", "\r", "\n"}
_NO_HEADING = re.compile(r"[.,;:!?。…\-]$|^\W|^(?:fig|table|그림|표)", re.IGNORECASE)


class _PageLine(NamedTuple):
    start: int  # of its first character that is drawn
    end: int  # behind its last one
    y: float  # of its base
    size: float  # points
    text: str


class CharPlace(NamedTuple):
    """Where a character stands, in points."""

    x: float  # of its middle
    y: float
    base: float  # lower end of its font
    left: float
    right: float


def char_places(
    textpage: Any,
    chars: list[str],
    order: list[int],
    within: tuple[float, float, float, float] | None = None,
) -> dict[int, CharPlace]:
    """Where the characters of a page stand.

    Args:
        textpage: PDFium's text of the page.
        chars: Its characters.
        order: The number of each for PDFium.
        within: Left, right, lower and upper end of the part that is looked at; None for all of it.
    """
    if not (count := min(len(chars), len(order))):
        return {}
    boxes = np.zeros((count, 4), np.float32)
    # In one go: a loop over the characters takes longer than PDFium does.
    kinds = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    read = ctypes.cast(c.FPDFText_GetLooseCharBox, ctypes.PYFUNCTYPE(*kinds))
    page = repeat(ctypes.cast(textpage.raw, ctypes.c_void_p).value)
    first = boxes.ctypes.data
    found = map(read, page, order, range(first, first + boxes.nbytes, 16))
    is_kept = np.fromiter(found, bool, count)
    is_kept &= ~np.fromiter(map(_NO_PLACE.__contains__, chars), bool, count)
    left, top, right, base = boxes.T.astype(np.float64)
    x, y = (left + right) / 2, (base + top) / 2
    if within is not None:
        is_kept &= (within[0] < x) & (x < within[1]) & (within[2] < y) & (y < within[3])
    columns = ((values[is_kept]).tolist() for values in (x, y, base, left, right))
    return dict(zip(np.flatnonzero(is_kept).tolist(), map(CharPlace, *columns), strict=True))


def set_apart(textpage: Any, chars: list[str]) -> None:
    """Put an empty line before each paragraph and heading, and "# " before a heading.

    Paragraphs that only an indent tells apart stay together.

    Args:
        textpage: PDFium's text of the page.
        chars: Its characters, changed in place; an item may be several letters or none.
    """
    lines = list(_lines(textpage, chars))
    steps = [
        step
        for before, line in pairwise(lines)
        if (step := before.y - line.y) > 0.5 * line.size
        for _ in line.text  # long lines are text, short ones may be labels of a figure
    ]
    usual = median(steps) if steps else 0.0
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += line.end - line.start
    body = sizes.most_common(1)[0][0] if sizes else 0.0
    previous: _PageLine | None = None
    heading = 0.0  # size of the heading that the line before belongs to
    for line in lines:
        # One that stands higher begins another column, often within a sentence.
        apart = previous is not None and previous.y - line.y > _APART * max(usual, line.size)
        break_before = "\n" * (previous is not None)
        if not _can_head(line) or not (
            line.size > _LARGER * body
            or (apart and is_bold(textpage, line.start) and is_bold(textpage, line.end - 1))
        ):
            mark, heading = break_before * (apart or heading > 0), 0.0
        elif previous and not apart and line.size == heading:  # its second line
            chars[previous.end : line.start] = [""] * (line.start - previous.end)
            mark = " "
        else:
            mark, heading = f"{break_before}# ", line.size
        chars[line.start] = f"{mark}{chars[line.start]}"
        previous = line


def _can_head(line: _PageLine) -> bool:
    letters = sum(map(str.isalpha, line.text))
    is_short = 3 < len(line.text) < _LONGEST and 2 * letters > len(line.text)
    return is_short and not _NO_HEADING.search(line.text)


def _lines(textpage: Any, chars: list[str]) -> Iterator[_PageLine]:
    x, y, matrix = ctypes.c_double(), ctypes.c_double(), c.FS_MATRIX()
    ends = [i for i, char in enumerate(chars) if char == "\n" or char == "-\n"]
    for start, end in pairwise([-1, *ends, len(chars)]):
        drawn = (j for j in range(start + 1, end) if chars[j].strip())
        first = next(drawn, None)
        if first is None:
            continue
        last = next(j for j in range(end - 1, start, -1) if chars[j].strip())
        is_placed = c.FPDFText_GetCharOrigin(textpage, first, x, y)
        if is_placed and c.FPDFText_GetMatrix(textpage, first, matrix) and matrix.a > 0:
            size = c.FPDFText_GetFontSize(textpage, first) * math.hypot(matrix.c, matrix.d)
            yield _PageLine(
                first, last + 1, y.value, round(size, 1), "".join(chars[first : last + 1])
            )


def is_bold(textpage: Any, at: int) -> bool:
    """Whether a character is set in a bold font, going by the font's name."""
    name, flags = ctypes.create_string_buffer(256), ctypes.c_int()
    size = c.FPDFText_GetFontInfo(textpage, at, name, len(name), flags)
    return 0 < size <= len(name) and _BOLD.search(name.value.decode(errors="replace")) is not None
