"""Applies all filters to drawn questions and counts what each of them drops."""

from collections import Counter
from collections.abc import Callable, Iterator

from hanol.retrieval import Index
from hanol.scoring import normalise
from hanol.synthesis._filters import Reason, is_searchable, problem_of, shape
from hanol.synthesis._questions import question_of
from hanol.synthesis._replies import Replies
from hanol.worlds import GraphQuestion, KnowledgeGraph

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
        self,
        drafts: Iterator[GraphQuestion | None],
        number: int,
        on_question: Callable[[int], None],
    ) -> list[GraphQuestion]:
        """Up to `number` questions that pass; fewer when no new one is found for a long time."""
        kept: list[GraphQuestion] = []
        while len(kept) < number:
            found = self._next(drafts, number - len(kept))
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
            if (reason := self._reason(draft)) is not None:
                self.dropped[reason] += 1
                walks, failures = 0, failures + 1
                continue
            walks = failures = 0
            self._shapes.add(shape(draft.triples))
            self._texts.add(normalise(draft.text))
            found.append(draft)
            if len(found) == number:
                break
        return found

    def _reason(self, draft: GraphQuestion) -> Reason | None:
        if normalise(draft.text) in self._texts:
            return "repeated"
        reason = problem_of(draft, self._graph, self._shapes)
        if reason is None and draft.level and is_searchable(draft, self._graph, self._index):
            return "searchable"
        return reason

    async def _unknown(self, drafts: list[GraphQuestion]) -> list[GraphQuestion]:
        """The questions that the model cannot answer without documents."""
        if self._model is None:
            return drafts
        prompts = [_CLOSED_BOOK.format(question=draft.text) for draft in drafts]
        replies = await self._model.ask(prompts, max_tokens=_ANSWER_TOKENS)
        kept = []
        for draft, reply in zip(drafts, replies, strict=True):
            if question_of(draft).is_right(reply):
                self.dropped["closed_book"] += 1
            else:
                kept.append(draft)
        return kept
