"""What a model has computed of earlier sequences, for the next one that begins alike.

Shape suffixes: L tokens of the sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hanol.engines._chat import common_prefix

_MOST_POINTS = 8  # of a sequence: its first, which others share, and its last


@dataclass
class Prefix:
    """A sequence that went through the model.

    Attributes:
        ids: Its tokens.
        grown: Keys, values or latents of its layers, [1, ..., L, width]: every prefix of them is
            that of a prefix of the sequence.
        points: States of recurrent layers after so many tokens; None for a model without. Such a
            sequence can be taken up at these points only.
    """

    ids: list[int]
    grown: list[Tensor]
    points: dict[int, list[Tensor]] | None

    def usable(self, ids: Sequence[int]) -> int:
        """How many of the first tokens need not be computed again; the last one always is."""
        shared = min(common_prefix(self.ids, ids), len(ids) - 1)
        if self.points is None:
            return shared
        return max((point for point in self.points if point <= shared), default=0)

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        states = [state for point in (self.points or {}).values() for state in point]
        return sum(tensor.nbytes for tensor in (*self.grown, *states)) + 8 * len(self.ids)


class PrefixStore:
    """The most recently used sequences, in bounded memory.

    Args:
        max_bytes: The oldest are forgotten beyond it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: list[Prefix] = []  # the most recently used last

    def longest(self, ids: Sequence[int]) -> tuple[Prefix | None, int]:
        """The sequence that saves the most, and how many tokens it saves."""
        best, tokens = None, 0
        for entry in self._entries:
            usable = entry.usable(ids)
            if usable > tokens:
                best, tokens = entry, usable
        if best is not None:
            self._entries.remove(best)
            self._entries.append(best)
        return best, tokens

    def put(self, new: Prefix) -> None:
        """Keep a sequence; one that it goes on from is absorbed into it."""
        entries = []
        for entry in self._entries:
            shared = common_prefix(entry.ids, new.ids)
            if shared < min(len(entry.ids), len(new.ids)):
                entries.append(entry)
                continue
            longer, shorter = (new, entry) if len(new.ids) >= len(entry.ids) else (entry, new)
            if longer.points is not None:
                points = sorted({**(shorter.points or {}), **longer.points}.items())
                longer.points = dict(
                    points
                    if len(points) <= _MOST_POINTS
                    else [points[0], *points[1 - _MOST_POINTS :]]
                )
            new = longer
        entries.append(new)
        size = sum(entry.nbytes for entry in entries)
        while entries and size > self._max_bytes:
            size -= entries.pop(0).nbytes
        self._entries = entries

    def clear(self) -> None:
        """Forget everything."""
        self._entries = []
