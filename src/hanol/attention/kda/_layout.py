"""How a row of tokens is cut: documents into chunks, chunks into segments that run together.

Shape suffixes: B batch, T tokens, H heads, D any width, C chunk, N chunks of a segment,
X = N * B * H chunks in parallel.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hanol.attention.kda._blocks import CHUNK

# Elements of one [X, C, K] tensor of a segment: bounds the temporaries and keeps them in cache.
_SEGMENT_ELEMENTS = 1 << 18


class Layout(NamedTuple):
    """Which chunk belongs to which document; documents start at chunk borders."""

    document: list[int]  # of each chunk, ascending; all 0 without packing

    def starts(self, chunk: int) -> bool:
        """Whether this chunk is the first of its document."""
        return chunk == 0 or self.document[chunk] != self.document[chunk - 1]

    def ends(self, chunk: int) -> bool:
        """Whether this chunk is the last of its document."""
        return chunk + 1 == len(self.document) or self.starts(chunk + 1)

    def rows(self, chunk: int, states: Tensor, batch: int) -> Tensor:
        """The states of this chunk's sequences as a view: [B, H, K, V]."""
        document = self.document[chunk]
        return states[document : document + 1] if batch == 1 else states


def segments(chunks: int, elements_of_a_chunk: int) -> list[range]:
    length = max(1, _SEGMENT_ELEMENTS // elements_of_a_chunk)
    return [range(i, min(i + length, chunks)) for i in range(0, chunks, length)]


def chunked(x_BTHD: Tensor, chunks: range, *more: Tensor) -> Tensor:
    """[X, C, D] of these chunks: a chunk of all rows and heads lies together.

    With more tensors, theirs follow in each chunk: [X, 2 C, D] and so on.
    """
    B, _, H, D = x_BTHD.shape
    out_NBHCD = x_BTHD.new_empty(len(chunks), B, H, (1 + len(more)) * CHUNK, D)
    for part_NBHCD, x in zip(out_NBHCD.split(CHUNK, dim=3), (x_BTHD, *more), strict=True):
        tokens_BTHD = x[:, chunks.start * CHUNK : chunks.stop * CHUNK]
        part_NBHCD.copy_(tokens_BTHD.unflatten(1, (-1, CHUNK)).permute(1, 0, 3, 2, 4))
    return out_NBHCD.view(-1, out_NBHCD.shape[3], D)


def scatter(out_BTHD: Tensor, x_XCD: Tensor, chunks: range) -> None:
    """Undo `chunked`, into the tokens of these chunks."""
    B, _, H, D = out_BTHD.shape
    part_BTHD = out_BTHD[:, chunks.start * CHUNK : chunks.stop * CHUNK]
    part_BNCHD = part_BTHD.unflatten(1, (-1, CHUNK))
    part_BNCHD.copy_(x_XCD.view(-1, B, H, CHUNK, D).permute(1, 0, 3, 2, 4))


def layout_of(documents: list[tuple[int, int]]) -> tuple[Layout, Tensor | None]:
    """Chunks of each document and, if documents are padded apart, the token of each slot or -1."""
    document_of_chunk, slots = [], []
    for document, (first, last) in enumerate(documents):
        tokens = torch.arange(first, last)
        slots.append(F.pad(tokens, (0, -len(tokens) % CHUNK), value=-1))
        document_of_chunk += [document] * (len(slots[-1]) // CHUNK)
    return Layout(document_of_chunk), torch.cat(slots) if len(documents) > 1 else None
