"""Reads PDF files page by page with PDFium.

PDFium has no interface to a file's objects, so names of glyphs, filled forms and notes are read
with pypdf, on the pages that have any (`_objects`).
"""

import ctypes
import re
import time
from functools import partial
from importlib.util import find_spec
from itertools import compress
from typing import Any

from hanol.errors import DocumentError, require
from hanol.retrieval.documents._native import apart, step
from hanol.retrieval.documents._remarks import remark
from hanol.retrieval.documents.pdf._fonts import install_box_font
from hanol.retrieval.documents.pdf._legible import is_legible, reads_like_words
from hanol.retrieval.documents.pdf._objects import Note, Objects
from hanol.retrieval.documents.pdf._ocr import read_picture

_PAGES = 20_000  # a larger count is a broken or hostile page tree
_OPEN = 4  # pages kept open: the fonts of a page are dropped when the last page with them closes
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
_BROKEN_WORD = re.compile(r"(\w{1,40})-\n([a-zß-ÿ]\w{0,40})")
_JUNK_TITLE = re.compile(
    r"untitled|microsoft word|\.(docx?|tex|dvi|indd|pdf|pptx?)$", re.IGNORECASE
)
_CATALOG = re.compile(rb"(\d+)\s+(\d+)\s+obj\b(?:(?!endobj)[^\0]){0,1000}?/Type\s*/Catalog\b")
_EMPTY = re.compile(rb"/Count\s+0\b")
_FEW = 0.02  # of the characters of a page may be unknown without a word: bullets, arrows
_OCR_SECONDS = 150.0  # for all pages of a document
_OCR = "run an OCR program over it first (for example `ocrmypdf in.pdf out.pdf`)"


def read_pdf(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each page in file order, in which columns stand one after the other."""
    if find_spec("pypdfium2") is None:  # not imported here: it is loaded where it may crash
        require("pypdfium2", extra="documents", feature="Reading PDF")
    return apart(read_pdf_here, data)


def read_pdf_here(data: bytes) -> tuple[str, list[str]]:
    """`read_pdf` in this process, which a broken file can crash or keep busy for ever."""
    install_box_font()
    with step():
        document = _open(data)
    try:
        return _read(document)
    finally:
        document.close()


def _open(data: bytes) -> Any:
    import pypdfium2

    start = data.find(b"%PDF-")  # PDFium looks at the first 1,024 bytes only
    data = data[start:] if start >= 0 else b"%PDF-1.7\n" + data
    if b"trailer" not in data and b"/XRef" not in data and (found := _CATALOG.search(data)):
        remark("is cut off before its end: pages may be missing")
        data += b"\nendobj\ntrailer\n<</Root %b %b R>>\nstartxref\n0\n%%%%EOF\n" % found.groups()
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as err:
        # The code may be that of an earlier file.
        if err.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD and b"/Encrypt" in data:
            raise DocumentError("is encrypted: save a copy without the password") from err
        if _EMPTY.search(data):
            raise DocumentError(
                "is a PDF without pages: it is broken or unfinished, make it again"
            ) from err
        raise
    if len(document) > _PAGES:
        raise DocumentError(f"has {len(document)} pages, more than {_PAGES}: split it")
    return document


def _read(document: Any) -> tuple[str, list[str]]:
    import pypdfium2

    count = len(document)
    objects = Objects(document)
    pages: list[str] = []
    broken: list[int] = []
    illegible: list[int] = []  # by their fonts
    pictures: list[int] = []
    guessed: list[int] = []  # read by OCR
    doubtful: list[int] = []
    end = time.monotonic() + _OCR_SECONDS
    open_pages: list[Any] = []
    for number in range(count):
        try:
            with step():
                open_pages.append(page := document[number])
                text, unknown = _page_text(page, number, objects)
        except pypdfium2.PdfiumError:  # one broken page must not hide the others
            pages.append("")
            broken.append(number)
            continue
        lost = not is_legible(text, unknown)
        if lost or not (text.strip() or pypdfium2.raw.FPDFPage_CountObjects(page) == 0):
            text = read_picture(page) if time.monotonic() < end else ""
            (guessed if text.strip() else illegible if lost else pictures).append(number)
        elif unknown > _FEW * len(text):
            doubtful.append(number)
        pages.append(text)
        if len(open_pages) > _OPEN:
            open_pages.pop(0).close()
    if len(broken) == count:
        raise DocumentError("has no page that can be opened: save it again from its program")
    if not any(page.strip() for page in pages):
        raise DocumentError(
            f"has fonts that do not tell which letters they draw: {_OCR}"
            if illegible
            else f"has no text on its {count} page{'s' * (count > 1)}: it is scanned or drawn, "
            f"so {_OCR}"
        )
    for found, what in (
        (broken, "cannot be opened"),
        (illegible, f"the fonts do not tell which letters they draw; not read, {_OCR}"),
        (pictures, f"has no text, only pictures or drawings; if there are words in them, {_OCR}"),
        (doubtful, "characters whose letters the fonts do not tell were left out"),
        (guessed, "read by OCR from how it looks: letters may be wrong"),
    ):
        if found:
            remark(f"{_numbered(found)}: {what}")
    if attached := document.count_attachments():
        remark(f"has {attached} attached file{'s' * (attached > 1)}: save and read them apart")
    if document.get_formtype() == pypdfium2.raw.FORMTYPE_XFA_FULL:
        remark("is an XFA form: what it builds when it is opened is not read; print it to PDF")
    pages = _join_words(pages)
    return _title(document, pages), pages


def _numbered(indices: list[int]) -> str:
    """Page numbers as people write them: "page 3", "pages 3-5, 9"."""
    runs: list[list[int]] = []
    for number in (index + 1 for index in indices):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"page{'s' * (len(indices) > 1)} {shown}"


def _page_text(page: Any, number: int, objects: Objects) -> tuple[str, int]:
    """Text of a page with what was filled in, and how many of its characters are unknown."""
    import pypdfium2.raw as c

    textpage = page.get_textpage()
    count = c.FPDFText_CountChars(textpage)
    # One by one: the functions for ranges leave out what no installed font can draw.
    # An address, because what the calls themselves take is less than converting the helper.
    address = ctypes.cast(textpage.raw, ctypes.c_void_p).value
    codes = map(partial(_of_char(c.FPDFText_GetUnicode), address), range(count))
    chars = [chr(code) if code < 0x110000 else "\ufffd" for code in codes]
    # A character without a known letter comes as its number in the font, as if that were one.
    errors = map(partial(_of_char(c.FPDFText_HasUnicodeMapError), address), range(count))
    unmapped = list(compress(range(count), errors))
    hyphens = [i for i, char in enumerate(chars) if char == "\x02"]  # at the ends of lines
    for i in set(hyphens).difference(unmapped):
        chars[i] = "-\n"
    unknown = _name_glyphs(textpage, chars, unmapped, objects.glyphs(number)) if unmapped else 0
    if _has_notes(page):
        _insert(textpage, chars, objects.notes(number))
    return "".join(chars).replace("\r\n", "\n").translate(_LIGATURES), unknown


def _of_char(function: Any) -> Any:
    kind = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_void_p, ctypes.c_int)
    return ctypes.cast(function, kind)


def _name_glyphs(
    textpage: Any, chars: list[str], unmapped: list[int], glyphs: dict[tuple[str, int], str]
) -> int:
    """Replace unmapped characters by what their glyphs are named; returns how many are left."""
    import pypdfium2.raw as c

    name = ctypes.create_string_buffer(256)
    flags = ctypes.c_int()
    left = []
    for i in unmapped:
        size = c.FPDFText_GetFontInfo(textpage, i, name, len(name), flags)
        font = name.value.decode(errors="replace") if 0 < size <= len(name) else ""
        known = glyphs.get((font, ord(chars[i])))
        if known is None:
            left.append(i)
        else:
            chars[i] = known
    # Many fonts number their glyphs as ASCII does, and say no more.
    if reads_like_words("".join(chars[i] for i in left)):
        return 0
    for i in left:
        chars[i] = ""
    return len(left)


def _has_notes(page: Any) -> bool:
    import pypdfium2.raw as c

    for i in range(c.FPDFPage_GetAnnotCount(page)):
        annotation = c.FPDFPage_GetAnnot(page, i)
        kind = c.FPDFAnnot_GetSubtype(annotation)
        c.FPDFPage_CloseAnnot(annotation)
        if kind not in (c.FPDF_ANNOT_LINK, c.FPDF_ANNOT_POPUP):
            return True
    return False


def _insert(textpage: Any, chars: list[str], notes: list[Note]) -> None:
    """Put each note behind the text to its left, a mark before its label, others at the end."""
    import pypdfium2.raw as c

    boxes = []
    edges = [ctypes.c_double() for _ in range(4)]
    for i, char in enumerate(chars):
        if char.strip() and c.FPDFText_GetCharBox(textpage, i, *edges):
            left, right, bottom, top = (edge.value for edge in edges)
            boxes.append((left, right, (bottom + top) / 2, i))
    added: dict[int, str] = {}
    for note in sorted(notes, key=lambda note: (-note.top, note.left)):
        line = [box for box in boxes if note.bottom - 2 <= box[2] <= note.top + 2]
        before = max((box for box in line if box[1] <= note.left + 2), default=None)
        after = min((box for box in line if box[0] >= note.right - 2), default=None)
        if (
            note.is_mark
            and after
            and not (before and note.left - before[1] < after[0] - note.right)
        ):
            chars[after[3]] = f"{note.text} {chars[after[3]]}"
        elif before:
            added[before[3]] = f"{added.get(before[3], '')} {note.text}"
        else:
            chars.append(f"\n{note.label}: {note.text}" if note.label else f"\n{note.text}")
    for i, text in added.items():
        chars[i] += text


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


def _title(document: Any, pages: list[str]) -> str:
    title = document.get_metadata_value("Title").strip()
    if title and not _JUNK_TITLE.search(title):
        return title
    lines = [line.strip() for page in pages for line in page[:2000].splitlines()]
    for at, line in enumerate(lines):
        if sum(map(str.isalpha, line)) > 7:
            return " ".join(lines[at : at + (2 if line.endswith((":", ",")) else 1)])
    return ""
