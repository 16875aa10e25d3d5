"""The sentences of passages and the rows of their tables, with what they are about.

A row of a table is a sentence whose neighbour is the table's head.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from hanol.retrieval import Passage, split_sentences, word_stems

_ROW_NUMBERS = 3  # numbers in a line that make it a row
_NAMED = re.compile(r"[^:;.!?。]{1,60}: \S")  # a cell with the name of its column
_LINE, _STOP = re.compile(r".+"), re.compile(r"[.!?…。！？]")
_TITLE = 100  # characters
_ENDS = re.compile(r"[.!?:;,。…]['\")\]’”]*$|^[#|>*-]")  # a sentence, or another mark of Markdown
_SAYS = re.compile(rf"{_ENDS.pattern}|[\d:;]")  # what no heading has
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
    r"\b(?:[a-z]{4,} \d\d?|[a-z]\d{1,3})(?![\w.])|\d\d?[층호번장조권월회과절]"
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
    stems: frozenset[str]  # of both
    around: frozenset[str]  # of its heading, its neighbours and the title
    keys: frozenset[str]  # numbers, years and options that it may be about

    @property
    def source(self) -> str:
        """The sentence as it stands there, with the one that it refers to."""
        return f"{self.lead} {self.text}".lstrip()

    @property
    def quote(self) -> str:
        """The same; of a row of a table each cell with the name of its column."""
        return _named(self.before, self.text) or self.source

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
        # Documents with pages are broken at margins of any width.
        pieces = list(_pieces(_in_blocks(text) if passage.page is None else text))
        for i, (kind, text, opens) in enumerate(pieces):
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
            own = stems_of(f"{lead} {text}")
            near = stems_of(" ".join((passage.title, heading, *around)))
            lean = head if kind == "row" else before
            named = _named(lean, text) if kind == "row" else ""
            about = _said(keys_of((named or text).replace(": ", " ")), about)
            unit = Unit(
                passage, rank, i, opens, kind == "row", lead, lean, text, own, near - own, about
            )  # fmt: skip
            found.setdefault((passage.document, passage.page, text), unit)
            before = text
            if kind == "sentence":
                head = text  # of a table without rules, in plain text
    return list(found.values())


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
    return frozenset([*_KEY.findall(text), *DIGITS.findall(text)])


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
    is_title = begins and (alone or line.strip() == passage.title)
    return (line.strip(), rest) if rest.strip() and is_title else ("", passage.text)


def _in_blocks(text: str) -> str:
    """A text whose lines are paragraphs, as those of web pages are, with its headings marked."""
    lines = text.splitlines()
    if FENCE.search(text) or max(map(len, lines), default=0) <= _WRAPPED:
        return text
    parts: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        is_heading = 0 < len(line) < _TITLE and after and not _SAYS.search(line)
        parts += [f"# {line}" if is_heading else line, "\n" if line.startswith("|") else "\n\n"]
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
