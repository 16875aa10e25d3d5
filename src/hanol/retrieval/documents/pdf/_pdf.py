"""Reads PDF files page by page with PDFium.

PDFium has no interface to a file's objects, so names of glyphs, filled forms and notes are read
with pypdf, on the pages that have any (`_objects`).
"""

import ctypes
import re
import time
from collections.abc import Iterator
from itertools import compress, repeat
from typing import Any

import pypdfium2
import pypdfium2.raw as c

from hanol.errors import DocumentError
from hanol.retrieval.documents._reader import step
from hanol.retrieval.documents._remarks import each_page, remark
from hanol.retrieval.documents.pdf import _ocr
from hanol.retrieval.documents.pdf._fonts import install_box_font
from hanol.retrieval.documents.pdf._layout import LIGATURES, CharPlace, char_places, set_apart
from hanol.retrieval.documents.pdf._legible import is_legible, legible_part, reads_like_words
from hanol.retrieval.documents.pdf._objects import Note, Objects
from hanol.retrieval.documents.pdf._right_to_left import put_in_order
from hanol.retrieval.documents.pdf._ruled import Ruled

_PAGES = 20_000  # a larger count is a broken or hostile page tree
_OPEN = 4  # pages kept open: the fonts of a page are dropped when the last page with them closes
_BROKEN_WORD = re.compile(r"(\w{1,40})-\n([a-zß-ÿ]\w{0,40})")
_JUNK_TITLE = re.compile(
    r"untitled|microsoft word|\.(docx?|tex|dvi|indd|pdf|pptx?)$", re.IGNORECASE
)
_CATALOG = re.compile(rb"(\d+)\s+(\d+)\s+obj\b(?:(?!endobj)[^\0]){0,1000}?/Type\s*/Catalog\b")
_EMPTY = re.compile(rb"/Count\s+0\b")
_FEW = 0.02  # of the characters of a page may be unknown without a word: bullets, arrows
_STAMP = 200  # characters that a scanner's program may put on a page that is a picture
_DEPTH = 2  # of pictures in pictures
_COVERED = 0.5  # share of a page from which a picture may be the page
_OCR = "run an OCR program over it first (for example `ocrmypdf in.pdf out.pdf`)"
_FONTS = "the fonts do not tell which letters they draw"
_PICTURES = "has hardly any text, but pictures or drawings, which are not read"
_EMPTY_PICTURES = "has hardly any text, but pictures or drawings, in which OCR found no words"


def read_pdf(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each page in file order, in which columns stand one after the other."""
    install_box_font()
    with step():
        document = _open(data)
    try:
        return _read(document)
    finally:
        document.close()


def _open(data: bytes) -> Any:
    start = data.find(b"%PDF-")  # PDFium looks at the first 1,024 bytes only
    data = data[start:] if start >= 0 else b"%PDF-1.7\n" + data
    if b"/Root" not in data and (found := _CATALOG.search(data)):
        remark("is cut off before its end: pages may be missing", "fetch it again", doubtful=True)
        data += b"\nendobj\ntrailer\n<</Root %b %b R>>\nstartxref\n0\n%%%%EOF\n" % found.groups()
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as err:
        # The code may be that of an earlier file.
        if err.err_code == c.FPDF_ERR_PASSWORD and b"/Encrypt" in data:
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
    count = len(document)
    objects, ruled = Objects(document), Ruled()
    pages: list[str] = []
    broken = illegible = 0
    end = time.monotonic() + _ocr.SECONDS
    open_pages: list[Any] = []
    for number in each_page(range(count)):
        try:
            with step():
                open_pages.append(page := document[number])
                text, unknown = _page_text(page, number, objects, ruled)
        except pypdfium2.PdfiumError:  # one broken page must not hide the others
            pages.append("")
            broken += 1
            remark("cannot be opened", "open the file in a PDF program and save it again")
            continue
        lost = not is_legible(text, unknown)
        if lost and (part := legible_part(text, unknown)):
            text, lost, unknown = part, False, len(text)
        if lost or _is_picture(page, text):
            text = _seen(page, "" if lost else text, end, _FONTS if lost else _PICTURES)
            illegible += lost and not text.strip()
        elif unknown > _FEW * len(text):
            remark("characters whose letters the fonts do not tell were left out", _advice(),
                   doubtful=True)  # fmt: skip
        pages.append(text)
        if len(open_pages) > _OPEN:
            open_pages.pop(0).close()
    if document.get_formtype() != c.FORMTYPE_NONE:
        pages[-1] = "\n".join([pages[-1], *objects.unplaced()]).strip()
    if broken == count:
        raise DocumentError("has no page that can be opened: save it again from its program")
    if not any(page.strip() for page in pages):
        raise DocumentError(
            f"has fonts that do not tell which letters they draw: {_advice()}"
            if illegible
            else f"has no text on its {count} page{'s' * (count > 1)}, only scans or drawings"
            f"{', in which OCR found no words' if _ocr.languages() else ''}: {_advice()}"
        )
    if attached := document.count_attachments():
        remark("is not read", "save and index it as a file of its own", pages=(),
               part=f"{attached} attached file{'s' * (attached > 1)}")  # fmt: skip
    if document.get_formtype() == c.FORMTYPE_XFA_FULL:
        remark("is an XFA form: only what was filled in is read",
               "open it in Adobe Reader and print it to PDF", pages=())  # fmt: skip
    pages = _join_words(pages)
    return _title(document, pages), pages


def _advice() -> str:
    """What to do about a page whose letters are not told."""
    if _ocr.languages():
        return f"install tesseract's data of its language (it has {_ocr.languages()}), or {_OCR}"
    return f"install tesseract, with which hanol reads such pages, or {_OCR}"


def _is_picture(page: Any, text: str) -> bool:
    """Whether what a page says may stand in a picture: it has hardly any text, or none."""
    if not text.strip():
        return bool(c.FPDFPage_CountObjects(page))
    if len(text) > _STAMP:
        return False
    width, height = page.get_size()
    images = page.get_objects([c.FPDF_PAGEOBJ_IMAGE], max_depth=_DEPTH)
    sides = (image.get_bounds() for image in images)
    return any((u - x) * (v - y) > _COVERED * width * height for x, y, u, v in sides)


def _seen(page: Any, text: str, end: float, reason: str) -> str:
    """The text of a page with what OCR finds in how it looks."""
    if not _ocr.languages() or time.monotonic() > end:
        late = "the time for OCR of a document was over" if _ocr.languages() else ""
        what_to_do = _OCR if late else _advice()
        if reason == _PICTURES:
            what_to_do = f"if there are words in them, {what_to_do}"
        remark("; ".join(filter(None, (reason, late))), what_to_do)
        return text
    found = _ocr.read_picture(page)
    if len(found.text) < max(2 * len(text), 1):
        if found.cut or reason == _FONTS:
            remark(f"{reason}; OCR cannot tell its letters", _advice())
        elif not text:
            remark(_EMPTY_PICTURES)
        return text
    remark("read by OCR from how it looks: letters may be wrong", "compare it with the page",
           doubtful=True)  # fmt: skip
    if found.cut:
        remark("has lines that OCR could not tell, which were left out", _advice(), doubtful=True)
    return found.text


def _page_text(page: Any, number: int, objects: Objects, ruled: Ruled) -> tuple[str, int]:
    """Text of a page with what was filled in, and how many of its characters are unknown."""
    textpage = page.get_textpage()
    count = c.FPDFText_CountChars(textpage)
    buffer = (ctypes.c_uint16 * (count + 1))()
    # The functions for ranges leave out what no installed font can draw.
    if c.FPDFText_GetText(textpage, 0, count, buffer) == count + 1:
        chars = [*map(chr, buffer[:count])]
    else:
        codes = _of_each_char(c.FPDFText_GetUnicode, textpage, count)
        chars = [chr(code) if code < 0x110000 else "\ufffd" for code in codes]
    # A character without a known letter comes as its number in the font, as if that were one.
    errors = _of_each_char(c.FPDFText_HasUnicodeMapError, textpage, count)
    unmapped = list(compress(range(count), errors))
    # At the ends of lines; the second is how ranges have it.
    hyphens = [i for i, char in enumerate(chars) if char == "\x02" or char == "\ufffe"]
    for i in set(hyphens).difference(unmapped):
        chars[i] = "-\n"
    unknown = _name_glyphs(textpage, chars, unmapped, objects.glyphs(number)) if unmapped else 0
    order = put_in_order(textpage, chars)
    set_apart(textpage, chars)
    if _has_notes(page):
        _insert(char_places(textpage, chars, order), chars, objects.notes(number))
    ruled.write(page, textpage, chars, order)
    # Letters beyond the first 65,536 (𝑥) come in halves.
    text = "".join(chars).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\r\n", "\n").translate(LIGATURES), unknown


def _of_each_char(function: Any, textpage: Any, count: int) -> Iterator[int]:
    """What a function of PDFium says of each character of a page."""
    # Converting what a call takes costs more than the call, so nothing is left to convert.
    bare = ctypes.cast(function, ctypes.PYFUNCTYPE(ctypes.c_uint))
    return map(bare, repeat(ctypes.cast(textpage.raw, ctypes.c_void_p)), range(count))


def _name_glyphs(
    textpage: Any, chars: list[str], unmapped: list[int], glyphs: dict[tuple[str, int], str]
) -> int:
    """Replace unmapped characters by what their glyphs are named; returns how many are left."""
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
    for i in range(c.FPDFPage_GetAnnotCount(page)):
        annotation = c.FPDFPage_GetAnnot(page, i)
        kind = c.FPDFAnnot_GetSubtype(annotation)
        c.FPDFPage_CloseAnnot(annotation)
        if kind not in (c.FPDF_ANNOT_LINK, c.FPDF_ANNOT_POPUP):
            return True
    return False


def _insert(places: dict[int, CharPlace], chars: list[str], notes: list[Note]) -> None:
    """Put each note behind the text to its left, a mark before its label, others at the end."""
    boxes = [(at.left, at.right, at.y, i) for i, at in places.items() if chars[i].strip()]
    added: dict[int, str] = {}
    for note in sorted(notes, key=lambda note: (-note.top, note.left)):
        line = [box for box in boxes if note.bottom - 2 <= box[2] <= note.top + 2]
        before = max((box for box in line if box[1] <= note.left + 2), default=None)
        after = min((box for box in line if box[0] >= note.right - 2), default=None)
        is_left = before and after and note.left - before[1] < after[0] - note.right
        if note.is_mark and after and not is_left:
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
    texts = (line.lstrip("# ").rstrip() for page in pages for line in page[:2000].splitlines())
    lines = list(filter(None, texts))
    for at, line in enumerate(lines):
        if sum(map(str.isalpha, line)) > 7:
            return " ".join(lines[at : at + (2 if line.endswith((":", ",")) else 1)])
    return ""
