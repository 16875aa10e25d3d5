"""Reads Word, PowerPoint and Excel files."""

import io
import re
import zipfile
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any

from hanol.errors import DocumentError, require
from hanol.retrieval.documents._tables import Row, table_text

_PARTS = 20_000  # files inside the package
_INFLATED = 256 * 2**20  # bytes of all parts unpacked
_XML = 64 * 2**20  # bytes of the XML parts of a docx or pptx, which are held as trees
_ROWS = 1_048_576  # Excel's own limit; a broken row number would go on for ever
_CELLS = 5_000_000  # per sheet, including cells that the file leaves out
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_HEADING = re.compile(r"^heading ([1-6])$", re.IGNORECASE)


def check_package(data: bytes, *, streamed: bool) -> bool:
    """Refuse zip and entity bombs before a parser meets them; whether the file has formulas."""
    formulas = False
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        parts = package.infolist()
        texts = [p for p in parts if p.filename.lower().endswith((".xml", ".rels", ".vml"))]
        # zipfile gives no more bytes of a part than its entry says.
        total, xml = (sum(part.file_size for part in some) for some in (parts, texts))
        if len(parts) > _PARTS or total > _INFLATED or (xml > _XML and not streamed):
            raise DocumentError(
                f"unpacks to more than {_INFLATED >> 20} MB (or {_XML >> 20} MB of text markup): "
                "take the pictures out or split it"
            )
        if any(part.flag_bits & 1 for part in parts):
            raise DocumentError("is encrypted: save a copy without the password")
        for part in texts:
            tail = b""
            with package.open(part) as stream:
                while block := stream.read(2**20):
                    seen = tail + block
                    if b"<!DOCTYPE" in seen or b"<!ENTITY" in seen:
                        raise DocumentError("declares XML entities, which Office never writes")
                    formulas = formulas or b"<f>" in seen or b"<f " in seen
                    tail = block[-16:]
    return formulas


def read_docx(data: bytes) -> tuple[str, str]:
    """Title and text of a Word file: headers, body with headings as in Markdown, notes, footers."""
    check_package(data, streamed=False)
    docx = require("docx", extra="documents", feature="Reading Word files")
    document = docx.Document(io.BytesIO(data))
    headings = {
        style.style_id: int(found.group(1))
        for style in document.styles
        if (found := _HEADING.match(style.name or ""))
    }
    edges: dict[str, list[str]] = {"header": [], "footer": [], "footnotes": [], "endnotes": []}
    for relation in document.part.rels.values():
        kind = relation.reltype.rpartition("/")[2]
        if kind in edges and not relation.is_external:
            tree = docx.oxml.parse_xml(relation.target_part.blob)
            edges[kind] += _blocks(tree, _W, headings)
    body = list(_blocks(document.element.body, _W, headings))
    # Each section of the file repeats the same header.
    lines = [*dict.fromkeys(edges["header"]), *body, *edges["footnotes"], *edges["endnotes"]]
    lines += dict.fromkeys(edges["footer"])
    title = (document.core_properties.title or "").strip()
    first = next((line for line in body if line.startswith("# ")), "")
    return title or first.lstrip("# "), "\n\n".join(lines)


def _blocks(parent: Any, ns: str, headings: dict[str, int]) -> Iterator[str]:
    """The paragraphs and tables of an element of Word or of a drawing, in order, none deleted."""
    for element in parent:
        if element.tag == f"{ns}p":
            if text := _paragraph(element, ns).strip():
                style = element.find(f"{ns}pPr/{ns}pStyle")
                level = headings.get(style.get(f"{ns}val"), 0) if style is not None else 0
                yield f"{'#' * level} {text}" if level else text
        elif element.tag == f"{ns}tbl":
            if text := table_text(_rows(element, ns)):
                yield text
        elif isinstance(element.tag, str) and element.tag not in (f"{ns}del", _FALLBACK):
            yield from _blocks(element, ns, headings)


def _rows(table: Any, ns: str) -> Iterator[Row]:
    def own(parent: Any, tag: str) -> Iterator[Any]:
        return (e for e in _descendants(parent, without=f"{ns}tbl") if e.tag == ns + tag)

    for row in own(table, "tr"):
        yield [" ".join(_blocks(cell, ns, {})) for cell in own(row, "tc")]


def _paragraph(paragraph: Any, ns: str) -> str:
    end = "\n" if ns == _W else " "
    signs = {f"{ns}tab": "\t", f"{ns}br": end, f"{ns}cr": end, f"{ns}p": end}  # p in a text box
    return "".join(
        (element.text or "") if element.tag == f"{ns}t" else signs.get(element.tag, "")
        # Text boxes are there twice, the second time for old programs.
        for element in _descendants(paragraph, without=_FALLBACK)
    )


def _descendants(parent: Any, *, without: str) -> Iterator[Any]:
    """Descendants in order, without what is inside of the elements with a tag."""
    for element in parent:
        yield element
        if element.tag != without:
            yield from _descendants(element, without=without)


def read_pptx(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each slide: its shapes with tables and groups, then the notes."""
    check_package(data, streamed=False)
    pptx = require("pptx", extra="documents", feature="Reading PowerPoint files")
    presentation = pptx.Presentation(io.BytesIO(data))
    pages = []
    for slide in presentation.slides:
        lines = list(_blocks(slide.element, _A, {}))
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = slide.notes_slide.notes_text_frame.text.strip()
            lines += ["", f"Notes: {notes}"] if notes else []
        pages.append("\n".join(lines))
    title = (presentation.core_properties.title or "").strip()
    if title in ("", "PowerPoint Presentation"):
        title = next((line for page in pages for line in page.splitlines() if line.strip()), "")
    return title, pages


def read_xlsx(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each sheet under its name; formulas show where no value is stored."""
    formulas = check_package(data, streamed=True)
    openpyxl = require("openpyxl", extra="documents", feature="Reading Excel files")

    def load(values: bool) -> Any:
        return openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=values)

    values, sources = load(True), load(False) if formulas else None
    pages = []
    for sheet in values.worksheets:
        rows = _sheet_rows(sheet)
        if sources is not None:
            pairs = zip(rows, _sheet_rows(sources[sheet.title]), strict=False)
            rows = ([a or b for a, b in zip_longest(*pair, fillvalue="")] for pair in pairs)
        text = table_text(rows)
        pages.append(f"# {sheet.title}\n\n{text}" if text else "")
    return (values.properties.title or "").strip(), pages


def _sheet_rows(sheet: Any) -> Iterator[Row]:
    sheet.reset_dimensions()  # the size written in the file is often wrong
    cells = 0
    for row in islice(sheet.iter_rows(values_only=True), _ROWS):
        cells += len(row)
        if cells > _CELLS:
            return
        yield ["" if cell is None else str(cell) for cell in row]
