"""Rules that find what is wrong with a translation, with the place in it.

They are baselines and filters: cheap, deterministic, explained. On the public MetricAlign items the
count of left-over Chinese letters agrees with experts better than BLEU, and still weakly.
"""

import math
import random
from collections.abc import Sequence

import regex

from hanol.evaluation.meta._metrics import EvidenceSpan, MetricItem, TextMetric

_SCRIPTS = {
    "Han": r"\p{Han}",
    "kana": r"[\p{Hiragana}\p{Katakana}]",
    "Hangul": r"\p{Hangul}",
}
_RUNS = {name: regex.compile(f"{script}+") for name, script in _SCRIPTS.items()}
_LATIN = regex.compile(r"\p{Latin}{3,}")
_EASTERN = regex.compile("|".join(_SCRIPTS.values()))

_DEFECTS = {
    "a refusal": regex.compile(
        r"\bI(?:'m| am) (?:sorry|unable)\b|\bI (?:cannot|can't|can not|won't) (?:translate|help|"
        r"assist|provide|comply)|\bas an AI\b|抱歉|对不起，我|无法(?:翻译|提供|协助)|不能翻译|"
        r"죄송(?:합니다|하지만)|번역할 수 없|도와드릴 수 없",
        regex.IGNORECASE,
    ),
    "a note of the translator": regex.compile(
        r"(?:[(（\[【*]\s*|^|\n)(?:translator'?s note|t/?n|note|explanation|literally|"
        r"译(?:者)?注|注|说明|解释|역주|옮긴이 주|참고)\s*[:：][^\n)）\]】]*",
        regex.IGNORECASE,
    ),
    "a label": regex.compile(
        r"^\s*(?:answer|translation|english|output|译文|翻译|答案|번역|답)\s*[:：]\s*",
        regex.IGNORECASE,
    ),
}
_ECHO = 12  # letters of the source in a row that are no name any more
_MOST_OTHERS = 200  # references of other sources that a candidate is compared with


def residue_metric() -> TextMetric:
    """Letters of a language that the reference is not written in."""

    def find(item: MetricItem) -> list[EvidenceSpan]:
        reference, text = item.reference or "", item.candidate
        found = [
            EvidenceSpan(run.start(), run.end(), f"left over in {name}")
            for name, runs in _RUNS.items()
            if not runs.search(reference)
            for run in runs.finditer(text)
        ]
        if _EASTERN.search(reference):  # then words of a Latin source are left over, too
            known = {word.casefold() for word in _LATIN.findall(item.source or "")}
            known -= {word.casefold() for word in _LATIN.findall(reference)}
            found += [
                EvidenceSpan(word.start(), word.end(), "left over in Latin letters")
                for word in _LATIN.finditer(text)
                if word[0].casefold() in known
            ]
        return sorted(found)

    return TextMetric(
        "residue",
        lambda item: sum(one.end - one.begin for one in find(item)),
        lower_is_better=True,
        signature="letters in scripts that the reference lacks",
        find=find,
    )


def length_metric() -> TextMetric:
    """How far the length is from that of the reference, as a factor in either direction."""
    return TextMetric(
        "length",
        lambda item: abs(math.log((len(item.candidate) + 1) / (len(item.reference or "") + 1))),
        lower_is_better=True,
        signature="absolute logarithm of the ratio of characters",
    )


def defects_metric() -> TextMetric:
    """Refusals, notes, labels, echoes of the source, and nothing at all."""

    def find(item: MetricItem) -> list[EvidenceSpan]:
        text = item.candidate
        if not text.strip():
            return [EvidenceSpan(0, len(text), "nothing")]
        found = [
            EvidenceSpan(match.start(), match.end(), what)
            for what, pattern in _DEFECTS.items()
            for match in pattern.finditer(text)
        ]
        return sorted(found + _echoes(text, item.source or ""))

    return TextMetric(
        "defects",
        lambda item: len(find(item)),
        needs=(),
        lower_is_better=True,
        signature="refusals, notes, labels, echoes, empty",
        find=find,
    )


def _echoes(text: str, source: str) -> list[EvidenceSpan]:
    """Stretches of the source in the candidate."""
    found: list[EvidenceSpan] = []
    at = 0
    while at + _ECHO <= len(text):
        if text[at : at + _ECHO] not in source:
            at += 1
            continue
        end = at + _ECHO
        while end < len(text) and text[at : end + 1] in source:
            end += 1
        found.append(EvidenceSpan(at, end, "copied from the source"))
        at = end
    return found


def wrong_sentence_metric() -> TextMetric:
    """How much nearer a candidate is to its own reference than to one of another source.

    Below zero it is a translation of something else, such as the sentence before it. The nearness
    is the share of character trigrams (Jaccard); all items must be scored together.
    """
    others: dict[str, frozenset[str]] = {}

    def prepare(items: Sequence[MetricItem]) -> None:
        texts = sorted({item.reference for item in items if item.reference})
        if len(texts) > _MOST_OTHERS:
            texts = random.Random(0).sample(texts, _MOST_OTHERS)  # noqa: S311 - a fixed choice
        others.clear()
        others.update((text, _trigrams(text)) for text in texts)

    def value(item: MetricItem) -> float:
        own = _trigrams(item.candidate)
        reference = item.reference or ""
        elsewhere = (_shared(own, them) for text, them in others.items() if text != reference)
        return _shared(own, _trigrams(reference)) - max(elsewhere, default=0.0)

    return TextMetric(
        "wrong-sentence",
        value,
        signature="Jaccard of character trigrams, own minus nearest other reference",
        prepare=prepare,
    )


def _trigrams(text: str) -> frozenset[str]:
    padded = f" {' '.join(text.casefold().split())} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))


def _shared(a: frozenset[str], b: frozenset[str]) -> float:
    union = len(a | b)
    return len(a & b) / union if union else 0.0
