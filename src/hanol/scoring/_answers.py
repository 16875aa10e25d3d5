"""Deterministic metrics: does an answer equal a reference?

All of them first drop citation marks (`CITATION`), which are about the answer and not part of it,
read Unicode in its compatibility form (NFKC: full-width digits, ligatures, half-width kana) and
write English dates as ISO dates. None reads a sentence: an answer that says more than the reference
does not match.
"""

import calendar
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

References = str | Sequence[str]
Metric = Callable[[str | None, References], bool]

_WORD = (
    r"(?:sources?|src|ref(?:erence)?s?|cit(?:e|ation)s?|doc(?:ument)?s?|passages?|"
    r"web(?:page)?|(?:foot)?notes?|chunks?|snippets?|results?|evidence|quellen?|fuentes?|출처|문서|"
    r"자료|참고|검색 ?결과|来源|來源|出典|資料|资料|参考|文献|引用)"
)
_SOURCE = rf"(?i:(?:see\s+)?{_WORD})[\s.:：#_-]*"
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
# Raised digits are citations behind a longer word, a stop or a space, not behind "km" or a number.
_RAISED_AT = r"(?:(?<=[^\W\d_]{4})|(?<=[\s.,;:!?)\]”’。가-힣ぁ-ヿ一-鿿]))"
CITATION = re.compile(
    rf"(?:(?:\\?\[{{1,2}}|[【［〔〖])\s*(?:{_SOURCE}|(?i:[sd](?=\d)|no\.? ))?"
    rf"|[(（]\s*(?:{_SOURCE}|(?=\d{{1,9}}번 ?{_WORD}))"
    rf"|<(?:ref|cite|citation|source)>\s*\[?|\\cite[pt]?\{{"
    rf"|{_RAISED_AT}(?:<sup>\s*\[?|⁽?(?=[{_RAISED}])))[\^#]?"
    rf"((?:\d{{1,9}}|[{_RAISED}]{{1,9}})(?:\s*(?:(?:[-–—‐‑⁻~〜～,;、，；&]|and\b|to\b|및)\s*)+"
    rf"(?:{_SOURCE})?[\^#]?(?:\d{{1,9}}|[{_RAISED}]{{1,9}}))*)"
    rf"(?:\s?번째?(?:\s*{_WORD})?|\.|\s+(?:source|end)\b)?"
    r"(?::\d{1,3}(?=†))?(?:†[^\]】\n]{0,60}|,?\s*(?:pp?\.|page|§|쪽)\s*\d[\d–-]*"
    r"|\s*[:|–—]\s+[^\W\d_][^\]】)\n]{0,60})?\^?\s*"
    rf"(?:\]?</[a-z]{{3,8}}>|[⁾}}]|\\?\]{{1,2}}(?:\((?:https?:|doc:|#)[^)\s]{{0,2000}}\))?|[】］〕〗)）]|(?<=[{_RAISED}]))"
)
"""A citation: [3], [1, 2], [1-3], or as other models write it: 【3†source】, [^3], \\[3\\],
[Source 3], [citation:3], (ref. 3), high³, [3](link); its first group has the numbers."""

_CITED = re.compile(rf"\s*{CITATION.pattern}")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# Characters of languages that set no space between words, and Hangul, whose spacing varies.
_CJK = "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
_CJK_SPACE = re.compile(rf"(?<=[{_CJK}])\s+(?=[{_CJK}])")
_SEPARATOR = re.compile(r"[;\n、]|,(?!\d{3}(?!\d))|\band\b|&")
_MONTHS = {name.casefold(): i for i, name in enumerate(calendar.month_name) if name}
_NAMES = "|".join(_MONTHS)
_DATE = re.compile(
    rf"\b(?:(?P<month>{_NAMES}) (?P<day>\d{{1,2}}),?|(?P<day_first>\d{{1,2}}) (?P<of>{_NAMES}),?)"
    r" (?P<year>\d{4})\b",
    re.IGNORECASE,
)
_ISO_DATE = re.compile(r"\b(\d{4})-0?(\d{1,2})-0?(\d{1,2})\b")
_NUMBER = re.compile(
    r"(?:about|approximately|around|roughly|circa|약|~|≈)?\s*(?P<before>[$€£¥₩]?)\s*"
    r"(?P<digits>[+-]?(?:\d{1,3}(?:[ ,]\d{3})+|\d+)?(?:\.\d+)?)"
    r"(?:e(?P<e>[+-]?\d{1,3})|\s*[x×*·]\s*10\s*\^?\s*(?P<ten>[+-]?\d{1,3}))?"
    r"\s*(?P<after>[^\d\s.][^\d]{0,40}?)?\.?"
)


def normalise(text: str) -> str:
    """The form in which `exact_match` compares texts.

    No citation marks; NFKC and case folding; English dates as year, month, day; hyphens, slashes
    and underscores become spaces; other punctuation goes, except what belongs to a number (minus,
    decimal point, %); commas between thousands go; the English articles go, unless nothing else is
    left; runs of spaces become one, and spaces between CJK characters (Hangul included) go.
    """
    folded = unicodedata.normalize("NFKC", _plain(text).casefold())
    folded = _THOUSANDS.sub("", folded.replace("\u2212", "-"))
    kept = "".join(_keep(folded, i) for i in range(len(folded)))
    without_articles = _ARTICLE.sub(" ", kept)
    chosen = without_articles if without_articles.strip() else kept
    # A letter and a mark may have become neighbours, which NFKC writes as one character.
    return unicodedata.normalize("NFKC", _CJK_SPACE.sub("", " ".join(chosen.split())))


def exact_match(prediction: str | None, references: References) -> bool:
    """Whether a prediction equals one of the references after `normalise`.

    Args:
        prediction: None, or a text without letters and digits, equals nothing.
        references: Texts of which one is enough.

    Example:
        >>> exact_match("The Beatles [2].", "beatles"), exact_match("서울 특별시", "서울특별시")
        (True, True)
    """
    found = normalise(prediction or "")
    return bool(found) and found in {normalise(reference) for reference in _all(references)}


def set_match(
    prediction: str | Sequence[str] | None,
    references: References,
    *,
    aliases: Mapping[str, str] | None = None,
) -> bool:
    """Whether the members of a list are exactly the members of the reference, in any order.

    Args:
        prediction: The members, or one text with commas, semicolons, line breaks, "and", "&" or
            "、" between them.
        references: The members, in the same forms; not alternatives.
        aliases: Other names of members, normalised, with the name that the references use.

    Example:
        >>> set_match("Oslo, Bergen and Narvik", ["Narvik", "Bergen", "Oslo"])
        True
    """
    known = aliases or {}
    found = {normalise(known.get(member, member)) for member in _members(prediction or "")}
    return bool(found) and found == _members(references)


def numeric_match(prediction: str | None, references: References, *, tol: float = 0.0) -> bool:
    """Whether a prediction is the number of one of the references.

    Values are compared exactly as fractions: "1,000", "1000" and "1e3" are equal, and so are "5%"
    and "0.05". A unit or currency must be the same on both sides: "5 km" is neither "5" nor "5 m".
    "About" and the like before the number are skipped.

    Args:
        prediction: A number with an optional unit, and nothing else.
        references: Numbers in the same forms, of which one is enough.
        tol: Largest relative error, as a share of the reference.

    Example:
        >>> numeric_match("1,000 km [1]", "1e3 km"), numeric_match("3.1", "3.14", tol=0.02)
        (True, True)
    """
    found = _number(prediction or "")
    if found is None:
        return False
    value, unit = found
    return any(
        of == unit and abs(value - wanted) <= Fraction(tol) * abs(wanted)
        for wanted, of in filter(None, map(_number, _all(references)))
    )


def _all(references: References) -> Sequence[str]:
    return [references] if isinstance(references, str) else references


def _plain(text: str) -> str:
    """Compatibility form without citation marks, with dates as year-month-day."""
    text = _CITED.sub("", unicodedata.normalize("NFKC", text))
    return _ISO_DATE.sub(r"\1-\2-\3", _DATE.sub(_iso_date, text))


def _iso_date(match: re.Match[str]) -> str:
    month = _MONTHS[(match["month"] or match["of"]).casefold()]
    return f"{match['year']}-{month}-{int(match['day'] or match['day_first'])}"


def _keep(text: str, i: int) -> str:
    """One character of a text in its normalised form: itself, a space or nothing."""
    char = text[i]
    category = unicodedata.category(char)
    if not category.startswith("P"):
        return char
    before, after = text[i - 1 : i], text[i + 1 : i + 2]
    if char == "-" and after.isdigit() and (not before or before.isspace()):
        return char
    if (char == "." and before.isdigit() and after.isdigit()) or char == "%":
        return char
    return " " if category in ("Pd", "Pc") or char in "/,;:" else ""


def _members(texts: References) -> set[str]:
    pieces = [piece for text in _all(texts) for piece in _SEPARATOR.split(_plain(text))]
    return {normalise(piece) for piece in pieces} - {""}


def _number(text: str) -> tuple[Fraction, str] | None:
    """Value and unit of a text that is a number, None of any other."""
    text = _plain(text).replace("\u2212", "-").strip().casefold()
    match = _NUMBER.fullmatch(text) if len(text) < 200 else None
    if match is None or not any(char.isdigit() for char in match["digits"]):
        return None
    value = Fraction(match["digits"].replace(",", "").replace(" ", ""))
    value *= Fraction(10) ** int(match["e"] or match["ten"] or 0)
    unit = " ".join((match["after"] or "").split())
    if unit in ("%", "percent", "per cent", "퍼센트", "프로"):
        value, unit = value / 100, ""
    return value, match["before"] + unit
