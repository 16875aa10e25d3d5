"""The decode step of Llama, Qwen2, Qwen3 and Qwen3.5: a token in two kernels a layer, or in one.

A model's class becomes a subclass whose forward takes this way where it fits and else that of
transformers: one new token a row, at most `MOST_ROWS` rows, no gradients, float32 on a CPU, layers
that are what transformers made or `PackedLinear`, and nobody who listens to a layer.

Shape suffixes: R rows, K model width, H heads, D head width, L tokens.
"""

from collections.abc import Iterator, Sequence
from functools import cache as remembered
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)
from transformers.modeling_outputs import BaseModelOutputWithPast

from hanol.attention._cache import CACHE_NAME
from hanol.attention.decode._growing import grow_in_place
from hanol.attention.decode._weights import MOST_ROWS, OutputLinear, Weights, joined
from hanol.attention.kda._backend import numba_kernels_exist

MODELS = ("LlamaModel", "Qwen2Model", "Qwen3Model", "Qwen3_5TextModel")
_KINDS = ("Llama", "Qwen2", "Qwen3", "Qwen3_5")
_NONE = np.empty(0, np.float32)


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


class DecodeStep:
    """The arrays of a model's layers, views of its own parameters, and the walk through them."""

    def __init__(self, model: Any, layers: list[_Attention | _Delta]) -> None:
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
        self._norm = model.norm.weight.detach().numpy()
        self._tensors = [*_tensors(model.layers), model.norm.weight]
        self._pointers = [x.data_ptr() for x in self._tensors]
        children = [
            (parent._modules, name, child)
            for parent in model.layers.modules()
            for name, child in parent._modules.items()
        ]
        self._children = children
        modules = [*model.layers.modules(), model.norm]
        self._hooks = [
            hooks for one in modules for hooks in (one._forward_hooks, one._forward_pre_hooks)
        ]
        self._attributes = [one.__dict__ for one in modules]

    @classmethod
    def of(cls, model: Any) -> "DecodeStep | None":
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
        weights = [x for x in _tensors(model.layers) if x.is_floating_point()]
        if not layers or any(not x.is_cpu for x in weights):
            return None
        return cls(model, layers)

    def is_current(self, config: Any) -> bool:
        """Whether the model still has the parameters and layers of this step, and no listener."""
        return (
            len(self._layers) == config.num_hidden_layers  # fewer where its first layers assist
            and all(children[name] is child for children, name, child in self._children)
            and not any(map(_listens, filter(None, self._hooks)))
            and not any("forward" in attributes for attributes in self._attributes)
            and all(x.data_ptr() == p for x, p in zip(self._tensors, self._pointers, strict=True))
        )

    def __call__(
        self, embeds_R1K: Tensor, cos_R1D: Tensor, sin_R1D: Tensor, cache: Cache, valid: Any
    ) -> Tensor:
        """Hidden states after the last norm, [R, 1, K]; the cache gets the token.

        `valid` says which tokens count, [R, L] with the new one, or is empty.
        """
        from hanol.attention.decode import _kernels

        R, _, K = embeds_R1K.shape
        hidden = embeds_R1K.reshape(R, K).clone().numpy()
        cos, sin = (x.expand(R, 1, -1)[:, 0].contiguous().numpy() for x in (cos_R1D, sin_R1D))
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
                self._attention(layer, i, cache, cos, sin, valid, qkv, mixed, room)
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
            room.hidden, array, stride, _flat(keys), _flat(values), keys.stride()[:3],
            values.stride()[:3], valid, length, key_heads, self._scale, *layer.out,
            layer.out_bias, layer.norm_after, offset, epsilon, *layer.gate_up, *layer.down,
            room.normed, mixed, room.added, room.inner, room.gated, np.empty(length, np.float32),
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


class FastDecoder:
    """What a decoder of transformers becomes: its own forward, and a short way for one token."""

    _step: DecodeStep | None = None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the decoder, with the arguments of transformers' own."""
        model: Any = self
        held: Any = kwargs.get("past_key_values") if cache is None else cache
        step = self._step_for(input_ids, attention_mask, position_ids, held, inputs_embeds, kwargs)
        if step is None:
            if cache is not None:
                kwargs[CACHE_NAME] = cache
            return super().forward(  # type: ignore[misc]
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                inputs_embeds=inputs_embeds, use_cache=use_cache, **kwargs,
            )  # fmt: skip
        grow_in_place(held.layers)
        embeds = model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        seen = held.get_seq_length()
        if position_ids is None:
            position_ids = torch.tensor([[seen]])
        if model.config.model_type == "qwen3_5_text":  # time, height and width, maybe with text
            position_ids = position_ids[-3:] if position_ids.ndim == 3 else position_ids[None]
            position_ids = position_ids.expand(3, -1, -1)
        cos, sin = model.rotary_emb(embeds, position_ids=position_ids)
        valid = np.empty((len(embeds), 0), np.bool_)
        if attention_mask is not None and not bool(attention_mask.all()):
            valid = attention_mask[:, -(seen + 1) :].bool().contiguous().numpy()
        hidden = step(embeds, cos, sin, held, valid)
        return BaseModelOutputWithPast(last_hidden_state=hidden, **{CACHE_NAME: held})

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles go without the step, and name transformers' class."""
        made: Any = super().__reduce_ex__(protocol)
        _new, _cls, state, *more = made
        state = {key: value for key, value in state.items() if key != "_step"}
        return (_remade, (type(self).__mro__[2],), state, *more)

    def _step_for(
        self, input_ids: Any, mask: Any, positions: Any, cache: Any, embeds: Any,
        options: dict[str, Any],
    ) -> DecodeStep | None:  # fmt: skip
        """The step, if it can do what is asked."""
        model: Any = self
        tokens: Any = input_ids if embeds is None else embeds
        if tokens is None or (input_ids is not None and embeds is not None):
            return None
        if tokens.shape[1] != 1 or not 0 < len(tokens) <= MOST_ROWS or not _is_plain(cache):
            return None
        listens = any(
            options.get(x, getattr(model.config, x, False))
            for x in ("output_hidden_states", "output_attentions")
        )
        if listens or model.training or torch.is_grad_enabled():
            return None
        if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return None
        # Kernels check no bounds: anything of another shape is for transformers to judge.
        rows, seen = len(tokens), cache.get_seq_length()
        if mask is not None and getattr(mask, "shape", None) != (rows, seen + 1):
            return None
        if mask is not None and not bool(mask[:, -1].all()):
            return None
        if positions is not None and positions.shape[-2:] not in ((1, 1), (rows, 1)):
            return None
        if any(_rows_of(layer) not in (0, rows) for layer in cache.layers):
            return None
        step = self._step
        if step is None or not step.is_current(model.config):
            step = DecodeStep.of(self) if numba_kernels_exist() else None
            self._step = step
            if step is not None and not step.is_current(model.config):  # somebody listens
                return None
        return step


def _is_plain(cache: Any) -> bool:
    """Whether every layer keeps keys and values of all tokens, or a state, and some are there."""
    return (
        isinstance(cache, DynamicCache)
        and bool(cache.layers)
        and all(
            _has_state(layer)
            if type(layer) is LinearAttentionLayer
            else isinstance(layer, DynamicLayer)
            and not isinstance(layer, DynamicSlidingWindowLayer)
            and layer.is_initialized
            and layer.keys.dtype == torch.float32
            for layer in cache.layers
        )
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


def accelerate_decoding(model: PreTrainedModel) -> bool:
    """Give the decoders in a model their short way for one token; whether there is one."""
    found = [module for module in model.modules() if _is_own(module, MODELS)]
    for module in found:
        if not isinstance(module, FastDecoder):
            module.__class__ = _fast_class(type(module))  # type: ignore[arg-type]
    head = model.get_output_embeddings()
    if found and type(head) is nn.Linear:
        head.__class__ = OutputLinear
    return bool(found)


def decode_step(model: nn.Module) -> "DecodeStep | None":
    """The step of the decoder in a model that `accelerate_decoding` has met, if it has one."""
    decoder = next((one for one in model.modules() if isinstance(one, FastDecoder)), None)
    return None if decoder is None or not numba_kernels_exist() else DecodeStep.of(decoder)


@remembered
def _fast_class(cls: type[nn.Module]) -> type[nn.Module]:
    return type(cls.__name__, (FastDecoder, cls), {"__module__": cls.__module__})


def _remade(cls: type[nn.Module]) -> nn.Module:
    fast = _fast_class(cls)  # type: ignore[arg-type]
    return fast.__new__(fast)


def _listens(hooks: dict[int, Any]) -> bool:
    """Whether somebody does, other than transformers, whose hooks stay and wait for its flags."""
    return any(getattr(hook, "__name__", "") != "output_capturing_hook" for hook in hooks.values())


def _tensors(layers: nn.Module) -> Iterator[Tensor]:
    yield from layers.parameters()
    yield from layers.buffers()


def _is_own(module: nn.Module, names: Sequence[str]) -> bool:
    """Whether a module is of one of these classes of transformers."""
    cls = type(module)
    return cls.__name__ in names and cls.__module__.startswith("transformers.models.")


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _layer(layer: Any) -> _Attention | _Delta | None:
    """The arrays of a layer of one of the models."""
    mlp, delta = layer.mlp, getattr(layer, "linear_attn", None)
    if not _is_own(mlp, [f"{kind}MLP" for kind in _KINDS]):
        return None
    if any(getattr(one, "bias", None) is not None for one in (mlp.gate_proj, mlp.down_proj)):
        return None
    if delta is not None:
        if not _is_own(delta, ["Qwen3_5GatedDeltaNet"]):
            return None
        inputs = [delta.in_proj_qkv, delta.in_proj_z, delta.in_proj_b, delta.in_proj_a]
        output = delta.out_proj
    else:
        attention = layer.self_attn
        if not _is_own(attention, [f"{kind}Attention" for kind in _KINDS]):
            return None
        inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
        output = attention.o_proj
    products = [joined(one) for one in (inputs, [output], [mlp.gate_proj, mlp.up_proj])]
    products.append(joined([mlp.down_proj]))
    if any(one is None for one in products):
        return None
    before, out, gate_up, down = (one for one in products if one is not None)
    norm, norm_after = _array(layer.input_layernorm), _array(layer.post_attention_layernorm)
    if delta is not None:
        return _Delta(
            norm, before, delta.conv1d.weight.detach().squeeze(1).numpy(),
            delta.A_log.detach().numpy(), delta.dt_bias.detach().numpy(), _array(delta.norm),
            out, norm_after, gate_up, down,
        )  # fmt: skip
    query_norm, key_norm = (_array(getattr(attention, name, None)) for name in ("q_norm", "k_norm"))
    return _Attention(
        norm, before, _biases(inputs), query_norm, key_norm, out, _biases([output]), norm_after,
        gate_up, down,
    )  # fmt: skip


def _array(norm: Any) -> Any:
    return _NONE if norm is None else norm.weight.detach().numpy()


def _biases(layers: Sequence[Any]) -> Any:
    if layers[0].bias is None:
        return _NONE
    return torch.cat([layer.bias.detach() for layer in layers]).numpy()


def _flat(x: Tensor) -> Any:
    """All that a strided tensor spans, as one row of memory."""
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((span,), (1,)).numpy()
