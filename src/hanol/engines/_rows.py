"""Sequences of different lengths in one cache, decoded together.

Shape suffixes: B rows, L tokens of the longest row, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from hanol.attention import KdaState, LatentLayer


class Contents(NamedTuple):
    """Tensors of a cache: of layers that grow, [B, ..., L, width], and of recurrent ones."""

    grown: list[Tensor]
    fixed: list[Tensor]


class _RoomyLayer(DynamicLayer):
    """Keys and values in buffers with room: a new token does not copy the old ones."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        held: Any = self  # transformers' layers are not typed
        keys, values = held.keys, held.values
        before, after = keys.shape[-2], keys.shape[-2] + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < after:
            room = after + 32 + after // 4
            self._buffers = (_with_room(keys, room), _with_room(values, room))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, before:after] = new
        held.keys, held.values = (buffer[:, :, :after] for buffer in self._buffers)
        return held.keys, held.values


def _with_room(x_BHLD: Tensor, room: int) -> Tensor:
    made = x_BHLD.new_empty(*x_BHLD.shape[:2], room, x_BHLD.shape[-1])
    made[:, :, : x_BHLD.shape[2]] = x_BHLD
    return made


def is_known(cache: Any) -> bool:
    """Whether rows of this cache can be cut out and put together."""
    kinds = (DynamicLayer, _RoomyLayer, KdaState, LatentLayer)
    return bool(getattr(cache, "layers", None)) and all(
        type(layer) in kinds for layer in cache.layers
    )


def is_recurrent(cache: Any) -> bool:
    """Whether a layer keeps a state that cannot go back."""
    return any(isinstance(layer, KdaState) for layer in cache.layers)


def contents(cache: Any) -> Contents:
    """The tensors themselves, not copies."""
    grown: list[Any] = []
    fixed: list[Any] = []
    for layer in cache.layers:
        if isinstance(layer, KdaState):
            fixed += [layer.state_BHKV, layer.window_BWC]
        elif isinstance(layer, LatentLayer):
            grown.append(layer.latent_BLR)
        else:
            grown += [layer.keys, layer.values]
    return Contents(grown, fixed)


def fill(like: Any, held: Contents, tokens: int, valid_BL: Tensor | None = None) -> DynamicCache:
    """A cache of the same kind of layers that holds these tensors.

    Args:
        like: A cache of the model.
        held: Its new contents; recurrent states will be changed in place.
        tokens: Length of the contents, padding included.
        valid_BL: Which places hold real tokens; None when all do.
    """
    grown, fixed = iter(held.grown), iter(held.fixed)
    cache = DynamicCache()
    cache.layers = []
    for old in like.layers:
        layer: Any
        if isinstance(old, KdaState):
            layer = KdaState()
            layer.write(next(fixed), next(fixed), tokens)
        elif isinstance(old, LatentLayer):
            layer = LatentLayer(old.rank)
            layer.buffer_BLR, layer.length = next(grown), tokens
            layer.valid_BL = valid_BL
        else:
            layer = _RoomyLayer()
            keys = next(grown)
            layer.lazy_initialization(keys, keys)
            layer.keys, layer.values = keys, next(grown)
        cache.layers.append(layer)
    return cache


class Rows:
    """The cache of the sequences that are being decoded; row i is the i-th that was added.

    Attributes:
        lengths: Tokens in the cache of each row, without padding (which is on the left).
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._cache: Any = None

    def add(self, cache: Any, tokens: int) -> None:
        """Add a sequence as the last row; its cache must not be used any more.

        A cache of unknown layers must be the only row.
        """
        self.lengths.append(tokens)
        if len(self.lengths) == 1:
            self._cache = fill(cache, contents(cache), tokens) if is_known(cache) else cache
            return
        longest = max(self.lengths)
        old, new = contents(self._cache), contents(cache)
        grown = [
            torch.cat([_padded(a, longest), _padded(b, longest)])
            for a, b in zip(old.grown, new.grown, strict=True)
        ]
        fixed = [torch.cat(pair) for pair in zip(old.fixed, new.fixed, strict=True)]
        self._fill(Contents(grown, fixed))

    def keep(self, rows: list[int]) -> None:
        """Keep these rows alone."""
        if len(rows) == len(self.lengths):
            return
        self.lengths = [self.lengths[row] for row in rows]
        if not rows:
            self._cache = None
            return
        held, longest = contents(self._cache), max(self.lengths)
        index = torch.tensor(rows, device=held.grown[0].device if held.grown else None)
        self._fill(
            Contents(
                [x[..., x.shape[-2] - longest :, :].index_select(0, index) for x in held.grown],
                [x.index_select(0, index.to(x.device)) for x in held.fixed],
            )
        )

    def row(self, row: int) -> Contents:
        """A copy of what is held of one row, without padding."""
        held, tokens = contents(self._cache), self.lengths[row]
        return Contents(
            [x[row : row + 1, ..., x.shape[-2] - tokens :, :].clone() for x in held.grown],
            [x[row : row + 1].clone() for x in held.fixed],
        )

    def states(self, row: int) -> list[Tensor]:
        """A copy of the recurrent states of one row."""
        return [x[row : row + 1].clone() for x in contents(self._cache).fixed]

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """What the model needs besides the next token of each row."""
        inputs: dict[str, Any] = {"past_key_values": self._cache, "use_cache": True}
        if self._is_padded and not is_recurrent(self._cache):  # that one holds its own mask
            length_B1 = torch.tensor(self.lengths, device=device).unsqueeze(1)
            longest = max(self.lengths)
            at_L = torch.arange(longest + 1, device=device)
            inputs["attention_mask"] = (at_L >= longest - length_B1).long()
            inputs["position_ids"] = length_B1
        return inputs

    def advance(self, cache: Any) -> None:
        """One token was added to every row."""
        self._cache = cache
        self.lengths = [tokens + 1 for tokens in self.lengths]

    @property
    def _is_padded(self) -> bool:
        return min(self.lengths) < max(self.lengths)

    def _fill(self, held: Contents) -> None:
        longest = max(self.lengths)
        valid_BL = None
        if self._is_padded:
            at_L = torch.arange(longest)
            valid_BL = at_L >= longest - torch.tensor(self.lengths).unsqueeze(1)
        self._cache = fill(self._cache, held, longest, valid_BL)


def _padded(x: Tensor, tokens: int) -> Tensor:
    return F.pad(x, (0, 0, tokens - x.shape[-2], 0))
