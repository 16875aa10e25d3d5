"""The sentences of passages and the rows of their tables, with what they are about.

A row of a table is a sentence whose neighbour is the table's head.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from hanol.research.asking._json_lines import json_lines, spelled
from hanol.retrieval import Passage, split_sentences, word_stems

_ROW_NUMBERS = 3  # numbers in a line that make it a row
_NAMED = re.compile(r"[^:;.!?。]{1,60}: \S")  # a cell with the name of its column
_LINE, _STOP = re.compile(r".+"), re.compile(r"[.!?…。！？]")
_TITLE = 100  # characters
_ENDS = re.compile(r"[.!?:;,。…]['\")\]’”]*$|^[#|>*-]")  # a sentence, or another mark of Markdown
_SAYS = re.compile(rf"{_ENDS.pattern}|[\d:;]")  # what no heading has
_LABEL = re.compile(r"[^\W\d_][\w'() -]{0,30}: \S")  # "Absent: Jun Park"
_LABELS = 2  # lines with a label that make a list of them
_SHORT = 60  # most characters of a line that ends before the margin
_NUMBERED = re.compile(r"\d{1,2}(?:\.\d{1,2})*[.)] +")
_WRAPPED = 120  # most characters of a line of a text whose lines are broken at a margin
_LONG = 320  # characters of two sentences that are read at ease
_REFERS = re.compile(
    r"(?:It|Its|They|Their|He|His|She|Her|This|That|These|Those|Such)\b|이(?:는|를|것|들|로써)|"
    "그(?:는|들|것|녀)|이러한|그러한"
)
FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)  # of code in Markdown
_HEADING = re.compile(r"#{1,6} .*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
# An option, a variable; "floor 2", where the 2 alone says little; a number.
_KEY = re.compile(
    r"(?<![\w-])--?[a-z][\w-]*|\b[a-z]\w*_\w+|"
    r"\b(?:[a-z]{4,} \d\d?|[a-z]\d{1,3})(?![\w.])|\d\d?(?:[층호번장조권월회과절]|분기)"
)
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"),
    *("tenth", "eleventh", "twelfth"),
)
_ORDINAL = re.compile(
    rf"\b({'|'.join(_ORDINALS)}|\d\d?(?=st|nd|rd|th))(?:st|nd|rd|th)? ([a-z]{{4,}})"
)
DIGITS = re.compile(r"(?<![a-z\d])\d+", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True)
class Unit:
    """A sentence, or a row of a table, with the words around it."""

    passage: Passage
    rank: int  # of its passage, from 0
    order: int  # in its passage
    opens: bool  # a paragraph or item
    is_row: bool  # of a table
    lead: str  # the sentence before, if this one refers to it
    before: str  # what it must be read with: the head of its table, or the sentence before
    text: str
    heading: str
    stems: frozenset[str]  # of the text and the lead
    around: frozenset[str]  # of its heading, its neighbours and the title
    keys: frozenset[str]  # numbers, years and options that it may be about
    line: str = ""  # of a value of JSON, as it stands there

    @property
    def source(self) -> str:
        """The sentence as it stands there, with the one that it refers to."""
        return self.line or f"{self.lead} {self.text}".lstrip()

    @property
    def quote(self) -> str:
        """The same; cells of a row and values of JSON with what they are called."""
        return _named(self.before, self.text) or f"{self.lead} {self.text}".lstrip()

    @property
    def told(self) -> frozenset[str]:
        """Stems of what it tells: a row also what its table is about."""
        return self.stems | self.around if self.is_row else self.stems

    def follows(self, other: "Unit") -> bool:
        """Whether it goes on from another one."""
        return self.passage is other.passage and self.order == other.order + 1 and not self.opens

    def after(self, *others: "Unit") -> "Unit":
        """The unit without a sentence before it that those before it are or have."""
        is_said = any(self.lead in (one.text, one.lead) for one in others)
        return replace(self, lead="") if is_said else self

    def repeats(self, other: "Unit") -> bool:
        """Whether it says nothing more than another one."""
        return self.text in f"{other.lead} {other.text}" or other.text in self.text


class _Part(NamedTuple):
    kind: Literal["heading", "head", "row", "sentence"]  # head: of a table
    text: str
    opens: bool = True  # a paragraph or item
    line: str = ""  # as it stands there, of JSON


def units_of(passages: Sequence[Passage]) -> list[Unit]:
    """The sentences and rows of passages, those that overlap once.

    A sentence that begins with "it" and the like comes with the one before it.
    """
    found: dict[tuple[str, int | None, str], Unit] = {}
    for rank, passage in enumerate(passages):
        head = before = ""
        heading, text = _title_of(passage)
        titled = keys_of(f"{passage.title} {heading}")
        about = titled
        pieces = list(_pieces_of(passage, text))
        for i, (kind, text, opens, line) in enumerate(pieces):
            if kind == "heading":
                heading, head, before = text, "", ""
                about = _said(keys_of(text), titled)
                continue
            if kind == "head":
                head = text
                continue
            if kind == "sentence" and not any(map(str.isalpha, text)):
                continue  # the number of a page
            following = pieces[i + 1 : i + 2]
            after = following[0].text if following and following[0].kind == kind else ""
            around = (head,) if kind == "row" else (before, after)
            refers = _REFERS.match(text) and len(before) + len(text) < _LONG
            lead = before if refers and kind == "sentence" else ""
            own = stems_of(f"{lead} {spelled(text) if line else text}")
            near = stems_of(" ".join((passage.title, heading, *around)))
            lean = head if kind == "row" else before
            named = _named(lean, text) if kind == "row" else ""
            about = _said(keys_of((named or text).replace(": ", " ")), about)
            unit = Unit(
                passage, rank, i, opens, kind == "row", lead, lean, text, heading, own, near - own,
                about, line,
            )  # fmt: skip
            found.setdefault((passage.document, passage.page, text), unit)
            before = text
            if kind == "sentence":
                head = text  # of a table without rules, in plain text
    return list(found.values())


def _pieces_of(passage: Passage, text: str) -> Iterator[_Part]:
    if passage.document.lower().endswith(".json") and (values := list(json_lines(passage.text))):
        return (_Part("row", value, line=line) for value, line in values)
    # Documents with pages are broken at margins of any width.
    return _pieces(_in_blocks(text) if passage.page is None else text)


def _named(head: str, row: str) -> str:
    """The cells of a row with the names of their columns; nothing where the head has none."""
    names, cells = (part.strip(" |").split(" | ") for part in (head, row))
    if not head.startswith("|") or len(names) != len(cells):
        return ""
    return ", ".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=True))


def keys_of(text: str) -> frozenset[str]:
    """The numbers, years, options and the like that a text names.

    Example:
        >>> sorted(keys_of("In 2019 the option --max-count cost 1,450 euros on floor 2."))
        ['--max-count', '1450', '2', '2019', 'floor 2']
    """
    text = _THOUSANDS.sub("", text.lower())
    return frozenset([*_KEY.findall(text), *DIGITS.findall(text), *_ordinals(text)])


def _ordinals(text: str) -> Iterator[str]:
    """The "quarter 3" of a third quarter."""
    for rank, noun in _ORDINAL.findall(text):
        yield f"{noun} {rank if rank.isdecimal() else _ORDINALS.index(rank) + 1}"


def kind_of(key: str) -> str:
    """Of keys of one kind, each replaces the one before; "" for numbers, which don't."""
    if key.isdecimal():
        return "year" if _YEAR.fullmatch(key) else ""
    return key.strip("0123456789") if key[0].isdecimal() or key[-1].isdecimal() else "option"


def _said(own: frozenset[str], before: frozenset[str]) -> frozenset[str]:
    """What a sentence may be about: what it names, and what was named before and not replaced."""
    kinds = set(map(kind_of, own)) - {""}
    return own | {key for key in before if kind_of(key) not in kinds}


def _title_of(passage: Passage) -> tuple[str, str]:
    """The line over a document, or none, and the text of a passage without it."""
    line, _, rest = passage.text.partition("\n")
    alone = rest.startswith("\n") and len(line) < _TITLE and not _ENDS.search(line)
    begins = passage.start == 0 and passage.page in (None, 1)
    # A short line over others that do not end at a margin goes on in none of them.
    over = passage.page is None and _is_heading(line, rest) and _has_lines(passage.text)
    is_title = begins and (alone or over or line.strip() == passage.title)
    return (line.strip(), rest) if rest.strip() and is_title else ("", passage.text)


def _is_heading(line: str, after: str) -> bool:
    """Whether a line without a full stop stands over another one that is no item beside it."""
    bare = _NUMBERED.sub("", line, count=1)
    return (
        len(bare) < _SHORT
        and any(map(str.isalnum, bare))
        and not (_ENDS.search(bare) or set(":;") & set(bare))
        and bool(after.strip())
        and not after.startswith("\n")
        and not (bare != line and _NUMBERED.match(after))
    )


def _has_lines(text: str) -> bool:
    """Whether lines are paragraphs or have labels, so that none is broken at a margin."""
    lines = text.splitlines()
    if FENCE.search(text):
        return False
    return max(map(len, lines), default=0) > _WRAPPED or sum(map(_is_labelled, lines)) >= _LABELS


def _is_labelled(line: str) -> bool:
    return _LABEL.match(line) is not None and not _is_named(line)


def _in_blocks(text: str) -> str:
    """A text whose lines are paragraphs, as those of web pages are, with its headings marked."""
    if not _has_lines(text):
        return text
    lines = text.splitlines()
    is_wrapped = max(map(len, lines)) <= _WRAPPED
    parts: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        is_numbered = _NUMBERED.match(line) is not None and _is_heading(line, after)
        is_plain = 0 < len(line) < _TITLE and after and not _SAYS.search(line) and not is_wrapped
        parts.append(f"# {line}" if is_numbered or is_plain else line)
        # A line that is shorter than its margin ends there.
        goes_on = is_wrapped and len(line) >= _SHORT and not _is_labelled(after)
        parts.append("\n" if line.startswith("|") or goes_on else "\n\n")
    return "".join(parts)


def _pieces(text: str) -> Iterator[_Part]:
    # no sentence ends inside of a row
    whole = _LINE.sub(lambda m: _STOP.sub("x", m[0]) if _is_named(m[0]) else m[0], text)
    for span in split_sentences(whole):
        piece = FENCE.sub("", text[span.start : span.end])
        if _HEADING.fullmatch(piece.strip()):
            yield _Part("heading", piece.strip(" #\n"))
            continue
        if span.kind in ("heading", "table_head"):
            yield _Part("heading" if span.kind == "heading" else "head", " ".join(piece.split()))
            continue
        if piece.lstrip().startswith("|"):
            yield _Part("row", " ".join(piece.strip(" |").split()))
            continue
        opens, prose = span.starts_block, ""
        for line in [*piece.splitlines(), ""]:
            is_row = _is_named(line) or (_is_row(line) and "\n" in piece)
            if prose and (is_row or not line.strip()):
                for part in _parts(prose):
                    yield _Part("sentence", part, opens)
                    opens = False
                prose = ""
            if is_row:
                yield _Part("row", " ".join(line.split()))
                opens = True
            else:
                prose = f"{prose}\n{line}"


def _parts(text: str) -> Iterator[str]:
    """A sentence; one that is too long, because it has no full stops, in groups of its lines."""
    part = ""
    for line in text.splitlines():
        if len(text) > 2 * _LONG and part and len(part) + len(line) > _LONG:
            yield part
            part = ""
        part = f"{part} {' '.join(line.split())}".strip()
    if part:
        yield part


def _is_named(line: str) -> bool:
    """Whether a line is a row of a table as the readers write it: "Name: Pen; Price: 1.50"."""
    cells = line.split("; ")
    return 2 * sum(map(bool, map(_NAMED.match, cells))) > max(2, len(cells))


def _is_row(line: str) -> bool:
    words = line.split()
    numbers = sum(any(map(str.isdigit, word)) and not word[0].isalpha() for word in words)
    return numbers >= _ROW_NUMBERS and 2 * numbers >= len(words)


def stems_of(text: str) -> frozenset[str]:
    """The stems of the words of a text."""
    return frozenset(part for _, stem in word_stems(text) for part in stem)


def is_latin(text: str) -> bool:
    """Whether most letters of a text are of the Latin alphabet."""
    letters = [c for c in text if c.isalpha()]
    return 2 * sum(c < "\u0250" for c in letters) >= len(letters)
