"""Small real files of every kind, made by the libraries that write them."""

import email.message
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from types import ModuleType

import docx
import openpyxl
import pptx
import pypdf
import pytest

from hanol.retrieval.documents._reader import (
    no_processes,
)  # private: as an index that is not isolated does


@pytest.fixture(autouse=True)
def _parse_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """Parse documents in this process, where limits can be lowered, unless a test says "apart"."""
    with nullcontext() if "apart" in request.node.name else no_processes():
        yield


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """The functions of this file."""
    return sys.modules[__name__]


HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"


def pdf(pages: list[list[tuple[int, int, str]]], title: str = "") -> bytes:
    """A PDF whose pages show each text at (x, y) points, in that order, in Helvetica."""
    objects: list[bytes] = []

    def add(body: bytes) -> int:
        objects.append(body)
        return len(objects)

    def stream(data: bytes) -> bytes:
        packed = zlib.compress(data)
        head = f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n".encode()
        return head + packed + b"\nendstream"

    tree = add(b"")  # filled in below, when its children have numbers
    font = add(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids = []
    for page in pages:
        lines = [f"BT /F1 10 Tf {x} {y} Td ({text}) Tj ET".encode("latin-1") for x, y, text in page]
        content = add(stream(b"\n".join(lines)))
        kids.append(
            add(
                f"<< /Type /Page /Parent {tree} 0 R /MediaBox [0 0 612 792] /Contents {content} 0 R"
                f" /Resources << /Font << /F1 {font} 0 R >> >> >>".encode()
            )
        )
    refs = " ".join(f"{kid} 0 R" for kid in kids)
    objects[tree - 1] = f"<< /Type /Pages /Kids [{refs}] /Count {len(kids)} >>".encode()
    root = add(f"<< /Type /Catalog /Pages {tree} 0 R >>".encode())
    info = add(f"<< /Title ({title}) >>".encode())
    return assembled(objects, root, info)


def assembled(objects: list[bytes], root: int = 1, info: int = 0) -> bytes:
    """A PDF of these objects, numbered from 1."""
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    about = f" /Info {info} 0 R" if info else ""
    out += (
        f"trailer\n<< /Size {len(objects) + 1} /Root {root} 0 R{about} >>\n"
        f"startxref\n{table}\n%%EOF\n"
    ).encode()
    return bytes(out)


def drawn_pdf(
    *contents: bytes,
    font: bytes = HELVETICA,
    more: tuple[bytes, ...] = (),
    page: bytes = b"",
    catalog: bytes = b"",
) -> bytes:
    """A PDF of one page for each content stream, with the font F1 as object 3 and `more` from 4."""
    first = 4 + len(more)
    kids = b" ".join(b"%d 0 R" % (first + 2 * i) for i in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R %b >>" % catalog,
        b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(contents)),
        font,
        *more,
    ]
    for i, content in enumerate(contents):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> %b >>" % (first + 2 * i + 1, page)
        )
        objects.append(b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content))
    return assembled(objects)


def encrypted_pdf(data: bytes, user: str, owner: str, algorithm: str = "RC4-128") -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    writer.encrypt(user, owner, algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "Yearly report"
    document.sections[0].header.paragraphs[0].text = "Confidential header"
    document.sections[0].footer.paragraphs[0].text = "Company footer"
    document.add_heading("Harvest", level=1)
    document.add_paragraph("Before the table: 사과 수확량.")
    table = document.add_table(rows=3, cols=2)
    for row, cells in zip(
        table.rows, [("fruit", "tons"), ("apple", "12"), ("pear", "7")], strict=True
    ):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    table.cell(2, 1).add_table(rows=1, cols=1).cell(0, 0).text = "nested note"
    document.add_paragraph("After the table.")
    return saved(document)


def slides() -> bytes:
    presentation = pptx.Presentation()
    for number, title in enumerate(("Opening", "Results"), 1):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = f"Body of slide {number}"
        if number == 2:
            frame = slide.shapes.add_table(2, 2, 0, 0, 99, 99)
            for at, text in enumerate(("city", "people", "Seoul", "9.4 million")):
                frame.table.cell(at // 2, at % 2).text = text
            group = slide.shapes.add_group_shape()
            group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "inside a group"
            slide.notes_slide.notes_text_frame.text = "Say this slowly: 천천히."
    return saved(presentation)


def workbook(sheets: dict[str, list[list[object]]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    return saved(book)


OPENDOCUMENT = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "table", "text", "form")
)


def opendocument(kind: str, body: str, **parts: str) -> bytes:
    """A file of LibreOffice ("text", "spreadsheet", "presentation" or a template of these)."""
    inner = kind.partition("-")[0]
    content = (
        f'<office:document-content {OPENDOCUMENT} xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" '
        'xmlns:xlink="http://www.w3.org/1999/xlink"><office:body>'
        f"<office:{inner}>{body}</office:{inner}></office:body></office:document-content>"
    )
    more = {f"{name}/content.xml": text.encode() for name, text in parts.items()}
    mime = f"application/vnd.oasis.opendocument.{kind}".encode()
    return zipped({"mimetype": mime, "content.xml": content.encode()} | more)


def notebook() -> bytes:
    def code(source: list[str], *outputs: dict[str, object]) -> dict[str, object]:
        return {"cell_type": "code", "source": source, "outputs": list(outputs)}

    cells = [
        {"cell_type": "markdown", "source": ["# Study of tides\n", "Prose."]},
        code(["x = 6 * 7\n", "x"], {"output_type": "execute_result", "data": {"text/plain": "42"}}),
        code(["print('hi')"], {"output_type": "stream", "name": "stdout", "text": ["printed\n"]}),
        code(["1/0"], {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "by zero"}),
        code(["plot()"], {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}}),
    ]
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}).encode()


def mail() -> bytes:
    message = email.message.EmailMessage()
    message["From"] = "Kim <kim@example.org>"
    message["To"] = "lee@example.org"
    message["Date"] = "Mon, 3 Nov 2025 10:00:00 +0900"
    message["Subject"] = "회의 일정"
    message.set_content("We meet on Tuesday.\n")
    message.add_alternative("<p>We meet on <b>Tuesday</b>.</p>", subtype="html")
    message.add_attachment("a,b\n1,2\n", subtype="csv", filename="numbers.csv")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="plan.png")
    return message.as_bytes()


def saved(document: object) -> bytes:
    out = io.BytesIO()
    document.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def zipped(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in parts.items():
            package.writestr(name, data)
    return out.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        return {name: package.read(name) for name in package.namelist()}


PAGE = """<!doctype html><html><head><title>Tides &amp; moons</title><style>p {color: red}</style>
</head><body><nav><a href="/">Home</a> <a href="/about">About us</a></nav><article><h1>Tides</h1>
<p>The tide follows the moon with a delay that depends on the coast and on the depth of the sea.</p>
<p>달의 인력이 바닷물을 끌어당겨 밀물과 썰물이 생긴다. 그 높이는 지역에 따라 다르다.</p>
<table><tr><th>port</th><th>metres</th></tr><tr><td>Incheon</td><td>9.27</td></tr></table>
</article><script>var hidden = "not text";</script></body></html>"""


def all_kinds() -> dict[str, bytes]:
    """One intact file of each kind, by a name that fits."""
    page = [(72, 700, "The first page speaks of tides."), (72, 680, "It has two lines.")]
    return {
        "a.txt": "A plain text.\n\n둘째 문단.\n".encode(),
        "a.md": b"# Heading\n\nText with *stars*.\n",
        "a.html": PAGE.encode(),
        "a.pdf": pdf([page, [(72, 700, "The second page.")]], title="On tides"),
        "a.docx": word(),
        "a.pptx": slides(),
        "a.xlsx": workbook({"One": [["name", "n"], ["x", 1]], "Two": [["only"]]}),
        "a.odt": opendocument("text", "<text:p>A text of LibreOffice.</text:p>"),
        "a.ods": opendocument(
            "spreadsheet",
            '<table:table table:name="One"><table:table-row><table:table-cell><text:p>only'
            "</text:p></table:table-cell></table:table-row></table:table>",
        ),
        "a.odp": opendocument("presentation", "<draw:page><text:p>A slide</text:p></draw:page>"),
        "a.csv": b"city,people\nSeoul,9400000\nBusan,3300000\n",
        "a.ipynb": notebook(),
        "a.eml": mail(),
        "a.xml": "<?xml version='1.0'?><list><item name='one'>하나</item></list>".encode(),
        "a.json": b'{"name": "\\ud558\\ub098", "list": [1, 2]}',
        "a.jsonl": b'{"n": 1}\n{"n": 2}\n',
    }
