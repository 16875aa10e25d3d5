"""Bytes to clean text: which encoding a file is in, and what is taken out of it."""

import codecs
import re
import unicodedata

from hanol.errors import DocumentError

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
_COMMON = {
    "cp949": "이다는하을니에의한로은가고를기인지전정으합도서시제과대리사있보구문용요해자것라된"
    "데게나들그만와안녕세습입니까",
    "cp932": "のにはをたがでとしてれさいるなもくかりすだこっらまあそけどよえおめわょゃー、。",
    "gb18030": "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得"
    "于着下自之年过发后作里，。",
    "big5": "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於"
    "著下自之年過發後作裡，。",
}
_COMMON |= dict.fromkeys(("utf-16-le", "utf-16-be"), "".join(_COMMON.values()))
_BELIEVED = 0.15  # share of common characters from which a CJK reading is believed
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_STRANGE = re.compile("[\x00-\x08\x0e-\x1a\x7f-\x84\x86-\x9f\ufffd]")
_MARKS = re.compile(r"[^\w\s\x00-\x7f]{32,}")  # combining marks are no word characters
_MAX_MARKS = 30  # in a row: the Stream-Safe Text Format of Unicode Annex 15


def decode(data: bytes, declared: str | None = None) -> str:
    """Text of a file in an encoding that is declared, marked or found out.

    In this order: byte order mark; the declared name; UTF-8, also with a few broken bytes; UTF-16
    of ASCII characters; cp949, Shift-JIS, GB18030, Big5 and UTF-16 by the commonest characters of
    their scripts; Windows-1252 where other letters are rare; else what charset-normalizer finds.

    Raises:
        DocumentError: The bytes are no text; the message is a reason without the file's name.
    """
    text = _decode(data, declared)
    sample = text[:_SAMPLE]
    if (strange := len(_STRANGE.findall(sample))) > 5 and strange * 25 > len(sample):
        raise DocumentError(
            "holds bytes that are no text in any known encoding: open it in the program that "
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
    if (text := _utf8(data)) is not None:
        return text
    return _utf16(data) or _cjk(data) or _western(data)


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
    # zeros are valid UTF-8, but mostly they are UTF-16 in ASCII's range
    return None if _utf16_order(data) else text


def _utf16_order(data: bytes) -> str | None:
    sample = data[:_SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if (even + odd) * 5 < len(sample) or min(even, odd) * 10 > max(even, odd):
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _utf16(data: bytes) -> str | None:
    order = _utf16_order(data)
    text = data.decode(order, "replace") if order else ""
    readable = sum(c.isprintable() or c.isspace() for c in text[:_SAMPLE])
    return text if readable * 10 > 9 * len(text[:_SAMPLE]) else None


def _cjk(data: bytes) -> str | None:
    best, choice = _BELIEVED, None
    for name, common in _COMMON.items():
        sample = data[:_SAMPLE].decode(name, "replace")
        foreign = [c for c in sample if c > "\x7f"]
        # a character cut at the end of the sample is broken in the right reading, too
        if not foreign or (foreign.count("\ufffd") - 1) * 20 > len(foreign):
            continue
        share = sum(c in common for c in foreign) / len(foreign)
        if share > best:
            best, choice = share, name
    return data.decode(choice, "replace") if choice else None


def _western(data: bytes) -> str:
    sample = data[:_SAMPLE]
    high = sum(byte > 0x7F for byte in sample)
    letters = sum(chr(byte).isalpha() for byte in sample if byte < 0x80)
    if high > letters:  # Cyrillic, Greek, Arabic, ...: another alphabet, not accents
        from charset_normalizer import from_bytes  # slow to import; hardly a file needs it

        if found := from_bytes(sample).best():
            return data.decode(found.encoding, "replace")
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")
