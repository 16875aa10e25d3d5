"""Reads OpenDocument files, as LibreOffice writes them: texts, sheets and slides.

Own code: odfpy has not been maintained since 2020, and calamine reads nothing but cells of sheets.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

from hanol.errors import DocumentError
from hanol.retrieval.documents._lists import spelled
from hanol.retrieval.documents._remarks import PICTURES, each_page, remark
from hanol.retrieval.documents._tables import WHOLE_CHARS, Cell, Row, table_text
from hanol.retrieval.documents.office._package import Package, attribute

_HIDDEN = ("tracked-changes", "forms", "sequence-decls", "settings", "desc", "title")
_REPEATED = 1000  # rows or columns that repeat one with text
_COLUMNS = 16_384
_HEADINGS = " headings"  # among the names of styles, which have no space in front


def read_opendocument(data: bytes) -> tuple[str, list[str]]:
    """Title and text: a text document as one page with headings, sheets and slides one each."""
    package = Package(data)
    with_key = package.tree("META-INF/manifest.xml").find(".//encryption-data")
    if with_key is not None:
        raise DocumentError("is encrypted: save a copy without the password")
    tree = package.tree("content.xml")
    pages, first, left = [], "", WHOLE_CHARS
    for body in tree.iterfind("body/*"):
        if body.tag == "spreadsheet":
            for sheet in each_page(body.iterfind("table")):
                text = "\n\n".join(_OpenFlow(package, most=left).blocks([sheet]))
                left = max(left - len(text), 0)
                pages.append(f"# {attribute(sheet, 'name')}\n\n{text}" if text else "")
        elif body.tag in ("presentation", "drawing"):
            for page in each_page(body.iterfind("page")):
                pages.append("\n".join(_OpenFlow(package).blocks(page)))
                if not pages[-1].strip() and page.find(".//image") is not None:
                    remark("has no text, only pictures, which are not read", PICTURES)
        else:
            lines = list(_OpenFlow(package, levels=_levels(package, tree)).blocks(body))
            first = next((line for line in lines if line.startswith("# ")), "")
            edges = [
                line
                for edge in package.tree("styles.xml").iterfind("master-styles/master-page/*")
                if edge.tag in ("header", "footer")
                for line in _OpenFlow(package).blocks(edge)
            ]
            pages.append("\n\n".join([*dict.fromkeys(edges), *lines, *_filled(body)]))
    if not first and pages and tree.find("body/presentation") is not None:
        first = next((line for line in "\n".join(pages).splitlines() if line.strip()), "")
    return package.title or first.lstrip("# "), pages


def _filled(body: Any) -> Iterator[str]:
    """What was filled into the fields of a form."""
    for field in body.iterfind("forms//*"):
        value = attribute(field, "current-value") or attribute(field, "value")
        if value:
            yield f"{attribute(field, 'label') or attribute(field, 'name')}: {value}"


_Levels = dict[str, dict[int, Any]]  # elements that style the levels of a list, by its style


def _levels(package: Package, tree: Any) -> _Levels:
    """Levels of the styles of lists by name, and of headings."""
    styles = [*tree.iter("list-style"), *package.tree("styles.xml").iter("list-style")]
    styles += package.tree("styles.xml").iter("outline-style")
    return {
        attribute(style, "name") if style.tag == "list-style" else _HEADINGS: {
            int(attribute(level, "level", "0")): level
            for level in style
            if level.tag in ("list-level-style-number", "outline-level-style")
        }
        for style in reversed(styles)
    }


def _number(levels: dict[int, Any], counts: tuple[int, ...]) -> str:
    """What stands before an item, by the counts of its level and those above."""
    level = levels.get(len(counts))
    if level is None or not attribute(level, "num-format"):
        return ""
    shown = int(attribute(level, "display-levels", "1"))
    parts = [
        spelled(count, attribute(levels[place], "num-format"))
        for place, count in enumerate(counts, start=1)
        if place > len(counts) - shown and place in levels
    ]
    text = ".".join(filter(None, parts))
    return f"{attribute(level, 'num-prefix')}{text}{attribute(level, 'num-suffix')}".strip()


class _OpenFlow:
    """Reader of paragraphs, tables and what is drawn between them."""

    def __init__(
        self, package: Package, *, most: int = WHOLE_CHARS, levels: _Levels | None = None
    ) -> None:
        self._package, self._most, self._levels = package, most, levels or {}
        self._pending: list[str] = []
        self._headings: tuple[int, ...] = ()  # numbers of the present heading and those above
        self._item: tuple[str, tuple[int, ...]] = ("", ())  # style and numbers of the present one
        self._mark = ""  # of the present item, until its first paragraph
        self._last: dict[tuple[str, int], int] = {}  # number by style and level, to go on

    def blocks(self, parent: Any) -> Iterator[str]:
        for element in parent:
            if element.tag in ("p", "h"):
                level = int(attribute(element, "outline-level", "1")) if element.tag == "h" else 0
                number = self._heading(element, level) if level else self._mark
                self._mark = ""
                if text := self._inline(element).strip():
                    yield " ".join(filter(None, ("#" * level * (level < 7), number, text)))
            elif element.tag == "list":
                yield from self._list(element)
            elif element.tag == "table":
                if text := table_text(self._rows(element), heads=_heads(element), most=self._most):
                    yield text
                yield from self._waiting()
                yield from self.blocks(element.iterfind("shapes"))
            elif element.tag == "notes":
                if text := "\n".join(self.blocks(element)):
                    yield f"\nNotes: {text}"
            elif element.tag == "object":
                self._embedded(element)
            elif element.tag not in _HIDDEN:
                yield from self.blocks(element)
            yield from self._waiting()

    def _waiting(self) -> list[str]:
        waiting, self._pending = self._pending, []
        return waiting

    def _heading(self, element: Any, level: int) -> str:
        if self._mark or attribute(element, "is-list-header") == "true":
            return self._mark
        above = (*self._headings, *[0] * level)[:level]
        self._headings = (*above[:-1], above[-1] + 1)
        return _number(self._levels.get(_HEADINGS, {}), self._headings)

    def _list(self, element: Any) -> Iterator[str]:
        outer, self._mark = self._item, ""
        style = attribute(element, "style-name") or outer[0]
        levels, depth = self._levels.get(style, {}), len(outer[1]) + 1
        first = levels.get(depth)
        count = int(attribute(first, "start-value", "1")) - 1 if first is not None else 0
        if "true" in attribute(element, "continue-numbering") or attribute(
            element, "continue-list"
        ):
            count = self._last.get((style, depth), count)
        for item in element:
            if (
                item.tag == "list-item"
                and next(iter(item.iterchildren("p", "h", "list")), item).tag != "list"
            ):
                count = int(attribute(item, "start-value") or count + 1)
                self._mark = _number(levels, (*outer[1], count))
            self._item = (style, (*outer[1], count))
            yield from self.blocks([item])
        self._last[style, depth] = count
        self._item = outer

    def _inline(self, element: Any) -> str:
        parts = [element.text or ""]
        for child in element:
            if child.tag == "s":
                parts.append(" " * min(int(attribute(child, "c", "1")), _REPEATED))
            elif child.tag in ("tab", "line-break"):
                parts.append("\t" if child.tag == "tab" else "\n")
            elif child.tag == "annotation":
                self._remark("Comment", child, child.findtext("creator") or "")
            elif child.tag == "note":
                self._remark("Footnote", child.find("note-body"), "")
            elif child.tag == "object":
                self._embedded(child)
            elif child.tag in ("table", "text-box"):
                parts.append("\n".join(["", *self.blocks([child]), ""]))
            elif child.tag not in (*_HIDDEN, "ruby-text", "annotation-end"):
                parts.append(self._inline(child))
            parts.append(child.tail or "")
        # Line breaks of the XML are spaces; those of the text are written as elements.
        return "".join(parts)

    def _remark(self, name: str, element: Any, author: str) -> None:
        text = " ".join(_OpenFlow(self._package).blocks(element)) if element is not None else ""
        if text:
            self._pending.append(f"{name}{f' by {author}' if author else ''}: {text}")

    def _embedded(self, element: Any) -> None:
        """Put the chart or equation in another part of the file behind the present block."""
        name = attribute(element, "href").removeprefix("./")
        tree = self._package.tree(f"{name}/content.xml") if name else element
        math = tree if tree.tag == "math" else tree.find(".//math")
        if math is not None:
            text = math.findtext(".//annotation") or " ".join("".join(math.itertext()).split())
        else:
            text = "\n".join(_OpenFlow(self._package).blocks(tree.iterfind("body/*/*")))
        if text and self._package is not None:
            self._pending.append(text)

    def _rows(self, table: Any) -> Iterator[Row]:
        above: dict[
            int, tuple[int, str]
        ] = {}  # column: rows that the cell still reaches down, its text
        for element in _rows_of(table):
            row = self._row(element, above)
            times = int(attribute(element, "number-rows-repeated", "1"))
            yield from repeat(row, min(times, _REPEATED if any(row) else 1))

    def _row(self, element: Any, above: dict[int, tuple[int, str]]) -> Row:
        row: list[str | None] = []
        for cell in element:
            if cell.tag not in ("table-cell", "covered-table-cell") or len(row) > _COLUMNS:
                continue
            start = len(row)
            times = min(int(attribute(cell, "number-columns-repeated", "1")), _COLUMNS)
            if cell.tag == "covered-table-cell":
                for place in range(start, start + times):
                    left, text = above.pop(place, (0, ""))
                    if left > 1:
                        above[place] = (left - 1, text)
                    row.append(Cell(text, below=True) if left else None)
                continue
            for note in cell.iterfind("annotation"):
                self._remark("Comment", note, note.findtext("creator") or "")
            text = " ".join(self._texts(cell))
            down = int(attribute(cell, "number-rows-spanned", "1")) - 1
            if down > 0:
                above[start] = (down, text)
            row += [text] * times
        while row and row[-1] == "":
            row.pop()
        return row

    def _texts(self, cell: Any) -> list[str]:
        kept, self._pending = self._pending, []
        lines = list(self.blocks(e for e in cell if e.tag != "annotation"))
        self._pending = kept
        return lines


def _rows_of(table: Any) -> Iterator[Any]:
    for element in table:
        if element.tag == "table-row":
            yield element
        elif element.tag in ("table-header-rows", "table-row-group", "table-rows"):
            yield from _rows_of(element)


def _heads(table: Any) -> int:
    return len(table.findall("table-header-rows/table-row"))
