"""Reads Excel files row by row, as they are shown."""

import re
from collections.abc import Iterator
from functools import lru_cache, reduce
from typing import Any

from hanol.errors import require
from hanol.retrieval.documents._markup import ONLY_THIS_FILE, natural
from hanol.retrieval.documents._remarks import each_page, hidden
from hanol.retrieval.documents.office._flow import Flow
from hanol.retrieval.documents.office._numbers import BUILT_IN, shown
from hanol.retrieval.documents.office._package import Package, attribute, broken, is_on, relation
from hanol.retrieval.documents.tables._cells import Cell, Row
from hanol.retrieval.documents.tables._lines import WHOLE_CHARS, table_text

_ROWS = 1_048_576  # Excel's own limit; a broken row number would go on for ever
_COLUMNS = 16_384
_CELLS = 5_000_000  # per sheet, including cells that the file leaves out
_MERGED = 20_000  # merged ranges that are heeded
_OPEN = 500  # of these, how many may reach over the same row
_MERGE = re.compile(rb"""<(?:\w+:)?mergeCell\s[^>]*?ref\s*=\s*["']([A-Z]+)(\d+):([A-Z]+)(\d+)""")
# Codes of headers and footers: fonts, sizes, colours, and what only printing knows.
_CODES = re.compile(r'&(?:"[^"]*"|K(?:[0-9A-Fa-f]{6}|\d\d[+-]\d{3})|\d+|[PNDTGBIUESXYHO])')
_PARTS = re.compile(r"&[LCR]")
_TAGS = (
    "col", "row", "oddHeader", "evenHeader", "firstHeader", "oddFooter", "evenFooter",
    "firstFooter",
)  # fmt: skip


def read_xlsx(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each sheet under its name: header, table, comments, boxes, charts, footer.

    Values are written as their number formats show them; a formula shows where none is stored.
    """
    package = Package(data, streamed=True)
    book = package.tree(package.main)
    parts = package.related(package.main)
    epoch = any(is_on(e, "@date1904") for e in book.iterfind("workbookPr"))
    lists = package.related(package.main, "sharedStrings")
    texts = [_rich_text(item) for part in lists for item in _stream(package, part, "si")]
    styles = _styles(package)
    pages, left = [], WHOLE_CHARS
    for sheet in each_page(book.iterfind("sheets/sheet")):
        part = parts.get(relation(sheet), "")
        edges: dict[tuple[str, str], None] = {}
        rows = _rows(package, part, texts, styles, epoch, edges)
        found = [table_text(rows, most=left), *_around(package, part)]
        left = max(left - len(found[0]), 0)
        heads = [text for kind, text in edges if kind == "Header"]
        feet = [text for kind, text in edges if kind == "Footer"]
        text = "\n\n".join(filter(None, [*heads, *found, *feet]))
        if text and attribute(sheet, "state", "visible") != "visible":
            hidden("is a hidden sheet")
        pages.append(f"# {attribute(sheet, 'name')}\n\n{text}" if text else "")
    return package.title, pages


def _stream(package: Package, part: str, *tags: str) -> Iterator[Any]:
    """Elements of a part with these local names, each emptied after its use."""
    etree = require("lxml.etree", extra="documents", feature="Reading Excel files")
    with package.open(part) as stream:
        local = [f"{{*}}{tag}" for tag in tags]
        parser = etree.iterparse(stream, tag=local, recover=True, **ONLY_THIS_FILE)
        for _, element in parser:
            yield element
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
        if len(parser.error_log):
            broken(part)


def _rich_text(item: Any) -> str:
    """Text of a shared or inline string, without its phonetic readings."""
    parts = []
    for child in item.iterchildren("{*}t", "{*}r"):
        texts = [child] if child.tag[-1] == "t" else child.iterchildren("{*}t")
        parts += [text.text or "" for text in texts]
    return "".join(parts)


def _styles(package: Package) -> list[tuple[str, bool]]:
    """Number format and boldness of each cell style."""
    for part in package.related(package.main, "styles"):
        tree = package.tree(part)
        codes = dict(BUILT_IN)
        for code in tree.iterfind("numFmts/numFmt"):
            codes[natural(code.get("numFmtId"))] = code.get("formatCode", "")
        bold = {at for at, font in enumerate(tree.iterfind("fonts/font")) if is_on(font, "b")}
        return [
            (codes.get(natural(style.get("numFmtId")), ""), natural(style.get("fontId")) in bold)
            for style in tree.iterfind("cellXfs/xf")
        ]
    return []


@lru_cache(maxsize=20_000)
def _column(letters: str) -> int:
    """Place of a column; -1 for none."""
    return reduce(lambda number, letter: number * 26 + ord(letter) - 64, letters, 0) - 1


def _merges(package: Package, part: str) -> dict[int, list[tuple[int, int, int]]]:
    """Merged ranges by first row: first column, last row, last column. They follow the cells."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    tail, count = b"", 0
    with package.open(part) as stream:
        while block := stream.read(2**20):
            seen, last = tail + block, 0
            for match in _MERGE.finditer(seen) if b"mergeCell" in seen else ():
                left, top, right, bottom = (group.decode() for group in match.groups())
                place = (_column(left), int(bottom), min(_column(right), _COLUMNS))
                found.setdefault(int(top), []).append(place)
                last = match.end()
                count += 1
            if count > _MERGED:
                break
            tail = seen[max(last, len(seen) - 300) :]
    return found


def _rows(
    package: Package,
    part: str,
    texts: list[str],
    styles: list[tuple[str, bool]],
    epoch: bool,
    edges: dict[tuple[str, str], None],
) -> Iterator[Row]:
    """The rows of a sheet, an empty one for any number of empty ones; its headers into `edges`."""
    merges = _merges(package, part)
    open_: list[list[Any]] = []  # merged ranges that reach into the row: three numbers and a text
    tables = [package.tree(name) for name in package.related(part, "table")]
    refs = (attribute(t, "ref") for t in tables if attribute(t, "headerRowCount", "1") != "0")
    # of lists with names
    heads = {natural(re.sub(r"\D", "", ref.partition(":")[0])) for ref in refs}
    unseen: list[slice] = []  # columns
    before = cells = 0
    for element in _stream(package, part, *_TAGS):
        name = element.tag.rpartition("}")[2]
        if name == "col":
            if is_on(element, "@hidden"):
                unseen.append(slice(natural(element.get("min")) - 1, natural(element.get("max"))))
            continue
        if name != "row":
            lines = _PARTS.sub("\n", _CODES.sub("", (element.text or "").replace("&&", "＆")))
            text = " ".join(lines.replace("＆", "&").split())
            if text:
                edges[re.sub("odd|even|first", "", name), text] = None
            continue
        number = natural(element.get("r")) or before + 1
        if number > before + 1:
            yield []
        before = number
        row = _cells(element, texts, styles, epoch)
        if any(row if is_on(element, "@hidden") else map(any, (row[s] for s in unseen))):
            hidden("has hidden rows or columns")
        if number in heads:
            row = [Cell(text or "", strong=True) for text in row]
        if merges:
            open_ = [m for m in open_ if m[1] >= number][:_OPEN]
            own = len(open_)
            open_ += [[*place, ""] for place in merges.get(number, ())]
            _merge(row, open_, own)
        cells += len(row)
        if cells > _CELLS or number > _ROWS:
            return
        yield row


def _merge(row: list[str | None], ranges: list[list[Any]], own: int) -> None:
    """Write merged cells into each of their places; the first `own` began in a row above."""
    if own and not any(row):
        return
    for at, (left, _, right, text) in enumerate(ranges):
        row += [""] * (min(right, left + 1000) + 1 - len(row))
        if at >= own:
            first = row[left] or ""
            ranges[at][3] = first
        else:
            row[left] = Cell(text, below=True)
        row[left + 1 : right + 1] = [None] * (min(right + 1, len(row)) - left - 1)


def _cells(
    element: Any, texts: list[str], styles: list[tuple[str, bool]], epoch: bool
) -> list[str | None]:
    row: list[str | None] = []
    for cell in element:
        kind = value = formula = None
        namespace = cell.tag[:-1]
        for child in cell:
            if child.tag == namespace + "v":
                value = child.text
            elif child.tag == namespace + "f":
                formula = child.text
            elif child.tag == namespace + "is":
                value, kind = _rich_text(child), "inlineStr"
        place = _column(cell.get("r", "").rstrip("0123456789")[:4])
        row += [""] * (min(place, _COLUMNS) - len(row))
        kind = kind or cell.get("t", "n")
        code, bold = "", False
        if (style := natural(cell.get("s"))) < len(styles):
            code, bold = styles[style]
        if value is None:
            text = f"={formula.lstrip('=')}" if formula and kind != "str" else ""
        elif kind == "s":
            text = texts[natural(value)] if natural(value) < len(texts) else ""
        elif kind == "n":
            plain = value.isdecimal() and len(value) < 16 and code in ("", "General")
            text = value if plain else shown(value, code, date1904=epoch)
        elif kind == "b":
            text = "TRUE" if value.strip() == "1" else "FALSE"
        elif kind == "d":
            text = value.removesuffix("T00:00:00").replace("T", " ")
        else:
            text = value
        row.append(Cell(text, strong=True) if bold and text else text)
    return row


def _around(package: Package, part: str) -> Iterator[str]:
    """What stands beside the cells of a sheet: comments, text boxes, charts, diagrams."""
    answered = set()  # a thread stands a second time as a comment, for old programs
    people = {
        attribute(person, "id"): attribute(person, "displayName")
        for persons in package.related(package.main, "person")
        for person in package.tree(persons)
    }
    for comments in (*package.related(part, "threadedComment"), *package.related(part, "comments")):
        tree = package.tree(comments)
        authors = {str(at): e.text or "" for at, e in enumerate(tree.iterfind("authors/author"))}
        for comment in tree.iter("comment", "threadedComment"):
            text = " ".join("".join(t.text or "" for t in comment.iter("t", "text")).split())
            person = people.get(attribute(comment, "personId"), "")
            author = authors.get(attribute(comment, "authorId"), person)
            where = attribute(comment, "ref")
            if comment.tag == "threadedComment":
                answered.add(where)
            elif where in answered:
                continue
            if text:
                yield f"Comment on {where}{f' by {author}' if author else ''}: {text}"
    for drawing in package.related(part, "drawing"):
        yield "\n".join(Flow(package, drawing, values=False).blocks(package.tree(drawing)))
