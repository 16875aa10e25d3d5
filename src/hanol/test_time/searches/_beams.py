"""Beam search and its siblings: steps are scored, the best prefixes go on.

Sources: arXiv 2408.03314, section 5.1 (beams, lookahead); Beeching, Tunstall, Rush, "Scaling
test-time compute with open models" (diverse verifier tree search).
"""

from dataclasses import dataclass, field
from typing import Literal, Unpack

from hanol.errors import ConfigError
from hanol.test_time.searches._search import Search, SearchOptions
from hanol.test_time.searches._tree import TreeNode


@dataclass
class _Tree:
    """Beams that compete with each other."""

    keep: int  # prefixes that go on
    held: list[TreeNode] = field(default_factory=list)  # finished, in their places
    pool: list[TreeNode] = field(default_factory=list)  # finished, out of the way
    candidates: list[TreeNode] = field(default_factory=list)
    is_over: bool = False


class BeamSearch(Search):
    """Prefixes compete after each step; the best N / `width` each get `width` next steps.

    A finished prefix keeps its place in the ranking and is not expanded, so that no more than N
    answers' worth of tokens is generated. With `lookahead`, a prefix is ranked by the score at the
    end of up to that many further greedy steps, which are then dropped; they are paid for out of
    the budget, which then holds N = budget / (lookahead + 1) beams. With a width of 1 nothing
    competes: that is `BestOfN`.

    Args:
        budget: Answers' worth of tokens.
        width: Next steps of each prefix; N must be divisible by it.
        lookahead: Greedy steps that are looked ahead.
        finished: "hold" as above; "retire" moves finished prefixes out of the way, and the others
            fill all places.
        options: See `Search`.

    Raises:
        ConfigError: The beams are not divisible by the width, or a value is out of range.
    """

    name = "beam"
    spends = "N prefixes at a time, each step; lookahead k takes k of k + 1 parts of it"
    needs_scores = needs_prefixes = True

    def __init__(
        self,
        budget: int,
        width: int,
        lookahead: int = 0,
        finished: Literal["hold", "retire"] = "hold",
        **options: Unpack[SearchOptions],
    ) -> None:
        own = {"width": width, "lookahead": lookahead, "finished": finished}
        super().__init__(budget, own, **options)
        if not isinstance(width, int) or width < 1:
            raise ConfigError(f"`width` is {width!r}, but must be a whole number from 1.")
        if not isinstance(lookahead, int) or lookahead < 0:
            raise ConfigError(f"`lookahead` is {lookahead!r}, but must be a whole number from 0.")
        if finished not in ("hold", "retire"):
            raise ConfigError(f'`finished` is {finished!r}, but must be "hold" or "retire".')
        if budget % width:
            raise ConfigError(
                f"`budget` is {budget}, which is not divisible by `width` {width}: as many "
                "prefixes go on each time as the one holds the other."
            )
        self.beams = budget if width == 1 else budget // (lookahead + 1)
        if not self.beams or self.beams % width:
            raise ConfigError(
                f"`budget` {budget} pays for {self.beams} beams with a lookahead of {lookahead}, "
                f"which is not divisible by `width` {width}: give {width * (lookahead + 1)} or a "
                "multiple of it."
            )
        self._width, self._lookahead, self._retires = width, lookahead, finished == "retire"
        self._trees = self._plant()
        self._tree_of: dict[int, _Tree] = {}
        self._is_looking = False

    def _plant(self) -> list[_Tree]:
        return [_Tree(self.beams // self._width)]

    def _advance(self) -> None:
        if self._width == 1:
            if self._rounds == 1:
                self._want(0, self.budget)
            elif not self._extend():
                self._finish()
        elif self._rounds == 1:
            self._want(0, self.beams, max_steps=1)
        elif self._is_looking or not self._look_ahead():
            self._prune()

    def _look_ahead(self) -> bool:
        """Sort what is new into its trees; ask for rollouts, if any are wanted."""
        share = self.beams // len(self._trees)
        for tree in self._trees:
            tree.candidates = list(tree.held)
        for place, number in enumerate(self._fresh):
            node = self.nodes[number]
            tree = self._tree_of.get(node.parent) or self._trees[place // share]
            self._tree_of[number] = tree
            tree.candidates.append(node)
        if self._lookahead:
            for number in self._fresh:
                if not self.nodes[number].ends:
                    self._want(number, max_steps=self._lookahead, greedy=True)
                    self.nodes[number].kept = False
        self._is_looking = bool(self._pending)
        if self._is_looking:
            self._purpose = "rollout"
        return self._is_looking

    def _prune(self) -> None:
        looked = {self.nodes[n].parent: self.nodes[n].score for n in self._fresh}
        ranks = looked if self._is_looking else {}
        self._is_looking = False
        if self._rounds > self._max_rounds:
            self._finish()
            return
        for tree in self._trees:
            if tree.is_over:
                continue
            if self._retires:
                tree.pool += [node for node in tree.candidates if node.ends]
                tree.candidates = [node for node in tree.candidates if not node.ends]
            best = sorted(tree.candidates, key=lambda node: (-ranks.get(node.id, node.score),
                                                             node.id))[: tree.keep]  # fmt: skip
            for node in best:
                node.kept = True
            tree.held = [node for node in best if node.ends]
            open_ones = [node for node in best if not node.ends]
            if self._retires and len(tree.pool) >= tree.keep * self._width:
                open_ones = []
            before = len(self._pending)
            for node in open_ones:
                self._want(node.id, self._width, max_steps=1)
            tree.is_over = len(self._pending) == before
        if not self._pending:
            self._finish()

    def _finals(self) -> list[TreeNode]:
        if self._width == 1:
            return list(super()._finals())
        return [node for tree in self._trees for node in (tree.pool or tree.candidates)]


class DVTS(BeamSearch):
    """Diverse verifier tree search: N / `width` trees that do not compete with each other.

    Each keeps the best of its `width` prefixes, so that one good prefix does not crowd out the
    others. The arguments are those of `BeamSearch`.
    """

    name = "dvts"
    spends = "N / width trees of width prefixes each, every step; lookahead as in beam"

    def _plant(self) -> list[_Tree]:
        return [_Tree(1) for _ in range(self.beams // self._width)]
