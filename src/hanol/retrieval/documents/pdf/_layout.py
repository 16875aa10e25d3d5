"""Paragraphs and headings of a PDF page, by how its lines are set."""

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import pypdfium2.raw as c

_APART = 1.3  # times the usual distance of lines, from which a paragraph begins
_LARGER = 1.12  # times the usual size, from which a line is a heading
_LONGEST = 120  # characters of a heading
_BOLD = re.compile(r"bold|black|heavy|medi(?!um)|semib|demi|cmb|bx\d", re.IGNORECASE)
LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
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


def char_places(textpage: Any, chars: list[str], order: list[int]) -> dict[int, CharPlace]:
    """Where the characters of a page stand; `order` has the number of each for PDFium."""
    # Converting what a call takes costs more than the call, so nothing is left to convert.
    read = ctypes.cast(c.FPDFText_GetLooseCharBox, ctypes.PYFUNCTYPE(ctypes.c_int))
    address, box = ctypes.cast(textpage.raw, ctypes.c_void_p), (ctypes.c_float * 4)()
    places = {}
    for i, (char, number) in enumerate(zip(chars, order, strict=False)):
        if char and char not in "\r\n" and read(address, number, box):
            left, top, right, base = box
            places[i] = CharPlace((left + right) / 2, (base + top) / 2, base, left, right)
    return places


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
