"""Text of pictures in Windows metafiles (EMF, WMF), which draw their letters as text.

Own code: no package on PyPI reads it. Records are those of MS-EMF 2.3 and MS-WMF 2.3.
"""

from collections.abc import Callable, Iterator
from struct import error, unpack_from

_ENCODINGS = {  # of a font by its character set
    2: "latin-1", 77: "mac-roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030",
    136: "big5", 161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256",
    186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250",
}  # fmt: skip
_EMF = {14: "end", 22: "align", 27: "move", 35: "shift", 36: "shift", 37: "select", 82: "make",
        83: "bytes", 84: "text"}  # fmt: skip
_WMF = {0: "end", 0x012D: "select", 0x012E: "align", 0x01F0: "delete", 0x0214: "move",
        0x0521: "text", 0x0A32: "spaced"}  # fmt: skip
_WMF |= dict.fromkeys((0x00F7, 0x0142, 0x01F9, 0x02FA, 0x02FB, 0x02FC, 0x06FF), "make")
_GLYPHS = 0x10  # an option of texts: they are numbers of glyphs
_MOST = 200_000  # records


def metafile_text(data: bytes, symbols: Callable[[str, str], str]) -> str:
    """The lines of a picture with words, as they are drawn; `symbols` knows letters of fonts."""
    lines: list[str] = []
    line = start = end = 0.0
    try:
        for x, y, right, text, font in _pieces(data):
            letter = (right - x) / len(text)
            text = symbols(text, font)
            if lines and y == line and x > start:
                lines[-1] += text if x < end + letter / 4 else f" {text}"
            else:
                lines.append(text)
            line, start, end = y, x, right
    except (error, IndexError):
        pass  # cut off: what stands before is read
    return "\n".join(" ".join(text.split()) for text in lines if any(map(str.isalnum, text)))


def _pieces(data: bytes) -> Iterator[tuple[float, float, float, str, str]]:
    """Left end, line, right end (the left one if it is not told), text and font of each text."""
    emf = data[40:44] == b" EMF"
    at = 0 if emf else 40 if data[:4] == b"\xd7\xcd\xc6\x9a" else 18
    objects: dict[int, tuple[str, str]] = {}  # encoding and name of fonts by number
    (coding, font), align, pen = ("cp1252", ""), 0, (0, 0)
    wide, left, high, top = 1.0, 0.0, 1.0, 0.0  # scale and origin of the coordinates
    for _ in range(_MOST):
        kind, size = unpack_from("<II", data, at) if emf else unpack_from("<IH", data, at)[::-1]
        name, body = (_EMF if emf else _WMF).get(kind), at + (8 if emf else 6)
        at, here = at + max(size * (1 if emf else 2), body - at), at
        if name == "end":
            return
        number = unpack_from("<I" if emf else "<H", data, body)[0] if name else 0
        if name == "make" and emf:
            face = data[body + 32 : body + 96].decode("utf-16-le", "replace")
            objects[number] = "utf-16-le", face.partition("\0")[0]
        elif name == "make":
            face = data[body + 18 : body + 50].partition(b"\0")[0].decode("latin-1")
            free = next((n for n in range(1000) if n not in objects), 1000)
            code = _ENCODINGS.get(data[body + 13], "cp1252") if kind == 0x02FB else ""
            objects[free] = code, face
        elif name == "delete":
            objects.pop(number, None)
        elif name == "select" and objects.get(number, ("",))[0]:
            coding, font = objects[number]
        elif name == "align":  # texts may follow one another
            align = number & 1
        elif name == "move":
            pen = unpack_from("<ii", data, body) if emf else unpack_from("<hh", data, body)[::-1]
        elif name == "shift":
            wide, _, _, high, left, top = unpack_from("<6f", data, body)
        elif name in ("bytes", "text", "spaced"):
            options, width = 0, 0
            if emf:
                *place, letters, start, options = unpack_from("<iiIII", data, body + 28)
                start, count = here + start, letters * (2 if name == "text" else 1)
                if widths := unpack_from("<I", data, body + 64)[0]:
                    width = sum(unpack_from(f"<{letters}I", data, here + widths))
            elif name == "text":
                count, start = number, body + 2
                place = [*unpack_from("<hh", data, start + count + count % 2)[::-1]]
            else:
                *place, count, options = unpack_from("<hhHH", data, body)
                place.reverse()
                start = body + 8 + 8 * bool(options & 6)  # behind a rectangle
                if (widths := start + count + count % 2) + 2 * count <= at:
                    width = sum(unpack_from(f"<{count}h", data, widths))
            x, y = pen if align else place
            pen = x + width, y
            raw = data[start : start + count]
            text = raw.decode(
                "cp1252" if name == "bytes" else "utf-16-le" if emf else coding, "replace"
            )
            if text and not options & _GLYPHS:
                yield x * wide + left, y * high + top, (x + width) * wide + left, text, font
