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
    """Unpack an Office file without storing it, so that no parser meets a zip or entity bomb.

    Args:
        data: The zip archive.
        streamed: Whether the parser reads the XML in pieces, so that only the total size matters.

    Returns:
        Whether a sheet has formulas.

    Raises:
        DocumentError: The file has too many parts, is too large, encrypted, or has a document type
            declaration, which Office never writes and entity bombs need.
    """
    formulas = False
    total = xml = 0
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        parts = package.infolist()
        if len(parts) > _PARTS or sum(part.file_size for part in parts) > _INFLATED:
            raise _too_large()
        for part in parts:
            if part.flag_bits & 1:
                raise DocumentError("is encrypted: save a copy without the password")
            is_xml = part.filename.lower().endswith((".xml", ".rels", ".vml"))
            tail = b""
            with package.open(part) as stream:
                while block := stream.read(2**20):
                    total += len(block)
                    xml += len(block) * is_xml
                    if total > _INFLATED or (xml > _XML and not streamed):
                        raise _too_large()
                    seen = tail + block
                    if is_xml and (b"<!DOCTYPE" in seen or b"<!ENTITY" in seen):
                        raise DocumentError("declares XML entities, which Office never writes")
                    formulas = formulas or b"<f>" in seen or b"<f " in seen
                    tail = block[-16:]
    return formulas


def _too_large() -> DocumentError:
    return DocumentError(
        f"unpacks to more than {_INFLATED >> 20} MB (or {_XML >> 20} MB of text markup): "
        "take the pictures out or split it"
    )


def read_docx(data: bytes) -> tuple[str, str]:
    """Title and text of a Word file: headers, body in its order, notes, footers.

    Headings are marked as in Markdown. Content controls and text boxes are read; text deleted by
    tracked changes is not.
    """
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
            edges[kind] += _blocks(tree, headings)
    body = list(_blocks(document.element.body, headings))
    # Each section of the file repeats the same header.
    lines = [*dict.fromkeys(edges["header"]), *body, *edges["footnotes"], *edges["endnotes"]]
    lines += dict.fromkeys(edges["footer"])
    title = (document.core_properties.title or "").strip()
    first = next((line for line in body if line.startswith("# ")), "")
    return title or first.lstrip("# "), "\n\n".join(lines)


def _blocks(parent: Any, headings: dict[str, int]) -> Iterator[str]:
    """The paragraphs and tables of an element, in order."""
    for element in parent:
        if element.tag == f"{_W}p":
            if text := _paragraph(element).strip():
                style = element.find(f"{_W}pPr/{_W}pStyle")
                level = headings.get(style.get(f"{_W}val"), 0) if style is not None else 0
                yield f"{'#' * level} {text}" if level else text
        elif element.tag == f"{_W}tbl":
            if text := table_text(_word_rows(element)):
                yield text
        elif isinstance(element.tag, str) and element.tag != f"{_W}del":
            yield from _blocks(element, headings)


def _word_rows(table: Any) -> Iterator[Row]:
    for row in _inside(table, f"{_W}tr"):
        yield [" ".join(_blocks(cell, {})) for cell in _inside(row, f"{_W}tc")]


def _inside(parent: Any, tag: str) -> Iterator[Any]:
    """Descendants with a tag, except those in nested tables."""
    for element in parent:
        if element.tag == tag:
            yield element
        elif element.tag != f"{_W}tbl":
            yield from _inside(element, tag)


def _paragraph(paragraph: Any) -> str:
    parts = []
    for element in paragraph.iter():
        if element.tag == f"{_W}t" and not _is_fallback(element, paragraph):
            parts.append(element.text or "")
        elif element.tag in (f"{_W}tab", f"{_W}br", f"{_W}cr"):
            parts.append("\t" if element.tag == f"{_W}tab" else "\n")
        elif element.tag == f"{_W}p" and element is not paragraph:
            parts.append("\n")  # a paragraph of a text box
    return "".join(parts)


def _is_fallback(element: Any, top: Any) -> bool:
    """Whether an element is in the copy of a text box for old programs."""
    while element is not None and element is not top:
        if element.tag == _FALLBACK:
            return True
        element = element.getparent()
    return False


def read_pptx(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each slide: its shapes with tables and groups, then the notes."""
    check_package(data, streamed=False)
    pptx = require("pptx", extra="documents", feature="Reading PowerPoint files")
    presentation = pptx.Presentation(io.BytesIO(data))
    pages = []
    for slide in presentation.slides:
        lines = list(_drawing_lines(slide.element))
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = slide.notes_slide.notes_text_frame.text.strip()
            lines += ["", f"Notes: {notes}"] if notes else []
        pages.append("\n".join(lines))
    title = (presentation.core_properties.title or "").strip()
    if title in ("", "PowerPoint Presentation"):
        title = next((line for page in pages for line in page.splitlines() if line.strip()), "")
    return title, pages


def _drawing_lines(parent: Any) -> Iterator[str]:
    for element in parent:
        if element.tag == f"{_A}p":
            if text := _drawing_text(element):
                yield text
        elif element.tag == f"{_A}tbl":
            rows = (
                [_drawing_text(c) for c in row.iter(f"{_A}tc")] for row in element.iter(f"{_A}tr")
            )
            yield table_text(rows)
        elif element.tag != _FALLBACK:
            yield from _drawing_lines(element)


def _drawing_text(element: Any) -> str:
    parts = (
        (e.text or "") if e.tag == f"{_A}t" else " " for e in element.iter(f"{_A}t", f"{_A}br")
    )
    return "".join(parts).strip()


def read_xlsx(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each sheet, under the sheet's name.

    Formula cells show their stored value, or the formula where there is none, as in files written
    by scripts.
    """
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
