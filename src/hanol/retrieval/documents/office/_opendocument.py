"""Reads OpenDocument files, as LibreOffice writes them: texts, sheets and slides.

Own code: odfpy has not been maintained since 2020, and calamine reads nothing but cells of sheets.
"""

from collections.abc import Iterator
from itertools import compress, repeat
from typing import Any

from hanol.errors import DocumentError
from hanol.retrieval.documents._lists import spelled
from hanol.retrieval.documents._remarks import PICTURES, each_page, hidden, remark
from hanol.retrieval.documents.office._flow import own, picture_text
from hanol.retrieval.documents.office._package import Package, attribute
from hanol.retrieval.documents.tables._cells import Cell, Row
from hanol.retrieval.documents.tables._lines import WHOLE_CHARS, table_text

_HIDDEN = frozenset(
    ("tracked-changes", "forms", "sequence-decls", "settings", "desc", "title", "page-number")
)
_FAMILIES = {
    "p": "paragraph", "h": "paragraph", "span": "text", "table": "table", "page": "drawing-page",
}  # fmt: skip
_UNSEEN = ("collapse", "filter")
_REPEATED = 1000  # rows or columns that repeat one with text
_COLUMNS = 16_384
_HEADINGS = " headings"  # among the names of styles, which have no space in front


def read_opendocument(data: bytes) -> tuple[str, list[str]]:
    """Title and text: a text document as one page with headings, sheets and slides one each."""
    package = Package(data)
    if package.tree("META-INF/manifest.xml").find(".//encryption-data") is not None:
        raise DocumentError("is encrypted: save a copy without the password")
    tree = package.tree("content.xml")
    styles = _Styles(tree, package.tree("styles.xml"))
    pages, first, left = [], "", WHOLE_CHARS
    for body in tree.iterfind("body/*"):
        if body.tag == "spreadsheet":
            for sheet in each_page(body.iterfind("table")):
                text = "\n\n".join(_OpenFlow(package, styles, most=left).blocks([sheet]))
                left = max(left - len(text), 0)
                pages.append(f"# {attribute(sheet, 'name')}\n\n{text}" if text else "")
                if text and styles.hide(sheet):
                    hidden("is a hidden sheet")
        elif body.tag in ("presentation", "drawing"):
            for page in each_page(body.iterfind("page")):
                shapes = sorted(page, key=lambda e: attribute(e, "class") != "title")  # drawn last?
                shapes += styles.behind(page)
                pages.append("\n".join(_OpenFlow(package, styles).blocks(shapes)))
                if styles.hide(page):
                    hidden("is a hidden slide")
                if not pages[-1].strip() and page.find(".//image") is not None:
                    remark("has no text, only pictures, which are not read", PICTURES)
        else:
            lines = list(_OpenFlow(package, styles).blocks(body))
            first = next((line for line in lines if line.startswith("# ")), "")
            edges = [
                line
                for master in styles.masters.values()
                for edge in master.iterchildren("header", "footer")
                for line in _OpenFlow(package, styles).blocks(edge)
            ]
            pages.append("\n\n".join([*dict.fromkeys(edges), *lines, *_filled(body)]))
    if not first and pages and tree.find("body/presentation") is not None:
        first = next((line for line in "\n".join(pages).splitlines() if line.strip()), "")
    return package.title or first.lstrip("# "), pages


def _filled(body: Any) -> Iterator[str]:
    """What was filled into the fields of a form."""
    for field in body.iterfind("forms//*"):
        if value := attribute(field, "current-value") or attribute(field, "value"):
            yield f"{attribute(field, 'label') or attribute(field, 'name')}: {value}"


class _Styles:
    """What the styles of a text, and the common ones, say of lists, hidden parts and slides."""

    def __init__(self, *trees: Any) -> None:
        lists = [style for tree in trees for style in tree.iter("list-style", "outline-style")]
        self.levels: dict[str, dict[int, Any]] = {  # elements by style and level
            attribute(style, "name") if style.tag == "list-style" else _HEADINGS: {
                int(attribute(level, "level", "0")): level
                for level in style
                if level.tag in ("list-level-style-number", "outline-level-style")
            }
            for style in reversed(lists)
        }
        self._set: dict[tuple[str, str], dict[str, str]] = {}  # properties by family and name
        for style in (style for tree in reversed(trees) for style in tree.iter("style")):
            found = {k.rpartition("}")[2]: v for each in style for k, v in each.items()}
            self._set[attribute(style, "family"), attribute(style, "name")] = found
        self.masters = {attribute(e, "name"): e for t in trees for e in t.iter("master-page")}

    def of(self, element: Any) -> dict[str, str]:
        """Properties that the style of an element sets."""
        key = _FAMILIES.get(element.tag, ""), attribute(element, "style-name")
        return self._set.get(key, {})

    def hide(self, element: Any) -> bool:
        """Whether an element is not shown."""
        style = self.of(element)
        return (
            style.get("display") in ("none", "false")
            or style.get("visibility") == "hidden"
            or attribute(element, "display") == "none"
            or attribute(element, "is-hidden") == "true"
        )

    def behind(self, page: Any) -> list[Any]:
        """What a slide shows of its master: all but the places for text."""
        master = self.masters.get(attribute(page, "master-page-name"), ())
        seen = self.of(page).get("background-objects-visible") != "false"
        return [e for e in master if seen and e.tag != "notes" and not attribute(e, "class")]


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

    def __init__(self, package: Package, styles: _Styles, *, most: int = WHOLE_CHARS) -> None:
        self._package, self._most, self._styles = package, most, styles
        self._pending: list[str] = []
        self._headings: tuple[int, ...] = ()  # numbers of the present heading and those above
        self._item: tuple[str, tuple[int, ...]] = ("", ())  # style and numbers of the present one
        self._mark = ""  # of the present item, until its first paragraph
        self._last: dict[tuple[str, int], int] = {}  # number by style and level, to go on

    def blocks(self, parent: Any) -> Iterator[str]:
        for element in parent:
            if element.tag in ("p", "h", "section") and self._styles.hide(element):
                hidden("has hidden text")
            if element.tag in ("p", "h"):
                level = int(attribute(element, "outline-level", "1")) if element.tag == "h" else 0
                number = self._heading(element, level) if level else self._mark
                self._mark = ""
                if text := self._inline(element).strip():
                    yield " ".join(filter(None, ("#" * level * (level < 7), number, text)))
            elif element.tag == "list":
                yield from self._list(element)
            elif element.tag == "table":
                heads = len(element.findall("table-header-rows/table-row"))
                if text := table_text(self._rows(element), heads=heads, most=self._most):
                    yield text
                yield from self._waiting()
                yield from self.blocks(element.iterfind("shapes"))
            elif element.tag == "notes":
                if text := "\n".join(self.blocks(element)):
                    yield f"\nNotes: {text}"
            elif element.tag in ("object", "image"):
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
        return _number(self._styles.levels.get(_HEADINGS, {}), self._headings)

    def _list(self, element: Any) -> Iterator[str]:
        outer, self._mark = self._item, ""
        style = attribute(element, "style-name") or outer[0]
        levels, depth = self._styles.levels.get(style, {}), len(outer[1]) + 1
        first = levels.get(depth)
        count = int(attribute(first, "start-value", "1")) - 1 if first is not None else 0
        goes_on = "true" in attribute(element, "continue-numbering")
        if goes_on or attribute(element, "continue-list"):
            count = self._last.get((style, depth), count)
        for item in element:
            inner = next(iter(item.iterchildren("p", "h", "list")), item)
            if item.tag == "list-item" and inner.tag != "list":
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
                self._remark("Footnote", child.iterfind("note-body"), "")
            elif child.tag in ("object", "image"):
                self._embedded(child)
            elif child.tag in ("table", "text-box"):
                parts.append("\n".join(["", *self.blocks([child]), ""]))
            elif child.tag not in _HIDDEN and child.tag != "ruby-text":
                parts.append(self._inline(child))
                if parts[-1].strip() and self._styles.hide(child):
                    hidden("has hidden text")
            parts.append(child.tail or "")
        # Line breaks of the XML are spaces; those of the text are written as elements.
        return "".join(parts)

    def _remark(self, name: str, element: Any, author: str) -> None:
        if text := " ".join(_OpenFlow(self._package, self._styles).blocks(element)):
            self._pending.append(f"{name}{f' by {author}' if author else ''}: {text}")

    def _embedded(self, element: Any) -> None:
        """Put the chart, equation or drawn picture in another part behind the present block."""
        name = attribute(element, "href").removeprefix("./")
        if element.tag == "image":
            self._pending += filter(None, [picture_text(self._package, name)])
            return
        tree = self._package.tree(f"{name}/content.xml") if name else element
        math = tree if tree.tag == "math" else tree.find(".//math")
        if math is not None:
            text = math.findtext(".//annotation") or " ".join("".join(math.itertext()).split())
        else:
            text = "\n".join(
                _OpenFlow(self._package, self._styles).blocks(tree.iterfind("body/*/*"))
            )
        if text:
            self._pending.append(text)

    def _rows(self, table: Any) -> Iterator[Row]:
        above: dict[int, tuple[int, str]] = {}  # by column: rows that a cell still reaches down
        unseen: list[bool] = []
        for column in table.iter("table-column"):
            times = min(int(attribute(column, "number-columns-repeated", "1")), _COLUMNS)
            unseen += [attribute(column, "visibility") in _UNSEEN] * times
        for element in own(table, "table-row"):
            row = self._row(element, above)
            seen = attribute(element, "visibility") not in _UNSEEN
            if any(compress(row, unseen) if seen else row) and table.getparent().tag != "chart":
                hidden("has hidden rows or columns")
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
            kept, self._pending = self._pending, []
            text = " ".join(self.blocks(e for e in cell if e.tag != "annotation"))
            self._pending = kept
            down = int(attribute(cell, "number-rows-spanned", "1")) - 1
            if down > 0:
                above[start] = (down, text)
            row += [text] * times
        while row and row[-1] == "":
            row.pop()
        return row
