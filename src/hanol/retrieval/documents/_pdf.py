"""Reads PDF files page by page."""

import io
import re
from typing import Any

from hanol.errors import DocumentError, require

_PAGES = 20_000  # a larger count is a broken or hostile page tree
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
_BROKEN_WORD = re.compile(r"(\w{1,40})-\n([a-zß-ÿ]\w{0,40})")
_JUNK_TITLE = re.compile(
    r"untitled|microsoft word|\.(docx?|tex|dvi|indd|pdf|pptx?)$", re.IGNORECASE
)


def read_pdf(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each page in file order, in which columns stand one after the other."""
    pypdf = require("pypdf", extra="documents", feature="Reading PDF")
    reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
    try:
        # Many files only restrict printing and open without a password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError("is encrypted: save a copy without the password")
    except pypdf.errors.DependencyError as err:
        raise DocumentError(
            "is encrypted with AES: pip install cryptography, or save a copy without protection"
        ) from err
    count = len(reader.pages)
    if count == 0:
        raise DocumentError("is a PDF without pages: it is broken or unfinished, make it again")
    if count > _PAGES:
        raise DocumentError(f"has {count} pages, more than {_PAGES}: split it")
    pages, errors = [], []
    for number in range(count):
        try:
            pages.append(reader.pages[number].extract_text().translate(_LIGATURES))
        except MemoryError:
            raise
        except Exception as err:  # one broken page must not hide the others
            pages.append("")
            errors.append(err)
    if not any(page.strip() for page in pages):
        if errors:
            raise errors[0]
        raise DocumentError(
            f"has no text on its {count} page{'s' * (count > 1)}: it is scanned or drawn, so run "
            "an OCR program over it first (for example `ocrmypdf in.pdf out.pdf`)"
        )
    pages = _join_words(pages)
    return _title(reader, pages), pages


def _join_words(pages: list[str]) -> list[str]:
    """Undo hyphenation; a hyphen stays if the document has the word with it elsewhere."""
    text = "\n".join(pages)
    words = set(re.findall(r"\w+(?:-\w+)*", text.casefold()))

    def join(found: re.Match[str]) -> str:
        head, tail = found.groups()
        with_hyphen = f"{head}-{tail}".casefold()
        hyphen = "-" if with_hyphen in words and (head + tail).casefold() not in words else ""
        return f"{head}{hyphen}{tail}"

    return [_BROKEN_WORD.sub(join, page) for page in pages]


def _title(reader: Any, pages: list[str]) -> str:
    title = str((reader.metadata or {}).get("/Title") or "").strip()
    if title and not _JUNK_TITLE.search(title):
        return title
    lines = [line.strip() for page in pages for line in page[:2000].splitlines()]
    for at, line in enumerate(lines):
        if sum(map(str.isalpha, line)) > 7:
            return " ".join(lines[at : at + (2 if line.endswith((":", ",")) else 1)])
    return ""
