"""Keys and values that grow in place, for one token after another.

Shape suffixes: B rows, H heads, L tokens, T new ones, D width.
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

_ROOM = 8  # one token of room for so many, so that each is copied about so many times
_LEAST = 64


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` with room behind its tokens: an update copies the new ones alone.

    transformers' own copies all tokens with each new one. What has been taken out of this layer, or
    was put into it, is never written over: an update goes in place only while keys and values are
    those that the last update returned.
    """

    keys: Tensor | None
    values: Tensor | None
    _held: tuple[Any, ...] = (None, None, None, None)  # keys, values, and the buffers behind them

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, [B, H, T, D]; returns those of all tokens, [B, H, L, D]."""
        keys, values, *buffers = self._held
        old = (self.keys, self.values)
        if old[0] is None or old[1] is None or old[0].shape[:-2] != key_states.shape[:-2]:
            return super().update(key_states, value_states, *args, **kwargs)
        length = old[0].shape[-2] + key_states.shape[-2]
        is_ours = keys is old[0] and values is old[1]
        if not is_ours or length > min(x.shape[-2] for x in buffers):
            room = length + max(length // _ROOM, _LEAST)
            buffers = [_with_room(x, room) for x in old if x is not None]
        new = (key_states, value_states)
        keys, values = (_written(*pair, length) for pair in zip(buffers, new, strict=True))
        self.keys, self.values, self._held = keys, values, (keys, values, *buffers)
        return keys, values


def _with_room(x_BHLD: Tensor, room: int) -> Tensor:
    buffer = x_BHLD.new_empty(*x_BHLD.shape[:-2], room, x_BHLD.shape[-1])
    buffer[..., : x_BHLD.shape[-2], :] = x_BHLD
    return buffer


def _written(buffer: Tensor, new_BHTD: Tensor, length: int) -> Tensor:
    buffer[..., length - new_BHTD.shape[-2] : length, :] = new_BHTD
    return buffer[..., :length, :]


def grow_in_place(layers: list[Any]) -> None:
    """Let the layers of a cache that are transformers' own do so."""
    for layer in layers:
        if type(layer) is DynamicLayer:
            layer.__class__ = GrowingLayer
