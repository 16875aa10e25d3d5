"""Reads files of many kinds as titled pages of clean text."""

import io
import logging
import re
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from hanol.errors import DocumentError, HanolError, MissingExtraError, require
from hanol.files import open_regular
from hanol.retrieval.documents._charset import clean, decode
from hanol.retrieval.documents._mail import read_eml
from hanol.retrieval.documents._markup import page_links, read_html, read_xml
from hanol.retrieval.documents._reader import SECONDS, TOO_LARGE, ask
from hanol.retrieval.documents._remarks import Grid, Remark, listening
from hanol.retrieval.documents._split import split_passages
from hanol.retrieval.documents._structured import heading, read_json, read_jsonl, read_notebook
from hanol.retrieval.documents.office._opendocument import read_opendocument
from hanol.retrieval.documents.office._sheets import read_xlsx
from hanol.retrieval.documents.office._slides import read_pptx
from hanol.retrieval.documents.office._word import read_docx
from hanol.retrieval.documents.tables._lines import read_csv

MAX_BYTES = 256 * 2**20  # of a file with pictures; text takes about 10 times its size in memory
MAX_TEXT = 32 * 2**20  # bytes of a text file, or characters of any document
_TITLE = 300  # characters

KINDS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys((".txt", ".text"), "txt")
    | dict.fromkeys((".md", ".markdown", ".rst"), "md")
    | dict.fromkeys((".html", ".htm", ".xhtml"), "html")
    | dict.fromkeys((".docx", ".docm", ".dotx", ".dotm"), "docx")
    | dict.fromkeys((".pptx", ".pptm", ".potx", ".potm", ".ppsx", ".ppsm"), "pptx")
    | dict.fromkeys((".xlsx", ".xlsm", ".xltx", ".xltm"), "xlsx")
    | {".odt": "odt", ".ott": "odt", ".ods": "ods", ".ots": "ods", ".odp": "odp", ".otp": "odp"}
    | {".pdf": "pdf", ".csv": "csv"}
    | {".tsv": "csv", ".ipynb": "ipynb", ".eml": "eml", ".mbox": "eml", ".xml": "xml"}
    | {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
)
"""Kind of a document by lower-case suffix; `parse_document` also looks at its content."""

_BINARY = frozenset({"pdf", "docx", "pptx", "xlsx", "odt", "ods", "odp"})
_PDF_OBJECT = re.compile(rb"\b\d+ \d+ obj\b")
_FOLDERS = {"word": "docx", "ppt": "pptx", "xl": "xlsx"}
_OPENDOCUMENT = {"text": "odt", "spreadsheet": "ods", "presentation": "odp", "graphics": "odp"}
_FOREIGN = {  # first bytes of unsupported files, and what to do
    b"\xd0\xcf\x11\xe0": "is an Office file of before 2007, a Hangul file (hwp), or protected by a "
    "password: save it as docx, pptx, xlsx or PDF without a password",
    b"{\\rtf": "is rich text: save it as docx",
    b"PK\x03\x04": "is a zip archive: unpack it, or save it as docx, pptx or xlsx from its program",
    b"\x1f\x8b": "is compressed by gzip: unpack it",
    b"7z\xbc\xaf": "is a 7z archive: unpack it",
    b"SQLite format 3": "is a database: export its tables as csv",
} | dict.fromkeys(
    (b"\x89PNG", b"\xff\xd8\xff", b"GIF89a"), "is a picture: run an OCR program over it"
)


@dataclass(frozen=True)
class DocumentTable:
    """A table of a page.

    Args:
        start: First character of its lines in the text of the page.
        end: Last character, exclusive.
        names: Names of its columns; empty where it has none.
        rows: Its cells from left to right as they are written, also of merged cells.
    """

    start: int
    end: int
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Page:
    """A page, slide or sheet, or the whole of a document without pages.

    Args:
        number: Page number from 1, as viewers count; None for kinds without pages.
        text: NFC text with line feeds; empty for a page of pictures only.
        tables: Its tables in order, if they were asked for.
        passages: Spans of its passages, if they were asked for.
    """

    number: int | None
    text: str
    tables: tuple[DocumentTable, ...] = ()
    passages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Document:
    """The text of a file.

    Args:
        title: From its metadata, heading or first line; else the file name without suffix.
        pages: Its pages in order; at least one has text.
        kind: A value of `KINDS`.
        remarks: What could not be read, was guessed or repaired; empty for a sound file.
        links: Addresses that a web page links and the text of the first link to each, if they
            were asked for.
    """

    title: str
    pages: tuple[Page, ...]
    kind: str
    remarks: tuple[Remark, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


_DOCUMENT = TypeAdapter(Document)


def read_document(path: str | Path, *, links: bool = False, tables: bool = False) -> Document:
    """Read a file of a kind in `KINDS`.

    Args:
        path: The file.
        links: Give the article of a web page as Markdown with its links.
        tables: Also give the cells of the tables of each page.

    Raises:
        DocumentError: The file cannot be read; the message says why and what to do.
        MissingExtraError: Its kind needs the extra "documents".
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise DocumentError(f"{path.name or path} {what}: name a file with a document.")
        with open_regular(path) as file:  # it may be another one by now
            data = file.read(MAX_BYTES + 1)
    except DocumentError:
        raise  # it is a ValueError, too
    except OSError as err:
        raise DocumentError(
            f"{path.name} cannot be opened ({err.strerror or err}): give yourself the right to."
        ) from err
    except ValueError as err:  # a zero in the name
        raise DocumentError(f"{path.name!r} is not a valid file name.") from err
    return parse_document(path.name, data, links=links, tables=tables)


def parse_document(
    name: str,
    data: bytes,
    *,
    links: bool = False,
    tables: bool = False,
    passages: bool = False,
    address: str | None = None,
    seconds: float = SECONDS,
) -> Document:
    """Read a document from bytes, in a process that is kept for it and ended if need be.

    The first bytes take precedence over the suffix: a PDF named .txt is read as a PDF, a web page
    saved as .pdf as a web page.

    Args:
        name: File name, for its suffix and for messages.
        data: Content of the file.
        links: As in `read_document`, like `tables`.
        tables: Also give the cells of tables.
        passages: Also split the pages into passages, as an index does.
        address: Address of a web page: also give the addresses that it links.
        seconds: When to give up, at most 300.

    Raises:
        DocumentError: It cannot be read, or not in that time or with 1,280 MB of memory.
        MissingExtraError: Its kind needs the extra "documents".
    """
    options: dict[str, Any] = {"links": links, "tables": tables, "passages": passages}
    options["address"] = address
    return answered(name, ask("parse", parsed, name, options, data=data, seconds=seconds))


def answered(name: str, found: dict[str, Any]) -> Document:
    """What a reader process answered, as a document or as the error that it was."""
    return _DOCUMENT.validate_python(checked(name, found))


def checked(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """What a reader process answered, unless it was an error."""
    if "extra" in found:
        raise MissingExtraError(found["extra"])
    if "refused" in found:
        raise DocumentError(found["refused"])
    if "error" in found:  # of the process
        raise DocumentError(f"{name} {found['error']}.")
    return found


def parsed(name: str, options: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
    """The answer of a reader process to `parse_document`."""
    try:
        return dict(vars(_parse(name, data, **options)))
    except MissingExtraError as err:
        return {"extra": str(err)}
    except HanolError as err:
        return {"refused": str(err)}


def _parse(
    name: str, data: bytes, *, links: bool, tables: bool, passages: bool, address: str | None
) -> Document:
    """`parse_document` in this process."""
    try:
        if not data.strip(b"\0\t\n\r "):
            raise DocumentError("is empty: remove it, or fetch it again")
        kind = _kind(name, data)
        if len(data) > (MAX_BYTES if kind in _BINARY else MAX_TEXT):
            raise DocumentError(
                f"is larger than {MAX_BYTES >> 20} MB ({MAX_TEXT >> 20} MB for text): split it"
            )
        with listening(grids=tables) as told:
            title, pages = _read(kind, data, links)
        pages = [clean(page).strip() for page in pages]
        if not any(pages):
            raise DocumentError("contains no text: remove it, or export it again with its text")
        if sum(map(len, pages)) > MAX_TEXT:
            raise DocumentError(f"contains more than {MAX_TEXT} characters: split it")
        to = page_links(data, address) if kind == "html" and address else ()
        spans = [tuple(split_passages(page)) if passages else () for page in pages]
    except DocumentError as err:
        raise DocumentError(f"{name} {err}.") from err
    except HanolError:
        raise  # an extra is missing
    except RecursionError as err:
        raise DocumentError(f"{name} is nested too deeply to be read: make it again.") from err
    except MemoryError as err:
        raise DocumentError(f"{name} {TOO_LARGE}.") from err
    except Exception as err:
        # Parsers of broken files raise whatever comes: KeyError, struct.error, AttributeError, ...
        reason = " ".join(f"{type(err).__name__}: {err}".split())[:200]
        if reason.endswith("unknown error (<string>, line 0)"):  # lxml had no memory to say so
            raise DocumentError(f"{name} {TOO_LARGE}.") from err
        raise DocumentError(
            f"{name} is broken ({reason}): open it in the program that made it and save it again."
        ) from err
    title = " ".join(clean(title).split())[:_TITLE] or Path(name).stem
    numbered = kind in ("pdf", "pptx", "xlsx", "ods", "odp") or len(pages) > 1
    numbers = range(1, len(pages) + 1) if numbered else [None] * len(pages)
    found = [_tables(text, place, told.grids or ()) for place, text in enumerate(pages, 1)]
    remarks = told.remarks(paged=numbered)
    return Document(title, tuple(map(Page, numbers, pages, found, spans)), kind, remarks, to)


def _tables(text: str, number: int, grids: Iterable[Grid]) -> tuple[DocumentTable, ...]:
    """The tables of a page, found by their lines; not those inside of cells of others."""
    tables, last = [], 0
    for grid in grids:
        lines = clean("\n".join(grid.lines)).strip()
        if grid.page in (None, number) and lines and (start := text.find(lines, last)) >= 0:
            last = start + len(lines)
            rows = tuple(map(tuple, grid.rows))
            tables.append(DocumentTable(start, last, tuple(grid.names), rows))
    return tuple(tables)


def _kind(name: str, data: bytes) -> str:
    """Kind of a file by its first bytes, then by its suffix."""
    suffix = Path(name).suffix.lower()
    # a text may speak of PDF in its first lines, a PDF may have some bytes before it begins
    if b"%PDF-" in (data[:1024] if suffix == ".pdf" else data[:8]):
        return "pdf"
    if b"PK\x03\x04" in data[: 4096 if KINDS.get(suffix) in _BINARY - {"pdf"} else 4]:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            names = [part.replace("\\", "/") for part in package.namelist()]
            mime = ""
            if "mimetype" in names:
                with package.open("mimetype") as part:
                    mime = part.read(200).decode("latin-1")
        if "opendocument." in mime:
            return _OPENDOCUMENT.get(mime.partition("opendocument.")[2].partition("-")[0], "odt")
        folders = {part.partition("/")[0].lower() for part in names}
        for folder in _FOLDERS.keys() & folders:
            return _FOLDERS[folder]
    for start, reason in _FOREIGN.items():
        if data.startswith(start):
            raise DocumentError(reason)
    kind = KINDS.get(suffix)
    if kind is None:
        raise DocumentError(f"has an unsupported suffix: save it as one of {', '.join(KINDS)}")
    is_page = (
        data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))
    )
    if is_page and (kind in _BINARY or kind == "txt"):
        return "html"
    if kind == "pdf" and (b"%PDF-" in data or _PDF_OBJECT.search(data, 0, 4096)):
        return kind  # mail gateways and web servers put bytes before it, or cut its first line
    if kind in _BINARY:
        raise DocumentError(
            f"is not a {kind} file, although its name says so: fetch it again, or rename it"
        )
    return kind


def foreign(path: Path) -> tuple[str, str] | None:
    """What a file with an unknown suffix is by its first bytes, and what to do."""
    try:
        if not path.is_file():
            return "is no regular file", ""
        with open_regular(path) as file:
            data = file.read(64)
    except OSError:
        return None
    if data.startswith(b"%PDF-"):
        return f"is a PDF, although its suffix is {path.suffix!r}", "rename it to .pdf"
    known = (reason for start, reason in _FOREIGN.items() if data.startswith(start))
    why, _, what_to_do = next(known, "").rpartition(": ")
    return (why, what_to_do) if why else None


def _read(kind: str, data: bytes, links: bool) -> tuple[str, list[str]]:
    """Title (empty if there is none) and pages."""
    parsers: dict[str, Callable[[bytes], tuple[str, str | list[str]]]] = {
        "html": partial(read_html, links=links),
        "xml": read_xml,
        "eml": read_eml,
        "docx": read_docx,
        "pdf": _read_pdf,
        "pptx": read_pptx,
        "xlsx": read_xlsx,
        **dict.fromkeys(("odt", "ods", "odp"), read_opendocument),
    }
    if kind in parsers:
        with _quiet():
            title, found = parsers[kind](data)
        return title, [found] if isinstance(found, str) else found
    text = decode(data)
    if kind == "ipynb":
        title, text = read_notebook(text)
        return title, [text]
    if kind in ("txt", "md"):
        return heading(text[: _TITLE if kind == "txt" else 20_000]), [text]
    return "", [{"csv": read_csv, "json": read_json, "jsonl": read_jsonl}[kind](text)]


def _read_pdf(data: bytes) -> tuple[str, list[str]]:
    require("pypdfium2", extra="documents", feature="Reading PDF")
    from hanol.retrieval.documents.pdf._pdf import read_pdf  # which imports it

    return read_pdf(data)


_LOUD = ("pypdf", "pypdfium2", "charset_normalizer")
_parsing = threading.RLock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep parsers' messages about broken files out of the user's log and warnings."""
    # Log levels and filters are global, so one document is parsed at a time.
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = {logger: logger.level for logger in map(logging.getLogger, _LOUD)}
        try:
            for logger in levels:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)
