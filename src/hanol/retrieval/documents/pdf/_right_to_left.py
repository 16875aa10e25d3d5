"""Lines with Arabic, Persian or Hebrew words, put in the order in which they are read.

PDFium turns letters around part by part: ligatures come backwards, words of other scripts and
numbers inside of a line too, brackets may be turned twice, and vowel marks break the line. So the
places of the letters decide: the inverse of the Unicode Bidirectional Algorithm (Annex 9), for
which no package here has a function.
"""

import re
from itertools import accumulate, groupby, pairwise
from math import inf
from typing import Any, NamedTuple
from unicodedata import bidirectional, category, normalize

from hanol.retrieval.documents.pdf._layout import CharPlace, char_places

_LETTER = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_LAM_ALEF = re.compile("ل[اأإآٱ]")
# Kinds of characters: letters of both directions, digits, what stands inside of a number, and
# behind one (%); all else is "-".
_KINDS = {"R": "R", "AL": "R", "L": "L", "EN": "N", "AN": "N", "CS": "S", "ES": "S", "ET": "T"}
# In a line from right to left: words of other scripts, and numbers: 10:30, but not 10 30.
_LEFT_RUN = re.compile("(?:L|N(?=[^R]*L))(?:[^R]*[LN])?T*|N(?:S?N)*T*|.")
_RIGHT_RUN = re.compile("R(?:[^L]*R)?|.")  # in a line from left to right
_LONGEST = 2000  # characters of a line; longer ones are none
_SAME_LINE = 0.35  # of a letter's height: marks stand that much higher or lower
_SPACE = 0.3  # of half a letter's height, from which a gap is a space
_BRACKETS = ("()", "[]", "{}", "«»")


class _Glyph(NamedTuple):
    """What stands at a place: its kind, and its characters by number with their marks."""

    kind: str
    place: CharPlace
    numbers: list[int]


def put_in_order(textpage: Any, chars: list[str]) -> list[int]:
    """Put the characters of a page in the order of reading, and return the number that each had.

    Args:
        textpage: PDFium's text of the page.
        chars: Its characters, changed in place; an item may be several letters or none.
    """
    order = [*range(len(chars))]
    text = "".join(chars)
    if not _LETTER.search(text):
        return order
    places = char_places(textpage, chars, order)
    mostly = 2 * len(_LETTER.findall(text)) > sum(map(str.isalpha, text))
    for start, end in _lines(chars, places):
        here = [places[i] for i in range(start, end) if i in places]
        xs, ys = [place.x for place in here], [place.y for place in here]
        is_line = 0 < len(here) < _LONGEST and max(xs) - min(xs) >= max(ys) - min(ys)
        if not is_line or not any(map(_LETTER.search, chars[start:end])):
            continue
        glyphs = _glyphs(chars, places, range(start, end))
        kinds = [glyph.kind for glyph in glyphs]
        balance = kinds.count("R") - kinds.count("L")
        found = _turned(glyphs) if balance > 0 or (mostly and balance == 0) else _kept(glyphs)
        numbers = [number for glyph in found for number in glyph.numbers]
        rest = sorted({*range(start, end)}.difference(numbers))
        order[start:end] = numbers + rest
        line = [chars[number] for number in numbers]
        line += ["" if chars[number].isspace() else chars[number] for number in rest]
        chars[start:end] = _with_brackets([normalize("NFKC", item) for item in line])
    return order


def _lines(chars: list[str], places: dict[int, CharPlace]) -> list[tuple[int, int]]:
    """First and last character of each line; what marks have broken is joined."""
    ends = [i for i, char in enumerate(chars) if char.endswith("\n")]
    found: list[tuple[int, int]] = []
    last: list[CharPlace] = []
    for before, end in pairwise([-1, *ends, len(chars)]):
        here = [places[i] for i in range(before + 1, end) if i in places]
        if here and last and _is_same(last, here):
            found[-1] = found[-1][0], end
            last = last + here
        else:
            found.append((before + 1, end))
            last = here
    return found


def _is_same(above: list[CharPlace], below: list[CharPlace]) -> bool:
    ys = [sorted(place.base for place in line)[len(line) // 2] for line in (above, below)]
    height = max(2 * (place.y - place.base) for place in (*above, *below))
    return abs(ys[0] - ys[1]) < _SAME_LINE * height


def _glyphs(chars: list[str], places: dict[int, CharPlace], numbers: range) -> list[_Glyph]:
    """What is drawn on a line from left to right, each letter with its marks."""
    # PDFium puts spaces without a width between marks, too.
    here = [i for i in numbers if i in places]
    spaces = [i for i in here if chars[i] == " " and places[i].left == places[i].right]
    drawn = sorted({*here}.difference(spaces))
    found: list[_Glyph] = []
    marks: list[int] = []
    groups = [[*same] for _, same in groupby(drawn, key=lambda i: round(places[i].x, 1))]
    xs = [inf, *(places[same[0]].x for same in groups), -inf]
    for at, same in enumerate(groups, 1):
        text, place = "".join(chars[i] for i in same), places[same[0]]
        if category(text[0]) == "Mn":
            marks += same
            continue
        kind = _KINDS.get(bidirectional(text[0]), "-")
        if kind == "R" and xs[at - 1] > place.x > xs[at + 1] and not _LAM_ALEF.fullmatch(text):
            same.reverse()  # a ligature; those of Unicode come in order
        found.append(_Glyph(kind, place, same))
    found.sort(key=lambda glyph: glyph.place.x)
    letters = [glyph for glyph in found if glyph.kind == "R"]
    for mark in marks if letters else ():
        x = places[mark].x
        min(letters, key=lambda glyph: abs(glyph.place.x - x)).numbers.append(mark)
    spaced = found[:1]
    for left, right in pairwise(found):
        gap = right.place.left - left.place.right
        if spaces and gap > _SPACE * (right.place.y - right.place.base):
            spaced.append(_Glyph("-", right.place, [spaces.pop()]))
        spaced.append(right)
    return spaced


def _turned(glyphs: list[_Glyph]) -> list[_Glyph]:
    """The glyphs of a line from right to left in the order of reading."""
    runs = _LEFT_RUN.finditer("".join(glyph.kind for glyph in glyphs))
    return [glyph for run in [*runs][::-1] for glyph in glyphs[slice(*run.span())]]


def _kept(glyphs: list[_Glyph]) -> list[_Glyph]:
    """The glyphs of a line from left to right in the order of reading."""
    found: list[_Glyph] = []
    for run in _RIGHT_RUN.finditer("".join(glyph.kind for glyph in glyphs)):
        part = glyphs[slice(*run.span())]
        found += _turned(part) if run[0][0] == "R" else part
    return found


def _with_brackets(line: list[str]) -> list[str]:
    """A line whose brackets do not fit together, with each in turn opening and closing."""
    for pair in _BRACKETS:
        places = [i for i, item in enumerate(line) if item and item in pair]
        depths = [1 if line[i] == pair[0] else -1 for i in places]
        is_whole = not depths or (sum(depths) == 0 and min(accumulate(depths)) == 0)
        if not is_whole and len(places) % 2 == 0:
            for at, i in enumerate(places):
                line[i] = pair[at % 2]
    return line
