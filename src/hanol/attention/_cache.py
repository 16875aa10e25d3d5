"""Cache layers of the hybrid: recurrent state and convolution window, latent keys and values.

They stand in the layers of transformers' own `DynamicCache`, so that `generate`, beam search and
assisted generation work with what they know.

Shape suffixes: B batch, L cached tokens, H heads, K key width, V value width, R latent width plus
shared key width, W window of the convolution, C its channels.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Cache, KimiLinearConfig
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, LinearAttentionLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from hanol.attention.kda._kda import chunk_kda
from hanol.errors import CacheError

# The argument and the output of a model that hold its cache; transformers 5.24 renamed both.
CACHE_NAME = next(
    field.name
    for field in fields(BaseModelOutputWithPast)
    if field.name in ("cache", "past_key_values")
)


class MappedLayer:
    """A layer of a cache whose tensors are chosen, repeated and moved row by row, all alike."""

    parts: tuple[str, ...]  # names of the attributes that hold them
    device: torch.device

    def _map(self, change: Callable[[Tensor], Tensor]) -> None:
        for name in self.parts:
            if (tensor := getattr(self, name)) is not None:
                setattr(self, name, change(tensor))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder rows by beam."""
        self._map(lambda x: x.index_select(0, beam_idx))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self._map(lambda x: x[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def offload(self) -> None:
        """Move to main memory."""
        self._map(lambda x: x.cpu())

    def prefetch(self) -> None:
        """Move back to the device of the model."""
        self._map(lambda x: x.to(self.device))


class DeltaStep(NamedTuple):
    """Inputs of the recurrence in one forward pass, kept so that tokens can be removed again."""

    state_BHKV: Tensor | None
    window_BWC: Tensor | None
    inputs: tuple[Tensor, ...] = ()  # q, k, v, g, beta, normalised; [B, T, ...]
    projections_BTC: Tensor | None = None  # before the convolution
    real_T: Tensor | None = None  # of one padded row: which of its tokens the others have


class KdaState(MappedLayer, LinearAttentionLayer, CacheLayerMixin):
    """State of one Kimi Delta Attention layer: constant size, whatever the length.

    Attributes:
        state_BHKV: Recurrent state, float32, or None before the first token.
        window_BWC: The last kernel - 1 projections before the convolution.
        length: Tokens seen, padding included.
    """

    parts = ("state_BHKV", "window_BWC")
    # transformers would prepare masks of its own for a cache that can be compiled.
    is_compileable = False
    is_croppable = True  # by the tokens that came after `activate_past_recording`

    def __init__(self) -> None:
        super().__init__()
        self.state_BHKV: Tensor | None = None
        self.window_BWC: Tensor | None = None
        self.length = 0
        self._steps: list[DeltaStep] = []

    def write(self, state_BHKV: Tensor, window_BWC: Tensor, tokens: int) -> None:
        """Store state and window after `tokens` more tokens."""
        self.state_BHKV, self.window_BWC = state_BHKV, window_BWC
        self.length += tokens
        self.device, self.dtype = state_BHKV.device, window_BWC.dtype
        self.has_previous_state[0] = True

    def record(self, step: DeltaStep) -> None:
        """Record a forward pass for `crop`."""
        self._steps.append(step)

    def pad(self, zeros_BTR: Tensor) -> None:
        """Count tokens that are padding in every row."""
        if self.record_past:
            real_T = torch.zeros(zeros_BTR.shape[1], dtype=torch.bool)
            state = None if self.state_BHKV is None else self.state_BHKV.clone()
            self.record(DeltaStep(state, self.window_BWC, real_T=real_T))
        self.length += zeros_BTR.shape[1]

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Always raises: this layer has no keys and values."""
        raise CacheError("A Kimi Delta Attention layer of the cache takes no keys and values.")

    def get_seq_length(self) -> int:
        """Tokens seen, padding included."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys, as an attention layer would give them."""
        return self.length + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens: start from the recorded state and rerun the tokens that are kept.

        Args:
            tokens_to_remove: Negative number of tokens, or 0 to drop the recording.

        Raises:
            CacheError: The tokens were not recorded.
        """
        remove = abs(tokens_to_remove)
        while remove:
            if not self._steps:
                raise CacheError(
                    f"Cannot remove {abs(tokens_to_remove)} tokens: a recurrent state keeps no "
                    "past. Call `cache.activate_past_recording()` before the tokens are fed, or "
                    "take a `snapshot(cache)` and restore it."
                )
            step = self._steps.pop()
            new_BTC = step.projections_BTC
            tokens = len(step.real_T) if step.real_T is not None else cast(Tensor, new_BTC).shape[1]
            kept = max(0, tokens - remove)
            self.length -= tokens - kept
            remove -= tokens - kept
            self.state_BHKV, self.window_BWC = step.state_BHKV, step.window_BWC
            kept = kept if step.real_T is None else int(step.real_T[:kept].sum())
            if kept and step.window_BWC is not None and new_BTC is not None:
                _, self.state_BHKV = chunk_kda(
                    *(x[:, :kept] for x in step.inputs),
                    scale=1.0,
                    initial_state_BHKV=step.state_BHKV,
                    output_final_state=True,
                )
                W = step.window_BWC.shape[1]
                seen = torch.cat([step.window_BWC, new_BTC[:, :kept]], dim=1)
                self.window_BWC = seen[:, seen.shape[1] - W :]
        self._steps.clear()

    def _map(self, change: Callable[[Tensor], Tensor]) -> None:
        super()._map(change)

        def changed(x: Tensor | None) -> Tensor | None:
            return None if x is None else change(x)

        self._steps = [
            DeltaStep(
                changed(step.state_BHKV),
                changed(step.window_BWC),
                tuple(map(change, step.inputs)),
                changed(step.projections_BTC),
                step.real_T,
            )
            for step in self._steps
        ]

    def reset(self) -> None:
        """Remove everything."""
        self.state_BHKV = self.window_BWC = None
        self.length = 0
        self._steps.clear()
        self.has_previous_state[0] = False


class LatentLayer(MappedLayer, DynamicLayer):
    """Latent keys and values of one multi-head latent attention layer, in a buffer that doubles.

    Attributes:
        buffer_BLR: Latents and shared keys side by side; the first `length` places are filled.
        valid_BL: Which places hold real tokens, or None when all do.
    """

    parts = ("buffer_BLR", "valid_BL")

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.length = 0
        self.buffer_BLR: Tensor | None = None
        self.valid_BL: Tensor | None = None
        self.is_initialized = True

    @property
    def latent_BLR(self) -> Tensor:
        """The filled part of the buffer."""
        assert self.buffer_BLR is not None
        return self.buffer_BLR[:, : self.length]

    def append(self, latent_BTR: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Add tokens and return all latents, [B, L, R]."""
        B, T, R = latent_BTR.shape
        if valid_BT is not None or self.valid_BL is not None:
            before, new = self.valid_BL, valid_BT
            before = torch.ones(B, self.length, dtype=torch.bool) if before is None else before
            new = torch.ones(B, T, dtype=torch.bool) if new is None else new
            self.valid_BL = torch.cat([before, new], dim=1)
        if self.buffer_BLR is None or self.buffer_BLR.shape[1] < self.length + T:
            # A prompt gets a little room, a growing text twice what it has: appends stay cheap.
            capacity = max(self.length + T + 64, 2 * self.length)
            grown = latent_BTR.new_empty(B, capacity, R)
            if self.buffer_BLR is not None:
                grown[:, : self.length] = self.latent_BLR
            self.buffer_BLR = grown
        self.buffer_BLR[:, self.length : self.length + T] = latent_BTR
        self.length += T
        self.dtype, self.device = latent_BTR.dtype, latent_BTR.device
        return self.latent_BLR

    def pad(self, zeros_BTR: Tensor) -> None:
        """Append tokens that are padding in every row."""
        self.append(zeros_BTR, torch.zeros(zeros_BTR.shape[:2], dtype=torch.bool))

    @property
    def keys(self) -> Tensor | None:
        """Latents as transformers stores them, [B, 1, L, rank]."""
        return None if self.buffer_BLR is None else self.latent_BLR[:, None, :, : self.rank]

    @keys.setter
    def keys(self, value: Tensor | None) -> None:
        assert value is None

    @property
    def values(self) -> Tensor | None:
        """Shared keys as transformers stores them, [B, 1, L, shared width]."""
        return None if self.buffer_BLR is None else self.latent_BLR[:, None, :, self.rank :]

    @values.setter
    def values(self, value: Tensor | None) -> None:
        assert value is None

    def get_seq_length(self) -> int:
        """Tokens seen, padding included."""
        return self.length

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens, given as a negative number."""
        self.length = max(0, self.length - abs(tokens_to_remove))
        if self.valid_BL is not None:
            self.valid_BL = self.valid_BL[:, : self.length]

    def _map(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.buffer_BLR is not None:
            self.buffer_BLR = self.latent_BLR  # without the room to grow
        super()._map(change)

    def reset(self) -> None:
        """Remove everything."""
        self.buffer_BLR = self.valid_BL = None
        self.length = 0


def adopt(cache: Cache, config: KimiLinearConfig) -> None:
    """Put our layers into an empty cache; a cache that has them stays unchanged."""
    # Fewer than there are types while the first layers assist the whole model (early exit).
    kinds = config.layer_types[: config.num_hidden_layers]
    if len(cache.layers) not in (0, len(kinds)):
        raise CacheError(
            f"The cache has {len(cache.layers)} layers, but the model has {len(kinds)}: it belongs "
            "to another model. Pass `DynamicCache(config=model.config)` or none."
        )
    if not cache.layers:
        cache.layers = [None] * len(kinds)
        cache.layer_class_to_replicate = None
    for i, (layer, kind) in enumerate(zip(cache.layers, kinds, strict=True)):
        wanted = LatentLayer if kind == "full_attention" else KdaState
        if isinstance(layer, wanted):
            _check_fits(layer, config, i)
            continue
        if layer is not None and (
            isinstance(layer, KdaState | LatentLayer)
            or getattr(layer, "is_initialized", False)
            or any(getattr(layer, "has_previous_state", {}).values())
        ):
            raise CacheError(
                f"Layer {i} of the cache is a filled {type(layer).__name__}, but the model needs a "
                f"{wanted.__name__} there. Fill the cache with this model, or pass an empty one."
            )
        new = LatentLayer(config.kv_lora_rank) if wanted is LatentLayer else KdaState()
        if wanted is KdaState:
            new.record_past = getattr(layer, "record_past", False)
        cache.layers[i] = new


def _check_fits(layer: "KdaState | LatentLayer", config: KimiLinearConfig, index: int) -> None:
    if isinstance(layer, KdaState):
        found = None if layer.state_BHKV is None else tuple(layer.state_BHKV.shape[1:])
        wanted: tuple[int, ...] = (config.linear_num_heads,) + (config.linear_head_dim,) * 2
    else:
        found = None if layer.buffer_BLR is None else tuple(layer.buffer_BLR.shape[2:])
        wanted = (config.kv_lora_rank + config.qk_rope_head_dim,)
    if found is not None and found != wanted:
        raise CacheError(
            f"Layer {index} of the cache holds {found} per row, but the model needs {wanted}: "
            "the cache belongs to another configuration."
        )


class CacheSnapshot:
    """A copy of a cache's tensors: convolution, recurrent and latent parts together."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors  # "lengths", and "0.state_BHKV" and the like of each layer

    def restore(self, cache: Cache) -> None:
        """Restore the cache to this point; the snapshot can be used again.

        Raises:
            CacheError: The cache has other layers than the snapshot.
        """
        lengths = self._tensors["lengths"].tolist()
        names = {
            f"{i}.{x}" for i, one in enumerate(cache.layers) for x in getattr(one, "parts", ())
        }
        if len(cache.layers) != len(lengths) or not names | {"lengths"} >= self._tensors.keys():
            raise CacheError(
                f"The snapshot has {len(lengths)} layers of other kinds than the cache's "
                f"{len(cache.layers)}. Restore it into a cache of the model it was taken from."
            )
        for i, layer in enumerate(cache.layers):
            layer.reset()
            layer.length = lengths[i]
            for name in layer.parts:
                tensor = self._tensors.get(f"{i}.{name}")
                setattr(layer, name, None if tensor is None else tensor.clone())
            if isinstance(layer, KdaState):
                layer.has_previous_state[0] = layer.state_BHKV is not None

    def save(self, path: str | Path) -> None:
        """Write the snapshot as one safetensors file."""
        save_file(self._tensors, path)

    @classmethod
    def load(cls, path: str | Path) -> "CacheSnapshot":
        """Read what `save` wrote.

        Raises:
            CacheError: The file is not a snapshot.
        """
        tensors = load_file(path)
        if "lengths" not in tensors:
            raise CacheError(f"{str(path)!r} is not a cache snapshot: it names no lengths.")
        return cls(tensors)


def snapshot(cache: Cache) -> CacheSnapshot:
    """Copy the whole cache, to restore, save or share a prefix later.

    Raises:
        CacheError: The cache was not filled by an accelerated Kimi-Linear model.
    """
    tensors = {}
    for i, layer in enumerate(cache.layers):
        if not isinstance(layer, KdaState | LatentLayer):
            raise CacheError(
                f"Layer {i} of the cache is a {type(layer).__name__}: snapshots are of caches that "
                "an accelerated Kimi-Linear model filled."
            )
        for name in layer.parts:
            if (tensor := getattr(layer, name)) is not None:
                part = tensor[:, : layer.length] if name == "buffer_BLR" else tensor
                tensors[f"{i}.{name}"] = part.clone(memory_format=torch.contiguous_format)
    return CacheSnapshot(tensors | {"lengths": torch.tensor([x.length for x in cache.layers])})
