"""Checks every sentence of an answer against the sources it cites, without a model.

A sentence is supported when each quotation, date, number and name in it, and enough of its words,
occur in one of the passages that it cites. This finds changed digits, wrong names, numbers given to
each other's years and invented sources; it does not notice a sentence that says the opposite in the
same words. Where sentence and sources use different scripts, only numbers, dates, quotations and
identifiers can be compared; without any of these the sentence counts as unsupported.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Literal, get_args

from pydantic import BaseModel

from hanol.retrieval.citations._facts import Facts, PassageFacts, sentence_facts
from hanol.retrieval.citations._sentences import SentenceSpan, citation_numbers, split_sentences
from hanol.retrieval.citations._words import STOP_WORDS
from hanol.retrieval.index._passage import SourceList
from hanol.scoring import CITATION

SentenceStatus = Literal["supported", "unsupported", "invented", "uncited", "not_a_claim"]

_FREE = re.compile(r"(?:[.!?。…\"”’)]|(?<=[^\W_])[ \t])\Z")  # before a citation, not an index
_FLOOR = 0.5  # share of the words that must occur when there is nothing else to compare
_FLOOR_WITH_FACTS = 0.3  # the same when quotations, numbers or names were found
# A sentence that says nothing was found needs no source.
_NOTHING_FOUND = (
    *("could not find", "couldn't find", "did not find", "cannot be answered", "no information"),
    *("not mentioned in", "do not mention", "does not mention", "do not say", "does not say"),
    *("찾을 수 없", "찾지 못", "나와 있지 않", "확인할 수 없", "見つかりません", "未找到"),
)


class Citation(BaseModel, frozen=True):
    """One number in square brackets.

    Args:
        number: Number of the source.
        start: First character of its bracket in the answer.
        end: Last character of the bracket, exclusive.
        known: Whether the run has a source of this number.
        supports: Whether the sentence is supported and this source contributes to that.
    """

    number: int
    start: int
    end: int
    known: bool
    supports: bool


class CheckedSentence(BaseModel, frozen=True):
    """One sentence and the result of its check.

    Args:
        start: Its first character in the answer.
        end: Its last character, exclusive, including citations.
        text: The sentence.
        status: "supported"; "unsupported" if something in it is not in its sources; "invented" if
            it cites a number without a source; "uncited" for a claim without citations;
            "not_a_claim" for headings, questions, code and connectives.
        citations: Its citations, in order.
        missing: Quotations, dates, numbers and names that no cited source contains.
        overlap: Share of its words that the cited sources contain, 0 to 1; None without sources.
    """

    start: int
    end: int
    text: str
    status: SentenceStatus
    citations: tuple[Citation, ...] = ()
    missing: tuple[str, ...] = ()
    overlap: float | None = None


class CitationReport(BaseModel, frozen=True):
    """All sentences of an answer, in order."""

    sentences: tuple[CheckedSentence, ...]

    @property
    def counts(self) -> dict[SentenceStatus, int]:
        """Number of sentences of each status."""
        return {
            status: sum(sentence.status == status for sentence in self.sentences)
            for status in get_args(SentenceStatus)
        }

    @property
    def citations(self) -> tuple[Citation, ...]:
        """All citations, in order."""
        return tuple(entry for sentence in self.sentences for entry in sentence.citations)

    @property
    def invented(self) -> tuple[int, ...]:
        """Cited numbers without a source, ascending."""
        return tuple(sorted({entry.number for entry in self.citations if not entry.known}))

    @property
    def precision(self) -> float | None:
        """Share of citations that support their sentence; None without citations."""
        entries = self.citations
        return sum(entry.supports for entry in entries) / len(entries) if entries else None

    @property
    def recall(self) -> float | None:
        """Share of claims that are supported; None without claims."""
        claims = len(self.sentences) - self.counts["not_a_claim"]
        return self.counts["supported"] / claims if claims else None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON data, totals first."""
        totals = {name: getattr(self, name) for name in ("counts", "precision", "recall")}
        return {**totals, "invented": list(self.invented), **self.model_dump(mode="json")}


def check_citations(answer: str, source_list: SourceList) -> CitationReport:
    """Check an answer that cites its sources as [1], [1, 3], [1][2], [1-3] or other models do.

    Args:
        answer: Markdown text.
        source_list: The numbered sources of the run.

    Example:
        >>> source_list = SourceList()
        >>> _ = source_list.cite("The tower is 330 m high.", address="a", title="Tower", sha256="0")
        >>> report = check_citations("It is 330 m high [1]. It is red.", source_list)
        >>> [sentence.status for sentence in report.sentences]
        ['supported', 'uncited']
    """
    cited = {n for match in CITATION.finditer(answer) for n in citation_numbers(match[1])}
    evidence = {
        number: PassageFacts(f"{source_list[number].title}\n{source_list[number].text}")
        for number in sorted(cited)
        if number in source_list
    }
    sentences = [_check(answer, span, evidence) for span in split_sentences(answer)]
    return CitationReport(sentences=tuple(sentences))


def _check(
    answer: str, span: SentenceSpan, evidence: Mapping[int, PassageFacts]
) -> CheckedSentence:
    text = answer[span.start : span.end]
    checked = partial(CheckedSentence, start=span.start, end=span.end, text=text)
    found = CITATION.finditer(text)
    if span.kind == "code":  # array[1] is code, "It is 330 m high [1]." is none
        found = (match for match in found if _FREE.search(text[: match.start()]))
    cited = [(n, match) for match in found for n in citation_numbers(match[1])]
    if span.kind == "code" and not cited:
        return checked(status="not_a_claim")
    facts = sentence_facts(CITATION.sub(" ", text))
    used = {number: evidence[number] for number, _ in cited if number in evidence}
    missing, overlap, holds = _compare(facts, list(used.values()))

    @cache
    def supports(number: int) -> bool:
        """Whether it does alone, or the others do not without it: arXiv 2305.14627 (ALCE)."""
        others = [source for other, source in used.items() if other != number]
        return _compare(facts, [used[number]])[2] or not _compare(facts, others)[2]

    status: SentenceStatus = "supported" if holds else "unsupported"
    if any(number not in evidence for number, _ in cited):
        status = "invented"
    elif not _is_claim(span, text, facts, cited=bool(cited)):
        status, cited = "not_a_claim", []
    elif not cited:
        status = "uncited"
    citations = tuple(
        Citation(
            number=number,
            start=span.start + match.start(),
            end=span.start + match.end(),
            known=number in evidence,
            supports=number in used and holds and supports(number),
        )
        for number, match in cited
    )
    return checked(status=status, citations=citations, missing=missing, overlap=overlap)


def _is_claim(span: SentenceSpan, text: str, facts: Facts, *, cited: bool) -> bool:
    """Whether a part of an answer claims something; a heading or code does if it cites facts."""
    bare = CITATION.sub("", text).rstrip(" \n*_\"'”’)")
    if bare.endswith(("?", "？", "؟")) or not any(c.isalnum() for c in bare):
        return False
    states = bool(facts.numbers or facts.dates or facts.quotes)
    if span.kind in ("heading", "code"):
        return cited and (states or len(facts.words) > 5)
    if span.kind != "sentence" or cited or states:
        return span.kind == "sentence"
    if any(phrase in bare.lower() for phrase in _NOTHING_FOUND):
        return False
    words = facts.words - {word[:5] for word in STOP_WORDS}
    # "The report names three reasons:" leads to claims and makes none.
    return bool(words) and not (bare.endswith((":", "：")) and len(words) <= 6)


def _compare(
    facts: Facts, sources: list[PassageFacts]
) -> tuple[tuple[str, ...], float | None, bool]:
    """What no source contains, the share of words that some contain, whether all support it."""
    if not sources:
        return (), None, False
    if not any(source.cjk == facts.cjk for source in sources):
        facts = facts.across_languages()
    looks: tuple[tuple[Mapping[str, Any], Callable[[PassageFacts, Any], bool]], ...] = (
        (facts.quotes, PassageFacts.has_quote),
        (facts.dates, PassageFacts.has_date),
        (facts.numbers, PassageFacts.has_number),
        (facts.names, PassageFacts.has_name),
    )
    missing = tuple(
        shown
        for entries, has in looks
        for shown, entry in entries.items()
        if not any(has(source, entry) for source in sources)
    )
    words = frozenset[str]().union(*(source.words for source in sources))
    overlap = len(facts.words & words) / len(facts.words) if facts.words else float(bool(facts))
    floor = _FLOOR_WITH_FACTS if len(facts) else _FLOOR
    holds = not missing and overlap >= floor
    return missing, overlap, holds and not any(source.swaps(facts.text) for source in sources)
