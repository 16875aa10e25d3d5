"""Units of numbers, under one name for all their spellings."""

import re

# The first word of a line is the name. Symbols are told apart by upper and lower case, words are
# not; s is added to English words.
_SPELLINGS = """
% percent per_cent 퍼센트 프로
%p percentage_point 퍼센트포인트 %포인트 %_포인트
km kilometre kilometer 킬로미터 키로미터
m metre meter 미터
cm centimetre centimeter 센티미터 센치미터
mm millimetre millimeter 밀리미터
μm um micrometre micrometer 마이크로미터
nm nanometre nanometer 나노미터
mile 마일
ft foot feet 피트
inch inches 인치
km2 km^2 square_kilometre square_kilometer sq_km 제곱킬로미터 평방킬로미터
m2 m^2 square_metre square_meter sq_m 제곱미터 평방미터
m3 m^3 cubic_metre cubic_meter 세제곱미터 입방미터
ha hectare 헥타르
acre 에이커
l L litre liter 리터
ml mL millilitre milliliter 밀리리터
kg kilogram kilogramme 킬로그램
g gram gramme 그램
mg milligram 밀리그램
t ton tonne metric_ton 톤
s sec seconds 초
ms millisecond 밀리초
min minute 분
h hr hrs hour 시간
day 일
week 주
month 개월
year 년
km/h kph kilometre_per_hour kilometer_per_hour
m/s metre_per_second meter_per_second
mph mile_per_hour
°C degree_Celsius degrees_Celsius
°F degree_Fahrenheit degrees_Fahrenheit
K kelvin 켈빈
bit 비트
byte 바이트
kB KB KiB kilobyte 킬로바이트
MB MiB megabyte 메가바이트
GB GiB gigabyte 기가바이트
TB TiB terabyte 테라바이트
W watt 와트
kW kilowatt 킬로와트
MW megawatt 메가와트
GW gigawatt 기가와트
Wh watt_hour
kWh kilowatt_hour 킬로와트시
MWh megawatt_hour 메가와트시
GWh gigawatt_hour 기가와트시
V volt 볼트
ampere 암페어
Hz hertz 헤르츠
kHz kilohertz 킬로헤르츠
MHz megahertz 메가헤르츠
GHz gigahertz 기가헤르츠
kcal kilocalorie 킬로칼로리
dB decibel 데시벨
$ US$ USD dollar US_dollar 달러 미국달러
€ EUR euro 유로
£ GBP
₩ KRW 원
¥ JPY yen 엔
yuan CNY RMB 위안
x fold 배
"""
_BY_SYMBOL: dict[str, str] = {}
_BY_WORD: dict[str, str] = {}
for _name, *_others in map(str.split, _SPELLINGS.strip().splitlines()):
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
