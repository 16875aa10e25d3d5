"""Word lists for checking citations."""

import calendar


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


MONTHS: dict[str, int] = {"sept": 9} | {
    name.lower(): number
    for names in (calendar.month_name, calendar.month_abbr)
    for number, name in enumerate(names)
    if name
}

# Multipliers of the number before them.
SCALES: dict[str, int] = {
    word: 10**power
    for power, words in (
        (2, "백"), (3, "thousand k 천 千"), (4, "만 万 萬"), (5, "십만"), (6, "million m 백만"),
        (7, "천만"), (8, "억 亿 億"), (9, "billion b"), (12, "trillion 조 兆"),
    )
    for word in words.split()
}  # fmt: skip

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety hundred"
NUMBER_WORDS: dict[str, int] = (
    {word: number for number, word in enumerate(_UNITS.split())}
    | {word: 10 * number for number, word in enumerate(_TENS.split(), start=2)}
    | {"half": 50, "first": 1, "second": 2, "third": 3}
)

# Words without content of their own, and words that introduce a list.
STOP_WORDS: frozenset[str] = _set(
    """a about above according accordingly additionally after again against all also although am an
    and answer any are as at be because been before being below between both brief briefly but by
    can conclusion consequently could details did do does doing done down during each either
    especially even example finally findings first following follows for found from further
    furthermore generally had has have having he hence her here hers him his how however i if in
    indeed instead into is it its itself just key last lastly likewise main many may me meanwhile
    might more moreover most much must my namely neither nevertheless next no nor not note notably
    now of off on once one only or other otherwise our out over overall own particular per point
    points question rather reasons result results same second see several she should similarly
    since so some specifically still such summarize summary than that the their them then there
    therefore these they things third this those though through thus to together too
    ultimately under until up upon us very was we well were what when where whereas which while who
    whom whose why will with within without would yes yet you your"""
) | _set(
    """요약 요약하면 정리하면 결론 결론적으로 따라서 그러나 하지만 그리고 또한 다음 다음과
    같다 같습니다 예를 들어 먼저 마지막으로 반면 즉 한편"""
)

# Korean words that ask, or say only that something is.
ASKING_WORDS: frozenset[str] = _set(
    """무엇 뭔가 누구 누가 언제 어디 어디서 어느 어떤 어떻게 얼마 얼마나 왜 몇 무슨 것 때 수 까닭
    이유 있는 있나 있는가 있습니까 하는 하나 하나요 하는가 되나 되는가 됩니까 인가 위해 위한 대해
    대한 각각 쓴 된 한 할"""
)

# Korean topics that refer back instead of naming something.
TOPIC_STOP_WORDS: frozenset[str] = _set(
    """이것 그것 저것 여기 거기 우리 저자 저자들 연구 연구진 연구팀 논문 보고서 문서 자료 결과
    방법 모델 경우 이유 목적 특징 장점 단점 내용 답변 질문 요약 결론
    다음 다음과 같 여러분 사람 사람들"""
)

# Abbreviations that never end a sentence, that do not before a number, and that do only before a
# capital.
ABBREVIATIONS: frozenset[str] = _set(
    "mr mrs ms dr prof e.g i.e vs fig figs cf al approx ca ed eds resp gen sen rep rev"
)
NUMBERED_ABBREVIATIONS: frozenset[str] = _set("no nos eq eqs vol p pp sec st ch art tab ref refs")
ENDING_ABBREVIATIONS: frozenset[str] = _set(
    """etc inc ltd co corp u.s u.k a.m p.m jr sr dept univ ph.d d.c
    jan feb mar apr jun jul aug sep sept oct nov dec"""
)
