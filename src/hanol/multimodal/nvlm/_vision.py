"""What a model knows of the images of a batch, once they went through the vision tower.

Shape suffixes: B rows, T tokens, K tiles, N visual tokens, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from hanol.multimodal.nvlm._cross import CrossPass, KeysValues


@dataclass(frozen=True)
class Vision:
    """Images of a batch as the language model takes them; `encode_images` makes it.

    Attributes:
        slots: Of each row, the embeddings that go into its sequence, `[slots, D]`; None once they
            are in it.
        layers: Of each gated layer, keys and values of the tiles, `[B, heads, K N, width]`.
        tiles: Tiles of each row that gated layers see.
        tokens: Keys that a tile has.
    """

    slots: tuple[Tensor, ...] | None
    layers: list[KeysValues]
    tiles: tuple[int, ...]
    tokens: int

    @property
    def has_slots(self) -> bool:
        """Whether embeddings have to go into the sequences."""
        return self.slots is not None and any(len(row) for row in self.slots)

    def seen(self) -> Self:
        """The same when the embeddings are in the sequences: what further tokens need."""
        return replace(self, slots=None)

    def rows(self, rows: Sequence[int]) -> Self:
        """Some of the rows, each as often as it is named."""
        index = torch.tensor(rows)
        layers = [
            KeysValues(*(part.index_select(0, index.to(part.device)) for part in layer))
            for layer in self.layers
        ]
        slots = None if self.slots is None else tuple(self.slots[row] for row in rows)
        return replace(self, slots=slots, layers=layers, tiles=tuple(self.tiles[i] for i in rows))

    def blank(self) -> Self:
        """A row without images beside these."""
        layers = [KeysValues(*(part[:1, :, :0] for part in layer)) for layer in self.layers]
        return replace(self, slots=None, layers=layers, tiles=(0,))

    def join(self, *others: "Vision") -> "Vision":
        """The rows of several in one batch."""
        all_of = (self, *others)
        most = max(max(one.tiles) for one in all_of) * self.tokens
        layers = []
        for parts in zip(*(one.layers for one in all_of), strict=True):
            padded = [
                KeysValues(*(F.pad(x, (0, 0, 0, most - x.shape[-2])) for x in part))
                for part in parts
            ]
            layers.append(
                KeysValues(
                    torch.cat([part.keys for part in padded]),
                    torch.cat([part.values for part in padded]),
                )
            )
        slots = None
        if all(one.slots is not None for one in all_of):
            slots = tuple(row for one in all_of for row in one.slots or ())
        return Vision(slots, layers, tuple(n for one in all_of for n in one.tiles), self.tokens)

    def cross_pass(self, spans_BT2: Tensor | None, length: int) -> CrossPass | None:
        """What gated layers see in a pass of so many tokens a row; None when there is nothing.

        Args:
            spans_BT2: First tile that each token sees, and the one behind the last; None lets all
                tokens see all tiles of their row.
            length: Tokens of a row.
        """
        if not self.layers or not any(self.tiles):
            return None
        device = self.layers[0].keys.device
        count_B11 = torch.tensor(self.tiles, device=device)[:, None, None]
        tile_K = torch.arange(max(self.tiles), device=device)
        visible_BTK = (tile_K < count_B11).expand(-1, length, -1)
        if spans_BT2 is not None:
            spans_BT2 = spans_BT2.to(device)
            visible_BTK = (
                visible_BTK & (tile_K >= spans_BT2[..., :1]) & (tile_K < spans_BT2[..., 1:])
            )
        return CrossPass(self.layers, visible_BTK.repeat_interleave(self.tokens, dim=-1))
