"""Shows numbers as Excel does, by the format code of their cell (ECMA-376 part 1, 18.8.31).

Own code: openpyxl and calamine give the bare number, and the one formatter on PyPI (ssf) has not
been maintained since 2020. Not done: eras, and names of months and days in other languages.
"""

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import lru_cache, partial
from operator import eq, ge, gt, le, lt, ne

_DAY, _TIME = "yyyy-mm-dd", "h:mm:ss"  # where the format is that of the reader's country
BUILT_IN = (
    {1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%", 11: "0.00E+00"}
    | {12: "# ?/?", 13: "# ??/??", 14: _DAY, 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy"}
    | {18: "h:mm AM/PM", 19: "h:mm:ss AM/PM", 20: "h:mm", 21: _TIME, 22: f"{_DAY} h:mm"}
    | dict.fromkeys((27, 28, 29, 30, 31, 36, 50, 51, 52, 53, 54, 57, 58), _DAY)
    | dict.fromkeys((32, 33, 34, 35, 55, 56), _TIME)
    | dict.fromkeys((37, 38), "#,##0;(#,##0)")
    | dict.fromkeys((39, 40), "#,##0.00;(#,##0.00)")
    | {41: "#,##0;-#,##0", 42: "#,##0;-#,##0", 43: "#,##0.00;-#,##0.00", 44: "#,##0.00;-#,##0.00"}
    | {45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 48: "##0.0E+0", 49: "@"}
)
"""Format codes that a workbook names by number only."""

_TOKEN = re.compile(
    r'"[^"]*"?|\\.|_.|\*.|\[[^\]]*\]|general|am/pm|a/p|上午/下午|오전/오후|e[+-]0+|y+|m+|d+|h+|s+(?:\.0+)?|a{3,}'
    r"|[0#?]|.",
    re.IGNORECASE | re.DOTALL,
)
_SECTION = re.compile(r'((?:"[^"]*"?|\\.|\[[^\]]*\]|[^;"\\])*);?')
_CONDITION = re.compile(r"\[(<=|>=|<>|<|>|=)(-?[\d.]+)\]")
_TESTS = {"<": lt, "<=": le, "=": eq, ">=": ge, ">": gt, "<>": ne}
_CURRENCY = re.compile(r"\[\$([^-\]]*)")
_ELAPSED = re.compile(r"\[(h+|m+|s+)\]", re.IGNORECASE)
_DATE_TOKEN = re.compile(
    r"(?:y+|m+|d+|h+|s+(?:\.0+)?|a{3,}|am/pm|a/p|\[(?:h+|m+|s+)\])", re.IGNORECASE
)
_LAST_DAY = 2_958_466  # of the year 9999


@lru_cache(maxsize=50_000)  # dates and shares repeat
def shown(value: str, code: str, *, date1904: bool = False) -> str:
    """A stored number as its cell shows it; other text as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return value
    return formatter(code, date1904=date1904)(number) or _general(number)


@lru_cache(maxsize=2000)
def formatter(code: str, *, date1904: bool = False) -> Callable[[float], str]:
    """Function that writes a number in a format; the empty string where the format hides it."""
    sections = _SECTION.findall(code)[:4]
    while len(sections) > 1 and not sections[-1]:
        sections.pop()  # the empty end of the code, or a section that would hide the number
    if not code or code.strip().lower() in ("general", "@") or len(code) > 500:
        return _general
    pieces = [_TOKEN.findall(section) for section in sections]
    conditions = [next(filter(None, map(_CONDITION.match, s)), None) for s in pieces]
    dates = [any(map(_DATE_TOKEN.fullmatch, section)) for section in pieces]
    return partial(_pick, list(zip(pieces, conditions, dates, strict=True)), date1904)


def _general(number: float) -> str:
    """A number without a format: up to 15 digits, as Excel stores them."""
    return str(int(number)) if abs(number) < 1e15 and number == int(number) else f"{number:.15G}"


def _pick(
    sections: list[tuple[list[str], re.Match[str] | None, bool]], date1904: bool, number: float
) -> str:
    """Write a number by the section of a format that is for it: positive; negative; zero."""
    chosen, sign = sections[0], "-" if number < 0 else ""
    if any(condition for _, condition, _ in sections):
        for section in sections:
            if (test := section[1]) is None or _TESTS[test[1]](number, float(test[2])):
                chosen, sign = section, "-" if number < 0 and test is None else ""
                break
    elif number < 0 and len(sections) > 1:
        chosen, sign = sections[1], ""
    elif number == 0 and len(sections) > 2:
        chosen = sections[2]
    pieces, _, is_date = chosen
    return _date(pieces, number, date1904) if is_date else _number(pieces, abs(number), sign)


def _literal(piece: str) -> str | None:
    """The text of a piece that is no placeholder; None of a placeholder."""
    if piece[0] == '"':
        return piece.strip('"')
    if piece[0] == "[":
        found = _CURRENCY.match(piece)
        return found.group(1) if found else ""
    if piece[0] in "\\_*" and len(piece) > 1:
        return piece[1] if piece[0] == "\\" else " " if piece[0] == "_" else ""
    return None


def _number(pieces: list[str], number: float, sign: str) -> str:
    if any(piece.lower() == "general" for piece in pieces):
        texts = [_general(number) if t.lower() == "general" else _literal(t) or "" for t in pieces]
        return (sign + "".join(texts)).strip()
    power = next((i for i, piece in enumerate(pieces) if piece[:2].upper() in ("E+", "E-")), 999)
    places = [i for i, piece in enumerate(pieces) if piece in "0#?" and i < power]
    if not places:
        return "".join(t if (text := _literal(t)) is None else text for t in pieces).strip()
    if "/" in pieces and places[0] < pieces.index("/") < places[-1]:
        return _fraction(pieces, number, sign, places)
    point = pieces.index(".") if "." in pieces else len(pieces)
    whole, parts = [i for i in places if i < point], [i for i in places if i > point]
    grouped = "," in pieces[slice(whole[0], whole[-1])] if whole else False
    scale = 0  # commas behind the last digit divide by a thousand
    while pieces[places[-1] + 1 + scale : places[-1] + 2 + scale] == [","]:
        scale += 1
    value = Decimal(repr(number)) * 10 ** (2 * pieces.count("%")) / 1000**scale
    exponent = 0
    if power < len(pieces) and value:
        step = max(len(whole), 1)
        exponent = value.adjusted() // step * step
        value = value.scaleb(-exponent)
    if value.adjusted() + len(parts) > 25:  # beyond the digits of a decimal
        return _general(number)
    value = value.quantize(Decimal(1).scaleb(-len(parts)), ROUND_HALF_UP)
    digits, _, decimals = f"{value:f}".partition(".")
    digits = digits.lstrip("0").rjust(sum(pieces[i] == "0" for i in whole), "0")
    written = dict.fromkeys(places, "")
    if grouped:
        written[whole[-1]] = f"{int(digits or 0):0{len(digits)},}" if digits else ""
    elif whole:
        for i in reversed(whole):
            written[i], digits = digits[-1:], digits[:-1]
        written[whole[0]] = digits + written[whole[0]]
    kept = len(decimals.rstrip("0"))
    for place, i in enumerate(parts):
        written[i] = decimals[place] if place < kept or pieces[i] == "0" else ""
    out = [sign if value else ""]
    for i, piece in enumerate(pieces):
        if i in written:
            out.append(written[i])
        elif i == power:
            mark = "-" if exponent < 0 else "+" if "+" in piece else ""
            out.append(f"E{mark}{abs(exponent):0{len(piece) - 2}d}")
        elif piece == ".":
            out.append("." if any(written[j] for j in parts) or i != point else "")
        elif piece != ",":
            text = _literal(piece)
            out.append(piece if text is None else text)
    return "".join(out).strip()


def _fraction(pieces: list[str], number: float, sign: str, places: list[int]) -> str:
    slash = pieces.index("/")
    below = "".join(pieces[slash + 1 :]).strip()
    fixed = int(below) if below.isdigit() and int(below) else 0
    most = max(sum(i > slash for i in places), 1)
    whole, rest = divmod(number, 1)
    if fixed:
        top, bottom = round(rest * fixed), fixed
    else:
        ratio = Fraction(rest).limit_denominator(10 ** min(most, 4) - 1)
        top, bottom = ratio.numerator, ratio.denominator
    if top == bottom:
        whole, top = whole + 1, 0
    text = [str(int(whole))] * bool(whole or not top) + [f"{top}/{bottom}"] * bool(top)
    return sign + " ".join(text)


def _date(pieces: list[str], number: float, date1904: bool) -> str:
    if not 0 <= number < _LAST_DAY:
        return ""
    days = number + 1462 * date1904
    fine = any("." in piece for piece in pieces if piece[0] in "sS")
    seconds = round(days * 86400, 3) if fine else round(days * 86400)
    # Excel counts a 29 February 1900 that was none.
    moment = datetime(1899, 12, 30 + (days < 60)) + timedelta(seconds=seconds)
    half = any(piece.lower() in ("am/pm", "a/p", "오전/오후", "上午/下午") for piece in pieces)
    out, clock = [], False
    for i, piece in enumerate(pieces):
        kind = piece.lower()
        if elapsed := _ELAPSED.fullmatch(piece):
            unit = {"h": 3600, "m": 60, "s": 1}[elapsed.group(1)[0].lower()]
            out.append(f"{int(seconds // unit):0{len(elapsed.group(1))}d}")
            clock = unit > 1
        elif kind[0] == "y":
            out.append(f"{moment:%Y}" if len(kind) > 2 else f"{moment:%y}")
        elif kind[0] == "m" and set(kind) == {"m"}:
            later = next((t.lower() for t in pieces[i + 1 :] if _DATE_TOKEN.fullmatch(t)), "")
            if len(kind) < 3 and (clock or later[:1] == "s" or later[:2] == "[s"):
                out.append(f"{moment.minute:0{len(kind)}d}")
            else:
                code = ("", "%m", "%b", "%B")[min(len(kind), 4) - 1]
                name = f"{moment:{code}}" if code else f"{moment.month}"
                out.append(name[0] if len(kind) > 4 else name)
            clock = False
        elif kind[0] == "d" and set(kind) == {"d"}:
            code = ("", "%d", "%a", "%A")[min(len(kind), 4) - 1]
            out.append(f"{moment:{code}}" if code else f"{moment.day}")
        elif kind[:3] == "aaa":
            out.append("월화수목금토일"[moment.weekday()] + "요일" * (len(kind) > 3))
        elif kind[0] == "h" and set(kind) == {"h"}:
            hour = (moment.hour + 11) % 12 + 1 if half else moment.hour
            out.append(f"{hour:0{min(len(kind), 2)}d}")
            clock = True
        elif kind[0] == "s" and kind.strip("s.0") == "":
            whole, point, part = kind.partition(".")
            out.append(f"{moment.second:0{min(len(whole), 2)}d}{point}")
            out.append(f"{moment.microsecond:06d}"[: len(part)])
        elif "/" in kind and len(kind) > 1:
            out.append(piece.upper().split("/")[moment.hour >= 12])
        elif kind not in ("0", "#", "?", "@"):
            text = _literal(piece)
            out.append(piece if text is None else text)
    return "".join(out).strip()
