"""Bytes to clean text: which encoding a file is in, and what is removed from it.

The commonest characters of a language tell its encodings apart even in one line, where statistics
of bytes fail; charset-normalizer decides about all other texts.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterable
from operator import itemgetter

from hanol.errors import DocumentError, require

_SAMPLE = 65_536  # bytes or characters that decide
_ALIASES = {  # the superset that programs really write under the narrower name
    "ascii": "utf-8",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso8859-1": "cp1252",
    "latin-1": "cp1252",
}
# Commonest characters of each script. A text makes up 40 % and more of these when it is decoded
# rightly and hardly any when not, which separates even one line of cp949 from gb18030 and cp932.
_KANA = "のにはをたがでとしてれさいるなもくかりすだこっらまあそけどよえおめわょゃー、。"
_EAST_ASIAN = {
    "cp949": "이다는하을니에의한로은가고를기인지전정으합도서시제과대리사있보구문용요해자것라된"
    "데게나들그만와안녕세습입니까",
    "cp932": _KANA,
    "euc_jp": _KANA,
    "gb18030": "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得"
    "于着下自之年过发后作里，。",
    "big5": "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於"
    "著下自之年過發後作裡，。",
}
_EAST_ASIAN |= dict.fromkeys(("utf-16-le", "utf-16-be"), "".join(_EAST_ASIAN.values()))
_CENTRAL_EUROPEAN = "ąćęłńóśźżŁŚŻ áčďéěíľňóôřšťúůýžČŘŠŽ áéíóöőúüűÁÉ ăâîşţŞŢ čćđšžČŠŽ"
_ACCENTED = tuple(  # letters of one language each; the first of equals wins
    (codec, letters + "«»°–—’‘“”„…€£©®±·")
    for codec, languages in (
        ("cp1252", "àâçéèêëîïôùûüœÀÇÉÈÊ äöüßÄÖÜ áéíóúñüÁÉÍÓÚÑ¿¡ºª ãõáéíóúâêôàçÃÕÁÉ åäöøæéÅÄÖØÆ "
                   "àèéìíòóùÈ áéíóúýðþæöÁÍÓÞ"),
        ("cp1250", _CENTRAL_EUROPEAN),
        ("iso8859-2", _CENTRAL_EUROPEAN),
        ("cp1254", "çğıöşüÇĞİÖŞÜâîû"),
    )
    for letters in languages.split()
)  # fmt: skip
_ALPHABETS = (
    ("cp1251", "оеаинтсрвлкмдпуяыь"), ("koi8-r", "оеаинтсрвлкмдпуяыь"),
    ("cp1253", "αοιετσνηυρπκμλ"), ("cp1255", "יוהלאתרבשמנםעדח"), ("cp1256", "اليمنوتربةعد"),
)  # fmt: skip
_BELIEVED = 0.15  # share of common characters from which an East Asian reading is believed
_CERTAIN = 0.5  # the same for other readings, whose letters are few
_ESCAPED = (("iso2022_kr", b"\x1b$)C"), ("iso2022_jp_2", b"\x1b$"), ("hz", b"~{"))  # seven-bit
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_STRANGE = re.compile("[\x00-\x08\x0e-\x1a\x7f-\x84\x86-\x9f\ufffd]")
_MARKS = re.compile(r"[^\w\s\x00-\x7f]{32,}")  # combining marks are no word characters
_MAX_MARKS = 30  # in a row: the Stream-Safe Text Format of Unicode Annex 15


def decode(data: bytes, declared: str | None = None) -> str:
    """Text of a file whose encoding is declared, marked or guessed.

    In this order: byte order mark; the declared name; encodings with escape sequences; UTF-8, even
    with a few broken bytes; the guess of `_guess`.

    Raises:
        DocumentError: The bytes are no text; the message is a reason without the file's name.
    """
    text = _decode(data, declared)
    sample = text[:_SAMPLE]
    if (strange := len(_STRANGE.findall(sample))) > 5 and strange * 25 > len(sample):
        raise DocumentError(
            "contains bytes that are not text in any known encoding: open it in the program that "
            "made it and save it as UTF-8 text, or give it the suffix of its real format"
        )
    return text


def clean(text: str) -> str:
    """NFC, line feeds at line ends, without control characters and lone surrogates."""
    if text.isascii():
        return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    # through UTF-16: two surrogates that belong together become the character they stand for
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", ""))
    # normalisation sorts each run of marks in quadratic time
    return unicodedata.normalize("NFC", _MARKS.sub(_shorten, text))


def _shorten(found: re.Match[str]) -> str:
    kept, run = [], 0
    for char in found.group():
        run = run + 1 if unicodedata.combining(char) else 0
        if run <= _MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def _decode(data: bytes, declared: str | None) -> str:
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(name, "replace")
    if declared and (text := _declared(data, declared)) is not None:
        return text
    if (text := _escaped(data) or _utf8(data)) is not None:
        return text
    return data.decode(_guess(data), "replace")


def _declared(data: bytes, name: str) -> str | None:
    try:
        name = codecs.lookup(name.strip()).name
        if name in ("idna", "punycode"):
            return None  # for host names; quadratic time
        text = data.decode(_ALIASES.get(name, name), "replace")
    except (LookupError, UnicodeError, ValueError, AssertionError):
        return None  # no such codec, or one that turns no bytes into text
    # web pages lie: a wrong name shows as many broken characters
    return text if isinstance(text, str) and text.count("\ufffd") * 100 <= len(text) else None


def _utf8(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            text = data.decode("utf-8", "replace")
            broken = text.count("\ufffd")
            good = sum(len(run) for run in re.findall("[^\x00-\x7f\ufffd]+", text))
            return text if broken * 20 <= good else None
    # Zeros are valid UTF-8, but many of them are UTF-16 in ASCII's range.
    return None if data[:_SAMPLE].count(0) * 5 >= len(data[:_SAMPLE]) > 0 else text


def _escaped(data: bytes) -> str | None:
    """Text of the seven-bit encodings of mails, which are valid UTF-8 as well."""
    for name, mark in _ESCAPED:
        if mark in data[:_SAMPLE] and data.isascii():
            try:
                return data.decode(name)
            except UnicodeDecodeError:
                continue
    return None


def _guess(data: bytes) -> str:
    """Name of the likeliest encoding."""
    sample = data[:_SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if (even + odd) * 5 >= len(sample) and min(even, odd) * 10 <= max(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    share, best = _best(sample, _EAST_ASIAN.items())
    if share > _BELIEVED:
        return best
    # Accents are rarer than the letters between them.
    letters = sum(byte < 0x80 and chr(byte).isalpha() for byte in sample)
    is_latin = sum(byte > 0x7F for byte in sample) <= letters
    share, best = _best(sample, _ACCENTED + _ALPHABETS if is_latin else _ALPHABETS)
    if share < _CERTAIN:
        # Slow to import; hardly a file needs it.
        detect = require("charset_normalizer", extra="documents", feature="Guessing an encoding")
        found = detect.from_bytes(sample).best()
        return str(found.encoding) if found else "latin-1"
    try:
        data.decode(best)
    except UnicodeDecodeError:
        return "latin-1"
    return best


def _best(sample: bytes, commons: Iterable[tuple[str, str]]) -> tuple[float, str]:
    """The first of the encodings with the largest share of common characters, and this share."""
    return max(
        ((_share(sample, name, common), name) for name, common in commons), key=itemgetter(0)
    )


def _share(sample: bytes, name: str, common: str) -> float:
    """Share of the common characters among those that are not ASCII; 0 where many are broken."""
    foreign = [c for c in sample.decode(name, "replace") if c > "\x7f"]
    # A character cut at the end of the sample is broken in the right reading, too.
    if not foreign or (foreign.count("\ufffd") - 1) * 20 > len(foreign):
        return 0.0
    return sum(c in common for c in foreign) / len(foreign)
