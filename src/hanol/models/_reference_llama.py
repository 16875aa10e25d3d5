"""Llama 3 from its definition, on tensors named and ordered as Meta publishes them.

The oracle for the converters: plain loops and einsum, no cache, any float type.

Shape suffixes: B batch, T query tokens, S key tokens, D width, H heads, G key heads, K head width,
V vocabulary.
Source: arXiv 2407.21783, section 3.2; the order of rotated lanes is that of Meta's files.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def reference_llama(
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Any],
    ids_BT: Tensor,
    *,
    rope_factor: float = 8.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """`logits_BTV` of a Llama 3 in Meta's layout, all arithmetic in `dtype`."""
    w = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    heads = params["n_heads"]
    key_heads = params.get("n_kv_heads") or heads
    width = params["dim"] // heads
    T = ids_BT.shape[1]
    factor = rope_factor if params.get("use_scaled_rope") else None
    frequency_K = frequencies(width, params["rope_theta"], factor)
    angle_TK = torch.outer(torch.arange(T, dtype=torch.float64), frequency_K)
    rotation_TK = torch.polar(torch.ones_like(angle_TK), angle_TK).to(dtype.to_complex())
    future_TS = torch.ones(T, T, dtype=torch.bool).triu(1)
    x_BTD = w["tok_embeddings.weight"][ids_BT]
    for i in range(params["n_layers"]):
        layer = f"layers.{i}"
        h_BTD = _norm(x_BTD, w[f"{layer}.attention_norm.weight"], params["norm_eps"])
        q, k, v = (
            (h_BTD @ w[f"{layer}.attention.w{part}.weight"].T).unflatten(-1, (count, width))
            for part, count in (("q", heads), ("k", key_heads), ("v", key_heads))
        )
        q, k = _rotate(q, rotation_TK), _rotate(k, rotation_TK)
        k, v = (x.repeat_interleave(heads // key_heads, dim=2) for x in (k, v))
        scores_BHTS = torch.einsum("bthk,bshk->bhts", q, k) / math.sqrt(width)
        weights_BHTS = scores_BHTS.masked_fill(future_TS, -torch.inf).softmax(dim=-1)
        mixed_BTD = torch.einsum("bhts,bshk->bthk", weights_BHTS, v).flatten(2)
        x_BTD = x_BTD + mixed_BTD @ w[f"{layer}.attention.wo.weight"].T
        h_BTD = _norm(x_BTD, w[f"{layer}.ffn_norm.weight"], params["norm_eps"])
        gate, up = (h_BTD @ w[f"{layer}.feed_forward.w{n}.weight"].T for n in (1, 3))
        inner = torch.nn.functional.silu(gate) * up
        x_BTD = x_BTD + inner @ w[f"{layer}.feed_forward.w2.weight"].T
    x_BTD = _norm(x_BTD, w["norm.weight"], params["norm_eps"])
    return x_BTD @ w.get("output.weight", w["tok_embeddings.weight"]).T


def frequencies(
    width: int,
    theta: float,
    factor: float | None,
    low: float = 1.0,
    high: float = 4.0,
    context: int = 8192,
) -> Tensor:
    """Angles per token of each pair of lanes, in float64.

    `factor` divides slow frequencies, smoothly between wavelengths of `context / high` and
    `context / low` tokens; None leaves all as they are.
    """
    plain_K = theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    if factor is None:
        return plain_K
    wavelength_K = 2 * math.pi / plain_K
    smooth_K = ((context / wavelength_K - low) / (high - low)).clamp(0, 1)
    return plain_K * ((1 - smooth_K) / factor + smooth_K)


def _rotate(x_BTHK: Tensor, rotation_TK: Tensor) -> Tensor:
    """Turn each pair of neighbouring lanes, seen as a complex number."""
    pairs = torch.view_as_complex(x_BTHK.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation_TK[None, :, None]).flatten(-2)


def _norm(x_BTD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    return weight_D * x_BTD * torch.rsqrt(x_BTD.square().mean(-1, keepdim=True) + eps)
