"""Answers that revise earlier ones, and thoughts that are made longer or shorter.

Sources: arXiv 2408.03314, section 6 (revisions); 2501.19393 (s1: budget forcing).
"""

from typing import Unpack

from hanol.errors import ConfigError
from hanol.scoring import Selection
from hanol.test_time._chains import hierarchical_selection
from hanol.test_time.searches._search import Search, SearchOptions
from hanol.test_time.searches._tree import Step, TreeNode


class SequentialRevision(Search):
    """Chains of answers, each with the last few of its chain before it.

    A revision turns some right answers into wrong ones, so that the answer is chosen within each
    chain and then across them (`hanol.test_time.hierarchical_selection`), not taken from the end.

    Args:
        budget: Answers; must be divisible by `chains`.
        chains: Chains side by side: 1 is fully sequential, `budget` is `BestOfN`.
        context: Earlier answers that a revision is shown.
        options: See `Search`.

    Raises:
        ConfigError: A value is out of range.
    """

    name = "revision"
    spends = "N answers in chains of N / chains; earlier answers count as prompt"
    needs_scores = True

    def __init__(
        self, budget: int, chains: int = 1, context: int = 4, **options: Unpack[SearchOptions]
    ) -> None:
        super().__init__(budget, {"chains": chains, "context": context}, **options)
        for name, value in (("chains", chains), ("context", context)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"`{name}` is {value!r}, but must be a whole number from 1.")
        if budget % chains:
            raise ConfigError(f"`budget` is {budget}, which is not divisible by `chains` {chains}.")
        self._context, self._length = context, budget // chains
        self._chains: list[list[TreeNode]] = [[] for _ in range(chains)]
        self._chain_of: dict[int, int] = {}  # by request

    def _advance(self) -> None:
        if self._rounds == 1:
            self._want(0, len(self._chains))
            return
        for place, number in enumerate(self._fresh):
            node = self.nodes[number]
            self._chains[self._chain_of.get(node.request, place)].append(node)
        for place, chain in enumerate(self._chains):
            if chain and len(chain) < self._length:
                earlier = tuple(node.text for node in chain[-self._context :])
                self._chain_of[self._asked] = place
                self._want(0, context=earlier)
        if not self._pending:
            self._finish()

    def _finish(self) -> None:
        chains = [chain for chain in self._chains if chain]
        if not chains:  # one plain sample, or nothing was told
            super()._finish()
            return
        scored = [[(node.answer, node.score) for node in chain] for chain in chains]
        answer = hierarchical_selection(scored, self.method, self.equal).answer
        nodes = [node for chain in chains for node in chain if node.answer is not None]
        votes = self._select([n.answer for n in nodes], [n.score for n in nodes]).votes
        mine = [node for node in nodes if node.answer == answer]
        best = max(mine, key=lambda node: (node.score, -node.id), default=None)
        for node in nodes:
            node.kept = True
        self._choose(mine, Selection(answer, mine.index(best) if best else None, votes))


class BudgetForcing(Search):
    """One thought, made to last at least and at most as long as the budget says.

    Where the model ends its thought early, the end is taken back and `wait` put in its place, up
    to `waits` times. Where the thought would be longer than the budget, less what an answer takes,
    it is ended and the answer asked for. Every generated token counts, whoever opened the thought.
    Longer is not always better: compare before you rely on it.

    Args:
        budget: Answers' worth of tokens.
        waits: Times that a thought is made to go on.
        end: What ends a thought; models that know no such mark end it with their answer.
        wait: What makes it go on.
        ask_answer: What asks for the answer after a thought that was cut.
        options: See `Search`.

    Raises:
        ConfigError: `waits` is below 0.
    """

    name = "forcing"
    spends = "one thought of up to N answers' tokens, its final answer included"
    needs_prefixes = True

    def __init__(
        self,
        budget: int,
        waits: int = 2,
        end: str = "</think>",
        wait: str = "\nWait",
        ask_answer: str = "\nFinal answer:",
        **options: Unpack[SearchOptions],
    ) -> None:
        own = {"waits": waits, "end": end, "wait": wait, "ask_answer": ask_answer}
        super().__init__(budget, own, **options)
        if not isinstance(waits, int) or waits < 0:
            raise ConfigError(f"`waits` is {waits!r}, but must be a whole number from 0.")
        self._waits, self._end, self._wait, self._asks = waits, end, wait, ask_answer
        self._is_answering = False

    @property
    def _reserve(self) -> int:
        """Tokens that are kept back for the answer."""
        return min(64, -(-(self.answer_tokens or 0) // 4))

    def _advance(self) -> None:
        if self._rounds == 1:
            self._think(0)
            return
        node = self.nodes[self._fresh[-1]] if self._fresh else None
        if node is None or self._is_answering:
            self._finish()
            return
        left = None if self.left is None else self.left - self._reserve
        has_room = left is None or left > 0
        said_end = self._end in node.text
        if self._waits and has_room and (node.ends or said_end):
            self._waits -= 1
            self._think(self._force(node, self._wait).id)
        elif node.ends:
            self._finish()  # it ended with an answer, without a mark
        else:
            self._is_answering = True
            mark = "" if said_end else self._end
            forced = self._force(node, mark + ("" if said_end else self._asks) or self._asks)
            self._want(forced.id, max_tokens=self.left)

    def _force(self, node: TreeNode, text: str) -> TreeNode:
        if text == self._wait and self._end in node.text:  # the end is taken back
            kept = node.text[: node.text.index(self._end)]
            text, node = kept + text, self.nodes[node.parent]
        node.kept = True
        forced = self._add(node.id, [Step(text, tokens=0)], (), "forced")
        forced.kept = True
        return forced

    def _think(self, node: int) -> None:
        room = None if self.left is None else max(1, self.left - self._reserve)
        self._want(node, stop=(self._end,), max_tokens=room)

    def _finals(self) -> list[TreeNode]:
        """The last answer that can be read: what came before was taken back."""
        ended = [node for node in super()._finals() if node.answer is not None]
        return ended[-1:]
