"""A font for letters that no installed font has.

PDFium leaves out text that it draws with nothing, so what it finds in Korean, Chinese or Japanese
files without fonts in them would depend on the fonts of the machine.
"""

import base64
import ctypes
import zlib
from functools import lru_cache
from typing import Any

import pypdfium2

_BOX = zlib.decompress(  # a TrueType font of one glyph, `.notdef`, a box (made with fontTools)
    base64.b85decode(
        "c-muNWME)mXK-L(VlYU~O)OwgWC&qk00}Z^q~}zo-9LN(43KXC<eOxqCZ;6)bDjfa*8s6u22g;Vi@6QR-U7rb8M!"
        "4DEIte=K=uzHX3NP>PGpc`;05Z}0P%AZD+(A`7}$X98$hf8wg!mJ{-y1T=ePOFz|8!D0UZEMV{T#E17tA+-3S3dJ"
        "<JOKEr8?;pnM8*3&g=lfDtUh1hfqz!-Q@uL?=`&GXocp<^j1B2xJhp0Np6?|38$?3-k+!1#=NI1B0=kqF@TM0@I$"
        "qE_h@Bq7g5o"
    )
)
_HANDLE = 1  # no address, so no handle of PDFium's own
_EAST_ASIAN = (128, 129, 130, 134, 136)  # Windows' numbers of character sets


@lru_cache(maxsize=1)
def install_box_font() -> None:
    """Let PDFium draw boxes where it knows no East Asian font; once in a process."""

    class Fonts(pypdfium2.PdfSysfontBase):
        def MapFont(self, info: Any, weight: int, italic: int, charset: int, *rest: Any) -> Any:
            found = super().MapFont(info, weight, italic, charset, *rest)
            return found or (_HANDLE if charset in _EAST_ASIAN else None)

        def GetFontData(self, info: Any, font: Any, table: int, buffer: Any, size: int) -> int:
            if font != _HANDLE:
                return int(super().GetFontData(info, font, table, buffer, size))
            if table:
                return 0
            if buffer and size >= len(_BOX):
                ctypes.memmove(buffer, _BOX, len(_BOX))
            return len(_BOX)

        def GetFaceName(self, info: Any, font: Any, buffer: Any, size: int) -> int:
            return 0 if font == _HANDLE else super().GetFaceName(info, font, buffer, size)

        def GetFontCharset(self, info: Any, font: Any) -> int:
            return 1 if font == _HANDLE else super().GetFontCharset(info, font)

        def DeleteFont(self, info: Any, font: Any) -> None:
            if font != _HANDLE:
                super().DeleteFont(info, font)

    Fonts().setup()
