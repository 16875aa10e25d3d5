"""Votes weighted by the model's own confidence.

The confidence of a token is minus the mean log-probability of the k likeliest tokens in its place:
high where one token has nearly all of the mass.
Source: arXiv 2508.15260 (DeepConf).
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, Unpack, get_args

from hanol.errors import ConfigError, DataError
from hanol.scoring import Selection
from hanol.test_time.searches._search import Search, SearchOptions
from hanol.test_time.searches._tree import TreeNode

TraceConfidence = Literal["bottom", "lowest", "tail", "mean"]


class ConfidenceVote(Search):
    """Independent answers that vote with their confidence; the least confident have no vote.

    Offline, all N are drawn, and the share `keep` with the highest confidence votes. Online, the
    first `warmup` set a threshold that this share of them survives; a later answer is broken off
    once its least confident group of tokens falls below it, and drawing ends when one answer has
    the share `consensus` of the weight.

    Args:
        budget: Answers at most.
        online: Whether answers are broken off.
        keep: Share of the answers that votes, above 0 and at most 1.
        trace: Confidence of an answer: the mean of its lowest tenth of groups ("bottom"), its
            lowest group, its last `window` tokens ("tail"), or all tokens ("mean").
        window: Tokens of a group.
        warmup: Answers that set the threshold.
        consensus: See above.
        top_logprobs: k of the confidence.
        options: See `Search`.

    Raises:
        ConfigError: A value is out of range.
    """

    name = "confidence"
    spends = "up to N independent answers; online, unsure ones are broken off"
    needs_confidence = True

    def __init__(
        self,
        budget: int,
        *,
        online: bool = False,
        keep: float = 0.9,
        trace: TraceConfidence = "bottom",
        window: int = 2048,
        warmup: int = 16,
        consensus: float = 0.95,
        top_logprobs: int = 20,
        **options: Unpack[SearchOptions],
    ) -> None:
        own = {"online": online, "keep": keep, "trace": trace, "window": window, "warmup": warmup,
               "consensus": consensus, "top_logprobs": top_logprobs}  # fmt: skip
        super().__init__(budget, own, **options)
        if trace not in get_args(TraceConfidence):
            raise ConfigError(
                f"`trace` is {trace!r}, but must be one of {', '.join(get_args(TraceConfidence))}."
            )
        for name, share in (("keep", keep), ("consensus", consensus)):
            if not 0 < share <= 1:
                raise ConfigError(f"`{name}` is {share}, but must be above 0 and at most 1.")
        for name, value in (("window", window), ("warmup", warmup), ("top_logprobs", top_logprobs)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"`{name}` is {value!r}, but must be a whole number from 1.")
        self._online, self._keep, self._trace, self._window = online, keep, trace, window
        self._warmup, self._consensus, self._top = warmup, consensus, top_logprobs
        self._threshold: float | None = None

    def _advance(self) -> None:
        if self._rounds == 1:
            n = min(self._warmup, self.budget) if self._online else self.budget
            self._want(0, n, top_logprobs=self._top)
            return
        if self._goes_on():
            return
        drawn = self.nodes[0].drawn
        if not self._online or drawn >= self.budget:
            self._finish()
            return
        finals = list(super()._finals())
        if self._threshold is None and finals:
            lowest = sorted(self._lowest(node) for node in finals)
            self._threshold = lowest[min(len(lowest) - 1, int((1 - self._keep) * len(lowest)))]
        votes = self._vote()[1].votes
        total = math.fsum(votes.values())
        if total > 0 and max(votes.values()) >= self._consensus * total:
            self._finish()
            return
        n = min(self._warmup, self.budget - drawn)
        self._want(0, n, top_logprobs=self._top, **self._piece(0))

    def _goes_on(self) -> bool:
        """Ask for more of what is unfinished and confident enough."""
        for number in self._fresh:
            node = self.nodes[number]
            is_sure = self._threshold is None or self._lowest(node) >= self._threshold
            if not node.ends and is_sure and self._rounds <= 10 * self._max_rounds:
                self._want(number, top_logprobs=self._top, **self._piece(number))
        return bool(self._pending)

    def _piece(self, number: int) -> dict[str, int]:
        """Tokens after which an answer is looked at again."""
        if self._threshold is None or self.answer_tokens is None:
            return {}
        room = self.answer_tokens - sum(part.cost for part in self.path(number))
        piece = max(16, min(self._window, self.answer_tokens) // 8)
        return {"max_tokens": min(piece, room)} if room > 0 else {}

    def _confidences(self, node: TreeNode) -> list[float]:
        return [c for part in self.path(node.id) for step in part.steps for c in step.confidences]

    def _lowest(self, node: TreeNode) -> float:
        values = self._confidences(node)
        if node.ends or len(values) >= self._window:
            return trace_confidence(values, "lowest", self._window)
        return math.inf  # no whole group is there yet

    def _vote(self) -> tuple[list[TreeNode], Selection]:
        readable = [node for node in super()._finals() if node.answer is not None]
        readable = [n for n in readable if self._threshold is None
                    or self._lowest(n) >= self._threshold]  # fmt: skip
        sure = {
            node.id: trace_confidence(self._confidences(node), self._trace, self._window)
            for node in readable
        }
        for node in readable:
            node.score = sure[node.id]
        if not self._online:
            readable.sort(key=lambda node: (-sure[node.id], node.id))
            readable = readable[: max(1, math.ceil(self._keep * len(readable)))]
            readable.sort(key=lambda node: node.id)
        return readable, self._select([n.answer for n in readable], [sure[n.id] for n in readable])

    def _finish(self) -> None:
        if self.budget == 1:
            super()._finish()
            return
        finals, selection = self._vote()
        for node in finals:
            node.kept = True
        self._choose(finals, selection)


def trace_confidence(
    confidences: Sequence[float], how: TraceConfidence = "bottom", window: int = 2048
) -> float:
    """Confidence of an answer from those of its tokens; see `ConfidenceVote`.

    Raises:
        DataError: There are no tokens.
    """
    if not confidences:
        raise DataError(
            "An answer came without confidences: its engine gives no log-probabilities of the "
            "likeliest tokens."
        )
    if how == "mean":
        return math.fsum(confidences) / len(confidences)
    if how == "tail":
        tail = confidences[-window:]
        return math.fsum(tail) / len(tail)
    size = min(window, len(confidences))
    sums = [0.0, *accumulate(confidences)]
    groups = sorted((b - a) / size for a, b in zip(sums, sums[size:], strict=False))
    if how == "lowest":
        return groups[0]
    lowest = groups[: max(1, len(groups) // 10)]
    return math.fsum(lowest) / len(lowest)
