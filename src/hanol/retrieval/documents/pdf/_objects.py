"""Reads with pypdf what PDFium has no interface for: names of glyphs, forms and notes.

Nothing is opened before a page asks for it; most files have no such page.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pypdfium2.raw as c

from hanol.errors import require
from hanol.retrieval.documents._markup import ONLY_THIS_FILE
from hanol.retrieval.documents._remarks import remark

_DEPTH = 8  # of pictures in pictures, and of fields in fields
_SIZED = re.compile(r"(?:big|bigg|Big|Bigg|display|text|small|oldstyle|alt\d*)$")
_HIDDEN = 0b10_0010  # flags of an annotation: hidden, not shown on screens
_PASSWORD, _PUSHBUTTON, _RADIO = 1 << 13, 1 << 16, 1 << 15  # flags of fields


@dataclass(frozen=True)
class Note:
    """What was written on a page: the value of a field, a comment.

    Args:
        text: Its text.
        label: Name for a place without text beside it; may be empty.
        is_mark: It is a box or a circle to be ticked.
        left, bottom, right, top: Where it is, in points.
    """

    text: str
    label: str
    is_mark: bool
    left: float
    bottom: float
    right: float
    top: float


class Objects:
    """Objects of the pages of a PDFium document.

    Args:
        document: An open `pypdfium2.PdfDocument`.
    """

    def __init__(self, document: Any) -> None:
        self._document = document
        self._reader: Any = None

    def glyphs(self, number: int) -> dict[tuple[str, int], str]:
        """Text of each glyph of a page that its name tells, by font and code."""
        found: dict[tuple[str, int], str] = {}
        unclear = set()
        for font in self._read(lambda reader: _fonts(reader.pages[number])):
            base = str(font.get("/BaseFont", "")).removeprefix("/")
            for code, text in _named_glyphs(font):
                if found.setdefault((base, code), text) != text:
                    unclear.add((base, code))  # two fonts of one name
        return {key: text for key, text in found.items() if key not in unclear}

    def notes(self, number: int) -> list[Note]:
        """Values of the fields of a page, and its comments."""
        return self._read(lambda reader: _notes(reader.pages[number]))

    def unplaced(self) -> list[str]:
        """What was filled into fields that are on no page, and into a form of XFA."""
        return self._read(_unplaced)

    def _read(self, read: Any) -> Any:
        try:
            if self._reader is None:
                # A copy without protection or faults.
                pypdf = require("pypdf", extra="documents", feature="Reading PDF forms")
                copy = io.BytesIO()
                self._document.save(copy, flags=c.FPDF_REMOVE_SECURITY)
                self._reader = pypdf.PdfReader(copy, strict=False)
            return list(read(self._reader))
        except MemoryError:
            raise
        except Exception as err:  # whatever a broken file makes of it
            remark(
                "has forms, comments or glyphs that cannot be read",
                f"open it in a PDF program and save it again ({type(err).__name__})",
            )
            return []


def _fonts(holder: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Fonts of a page and of the pictures in it."""
    resources = _solid(holder.get("/Resources", {}))
    yield from map(_solid, _solid(resources.get("/Font", {})).values())
    for picture in map(_solid, _solid(resources.get("/XObject", {})).values()):
        if depth and picture.get("/Subtype") == "/Form":
            yield from _fonts(picture, depth - 1)


def _solid(value: Any) -> Any:
    return value.get_object() if hasattr(value, "get_object") else value


def _named_glyphs(font: Any) -> Iterator[tuple[int, str]]:
    encoding = _solid(font.get("/Encoding", {}))
    code = 0
    for entry in _solid(encoding.get("/Differences", [])) if hasattr(encoding, "get") else []:
        if isinstance(entry, str):
            if text := glyph_text(entry.removeprefix("/")):
                yield code, text
            code += 1
        else:
            code = int(entry)


def glyph_text(name: str) -> str:
    """Characters that a glyph's name stands for, "" if it does not tell.

    As the Adobe Glyph List says: parts of a ligature are joined by "_", variants come after ".".
    Larger and smaller forms without a dot, as of TeX's mathematical fonts, count too.
    """
    from pypdf._codecs.adobe_glyphs import adobe_glyphs  # no other package here has the list

    def known(part: str) -> str:
        if found := re.fullmatch(r"uni((?:[0-9A-F]{4})+)", part):
            return bytes.fromhex(found[1]).decode("utf-16-be", "ignore")
        if found := re.fullmatch(r"u([0-9A-F]{4,6})", part):
            return chr(code) if (code := int(found[1], 16)) < 0x110000 else ""
        return str(adobe_glyphs.get(f"/{part}") or adobe_glyphs.get(f"/{_SIZED.sub('', part)}", ""))

    texts = [known(part) for part in name.partition(".")[0].split("_")]
    return "".join(texts) if all(texts) else ""


def _notes(page: Any) -> Iterator[Note]:
    for annotation in map(_solid, _solid(page.get("/Annots", []))):
        if int(annotation.get("/F", 0)) & _HIDDEN:
            continue
        kind = annotation.get("/Subtype")
        if kind == "/Widget":
            text, label, is_mark = _field(annotation)
        elif kind in ("/Link", "/Popup"):
            continue
        else:
            text, label, is_mark = _string(annotation.get("/Contents")), "", False
            author = _string(annotation.get("/T"))
            if text and kind != "/FreeText":
                text = f"[{author}: {text}]" if author else f"[{text}]"
        if text.strip():
            x0, y0, x1, y1 = map(float, _solid(annotation.get("/Rect", (0, 0, 0, 0))))
            yield Note(
                text.strip().replace("\r", "\n"), label, is_mark,
                min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1),
            )  # fmt: skip


def _unplaced(reader: Any) -> Iterator[str]:
    form = _solid(_solid(reader.trailer["/Root"]).get("/AcroForm", {}))
    placed = {id(_solid(a)) for page in reader.pages for a in _solid(page.get("/Annots", []))}

    def leaves(fields: Any, depth: int = _DEPTH) -> Iterator[Any]:
        for field in map(_solid, _solid(fields)):
            if "/Kids" in field and depth:
                yield from leaves(field["/Kids"], depth - 1)
            elif id(field) not in placed:
                yield field

    for field in leaves(form.get("/Fields", [])):
        text, label, is_mark = _field(field)
        if text.strip() and not is_mark:
            yield f"{label}: {text}" if label else text
    packets = _solid(form.get("/XFA", []))
    if _solid(reader.trailer["/Root"]).get("/NeedsRendering") or not len(placed):
        names = list(map(_string, packets[::2])) if isinstance(packets, list) else []
        data = packets[2 * names.index("datasets") + 1] if "datasets" in names else packets
        yield from _filled(_solid(data))


def _filled(stream: Any) -> Iterator[str]:
    """Names and values in the data of an XFA form."""
    etree = require("lxml.etree", extra="documents", feature="Reading PDF forms")
    if not hasattr(stream, "get_data"):
        return
    parser = etree.XMLParser(**ONLY_THIS_FILE, recover=True)
    for element in etree.fromstring(stream.get_data(), parser).iterfind(".//{*}data//*"):
        if not len(element) and (text := (element.text or "").strip()):
            yield f"{etree.QName(element).localname}: {text}"


def _string(value: Any) -> str:
    value = _solid(value)
    if hasattr(value, "get_data"):
        return value.get_data().decode("utf-8", "replace")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _field(widget: Any) -> tuple[str, str, bool]:
    """Value of a form field as it is shown, its name, and whether it is to be ticked."""
    chain = [widget]
    while "/Parent" in chain[-1] and len(chain) < _DEPTH:
        chain.append(_solid(chain[-1]["/Parent"]))

    def get(key: str) -> Any:
        return next((_solid(field[key]) for field in chain if key in field), None)

    flags, value, kind = int(get("/Ff") or 0), get("/V"), get("/FT")
    label = _string(get("/TU")) or ".".join(
        _string(field["/T"]) for field in reversed(chain) if "/T" in field
    )
    if kind == "/Btn":
        if flags & _PUSHBUTTON:
            return "", label, False
        states = _solid(_solid(widget.get("/AP", {})).get("/N", {}))
        mine = next((state for state in states if state != "/Off"), None)
        state = widget.get("/AS", value if mine in (None, value) else "/Off")
        if state in (None, "/Off"):
            return "\u2610", label, True  # an empty box
        name = _string(state).removeprefix("/")
        options = get("/Opt")
        if options and name.isdecimal() and int(name) < len(options):
            name = _string(options[int(name)])
        generic = name.isdecimal() or name.casefold() in ("on", "yes", "true")
        return "\u2611" if generic else f"\u2611 {name}", label, True
    if flags & _PASSWORD and kind == "/Tx":
        return "", label, False
    values = value if isinstance(value, list) else [value]
    if kind == "/Ch":  # some are stored by a code and shown by a name
        pairs = [_solid(option) for option in get("/Opt") or []]
        shown = {
            _string(pair[0]): _string(pair[1])
            for pair in pairs
            if isinstance(pair, list) and len(pair) > 1
        }
        return ", ".join(shown.get(text, text) for text in map(_string, values)), label, False
    if kind == "/Sig":
        return "", label, False
    return ", ".join(map(_string, values)), label, False
