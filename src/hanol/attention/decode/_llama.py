"""The decode step of Llama, Qwen2, Qwen3 and Qwen3.5: a token in two kernels a layer, or in one.

Shape suffixes: R rows, K model width, H heads, D head width, L tokens.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from hanol.attention.decode._growing import grow_in_place
from hanol.attention.decode._step import (
    NONE,
    DecodeStep,
    Positions,
    flat,
    is_on_cpu,
    is_own,
    norm_weight,
)
from hanol.attention.decode._weights import Weights, joined

_KINDS = ("Llama", "Qwen2", "Qwen3", "Qwen3_5")


class _Attention(NamedTuple):
    """A layer of attention over keys and values."""

    norm: Any
    qkv: Weights
    qkv_bias: Any
    query_norm: Any
    key_norm: Any
    out: Weights
    out_bias: Any
    norm_after: Any
    gate_up: Weights
    down: Weights


class _Delta(NamedTuple):
    """A gated delta net layer."""

    norm: Any
    projections: Weights
    convolution: Any
    rate: Any
    bias: Any
    gated_norm: Any
    out: Weights
    norm_after: Any
    gate_up: Weights
    down: Weights


class _Room(NamedTuple):
    """What the layers of one step write to."""

    hidden: Any
    normed: Any
    added: Any
    inner: Any
    gated: Any


class LlamaStep(DecodeStep):
    """The walk through layers of attention over keys and values, and gated delta nets."""

    def __init__(self, model: Any, layers: list[_Attention | _Delta]) -> None:
        super().__init__(model)
        self._layers = layers
        config = model.config
        self._epsilon = np.float32(config.rms_norm_eps)
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._width = _head_width(config)
        self._scale = np.float32(self._width**-0.5)
        # Qwen3.5: weights of norms are around 0, and each head has a gate behind its query.
        is_qwen35 = type(model).__name__ == "Qwen3_5TextModel"
        self._offset, self._stride = (np.float32(1), 2) if is_qwen35 else (np.float32(0), 1)
        self._delta_key_heads = getattr(config, "linear_num_key_heads", 0)

    @classmethod
    def of(cls, model: Any) -> "LlamaStep | None":
        """The step of a model, or None where a layer is none that it knows."""
        kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
        if set(kinds) - {"full_attention", "linear_attention"}:
            return None
        if model.config.hidden_act != "silu" or (
            getattr(model.config, "attention_bias", False)
            and (type(model).__name__ == "Qwen3_5TextModel")
        ):
            return None
        layers: list[_Attention | _Delta] = []
        for layer in model.layers[: model.config.num_hidden_layers]:
            made = _layer(layer)
            if made is None:
                return None
            layers.append(made)
        if not layers or not is_on_cpu(model.layers):
            return None
        return cls(model, layers)

    @staticmethod
    def fits(cache: Any, rows: int) -> bool:
        """Whether every layer keeps keys and values of all tokens, or a state, and has some."""
        return (
            isinstance(cache, DynamicCache)
            and bool(cache.layers)
            and all(map(_is_plain, cache.layers))
            and all(_rows_of(layer) in (0, rows) for layer in cache.layers)
        )

    def __call__(self, embeds_R1K: Tensor, positions: Positions, cache: Cache) -> Tensor:
        """Hidden states after the last norm, [R, 1, K]; the cache gets the token."""
        from hanol.attention.decode import _kernels

        R, _, K = embeds_R1K.shape
        hidden = embeds_R1K.reshape(R, K).clone().numpy()
        grow_in_place(cache.layers)
        cos, sin = (x.expand(R, 1, -1)[:, 0].contiguous().numpy() for x in positions[:2])
        inner = np.empty((R, len(self._layers[0].gate_up.weight)), np.float32)
        gated = np.empty((R, inner.shape[1] // 2), np.float32)
        room = _Room(hidden, np.empty_like(hidden), np.empty_like(hidden), inner, gated)
        queries = self._heads * self._stride
        qkv = torch.empty(R, queries + 2 * self._key_heads, self._width)
        mixed = np.empty((R, self._heads, self._width), np.float32)
        for i, layer in enumerate(self._layers):
            if isinstance(layer, _Delta):
                self._delta(layer, cache.layers[i], room)
            else:
                self._attention(layer, i, cache, cos, sin, positions.valid_RL, qkv, mixed, room)
        for r in range(R):
            _kernels.rms_norm(hidden[r], self._norm, self._offset, self._epsilon, room.normed[r])
        return torch.from_numpy(room.normed).view(R, 1, K)

    def _attention(
        self, layer: _Attention, index: int, cache: Cache, cos: Any, sin: Any, valid: Any,
        qkv: Tensor, mixed: Any, room: _Room,
    ) -> None:  # fmt: skip
        from hanol.attention.decode import _kernels

        heads, key_heads, stride = self._heads, self._key_heads, self._stride
        offset, epsilon, array = self._offset, self._epsilon, qkv.numpy()
        _kernels.before_attention(
            room.hidden, layer.norm, offset, epsilon, *layer.qkv, layer.qkv_bias,
            layer.query_norm, layer.key_norm, cos, sin, heads, key_heads, stride, room.normed,
            array,
        )  # fmt: skip
        first = heads * stride
        keys, values = cache.update(
            qkv[:, first : first + key_heads].unsqueeze(2),
            qkv[:, first + key_heads :].unsqueeze(2),
            index,
        )
        length = keys.shape[2]
        _kernels.after_attention(
            room.hidden, array, stride, flat(keys), flat(values), keys.stride()[:3],
            values.stride()[:3], valid, length, key_heads, self._scale, *layer.out,
            layer.out_bias, layer.norm_after, offset, epsilon, *layer.gate_up, *layer.down,
            room.normed, mixed, room.added, room.inner, room.gated,
        )  # fmt: skip

    def _delta(self, layer: _Delta, held: Any, room: _Room) -> None:
        from hanol.attention.decode import _kernels

        window, state = held.conv_states[0], held.recurrent_states[0]
        R, H, _, V = state.shape
        projected = np.empty((R, len(layer.projections.weight)), np.float32)
        _kernels.delta_layer(
            room.hidden, layer.norm, self._offset, self._epsilon, *layer.projections,
            layer.convolution, layer.rate, layer.bias, self._delta_key_heads, layer.gated_norm,
            window.numpy(), state.numpy(), *layer.out, layer.norm_after, *layer.gate_up,
            *layer.down, room.normed, projected, np.empty((R, H * V), np.float32), room.added,
            room.inner, room.gated,
        )  # fmt: skip


def _is_plain(layer: Any) -> bool:
    if type(layer) is LinearAttentionLayer:
        return _has_state(layer)
    return (
        isinstance(layer, DynamicLayer)
        and not isinstance(layer, DynamicSlidingWindowLayer)
        and layer.is_initialized
        and layer.keys.dtype == torch.float32
    )


def _has_state(layer: Any) -> bool:
    window, state = layer.conv_states[0], layer.recurrent_states[0]
    return (
        bool(layer.has_previous_state[0])
        and not layer.record_past
        and all(
            x is not None and x.dtype == torch.float32 and x.is_contiguous() and x.is_cpu
            for x in (window, state)
        )
    )


def _rows_of(layer: Any) -> int:
    return len(layer.recurrent_states[0] if type(layer) is LinearAttentionLayer else layer.keys)


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _layer(layer: Any) -> _Attention | _Delta | None:
    """The arrays of a layer of one of the models."""
    mlp, delta = layer.mlp, getattr(layer, "linear_attn", None)
    if not is_own(mlp, [f"{kind}MLP" for kind in _KINDS]):
        return None
    if any(getattr(one, "bias", None) is not None for one in (mlp.gate_proj, mlp.down_proj)):
        return None
    if delta is not None:
        if not is_own(delta, ["Qwen3_5GatedDeltaNet"]):
            return None
        inputs = [delta.in_proj_qkv, delta.in_proj_z, delta.in_proj_b, delta.in_proj_a]
        output = delta.out_proj
    else:
        attention = layer.self_attn
        if not is_own(attention, [f"{kind}Attention" for kind in _KINDS]):
            return None
        inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
        output = attention.o_proj
    products = [joined(one) for one in (inputs, [output], [mlp.gate_proj, mlp.up_proj])]
    products.append(joined([mlp.down_proj]))
    if any(one is None for one in products):
        return None
    before, out, gate_up, down = (one for one in products if one is not None)
    norm, norm_after = (
        norm_weight(layer.input_layernorm),
        norm_weight(layer.post_attention_layernorm),
    )
    if delta is not None:
        return _Delta(
            norm, before, delta.conv1d.weight.detach().squeeze(1).numpy(),
            delta.A_log.detach().numpy(), delta.dt_bias.detach().numpy(), norm_weight(delta.norm),
            out, norm_after, gate_up, down,
        )  # fmt: skip
    query_norm, key_norm = (
        norm_weight(getattr(attention, name, None)) for name in ("q_norm", "k_norm")
    )
    return _Attention(
        norm, before, _biases(inputs), query_norm, key_norm, out, _biases([output]), norm_after,
        gate_up, down,
    )  # fmt: skip


def _biases(layers: Sequence[Any]) -> Any:
    if layers[0].bias is None:
        return NONE
    return torch.cat([layer.bias.detach() for layer in layers]).numpy()
