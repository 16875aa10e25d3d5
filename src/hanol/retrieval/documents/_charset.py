"""Bytes to clean text: which encoding a file is in, and what is removed from it.

Own tables, because detectors name no doubt and mislead in short texts (`dev/LOG.md` has figures):
the commonest characters of a language decide, and charset-normalizer where none fit.
"""

import codecs
import re
import string
import unicodedata
from contextlib import suppress
from pathlib import Path

from hanol.errors import DocumentError, require
from hanol.retrieval.documents._remarks import remark

_SAVE = "save it as UTF-8 text from the program that made it"
_SAMPLE = 65_536  # bytes or characters that decide
_ALIASES = {  # the superset that programs really write under the narrower name
    "ascii": "utf-8", "euc_kr": "cp949", "shift_jis": "cp932", "gb2312": "gb18030",
    "gbk": "gb18030", "iso8859-1": "cp1252", "latin-1": "cp1252", "iso8859-9": "cp1254",
    "iso8859-11": "cp874", "tis-620": "cp874", "iso2022_jp": "iso2022_jp_ext",
}  # fmt: skip
_PAGE = re.compile(r"(?:windows|dos|ibm|cp)-?(\d+)")  # Python does not know all of them
_ESCAPED = (  # seven-bit encodings, and what must be in them
    ("iso2022_kr", (b"\x1b$)C",)), ("iso2022_jp_2", (b"\x1b$",)), ("iso2022_jp_ext", (b"\x1b",)),
    ("iso2022_jp_2004", (b"\x1b$(",)), ("hz", (b"~{", b"~}")),
)  # fmt: skip
_WIDER = {"big5": "big5hkscs", "cp932": "shift_jis_2004", "euc_jp": "euc_jis_2004"}


def _commonest(kind: str) -> list[tuple[str, str]]:
    """Encodings of a kind, each with the commonest characters of a language that is written in it.

    Decoded rightly, a text has 40 % and more of these among its characters that are not ASCII,
    otherwise hardly any.
    """
    lines = Path(__file__).with_name("encodings.txt").read_text("utf-8").splitlines()
    rows = (line.partition(": ") for line in lines if line.startswith(kind))
    found = ((names.split()[1:], letters.split()) for names, _, letters in rows)
    return [(name, each) for names, letters in found for name in names for each in letters]


_WIDE, _ALPHABETS = _commonest("wide"), _commonest("alphabet")
_ALPHABETS += [(codec, common.upper()) for codec, common in _ALPHABETS if common.upper() != common]
_ACCENTED = [  # each language on its own; the first of equals wins
    (codec, f"{letters}{letters.upper()}«»°–—’‘“”„…€£©®·§")
    for codec, letters in _commonest("accented")
]
_EVERY = string.printable + "".join(letters for _, letters in _WIDE + _ALPHABETS + _ACCENTED)
_WIDE += [("utf-16-le", _EVERY), ("utf-16-be", _EVERY)]
_BELIEVED = 0.15  # share of common characters from which a wide reading is believed
_CERTAIN = 0.8  # the same for other readings, whose letters are few
_RANKED = 0.4  # what the order of the letters counts beside that share
_NEAR = 0.01  # another reading this near, or two characters, makes a guess doubtful
_FINAL = "ךםןףץ"  # forms of letters at the end of a Hebrew word

_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_STRANGE = re.compile("[\x00-\x08\x0e-\x1a\x7f-\x84\x86-\x9f\ufffd]")
_DEFAULTS = ("ascii", "cp1252", "iso8859-1", "iso8859-15")  # what programs name without looking
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
    if (broken := text.count("\ufffd") - data.count(b"\xef\xbf\xbd")) > 0:
        remark(f"has {broken} characters that could not be decoded: they show as \ufffd", _SAVE,
               doubtful=True)  # fmt: skip
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
    for name, escapes in _ESCAPED:  # they are valid UTF-8 as well
        if all(escape in data[:_SAMPLE] for escape in escapes) and data.isascii():
            with suppress(UnicodeDecodeError):
                return data.decode(name)
    for name, high in (("utf-32-le", data[3::4]), ("utf-32-be", data[::4])):
        if len(data) % 4 == 0 and not any(high):
            with suppress(UnicodeDecodeError):
                return data.decode(name)
    if (text := _utf8(data)) is not None:
        return text
    text = data.decode(name := _guess(data), "replace")
    wider = data.decode(_WIDER.get(name, name), "replace")
    return min(text, wider, key=lambda text: text.count("\ufffd"))


def _declared(data: bytes, name: str) -> str | None:
    try:
        name = name.strip().lower().removeprefix("x-")
        name = codecs.lookup(_PAGE.sub(r"cp\1", name)).name
        if name in ("idna", "punycode"):
            return None  # for host names; quadratic time
        if name in _DEFAULTS and not data.isascii():
            with suppress(UnicodeDecodeError):
                return data.decode()
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
    """Name of the likeliest encoding; a remark where another is as likely."""
    sample = data[:_SAMPLE]
    # Accents are rarer than the letters between them.
    letters = sum(byte < 0x80 and chr(byte).isalpha() for byte in sample)
    is_latin = sum(byte > 0x7F for byte in sample) <= letters
    wide = max(((_share(sample, *pair), pair[0]) for pair in _WIDE), key=lambda pair: pair[0])
    # the lines that tell encodings apart
    telling = b"\n".join(line for line in sample.splitlines() if not line.isascii())[:4096]
    scores: dict[str, float] = {}
    for place, (name, common) in enumerate((_ACCENTED if is_latin else []) + _ALPHABETS):
        score = _share(telling, name, common) - place / 1e6  # the first of equals
        if not is_latin and score > _CERTAIN / 2:
            score += _RANKED * _rank(telling.decode(name, "replace"), common)
        scores[name] = max(score, scores.get(name, 0.0))
    if wide[0] >= _BELIEVED and not (max(scores.values()) >= 0.9 and wide[0] < 0.25):
        return wide[1]
    for name, score in scores.items():
        if score > 0.4:
            scores[name] -= _oddity(telling.decode(name, "replace"))
    best = max(scores, key=scores.__getitem__)
    if scores[best] >= _CERTAIN:
        text = telling.decode(best, "replace")
        count = sum(byte > 0x7F for byte in telling)
        margin = max(_NEAR, min(5 * _NEAR, 2 / count))
        rivals = dict(_ACCENTED if is_latin and best in dict(_ACCENTED) else _ALPHABETS)
        near = (name for name in rivals if scores[name] > scores[best] - margin)
        if other := next((name for name in near if telling.decode(name, "replace") != text), None):
            remark(f"does not name its encoding: read as {best}, but {other} is about as likely",
                   _SAVE, doubtful=True)  # fmt: skip
        return best
    if wide[0] >= _BELIEVED:
        if wide[0] < 2 * _BELIEVED:
            remark(f"does not name its encoding: read as {wide[1]}, which may be wrong", _SAVE,
                   doubtful=True)  # fmt: skip
        return wide[1]
    # Slow to import; hardly a file needs it.
    detect = require("charset_normalizer", extra="documents", feature="Guessing an encoding")
    found = detect.from_bytes(sample).best()
    guess = str(found.encoding) if found else "latin-1"
    remark(f"does not name its encoding: read as {guess}, which may be wrong", _SAVE,
           doubtful=True)  # fmt: skip
    return guess


def _rank(text: str, common: str) -> float:
    """How early a text's letters stand among the common ones, the commonest first: -0.5 to 0.5."""
    ranks = [common.index(char) for char in text if char > "\x7f" and char in common]
    return 0.5 - sum(ranks) / max(len(ranks), 1) / len(common)


def _oddity(text: str) -> float:
    """Share of the characters beyond ASCII that no word has where they stand."""
    foreign = odd = 0
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if char <= "\x7f":
            continue
        foreign += 1
        beside = before.isalpha(), after.isalpha()
        if not char.isalpha():
            odd += all(beside) and char not in "’‘·–—" and not unicodedata.combining(char)
        elif char in _FINAL:
            odd += beside[1]
        elif char.isupper():
            odd += before.islower() or (beside[0] and after.islower())
        elif "\u0370" <= char < "\u1e00":  # of another script than a letter beside it
            odd += any(letter.isascii() and letter.isalpha() for letter in (before, after))
    return odd / max(foreign, 1)


def _share(sample: bytes, name: str, common: str) -> float:
    """Share of the common characters; 0 where many are broken."""
    text = sample.decode(name, "replace")
    # ASCII counts only in UTF-16, where a wrong reading has none.
    foreign = [char for char in text if char > "\x7f" or common is _EVERY]
    # A character cut at the end of the sample is broken in the right reading, too.
    if not foreign or (foreign.count("\ufffd") - 1) * 20 > len(foreign):
        return 0.0
    return sum(char in common for char in foreign) / len(foreign)
