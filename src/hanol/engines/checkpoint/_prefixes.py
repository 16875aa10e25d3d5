"""What a model has computed of earlier sequences, for the next one that begins alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, repeat

from torch import Tensor

from hanol.engines.checkpoint._chat import common_prefix

_MOST_POINTS = 8  # of a sequence: its first, which others share, and its last


@dataclass(eq=False)
class KeptPrefix:
    """A sequence that went through the model."""

    ids: list[int]
    grown: list[Tensor]  # keys, values or latents of its layers, [1, ..., tokens, width]
    # States of recurrent layers after so many tokens, where alone it can be taken up; None for a
    # model without such layers.
    points: dict[int, list[Tensor]] | None

    def usable(self, ids: Sequence[int]) -> int:
        """How many of the first tokens need not be computed again; the last one always is."""
        shared = min(common_prefix(self.ids, ids), len(ids) - 1)
        if self.points is None:
            return shared
        return max((point for point in self.points if point <= shared), default=0)

    @cached_property
    def sums(self) -> list[int]:
        return prefix_sums(self.ids)

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        states = [state for point in (self.points or {}).values() for state in point]
        return sum(tensor.nbytes for tensor in (*self.grown, *states)) + 8 * len(self.ids)

    def take_points(self, shorter: "KeptPrefix") -> None:
        """Add the points of a sequence that this one begins with; the oldest ones may go."""
        if self.points is not None:
            points = sorted({**(shorter.points or {}), **self.points}.items())
            drop = max(0, len(points) - _MOST_POINTS)
            self.points = dict(points[:1] + points[1 + drop :])


class PrefixStore:
    """The most recently used sequences, in bounded memory.

    A sequence is found by sums over its first n tokens, for each n: looking one up costs its own
    length, however many are kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[KeptPrefix, int] = {}  # in bytes; the latest last
        self._through: dict[int, KeptPrefix] = {}  # the latest sequence with these first tokens
        self._points: dict[int, KeptPrefix] = {}  # the latest that can be taken up after them

    @property
    def entries(self) -> list[KeptPrefix]:
        """The sequences, the most recently used last."""
        return list(self._sizes)

    def longest(self, ids: Sequence[int]) -> tuple[KeptPrefix | None, int]:
        """The sequence that saves the most, and how many tokens it saves."""
        sums = prefix_sums(ids)
        for n in range(len(ids) - 1, 0, -1):
            at = sums[n - 1]
            entry = self._points.get(at) or self._through.get(at)
            if entry is None or (entry.points is not None and n not in entry.points):
                continue
            if (tokens := entry.usable(ids)) >= n:
                self._keep(entry, self._sizes.pop(entry))
                return entry, tokens
        return None, 0

    def put(self, new: KeptPrefix) -> None:
        """Keep a sequence; one that it goes on from is absorbed into it."""
        longer = self._through.get(new.sums[-1])
        if longer is not None and longer.ids[: len(new.ids)] == new.ids:
            self._remove(longer)
            longer.take_points(new)
            new = longer
        for n, at in enumerate(new.sums, start=1):
            shorter = self._through.get(at)
            if shorter is not None and len(shorter.ids) == n and shorter.ids == new.ids[:n]:
                self._remove(shorter)
                new.take_points(shorter)
        self._keep(new, new.nbytes)
        while sum(self._sizes.values()) > self._max_bytes:
            self._remove(next(iter(self._sizes)))

    def clear(self) -> None:
        """Forget everything."""
        for index in (self._sizes, self._through, self._points):
            index.clear()

    def _keep(self, entry: KeptPrefix, size: int) -> None:
        """Enter it as the latest."""
        self._sizes[entry] = size
        self._through.update(zip(entry.sums, repeat(entry), strict=False))
        self._points.update((entry.sums[point - 1], entry) for point in entry.points or ())

    def _remove(self, entry: KeptPrefix) -> None:
        del self._sizes[entry]
        at_points = [entry.sums[point - 1] for point in entry.points or ()]
        for index, sums in ((self._through, entry.sums), (self._points, at_points)):
            for at in sums:
                if index.get(at) is entry:
                    del index[at]


def prefix_sums(ids: Sequence[int]) -> list[int]:
    """A number for the first 1, 2, ... tokens: other tokens have other ones, but for chance."""
    return list(accumulate(ids, lambda before, token: hash((before, token)), initial=0))[1:]
