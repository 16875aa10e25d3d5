"""The decode step of Kimi-Linear: a token in three or four kernels a layer.

Shape suffixes: R rows, K model width, N output width, H heads, D head width, W window of the
convolution, C its channels, Q query width of latent attention, X width of a latent, L tokens.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_outputs import MoeModelOutputWithPast
from transformers.models.kimi_linear import modeling_kimi_linear as upstream

from hanol.attention._cache import KdaState, LatentLayer
from hanol.attention._delta import KimiLinearDeltaAttention
from hanol.attention._mla import KimiLinearAttention
from hanol.attention._moe import KimiLinearMLP, KimiLinearTopkRouter
from hanol.attention.decode._step import (
    NONE,
    DecodeStep,
    Positions,
    flat,
    is_on_cpu,
    norm_weight,
)
from hanol.attention.decode._weights import SPAN, Weights, joined

_NO_WEIGHTS = Weights(np.empty((0, 0), np.float32), np.empty((0, 0), np.float32))


class _KdaMixer(NamedTuple):
    """Kimi Delta Attention."""

    projections: Weights  # q, k, v, low ranks of decay and output gate, strengths
    convolution: Any
    decay: Weights
    rate: Any
    bias: Any
    gate: Weights
    norm: Any
    epsilon: Any
    out: Weights


class _LatentMixer(NamedTuple):
    """Latent attention."""

    low: Weights
    low_norm: Any
    query: Weights
    latent: Weights
    norm: Any
    epsilon: Any
    up: Any
    scale: Any
    out: Weights
    sizes: tuple[int, int, int, int]  # heads, query width, latent width, value width


class _Experts(NamedTuple):
    """A mixture of experts."""

    router: Any
    bias: Any
    groups: int
    kept_groups: int
    top: int
    normalise: bool
    factor: Any
    gate_up: Any
    down: Any
    shared_gate_up: Weights
    shared_down: Weights


class _Dense(NamedTuple):
    """SwiGLU."""

    gate_up: Weights
    down: Weights


class _Layer(NamedTuple):
    norm: Any
    mixer: _KdaMixer | _LatentMixer
    norm_after: Any
    mlp: _Dense | _Experts


class KimiStep(DecodeStep):
    """The walk through layers of Kimi Delta Attention and latent attention."""

    output = MoeModelOutputWithPast

    def __init__(self, model: Any, layers: list[_Layer]) -> None:
        super().__init__(model)
        self._layers = layers
        self._epsilon = np.float32(model.config.rms_norm_eps)

    @classmethod
    def of(cls, model: Any) -> "KimiStep | None":
        """The step of a model, or None where a layer is none that it knows."""
        if model.config.hidden_act != "silu":
            return None
        layers = []
        for layer in model.layers[: model.config.num_hidden_layers]:
            is_delta = type(layer.self_attn) is KimiLinearDeltaAttention
            mixer = _delta(layer.self_attn) if is_delta else _latent(layer.self_attn)
            mlp = _mlp(layer.mlp)
            if mixer is None or mlp is None:
                return None
            norms = (layer.input_layernorm, layer.post_attention_layernorm)
            before, after = map(norm_weight, norms)
            layers.append(_Layer(before, mixer, after, mlp))
        return cls(model, layers) if layers and is_on_cpu(model.layers) else None

    @staticmethod
    def fits(cache: Any, rows: int) -> bool:
        """Whether every layer holds tokens of so many rows."""
        layers: Any = getattr(cache, "layers", ())
        return bool(layers) and all(_holds(layer, rows) for layer in layers)

    def __call__(self, embeds_R1K: Tensor, positions: Positions, cache: Cache) -> Tensor:
        """Hidden states after the last norm, [R, 1, K]; the cache gets the token."""
        from hanol.attention.decode import _kernels, _kimi_kernels

        R, _, K = embeds_R1K.shape
        hidden = embeds_R1K.reshape(R, K).clone().numpy()
        normed, added = np.empty_like(hidden), np.empty_like(hidden)
        zero, epsilon = np.float32(0), self._epsilon
        for layer, held in zip(self._layers, cache.layers, strict=True):
            if isinstance(layer.mixer, _KdaMixer):
                self._delta(layer, held, hidden, normed, added)
            else:
                self._latent(layer, held, hidden, normed, added)
            mlp = layer.mlp
            if isinstance(mlp, _Dense):
                inner = np.empty((R, len(mlp.gate_up.weight)), np.float32)
                gated = np.empty((R, len(mlp.gate_up.weight) // 2), np.float32)
                _kernels.mlp(
                    hidden, layer.norm_after, zero, epsilon, *mlp.gate_up, *mlp.down, normed,
                    added, inner, gated,
                )  # fmt: skip
            else:
                _kimi_kernels.experts(
                    hidden, layer.norm_after, epsilon, *mlp[:-2], *mlp.shared_gate_up,
                    *mlp.shared_down, normed, added,
                )  # fmt: skip
        for r in range(R):
            _kernels.rms_norm(hidden[r], self._norm, zero, epsilon, normed[r])
        return torch.from_numpy(normed).view(R, 1, K)

    def _delta(self, layer: _Layer, held: Any, hidden: Any, normed: Any, added: Any) -> None:
        from hanol.attention.decode import _kimi_kernels

        mixer: Any = layer.mixer
        state, window = held.state_BHKV, held.window_BWC.contiguous()
        new = torch.empty_like(window)
        projected = np.empty((len(hidden), len(mixer.projections.weight)), np.float32)
        _kimi_kernels.delta_attention(
            hidden, layer.norm, self._epsilon, *mixer.projections, mixer.convolution,
            *mixer.decay, mixer.rate, mixer.bias, *mixer.gate, mixer.norm, mixer.epsilon,
            window.numpy(), new.numpy(), state.numpy(), *mixer.out, normed, projected, added,
        )  # fmt: skip
        held.write(state, new, 1)

    def _latent(self, layer: _Layer, held: Any, hidden: Any, normed: Any, added: Any) -> None:
        from hanol.attention.decode import _kimi_kernels

        mixer: Any = layer.mixer
        R = len(hidden)
        heads, query_width, latent_width, value_width = mixer.sizes
        query = np.empty((R, heads * query_width), np.float32)
        latent = torch.empty(R, 1, latent_width)
        _kimi_kernels.before_latents(
            hidden, layer.norm, self._epsilon, *mixer.low, mixer.low_norm, *mixer.query,
            *mixer.latent, mixer.norm, mixer.epsilon, normed, query, latent[:, 0].numpy(),
        )  # fmt: skip
        known = held.append(latent, None)
        valid = np.empty((0, 0), np.bool_)
        if held.valid_BL is not None:
            valid = held.valid_BL.contiguous().numpy()
        _kimi_kernels.latent_attention(
            hidden, query.reshape(R, heads, query_width), flat(known), *known.stride()[:2],
            known.shape[1], valid, mixer.up, mixer.scale, *mixer.out,
            np.empty((R, heads * value_width), np.float32), added,
        )  # fmt: skip


def _holds(layer: Any, rows: int) -> bool:
    """Whether a layer of a cache has tokens of so many rows, in float32, that stay."""
    if isinstance(layer, KdaState):
        held: Any = (layer.state_BHKV, layer.window_BWC)
        is_alone = not layer.record_past and all(x is not None and len(x) == rows for x in held)
        return is_alone and held[0].is_contiguous() and all(map(_is_float, held))
    if not isinstance(layer, LatentLayer) or not layer.get_seq_length():
        return False
    # Buffers of other classes may have more rows than are in use.
    known: Any = layer.buffer_BLR
    return _is_float(known) and (len(known) == rows or type(layer) is not LatentLayer)


def _is_float(x: Any) -> bool:
    return x.dtype == torch.float32 and x.is_cpu


def _delta(mixer: Any) -> _KdaMixer | None:
    gate = mixer.forget_gate
    products = [
        joined([mixer.q_proj, mixer.k_proj, mixer.v_proj, gate.f_a_proj, mixer.g_a_proj,
                mixer.b_proj]),
        joined([gate.f_b_proj]), joined([mixer.g_b_proj]), joined([mixer.o_proj]),
    ]  # fmt: skip
    if mixer.conv1d.bias is not None or any(one is None for one in products):
        return None
    projections, decay, gates, out = (one for one in products if one is not None)
    return _KdaMixer(
        projections, mixer.conv1d.weight.detach().squeeze(1).numpy(), decay,
        gate.A_log.detach().flatten().numpy(), gate.dt_bias.detach().numpy(), gates,
        norm_weight(mixer.o_norm), np.float32(mixer.o_norm.variance_epsilon), out,
    )  # fmt: skip


def _latent(mixer: Any) -> _LatentMixer | None:
    if type(mixer) is not KimiLinearAttention or mixer.config.attention_bias:
        return None
    is_low = mixer.q_lora_rank is not None
    products = [
        joined([mixer.q_b_proj if is_low else mixer.q_proj]),
        joined([mixer.kv_a_proj_with_mqa]), joined([mixer.o_proj]),
        joined([mixer.q_a_proj]) if is_low else _NO_WEIGHTS,
    ]  # fmt: skip
    up = mixer.kv_b_proj.weight
    if any(one is None for one in products) or not _is_float(up) or not up.is_contiguous():
        return None
    query, latent, out, low = (one for one in products if one is not None)
    heads, rank = mixer.num_heads, mixer.kv_lora_rank
    return _LatentMixer(
        low, norm_weight(mixer.q_a_layernorm) if is_low else NONE, query, latent,
        norm_weight(mixer.kv_a_layernorm), np.float32(mixer.kv_a_layernorm.variance_epsilon),
        up.detach().view(heads, -1, rank).numpy(), np.float32(mixer.scaling), out,
        (heads, mixer.qk_head_dim, rank + mixer.qk_rope_head_dim, mixer.v_head_dim),
    )  # fmt: skip


def _mlp(mlp: Any) -> _Dense | _Experts | None:
    if type(mlp) is KimiLinearMLP:
        gate_up, down = joined([mlp.gate_proj, mlp.up_proj]), joined([mlp.down_proj])
        return None if gate_up is None or down is None else _Dense(gate_up, down)
    if type(mlp) is not upstream.KimiLinearMoE or type(mlp.gate) is not KimiLinearTopkRouter:
        return None
    shared, router = _mlp(mlp.shared_experts), mlp.gate
    weights = (router.weight, mlp.experts.gate_up_proj, mlp.experts.down_proj)
    if not isinstance(shared, _Dense) or not isinstance(mlp.experts, nn.Module):
        return None
    if any(x.shape[-1] % SPAN or not _is_float(x) or not x.is_contiguous() for x in weights):
        return None
    arrays = [x.detach().numpy() for x in weights]
    return _Experts(
        arrays[0], router.e_score_correction_bias.numpy(), router.num_group, router.topk_group,
        router.top_k, bool(router.norm_topk_prob), np.float32(router.routed_scaling_factor),
        arrays[1], arrays[2], *shared,
    )  # fmt: skip
