"""Weights of linear layers for products with a few rows: as they are, or with fewer bits.

Shape suffixes: R rows, K input width, N output width, G groups of a row of weights.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hanol.attention._fuse import fuse, fused_weight
from hanol.attention.kda._backend import numba_kernels_exist
from hanol.errors import UnknownNameError

KINDS = ("bfloat16", "int8", "int4")
MOST_ROWS = 8  # of a product that reads the weights as they are stored
_GROUP = {"int8": 64, "int4": 32}  # weights with a scale of their own
_NO_SCALE = torch.empty(0, 0)


class Weights(NamedTuple):
    """What the compiled products read: [N, K] in some type, and [N, G] of scales or nothing."""

    weight: Any
    scale: Any


class PackedLinear(nn.Module):
    """A linear layer for inference with weights of 16, 8 or 4 bits, made from one of float32.

    Up to eight rows are multiplied with the weights as they are stored, sums in float32; for more
    the weights become float32 for the time of the product. Gradients flow to the input alone.

    Args:
        linear: The layer whose weights are rounded.
        kind: "bfloat16", "int8" (symmetric, a scale for 64 weights) or "int4" (for 32).

    Raises:
        UnknownNameError: There is no such kind.
    """

    packed: Tensor  # [N, K], or [N, K / 2] bytes of two weights
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, kind: str) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UnknownNameError("weight type", kind, dict.fromkeys(KINDS))
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind = kind
        with torch.no_grad():
            packed, scale = _pack(linear.weight.detach().float(), kind)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.bias = linear.bias

    def dequantized(self) -> Tensor:
        """The weights that the layer computes with, [N, K] in float32."""
        if self.kind == "bfloat16":
            return self.packed.float()
        values = self.packed
        if self.kind == "int4":
            halves = self.packed.view(self.out_features, self.scale.shape[1], -1)
            values = torch.cat([halves & 15, halves >> 4], dim=-1).to(torch.int8) - 8
        grouped = values.view(self.out_features, self.scale.shape[1], -1).float()
        return (grouped * self.scale.unsqueeze(-1)).view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """X W^T + b."""
        y = few_rows(x, self.weights) if is_few(x) else None
        if y is None:
            return F.linear(x, self.dequantized().to(x.dtype), self.bias)
        return y if self.bias is None else y + self.bias

    @property
    def weights(self) -> Weights:
        """Views for the compiled products."""
        packed = self.packed.view(torch.uint16) if self.kind == "bfloat16" else self.packed
        return Weights(packed.numpy(), self.scale.numpy())

    def extra_repr(self) -> str:
        """Sizes and type."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.kind}"


class OutputLinear(nn.Linear):
    """A linear layer whose product with a few rows is compiled: for the vocabulary's."""

    def forward(self, input: Tensor) -> Tensor:
        """X W^T + b."""
        if self.bias is None and is_few(input) and self.weight.dtype == torch.float32:
            return few_rows(input, plain_weights(self.weight))
        return super().forward(input)


def is_few(x: Tensor) -> bool:
    """Whether the compiled products take this input."""
    return (
        x.is_cpu
        and x.dtype == torch.float32
        and 0 < x.numel() <= MOST_ROWS * x.shape[-1]
        and not (torch.is_grad_enabled() and x.requires_grad)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and numba_kernels_exist()
    )


def few_rows(x: Tensor, weights: Weights) -> Tensor:
    """X W^T for at most `MOST_ROWS` rows."""
    from hanol.attention.decode import _kernels

    rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
    y = torch.empty(len(rows), len(weights.weight))
    _kernels.linear(*weights, rows.numpy(), y.numpy())
    return y.view(*x.shape[:-1], -1)


def plain_weights(weight: Tensor) -> Weights:
    """Views of float32 or bfloat16 weights."""
    view = weight.detach()
    return Weights(
        (view.view(torch.uint16) if view.dtype == torch.bfloat16 else view).numpy(),
        _NO_SCALE.numpy(),
    )


def joined(layers: Sequence[nn.Module]) -> Weights | None:
    """The weights of layers with one input side by side; None where they cannot be joined.

    The layers keep their weights as views of what is joined.
    """
    if all(type(layer) is PackedLinear for layer in layers):
        packed: Any = layers
        if len({(one.kind, one.scale.shape[1]) for one in packed}) > 1:
            return None
        if len(packed) > 1:
            for name in ("packed", "scale"):
                whole = torch.cat([getattr(one, name) for one in packed])
                sizes = [len(getattr(one, name)) for one in packed]
                for one, view in zip(packed, whole.split(sizes), strict=True):
                    setattr(one, name, view)
                packed[0].__dict__[f"_joined_{name}"] = whole
            first = packed[0]
            whole, scale = first.__dict__["_joined_packed"], first.__dict__["_joined_scale"]
            whole = whole.view(torch.uint16) if first.kind == "bfloat16" else whole
            return Weights(whole.numpy(), scale.numpy())
        return packed[0].weights  # type: ignore[no-any-return]
    if any(type(layer) not in (nn.Linear, OutputLinear) for layer in layers):
        return None
    linears: Any = layers
    if linears[0].weight.dtype != torch.float32 or not linears[0].weight.is_cpu:
        return None
    if len(linears) == 1:
        weight = linears[0].weight
        return plain_weights(weight) if weight.is_contiguous() else None
    whole = fused_weight(linears)
    if whole is None:
        fuse(linears)
        whole = fused_weight(linears)
    return None if whole is None else plain_weights(whole)


def _pack(weight_NK: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if kind == "bfloat16":
        return weight_NK.to(torch.bfloat16), _NO_SCALE
    N, K = weight_NK.shape
    size = _GROUP[kind] if K % _GROUP[kind] == 0 else K
    if kind == "int4" and size % 2:
        raise ValueError(f"int4 needs an even input width, but it is {K}")
    grouped = weight_NK.view(N, -1, size)
    if kind == "int8":
        scale = grouped.abs().amax(-1).clamp_(min=1e-30) / 127
        values = (grouped / scale.unsqueeze(-1)).round_().to(torch.int8)
        return values.view(N, K).contiguous(), scale
    scale = _best_scale(grouped)
    values = ((grouped / scale.unsqueeze(-1)).round_() + 8).clamp_(0, 15).to(torch.uint8)
    low, high = values.split(size // 2, dim=-1)
    return (low | (high << 4)).view(N, K // 2).contiguous(), scale.contiguous()


def _best_scale(grouped: Tensor) -> Tensor:
    """Of scales around that which puts the largest weight at -8, the one of least square error."""
    index = grouped.abs().argmax(-1, keepdim=True)
    base = (grouped.gather(-1, index).squeeze(-1) / -8).clone()
    base[base.abs() < 1e-30] = 1e-30
    best, least = base, torch.full_like(base, torch.inf)
    for factor in (1.0, 0.94, 0.88, 0.82, 1.06, 1.12):
        scale = base * factor
        rounded = (grouped / scale.unsqueeze(-1)).round_().clamp_(-8, 7)
        error = (grouped - rounded * scale.unsqueeze(-1)).square_().sum(-1)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(least, error)
    return best
