"""Layers of a cache whose rows have lengths of their own, for one new token a row.

Shape suffixes: B rows, T new tokens, L tokens of the longest row, R width of a latent; in brackets
also H heads and D width of a key or value.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from hanol.attention import GrowingLayer, KdaState, LatentLayer, WindowedLayer


class Contents(NamedTuple):
    """Tensors of a cache: of layers that grow, [B, ..., L, width], and of recurrent ones, [B, ...].

    A prefix of what has grown is that of a prefix of the sequence; recurrent states cannot go back.
    """

    grown: list[Tensor]
    fixed: list[Tensor]


class Ends(NamedTuple):
    """Where the new token of each row goes."""

    longest: int  # the most tokens that a row has
    row_B: Tensor | None = None  # 0, 1, ...; None when all rows have as many tokens
    at_B: Tensor | None = None  # tokens that each row has; None likewise

    def write(self, buffer: Tensor, new: Tensor) -> Tensor:
        """Put one token of each row into [rows, ..., room, width]; returns what is filled."""
        filled = buffer[: len(new), ..., : self.longest + 1, :]
        if self.at_B is None:
            filled[..., self.longest :, :] = new
        elif buffer.ndim == 4:
            filled[self.row_B, :, self.at_B] = new[:, :, 0]
        else:
            filled[self.row_B, self.at_B] = new[:, 0]
        return filled

    @property
    def valid_BL(self) -> Tensor | None:
        """Which places are filled, the new ones included; None when all are."""
        if self.at_B is None:
            return None
        at_L = torch.arange(self.longest + 1, device=self.at_B.device)
        return at_L <= self.at_B.unsqueeze(1)


class _SlotKeys(DynamicLayer):
    """Keys and values in buffers with room, [rows, H, room, D]."""

    def __init__(self, keys: Tensor, values: Tensor, ends: Ends) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._buffers, self._ends = (keys, values), ends

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._buffers
        return self._ends.write(keys, key_states), self._ends.write(values, value_states)

    def get_seq_length(self) -> int:
        return self._ends.longest


class _SlotWindowed(_SlotKeys, WindowedLayer):
    """Such keys and values, and the window of a convolution."""

    scatters = True


class _SlotLatents(LatentLayer):
    """Latents in a buffer with room, [rows, room, R]."""

    def __init__(self, rank: int, ends: Ends) -> None:
        super().__init__(rank)
        self._ends = ends

    def append(self, latent_BTR: Tensor, valid_BT: Tensor | None) -> Tensor:
        assert self.buffer_BLR is not None
        return self._ends.write(self.buffer_BLR, latent_BTR)


def is_known(cache: Any) -> bool:
    """Whether rows of this cache can be cut out and put together."""
    layers: list[Any] = getattr(cache, "layers", [])
    return (
        bool(layers)
        and all(
            type(layer) in (DynamicLayer, GrowingLayer, KdaState, LatentLayer, WindowedLayer)
            or _is_convolution(layer)
            for layer in layers
        )
        and not any(
            # Of cross-attention, which has nothing to hold where there is no image.
            isinstance(layer, DynamicLayer) and layer.keys is None
            for layer in layers
        )
    )


def is_recurrent(cache: Any) -> bool:
    """Whether a layer keeps a state that cannot go back."""
    return any(isinstance(layer, LinearAttentionLayer | WindowedLayer) for layer in cache.layers)


def has_own_mask(cache: Any) -> bool:
    """Whether the model takes padding out by itself, and the cache knows its own."""
    return any(isinstance(layer, KdaState | LatentLayer) for layer in cache.layers)


def _is_convolution(layer: Any) -> bool:
    """Whether the last inputs of a convolution are all that a layer keeps, as in LFM2."""
    return (
        type(layer) is LinearAttentionLayer
        and layer.number_of_states == 1
        and layer.conv_states[0] is not None
        and layer.recurrent_states[0] is None
    )


def contents(cache: Any) -> Contents:
    """The tensors themselves, not copies."""
    grown: list[Any] = []
    fixed: list[Any] = []
    for layer in cache.layers:
        if isinstance(layer, KdaState):
            fixed += [layer.state_BHKV, layer.window_BWC]
        elif isinstance(layer, LinearAttentionLayer):
            fixed.append(layer.conv_states[0])
        elif isinstance(layer, LatentLayer):
            grown.append(layer.latent_BLR)
        else:
            grown += [layer.keys, layer.values]
            if isinstance(layer, WindowedLayer):
                fixed.append(layer.window_BCW)
    return Contents(grown, fixed)


def cache_over(
    like: Any, held: Contents, tokens: int, valid_BL: Tensor | None, ends: Ends | None = None
) -> DynamicCache:
    """A cache over these tensors of `tokens` tokens, with layers of the kinds that `like` has.

    Recurrent states are changed in place, or `contents` has new ones afterwards. Without `ends`,
    rows take several tokens each, and a convolution's inputs come back with the new ones behind
    the old ones.
    """
    grown, fixed = iter(held.grown), iter(held.fixed)
    cache = DynamicCache()
    cache.layers = []
    for old in like.layers:
        layer: Any
        if isinstance(old, KdaState):
            layer = KdaState()
            layer.write(next(fixed), next(fixed), tokens)
        elif isinstance(old, LinearAttentionLayer):
            layer = LinearAttentionLayer()
            layer.conv_states[0] = state = next(fixed)
            layer.conv_kernel_size[0] = state.shape[-1]
            layer.is_conv_states_initialized[0] = layer.has_previous_state[0] = True
            layer.device, layer.dtype, layer.record_past = state.device, state.dtype, ends is None
        elif isinstance(old, LatentLayer):
            layer = LatentLayer(old.rank) if ends is None else _SlotLatents(old.rank, ends)
            layer.buffer_BLR, layer.length, layer.valid_BL = next(grown), tokens, valid_BL
        else:
            keys, values = next(grown), next(grown)
            if ends is None:
                layer = type(old)()
                layer.lazy_initialization(keys, values)
                layer.keys, layer.values = keys, values
            else:
                windowed = isinstance(old, WindowedLayer)
                layer = (_SlotWindowed if windowed else _SlotKeys)(keys, values, ends)
            if isinstance(old, WindowedLayer):
                layer.window_BCW, layer.record_past = next(fixed), ends is None
        cache.layers.append(layer)
    return cache
