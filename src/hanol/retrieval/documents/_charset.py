"""Bytes to clean text: which encoding a file is in, and what is removed from it.

charset-normalizer judges by statistics, which mislead in short texts (French as Central European,
Hebrew as Cyrillic). There the commonest characters of a language decide; elsewhere it does.
"""

import codecs
import re
import string
import unicodedata

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
_ESCAPED = (("iso2022_kr", b"\x1b$)C"), ("iso2022_jp_2", b"\x1b$"), ("hz", b"~{"))  # seven-bit
# Encodings with the commonest characters of the languages written in them. Decoded rightly, a text
# has 40 % and more of these among its characters that are not ASCII, otherwise hardly any.
_KANA = "のにはをたがでとしてれさいるなもくかりすだこっらまあそけどよえおめわょゃー、。"
_WIDE = [
    ("cp949", "이다는하을니에의한로은가고를기인지전정으합도서시제과대리사있보구문용요해자것라된"
              "데게나들그만와안녕세습입니까"),
    ("cp932", _KANA),
    ("euc_jp", _KANA),
    ("gb18030", "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得"
                "于着下自之年过发后作里，。"),
    ("big5", "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於"
             "著下自之年過發後作裡，。"),
]  # fmt: skip
_RUSSIAN, _CYRILLIC = "оеаинтсрвлкмдпуяыь", ("cp1251", "koi8-r")
_ALPHABETS = [
    *((codec, _RUSSIAN) for codec in _CYRILLIC), ("cp1253", "αοιετσνηυρπκμλςάέήίόύώ"),
    ("cp1255", "יוהלאתרבשמנםעדח"), ("cp1256", "اليمنوتربةعد"),
    *((codec, _RUSSIAN.upper()) for codec in _CYRILLIC),
]  # fmt: skip
_VOWELS, _CONSONANTS = "[аеёиоуыэюяіїє]", "[бвгґджзйклмнпрстфхцчшщ]"
_ALTERNATION = re.compile(f"(?={_VOWELS}{_CONSONANTS}|{_CONSONANTS}{_VOWELS})", re.IGNORECASE)
_CAPITAL_INSIDE = re.compile("[а-яё][А-ЯЁ]")
_CENTRAL_EUROPE = "ąćęłńóśźż áčďéěíľňóôřšťúůýž áéíóöőúüű ăâîşţ čćđšž"
_ACCENTED = [  # each language on its own; the first of equals wins
    (codec, letters + letters.upper() + "«»°–—’‘“”„…€£©®·")
    for codec, languages in (
        ("cp1252", "àâçéèêëîïôùûüœ äöüß áéíóúñü¿¡ºª ãõáéíóúâêôàç åäöøæé àèéìíòóù"),
        ("cp1254", "çğıİöşüâîû"),
        ("cp1252", "áéíóúýðþæö"),
        ("iso8859-2", _CENTRAL_EUROPE),
        ("cp1250", _CENTRAL_EUROPE),
    )
    for letters in languages.split()
]  # fmt: skip
_EVERY = string.printable + "".join(letters for _, letters in _WIDE + _ALPHABETS + _ACCENTED)
_WIDE += [("utf-16-le", _EVERY), ("utf-16-be", _EVERY)]
_BELIEVED = 0.15  # share of common characters from which a wide reading is believed
_CERTAIN = 0.5  # the same for other readings, whose letters are few

_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_STRANGE = re.compile("[\x00-\x08\x0e-\x1a\x7f-\x84\x86-\x9f\ufffd]")
# Combining marks are no word characters. 30 in a row are kept: Unicode Annex 15, Stream-Safe Text.
_MARKS = re.compile(r"[^\w\s\x00-\x7f]{32,}")
_MAX_MARKS = 30


def decode(data: bytes, declared: str | None = None) -> str:
    """Text by its byte order mark, declared name, escapes, UTF-8 with few faults, or a guess."""
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
    text = _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", ""))
    if text.isascii():
        return text
    # through UTF-16: two surrogates that belong together become the character they stand for
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
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
    for name, escape in _ESCAPED:  # they are valid UTF-8 as well
        if escape in data[:_SAMPLE] and data.isascii():
            try:
                return data.decode(name)
            except UnicodeDecodeError:
                continue
    text = _utf8(data)
    return data.decode(_guess(data), "replace") if text is None else text


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
    # Zeros and controls are valid UTF-8, but many of them are the upper bytes of UTF-16.
    sample = data[:_SAMPLE]
    if sum(byte < 9 for byte in sample) * 3 >= len(sample) > 0:
        return None
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        foreign = sum(char > "\x7f" for char in text)
        return text if text.count("\ufffd") * 21 <= foreign else None


def _guess(data: bytes) -> str:
    """Name of the likeliest encoding."""
    sample = data[:_SAMPLE]
    # Accents are rarer than the letters between them.
    letters = sum(byte < 0x80 and chr(byte).isalpha() for byte in sample)
    is_latin = sum(byte > 0x7F for byte in sample) <= letters
    narrow = _ACCENTED + _ALPHABETS if is_latin else _ALPHABETS
    for encodings, least in ((_WIDE, _BELIEVED), (narrow, _CERTAIN)):
        shares = [_share(sample, name, common) for name, common in encodings]
        if max(shares) >= least:
            name = encodings[shares.index(max(shares))][0]
            # Either of these reads the other's small letters as capitals of other letters.
            return max(_CYRILLIC, key=lambda c: _cyrillic(sample, c)) if name in _CYRILLIC else name
    # Slow to import; hardly a file needs it.
    detect = require("charset_normalizer", extra="documents", feature="Guessing an encoding")
    found = detect.from_bytes(sample).best()
    return str(found.encoding) if found else "latin-1"


def _cyrillic(sample: bytes, codec: str) -> float:
    """How much a reading looks like a Slavic language; capitals count less, as they are rarer."""
    text = sample.decode(codec, "replace")
    common = sum(char.lower() in _RUSSIAN for char in text)
    wrong = len(_CAPITAL_INSIDE.findall(text)) + sum(map(str.isupper, text)) / 10
    return common + len(_ALTERNATION.findall(text)) / 2 - wrong


def _share(sample: bytes, name: str, common: str) -> float:
    """Share of the common characters; 0 where many are broken."""
    text = sample.decode(name, "replace")
    # ASCII counts only in UTF-16, where a wrong reading has none.
    foreign = [char for char in text if char > "\x7f" or common is _EVERY]
    # A character cut at the end of the sample is broken in the right reading, too.
    if not foreign or (foreign.count("\ufffd") - 1) * 20 > len(foreign):
        return 0.0
    return sum(char in common for char in foreign) / len(foreign)
