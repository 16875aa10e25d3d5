"""Units of numbers, under one name for all their spellings."""

import re
from pathlib import Path

# A unit a line, its name first. Symbols are told apart by upper and lower case, words are not; s is
# added to English words.
_SPELLINGS = Path(__file__).with_name("units.txt").read_text("utf-8")
_BY_SYMBOL: dict[str, str] = {}
_BY_WORD: dict[str, str] = {}
for _name, *_others in map(str.split, _SPELLINGS.splitlines()):
    for _spelling in (_name, *_others):
        _text = _spelling.replace("_", " ")
        _is_word = _text.isascii() and len(_text) > 3 and _text.replace(" ", "").isalpha()
        if _is_word:
            _BY_WORD |= dict.fromkeys((_text.lower(), f"{_text.lower()}s"), _name)
            _first, _, _rest = _text.lower().partition(" ")
            _BY_WORD |= {f"{_first}s {_rest}": _name} if _rest else {}
        else:
            _BY_SYMBOL[_text] = _name

_ENGLISH = "|".join(re.escape(text) for text in sorted(_BY_WORD, key=len, reverse=True))
_ASCII = [text for text in _BY_SYMBOL if not "가" <= text[-1] <= "힣"]
_SYMBOLS = "|".join(re.escape(text) for text in sorted(_ASCII, key=len, reverse=True))
_KOREAN = "|".join(sorted({*_BY_SYMBOL} - {*_ASCII}, key=len, reverse=True))
# Not a quarter (3분기), a third (3분의 1), or the beginning of another word.
_UNIT = re.compile(
    rf"\s?-?(?:(?P<word>(?i:{_ENGLISH}))(?![^\W\d_가-힣])"
    rf"|(?P<korean>{_KOREAN})(?!(?<=분)[기의야류할석]|(?<=주)[년요]|(?<=년)대|(?<=원)[칙소형]"
    r"|(?<=프로)[젝그세필]|(?<=배)[럴]|(?<=비트)코|(?<=초)등)"
    rf"|(?P<symbol>{_SYMBOLS})(?![^\W_가-힣]|/[A-Za-z]|\^))"
)
_MONEY = re.compile(r"(?:US)?([$€£₩¥])\s?$|\b(USD|EUR|GBP|KRW|JPY|CNY|RMB)\s?$")


def unit_after(text: str, at: int) -> tuple[str, int]:
    """Name of the unit at a place behind a number ("" if there is none known), and its end."""
    if (found := _UNIT.match(text, at)) is None:
        return "", at
    if found["word"]:
        return _BY_WORD[found["word"].lower()], found.end()
    return _BY_SYMBOL[found["symbol"] or found["korean"]], found.end()


def unit_before(text: str, at: int) -> tuple[str, int]:
    """Name of the currency in front of a number ("" if there is none), and where it begins."""
    found = _MONEY.search(text[max(0, at - 5) : at])
    if found is None:
        return "", at
    return _BY_SYMBOL[found[1] or found[2]], at - len(found[0])


def is_unit(text: str) -> bool:
    """Whether a text is the symbol of a unit, such as km2."""
    return text in _BY_SYMBOL
