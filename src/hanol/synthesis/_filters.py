"""Filters that a question must pass before it is kept.

Where relations are words of documents, the answer must also be unique when relations that may mean
the same ("was born in", "comes from") are treated as one.

Source: exactly one answer on the whole graph, no superfluous clause, no constant next to what is
asked for: arXiv 2507.15061 (WebShaper). No repeats up to isomorphism, nothing that one search
finds: arXiv 2507.02592 (WebSailor), 2510.24701. Nothing a model knows by heart: both.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Literal

from hanol.retrieval import Index
from hanol.scoring import normalise
from hanol.synthesis._replies import Replies
from hanol.worlds import GraphQuestion, KnowledgeGraph, Triple

Reason = Literal[
    "repeated", "not_unique", "superfluous_clause", "shortcut", "answer_in_question", "searchable",
    "closed_book", "ambiguous_words",
]  # fmt: skip
_HITS = 10
_ROUNDS = 6  # a question has at most 5 hops, so labels travel from end to end
_DRAFTS, _WALKS = 400, 4_000  # drafts in a row without a new question; walks without a draft
_CLOSED_BOOK = """\
Answer from what you know, without looking anything up, in as few words as you can. If you do not \
know, answer: unknown.

{question}"""
_ANSWER_TOKENS = 256


class Sieve:
    """Keeps the questions that pass every filter, and counts the others."""

    def __init__(self, graph: KnowledgeGraph, index: Index, model: Replies | None) -> None:
        self._graph, self._index, self._model = graph, index, model
        self.drawn = 0
        self.dropped: Counter[Reason] = Counter()
        self._shapes: set[str] = set()
        self._texts: set[str] = set()

    async def take(
        self, drafts: Iterator[GraphQuestion | None], most: int, on_question: Callable[[int], None]
    ) -> list[GraphQuestion]:
        """Up to `most` questions that pass; fewer when no new one is found for a long time."""
        kept: list[GraphQuestion] = []
        while len(kept) < most:
            found = self._next(drafts, most - len(kept))
            if not found:
                break
            kept += await self._unknown(found)
            on_question(len(kept))
        return kept

    def counted(self) -> str:
        """What was drawn and dropped, for messages."""
        taken = ", ".join(f"{number} {reason}" for reason, number in self.dropped.items())
        return f"{self.drawn} drawn" + (f", dropped: {taken}" if taken else "")

    def _next(self, drafts: Iterator[GraphQuestion | None], number: int) -> list[GraphQuestion]:
        found: list[GraphQuestion] = []
        walks = failures = 0
        for draft in drafts:
            walks += 1
            if walks > _WALKS or failures > _DRAFTS:
                break
            if draft is None:
                continue
            self.drawn += 1
            walks = 0
            reason: Reason | None = "repeated"
            if normalise(draft.text) not in self._texts:
                reason = problem_of(draft, self._graph, self._shapes)
            if reason is None and draft.level and is_searchable(draft, self._graph, self._index):
                reason = "searchable"
            if reason is not None:
                self.dropped[reason] += 1
                failures += 1
                continue
            failures = 0
            self._shapes.add(shape(draft.triples))
            self._texts.add(normalise(draft.text))
            found.append(draft)
            if len(found) == number:
                break
        return found

    async def _unknown(self, drafts: list[GraphQuestion]) -> list[GraphQuestion]:
        """The questions that the model cannot answer without documents."""
        if self._model is None:
            return drafts
        prompts = [_CLOSED_BOOK.format(question=draft.text) for draft in drafts]
        replies = await self._model.ask(prompts, max_tokens=_ANSWER_TOKENS)
        kept = []
        for draft, reply in zip(drafts, replies, strict=True):
            if draft.is_right(reply):
                self.dropped["closed_book"] += 1
            else:
                kept.append(draft)
        return kept


def problem_of(draft: GraphQuestion, graph: KnowledgeGraph, seen: Collection[str]) -> Reason | None:
    """The reason to drop a question that the graph gives, or None; `seen` are shapes of others."""
    answers = set(draft.answers)
    if shape(draft.triples) in seen:
        return "repeated"
    if wording_problem(draft.text, (), draft.answers) == "answer":
        return "answer_in_question"
    if has_shortcut(draft, graph):
        return "shortcut"
    if graph.answers(draft.triples) != answers:
        return "not_unique"
    if graph.answers(draft.triples, loosely=True) != answers:
        return "ambiguous_words"
    if superfluous(draft.triples, graph, len(draft.answers)) is not None:
        return "superfluous_clause"
    return None


def wording_problem(text: str, constants: Sequence[str], answers: Iterable[str]) -> str | None:
    """Why a wording is unusable: its "form", a missing "constant", or it gives the "answer"."""
    if not text.endswith(("?", ".")) or "\n" in text or len(text) > 1_000:
        return "form"
    folded = f" {normalise(text)} "
    if any(f" {normalise(constant)} " not in folded for constant in constants):
        return "constant"
    if any(f" {normalise(answer)} " in folded for answer in answers if normalise(answer)):
        return "answer"
    return None


def superfluous(
    formalization: Sequence[Triple], graph: KnowledgeGraph, num_answers: int
) -> Triple | None:
    """A clause whose removal adds no answer, if there is one."""
    # Fewer clauses never remove answers, so subsets that lack two need not be checked.
    for left_out in formalization:
        rest = [triple for triple in formalization if triple is not left_out]
        connected = _component(rest)
        # Without any clause about it, everything would be an answer.
        if connected and not graph.has_more_answers(connected, num_answers):
            return left_out
    return None


def has_shortcut(draft: GraphQuestion, graph: KnowledgeGraph) -> bool:
    """Whether something that the question names is next to an answer in the graph."""
    # A single hop from a named start always is, and has no shorter way.
    if len(draft.triples) == 1:
        return False
    ends = ({head, tail} for head, _, tail in draft.triples)
    if any("?" in pair and any(map(_is_constant, pair)) for pair in ends):
        return True
    return any(
        constant in (edge.head, edge.tail)
        for answer in draft.answers
        for edge in graph.at.get(answer, ())
        for constant in draft.constants
        if graph.is_entity(constant)
    )


def is_searchable(draft: GraphQuestion, graph: KnowledgeGraph, index: Index) -> bool:
    """Whether the ten best passages for the question include the answer's page."""
    # Also the page that states it, unless that is the only one to read and the answer has its own.
    own = {graph.pages[answer] for answer in draft.answers if answer in graph.pages}
    wanted = own | ({draft.path[-1]} if draft.hops > 1 or not own else set())
    hits = index.search(draft.text, _HITS, mode="bm25")
    return any(hit.address.partition("#")[0] in wanted for hit in hits)


def shape(formalization: Sequence[Triple]) -> str:
    """A hash that is equal for questions that differ only in variable names and order."""
    # Weisfeiler-Leman labels of the question's graph: constants and relations keep their names.
    labels = {
        end: end if _is_constant(end) or end == "?" else "V"
        for triple in formalization
        for end in (triple[0], triple[2])
    }
    for _ in range(_ROUNDS):
        around: dict[str, list[str]] = {end: [] for end in labels}
        for head, relation, tail in formalization:
            around[head].append(_hash(">", relation, labels[tail]))
            around[tail].append(_hash("<", relation, labels[head]))
        labels = {end: _hash(label, *sorted(around[end])) for end, label in labels.items()}
    return _hash(*sorted(labels.values()))


def _component(formalization: Sequence[Triple]) -> list[Triple]:
    """The clauses connected to "?" through shared variables."""
    reached = {"?"}
    waiting, found = list(formalization), list[Triple]()
    while True:
        touching = [triple for triple in waiting if reached & {triple[0], triple[2]}]
        if not touching:
            return found
        found += touching
        waiting = [triple for triple in waiting if triple not in touching]
        ends = (end for head, _, tail in touching for end in (head, tail))
        reached |= {end for end in ends if not _is_constant(end)}


def _is_constant(end: str) -> bool:
    return end.startswith("C@")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()
