"""Readers that `documents.py` compares, in a process of their own that reads file after file.

python benchmarks/_documents_readers.py READER: paths on standard input, JSON lines back.
"""

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


def with_hanol(path: Path) -> list[str]:
    from hanol.retrieval import read_document

    return [page.text for page in read_document(path).pages]


def with_pypdf(path: Path) -> list[str]:
    import pypdf

    return [page.extract_text() for page in pypdf.PdfReader(path, strict=False).pages]


def with_pypdfium2(path: Path) -> list[str]:
    import pypdfium2

    with pypdfium2.PdfDocument(path) as document:
        return [page.get_textpage().get_text_bounded() for page in document]


def with_docx(path: Path) -> list[str]:
    import docx

    found = docx.Document(str(path))
    lines = [paragraph.text for paragraph in found.paragraphs]
    rows = (row for table in found.tables for row in table.rows)
    return ["\n".join([*lines, *(" | ".join(cell.text for cell in row.cells) for row in rows)])]


def with_pptx(path: Path) -> list[str]:
    import pptx

    return [
        "\n".join(shape.text_frame.text for shape in slide.shapes if shape.has_text_frame)
        for slide in pptx.Presentation(str(path)).slides
    ]


def with_openpyxl(path: Path) -> list[str]:
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    return [_lines(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]


def with_calamine(path: Path) -> list[str]:
    import python_calamine

    book = python_calamine.CalamineWorkbook.from_path(str(path))
    return [_lines(book.get_sheet_by_name(name).to_python()) for name in book.sheet_names]


def _lines(rows: object) -> str:
    return "\n".join(
        " | ".join(str(cell) for cell in row if cell not in (None, "")) for row in rows
    )  # type: ignore[attr-defined]


def with_markitdown(path: Path) -> list[str]:
    from markitdown import MarkItDown

    return [MarkItDown().convert(str(path)).text_content]


def with_kreuzberg(path: Path) -> list[str]:
    import kreuzberg

    return [kreuzberg.extract_file_sync(str(path)).content]


def with_trafilatura(path: Path) -> list[str]:
    import trafilatura

    return [trafilatura.extract(path.read_bytes(), favor_recall=True) or ""]


def with_readability(path: Path) -> list[str]:
    import readability
    from lxml import html

    page = readability.Document(path.read_bytes()).summary()
    return ["\n".join(html.fromstring(page).itertext())]


def with_resiliparse(path: Path) -> list[str]:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    data = path.read_bytes()
    return [extract_plain_text(bytes_to_str(data, detect_encoding(data)), main_content=True)]


def with_email(path: Path) -> list[str]:
    import email
    import email.policy

    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    body = mail.get_body(("plain", "html"))
    return [f"{mail['subject']}\n{body.get_content() if body is not None else ''}"]


# What reads, the package that does it, the kinds that it reads.
READERS: dict[str, tuple[Callable[[Path], list[str]], str, str]] = {
    "hanol": (with_hanol, "", "pdf html docx pptx xlsx odt ods odp eml"),
    "before": (with_hanol, "", "pdf html docx pptx xlsx"),
    "pypdf": (with_pypdf, "pypdf", "pdf"),
    "pypdfium2": (with_pypdfium2, "pypdfium2", "pdf"),
    "python-docx": (with_docx, "python-docx", "docx"),
    "python-pptx": (with_pptx, "python-pptx", "pptx"),
    "openpyxl": (with_openpyxl, "openpyxl", "xlsx"),
    "calamine": (with_calamine, "python-calamine", "xlsx ods"),
    "markitdown": (with_markitdown, "markitdown", "html docx pptx xlsx"),  # PDFs: pdfminer, slow
    "kreuzberg": (with_kreuzberg, "kreuzberg", "pdf html docx pptx xlsx odt ods eml"),
    "trafilatura": (with_trafilatura, "trafilatura", "html"),
    "readability-lxml": (with_readability, "readability-lxml", "html"),
    "resiliparse": (with_resiliparse, "resiliparse", "html"),
    "standard library": (with_email, "", "eml"),
}  # fmt: skip


def about(package: str) -> dict[str, str | float]:
    """Version, licence, and the megabytes of a package with all that it needs."""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return {}
    names, size = set(_needed(package)), 0.0
    for name in names:
        places = (Path(str(file.locate())) for file in distribution(name).files or [])
        size += sum(place.stat().st_size for place in places if place.exists()) / 1e6
    told = found.metadata
    kinds = [c.split(" :: ")[-1] for c in told.get_all("Classifier", []) if "License ::" in c]
    licence = told["License-Expression"] or (kinds or [(told["License"] or "").split("\n")[0]])[0]
    return {"version": found.version, "licence": licence, "megabytes": size}


def _needed(package: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    try:
        requirements = distribution(package).requires or []
    except PackageNotFoundError:
        return
    yield package
    for line in requirements:
        name = re.match(r"[\w.-]+", line)
        if name and "extra ==" not in line and name[0] not in seen:
            yield from _needed(name[0], seen | {package, name[0]})


def answer(reader: str) -> None:
    """Read the files that are named on standard input and tell what each took."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    read, package, _ = READERS[reader]
    here: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if reader == "hanol":
        from hanol.retrieval.documents._reader import no_processes
        from hanol.retrieval.documents.pdf import _ocr

        here = no_processes()  # as in the readers of `hanol index`: no further one for the file
        _ocr.languages = lambda: ""  # type: ignore[assignment]  # whether or not it is installed
    print(json.dumps(about(package) if package else {"version": ""}), file=out, flush=True)
    with here:
        for line in sys.stdin:
            print(json.dumps(reading(read, Path(line.rstrip("\n")))), file=out, flush=True)


def reading(read: Callable[[Path], list[str]], path: Path) -> dict[str, object]:
    """The pages of a file, or why there are none, with seconds of the processor and memory."""
    found: dict[str, object] = {"pages": [], "error": ""}
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    begin = time.process_time()
    try:
        found["pages"] = read(path)
    except BaseException as err:  # whatever a parser of broken files raises; Rust panics, too
        found["error"] = f"{type(err).__name__}: {err}"
    found["seconds"] = time.process_time() - begin
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    found["megabytes"] = int(peak[1]) / 1024 if peak else 0.0
    return found


if __name__ == "__main__":
    answer(sys.argv[1])
