"""Which tokens of a batch are real and where sequences begin: one form for padding and packing.

A batch with padding or with several documents in a row becomes one row of real tokens, cut into
documents. Each layer then treats documents as the separate sequences that they are, and no
padding token is ever computed.

Shape suffixes: B batch, T tokens, N real tokens, D documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from hanol.attention.kda._inputs import documents_of
from hanol.errors import ShapeError


@dataclass(frozen=True)
class Packing:
    """The real tokens of a [B, T] batch, row after row, cut into documents."""

    position_N: Tensor  # index of each real token in the flattened batch
    ends: list[int]  # 0, and the end of each document among the real tokens
    row: list[int]  # of each document, ascending; every row has at least one document
    shape: tuple[int, int]  # (B, T)

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """Ends of the documents as a tensor, [D + 1]."""
        return torch.tensor(self.ends, device=self.position_N.device)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each document."""
        return [end - first for first, end in pairwise(self.ends)]

    @cached_property
    def first_of_row(self) -> list[int]:
        """The document of each row that continues from the row's cache."""
        return [self.row.index(row) for row in range(self.shape[0])]

    @cached_property
    def last_of_row(self) -> list[int]:
        """The document of each row whose state the row's cache keeps."""
        return [first - 1 for first in [*self.first_of_row[1:], len(self.row)]]

    @cached_property
    def is_real(self) -> Tensor:
        """Which tokens of the batch are real, [B, T]."""
        real = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.bool)
        real[self.position_N] = True
        return real.view(self.shape)

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, ...] -> [1, N, ...], without the padding."""
        return x.reshape(-1, *x.shape[2:]).index_select(0, self.position_N).unsqueeze(0)

    def unpack(self, x: Tensor) -> Tensor:
        """[1, N, ...] -> [B, T, ...], zero at the padding."""
        B, T = self.shape
        out = x.new_zeros(B * T, *x.shape[2:])
        return out.index_copy(0, self.position_N, x[0]).view(B, T, *x.shape[2:])


def find_packing(
    shape: Sequence[int],
    attention_mask_BT: Tensor | None,
    position_ids: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Packing | None:
    """Read padding and document borders from the arguments of a transformers model.

    The mask may be longer than T (the cache); of `position_ids`, [B or 1, T], a real token that
    does not follow on its predecessor's position starts a document. None is the plain case: every
    token real, one document a row.
    """
    B, T = shape
    real_BT = _real_tokens(attention_mask_BT, T)
    starts_BT = None
    if cu_seqlens is not None:
        first_D = [first for first, _ in documents_of(cu_seqlens, B, T)]
        starts_BT = torch.zeros(1, T, dtype=torch.bool)
        starts_BT[0, [first for first in first_D[1:] if first < T]] = True
    elif position_ids is not None and T > 1:
        starts_BT = _restarts(position_ids.expand(B, T), real_BT)
    if real_BT is None and (starts_BT is None or not bool(starts_BT.any())):
        return None
    real_BT = torch.ones(B, T, dtype=torch.bool) if real_BT is None else real_BT
    position_N = real_BT.flatten().nonzero().squeeze(1)
    ends, row = [0], list[int]()
    for b, count in enumerate(real_BT.sum(1).tolist()):
        inner: list[int] = []
        if starts_BT is not None:
            inner = starts_BT[b][real_BT[b]].nonzero().squeeze(1).tolist()
        ends += [ends[-1] + i for i in [*filter(None, inner), count]]
        row += [b] * (len(ends) - 1 - len(row))
    return Packing(position_N, ends, row, (B, T))


def _real_tokens(mask: Tensor | None, T: int) -> Tensor | None:
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ShapeError(
            f"`attention_mask` is {found}, but must be two-dimensional: 1 for tokens, 0 for "
            "padding. Packed documents are given by `position_ids` that restart, or `cu_seqlens`."
        )
    real = mask[:, -T:] != 0
    return None if bool(real.all()) else real


def _restarts(position_BT: Tensor, real_BT: Tensor | None) -> Tensor:
    """Real tokens whose position is not one more than that of the real token before."""
    starts = torch.zeros(position_BT.shape, dtype=torch.bool)
    if real_BT is None:
        starts[:, 1:] = position_BT.diff(dim=1) != 1
        return starts
    for b, real in enumerate(real_BT):
        index = real.nonzero().squeeze(1)
        jumps = position_BT[b, index].diff() != 1
        starts[b, index[1:]] = jumps
    return starts
