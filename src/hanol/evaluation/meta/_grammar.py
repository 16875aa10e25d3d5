"""Advisory rules for English texts: the tense of the narration, and who the pronouns speak of.

Both compare with the reference, skip what stands in quotation marks, and know words, not sentences:
they are hints for a reader. A judge of tense or of dropped subjects they are not.
"""

from collections import Counter

import regex

from hanol.evaluation.meta._metrics import EvidenceSpan, MetricItem, TextMetric

_QUOTED = regex.compile(r"\"[^\"]*\"|“[^”]*”|‘[^’]*’|「[^」]*」")
_WORD = regex.compile(r"[\p{L}]+(?:['’][\p{L}]+)?")
_PAST = regex.compile(
    r"was|were|had|did|would|could|might|became|began|bent|bit|blew|bore|bought|broke|brought|"
    r"built|burnt|came|caught|chose|clung|crept|dealt|drank|drew|drove|fell|felt|fled|flew|"
    r"forgot|fought|found|froze|gave|got|grew|heard|held|hid|hung|kept|knelt|knew|laid|led|left|"
    r"lent|lost|made|meant|met|paid|ran|rang|rode|rose|said|sang|sank|sat|saw|sent|shone|shook|"
    r"shot|slept|slid|smelt|sold|spent|spoke|stole|stood|stuck|struck|swam|swept|swore|swung|"
    r"taught|thought|threw|told|took|tore|understood|went|woke|won|wore|wrote"
)
_PRESENT = regex.compile(r"is|are|am|has|have|do|does|isn't|aren't|doesn't|don't|says|goes")
_NO_VERBS = regex.compile(r"red|bed|need|seed|feed|speed|hundred|indeed|sacred|naked|wicked")
_PERSONS = {
    **dict.fromkeys(("i", "me", "my", "mine", "myself"), "I"),
    **dict.fromkeys(("we", "us", "our", "ours", "ourselves"), "we"),
    **dict.fromkeys(("you", "your", "yours", "yourself", "yourselves"), "you"),
    **dict.fromkeys(("he", "him", "his", "himself"), "he"),
    **dict.fromkeys(("she", "her", "hers", "herself"), "she"),
    **dict.fromkeys(("it", "its", "itself"), "it"),
    **dict.fromkeys(("they", "them", "their", "theirs", "themselves"), "they"),
}


def tense_metric() -> TextMetric:
    """1 where the narration is in the tense of the reference, 0 where not, else not scored."""

    def find(item: MetricItem) -> list[EvidenceSpan]:
        wanted = _tense(item.reference or "")
        return [
            EvidenceSpan(begin, end, f"{tense}, the reference is {wanted}")
            for begin, end, tense in _verbs(item.candidate)
            if wanted is not None and tense != wanted
        ]

    def value(item: MetricItem) -> float:
        wanted, found = _tense(item.reference or ""), _tense(item.candidate)
        return float("nan") if wanted is None or found is None else float(wanted == found)

    return TextMetric("tense", value, signature="majority of finite verbs, advisory", find=find)


def pronouns_metric() -> TextMetric:
    """How many pronouns speak of another person than those of the reference, as a share."""

    def find(item: MetricItem) -> list[EvidenceSpan]:
        left = Counter(person for _, _, person in _pronouns(item.reference or ""))
        found = []
        for begin, end, person in _pronouns(item.candidate):
            if left[person]:
                left[person] -= 1
            else:
                found.append(EvidenceSpan(begin, end, f"{person!r} beside the reference"))
        return found

    def value(item: MetricItem) -> float:
        wanted, found = (
            Counter(person for _, _, person in _pronouns(text))
            for text in (item.reference or "", item.candidate)
        )
        wrong = (wanted - found).total() + (found - wanted).total()
        return wrong / max(1, wanted.total() + found.total())

    return TextMetric(
        "pronouns",
        value,
        lower_is_better=True,
        signature="persons of pronouns, advisory",
        find=find,
    )


def _narration(text: str) -> str:
    """The text with what is quoted blanked out, so that places stay."""
    return _QUOTED.sub(lambda found: " " * len(found[0]), text)


def _verbs(text: str) -> list[tuple[int, int, str]]:
    found = []
    for word in _WORD.finditer(_narration(text)):
        plain = word[0].casefold().replace("’", "'")
        is_regular = plain.endswith("ed") and not _NO_VERBS.fullmatch(plain)
        if is_regular or _PAST.fullmatch(plain.removesuffix("n't")):
            found.append((*word.span(), "past"))
        elif _PRESENT.fullmatch(plain):
            found.append((*word.span(), "present"))
    return found


def _tense(text: str) -> str | None:
    counts = Counter(tense for _, _, tense in _verbs(text))
    if counts["past"] == counts["present"]:
        return None
    return max(counts, key=lambda tense: counts[tense])


def _pronouns(text: str) -> list[tuple[int, int, str]]:
    return [
        (*word.span(), _PERSONS[plain])
        for word in _WORD.finditer(_narration(text))
        if (plain := word[0].casefold()) in _PERSONS
    ]
