"""Sequences of different lengths in one cache: each in a row of buffers with room to grow.

Shape suffixes: B rows, L tokens of the longest row, T new tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hanol.attention import CACHE_NAME
from hanol.engines.checkpoint._layers import Contents, Ends, cache_over, contents, has_own_mask

_ROOM = 64  # tokens that a longest row may grow before buffers are laid out anew


class Rows:
    """The sequences that a model is working on, by row.

    A sequence begins in its row at place 0. A new token is written where it stays: nothing is
    copied when others come, go or grow. `like` is a cache of the model after one token.
    """

    def __init__(self, like: Any) -> None:
        self.lengths: list[int] = []  # tokens of each row that the model has seen
        self._like = like
        self._own_mask = has_own_mask(like)
        self._one = contents(like)
        self._device = (self._one.grown or self._one.fixed)[0].device
        self._held = Contents([], [])
        self._room = (0, 0)  # rows, tokens

    def put(self, row: int, held: Contents | None, tokens: int) -> None:
        """Begin a sequence in a free row or the next one, with so many of the tokens held of it."""
        if row == len(self.lengths):
            self.lengths.append(0)
        self.lengths[row] = tokens
        self._reserve(tokens)
        if held is None:
            for x in self._held.fixed:
                x[row] = 0
            return
        for x, new in zip(self._held.grown, held.grown, strict=True):
            x[row, ..., :tokens, :] = new[0, ..., :tokens, :]
        for x, new in zip(self._held.fixed, held.fixed, strict=True):
            x[row] = new[0]

    def drop(self, row: int) -> None:
        """End a sequence; the last row takes its place."""
        last, tokens = len(self.lengths) - 1, self.lengths[-1]
        if row < last:
            for x in self._held.grown:
                x[row, ..., :tokens, :] = x[last, ..., :tokens, :]
            for x in self._held.fixed:
                x[row] = x[last]
            self.lengths[row] = tokens
        self.lengths.pop()
        if not self.lengths:
            self._held, self._room = Contents([], []), (0, 0)

    def read(self, row: int) -> Contents:
        """A copy of what is held of one row."""
        tokens = self.lengths[row]
        grown = [x[row : row + 1, ..., :tokens, :].clone() for x in self._held.grown]
        return Contents(grown, self.states(row))

    def states(self, row: int) -> list[Tensor]:
        """A copy of the recurrent states of one row."""
        return [x[row : row + 1].clone() for x in self._held.fixed]

    def chunk(self, rows: Sequence[int], counts: Sequence[int]) -> dict[str, Any]:
        """What the model needs besides the next `counts` tokens of rows, padded on the right."""
        device = self._device
        lengths = [self.lengths[row] for row in rows]
        longest, T = max(lengths), max(counts)
        row_B = torch.tensor(rows, device=device)
        length_B1 = torch.tensor(lengths, device=device).unsqueeze(1)
        at_T = torch.arange(T, device=device)
        old_BL = torch.arange(longest, device=device) < length_B1
        new_BT = at_T < torch.tensor(counts, device=device).unsqueeze(1)
        held = Contents(
            [x[..., :longest, :].index_select(0, row_B) for x in self._held.grown],
            [x.index_select(0, row_B) for x in self._held.fixed],
        )
        even, full = min(lengths) == longest, min(counts) == T
        cache = cache_over(self._like, held, longest, None if even else old_BL)
        inputs: dict[str, Any] = {CACHE_NAME: cache}
        if self._own_mask:
            if not full:
                inputs["attention_mask"] = new_BT
        elif not (even and full):
            inputs["attention_mask"] = torch.cat([old_BL, new_BT], dim=1)
            inputs["position_ids"] = length_B1 + at_T
        return inputs

    def chunked(self, rows: Sequence[int], counts: Sequence[int], cache: Any) -> None:
        """Take over what the model made of the inputs of `chunk`."""
        longest = max(self.lengths[row] for row in rows)
        self._reserve(longest + max(counts))
        made = contents(cache)
        for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
            at = self.lengths[row]
            self.lengths[row] = at + count
            for x, new in zip(self._held.grown, made.grown, strict=True):
                x[row, ..., at : at + count, :] = new[i, ..., longest : longest + count, :]
            for x, new in zip(self._held.fixed, made.fixed, strict=True):
                # A convolution's inputs: the old ones, the new ones, those of padding.
                grew = new.shape[1:] != x.shape[1:]
                x[row] = new[i, ..., count : count + x.shape[-1]] if grew else new[i]

    def step(self) -> dict[str, Any]:
        """What the model needs besides the next token of each row."""
        rows, longest = len(self.lengths), max(self.lengths)
        self._reserve(longest + 1)
        ends = Ends(longest)
        if min(self.lengths) < longest:
            at_B = torch.tensor(self.lengths, device=self._device)
            ends = Ends(longest, torch.arange(rows, device=self._device), at_B)
        held = Contents(self._held.grown, [x[:rows] for x in self._held.fixed])
        valid_BL = ends.valid_BL if self._own_mask else None
        inputs: dict[str, Any] = {CACHE_NAME: cache_over(self._like, held, longest, valid_BL, ends)}
        if ends.at_B is not None and not self._own_mask:
            inputs["attention_mask"] = ends.valid_BL
            inputs["position_ids"] = ends.at_B.unsqueeze(1)
        return inputs

    def stepped(self, cache: Any) -> None:
        """Take over what the model made of the inputs of `step`."""
        if self._held.fixed:
            for x, new in zip(self._held.fixed, contents(cache).fixed, strict=True):
                if new.data_ptr() != x.data_ptr():
                    x[: len(new)] = new
        self.lengths = [tokens + 1 for tokens in self.lengths]

    def _reserve(self, tokens: int) -> None:
        """Make room for all rows, and for so many tokens in each."""
        rows, old = len(self.lengths), self._room
        if rows <= old[0] and tokens <= old[1]:
            return
        self._room = room = (
            old[0] if rows <= old[0] else max(rows, 2 * old[0]),
            old[1] if tokens <= old[1] else tokens + _ROOM + tokens // 4,
        )
        # Zeros: what is masked must be a number.
        one = self._one
        grown = [x.new_zeros(room[0], *x.shape[1:-2], room[1], x.shape[-1]) for x in one.grown]
        fixed = [x.new_zeros(room[0], *x.shape[1:]) for x in one.fixed]
        for new, x in zip(grown, self._held.grown, strict=False):
            new[: old[0], ..., : old[1], :] = x
        for new, x in zip(fixed, self._held.fixed, strict=False):
            new[: old[0]] = x
        self._held = Contents(grown, fixed)


class OneRow(Rows):
    """One sequence in a cache of any kind, out of which nothing can be taken."""

    def __init__(self) -> None:
        self._cache: Any = None

    def put(self, row: int, held: Contents | None, tokens: int) -> None:
        self._cache = None

    def drop(self, row: int) -> None:
        self._cache = None

    def chunk(self, rows: Sequence[int], counts: Sequence[int]) -> dict[str, Any]:
        return {CACHE_NAME: self._cache}

    def chunked(self, rows: Sequence[int], counts: Sequence[int], cache: Any) -> None:
        self._cache = cache

    def step(self) -> dict[str, Any]:
        return {CACHE_NAME: self._cache}

    def stepped(self, cache: Any) -> None:
        self._cache = cache


def alike(tokens: dict[int, int], most: int) -> list[int]:
    """Rows for one pass: the first, and those nearest to it in tokens, as many as `most` holds."""
    first = next(iter(tokens.values()))
    longest, rows = 0, list[int]()
    for row in sorted(tokens, key=lambda row: abs(tokens[row] - first)):
        longest = max(longest, tokens[row])
        if rows and longest * (len(rows) + 1) > most:
            break
        rows.append(row)
    return rows
