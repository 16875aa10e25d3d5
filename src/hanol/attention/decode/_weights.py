"""Weights of linear layers for products with a few rows: as they are, or with fewer bits.

Shape suffixes: R rows, K input width, N output width, G groups of a row of weights.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from hanol.attention._fuse import fuse, fused_weight
from hanol.attention.kda._backend import numba_kernels_exist
from hanol.errors import CheckpointError, UnknownNameError

KINDS = ("bfloat16", "int8", "int4")
SPAN = 64  # input widths are multiples of it, as in `_vectors`
MOST_ROWS = 8  # of a product that reads the weights as they are stored
_GROUP = {"int8": 64, "int4": 32}  # weights with a scale of their own
_NO_SCALE = torch.empty(0, 0)
_READ_AS_MATRICES = ("kv_b_proj",)  # latent attention multiplies with parts of its weights


class Weights(NamedTuple):
    """What the compiled products read: [N, K] in some type, and [N, G] of scales or nothing."""

    weight: Any
    scale: Any


class _Packed(nn.Module):
    """Weights of 16, 8 or 4 bits, [N, K], which a module of transformers had in float32."""

    kind: str
    packed: Tensor  # [N, K], or [N, K / 2] bytes of two weights
    scale: Tensor

    def _take(self, packed: Tensor, scale: Tensor, kind: str) -> None:
        self.kind = kind
        del self._parameters["weight"]
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def _save_to_state_dict(self, *arguments: Any) -> None:
        raise CheckpointError(
            f"The weights of this model were rounded to {self.kind} for inference and cannot be "
            "saved. Load it without a type of weights, and save that."
        )

    def dequantized(self, rows: Tensor | None = None) -> Tensor:
        """The weights that the module computes with, in float32; all of them, or some rows."""
        packed, scale = (
            (self.packed, self.scale) if rows is None
            else (self.packed[rows], self.scale[rows] if self.scale.numel() else self.scale)
        )  # fmt: skip
        if self.kind == "bfloat16":
            return packed.float()
        if self.kind == "int4":
            halves = packed.view(*scale.shape, -1)
            packed = torch.cat([halves & 15, halves >> 4], dim=-1).to(torch.int8) - 8
        grouped = packed.view(*scale.shape, -1).float()
        return (grouped * scale.unsqueeze(-1)).flatten(-2)


class PackedLinear(_Packed):
    """A linear layer for inference with few bits a weight.

    Up to eight rows are multiplied with the weights as they are stored, sums in float32; for more
    the weights become float32 for the time of the product. Gradients flow to the input alone.
    """

    in_features: int
    out_features: int
    bias: nn.Parameter | None

    @classmethod
    def convert(cls, linear: nn.Linear, kind: str) -> None:
        """Round the weights of a layer, which becomes one of this class, hooks and all."""
        packed, scale = _pack(linear.weight.detach(), kind)
        linear.__class__ = cls  # type: ignore[assignment]
        cls._take(linear, packed, scale, kind)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """X W^T + b."""
        if not is_few(x):
            return F.linear(x, self.dequantized().to(x.dtype), self.bias)
        y = few_rows(x, self.weights)
        return y if self.bias is None else y + self.bias

    @property
    def weights(self) -> Weights:
        """Views for the compiled products."""
        packed = self.packed.view(torch.uint16) if self.kind == "bfloat16" else self.packed
        return Weights(packed.numpy(), self.scale.numpy())

    def extra_repr(self) -> str:
        """Sizes and type."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.kind}"


class PackedEmbedding(_Packed):
    """An embedding whose rows become float32 when they are looked up."""

    @classmethod
    def convert(cls, embedding: nn.Embedding, packed: Tensor, scale: Tensor, kind: str) -> None:
        """Give an embedding these weights, which a linear layer may share."""
        embedding.__class__ = cls  # type: ignore[assignment]
        cls._take(embedding, packed, scale, kind)  # type: ignore[arg-type]

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of these tokens, [..., K] in float32."""
        return self.dequantized(ids.flatten()).view(*ids.shape, -1)


def pack(model: PreTrainedModel, kind: str) -> None:
    """Round the weights of a model's linear layers and its embedding, in place, for inference.

    What cannot be rounded stays, or becomes, float32: norms, convolutions, routers, experts, and
    layers whose input width is no multiple of 64. With "int4" the vocabulary, which every token
    reads and whose errors no later layer mends, gets "int8".

    Args:
        model: A model of transformers on the CPU, float32 or bfloat16.
        kind: "bfloat16", "int8" (symmetric, a scale for 64 weights) or "int4" (for 32).

    Raises:
        UnknownNameError: There is no such kind.
    """
    if kind not in KINDS:
        raise UnknownNameError("weight type", kind, dict.fromkeys(KINDS))
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    at_border = "int8" if kind == "int4" else kind
    is_tied = head is not None and getattr(head, "weight", None) is embedding.weight
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] in _READ_AS_MATRICES:
            continue
        if type(module) in (nn.Linear, OutputLinear) and module.in_features % SPAN == 0:
            PackedLinear.convert(module, at_border if module is head else kind)
    if type(embedding) is nn.Embedding and embedding.embedding_dim % SPAN == 0:
        made = head if is_tied and isinstance(head, PackedLinear) else None
        shared = (
            _pack(embedding.weight.detach(), at_border)
            if made is None
            else (made.packed, made.scale)
        )
        PackedEmbedding.convert(embedding, *shared, at_border)
    packed = {id(one.packed) for one in model.modules() if isinstance(one, _Packed)}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype == torch.bfloat16 and id(tensor) not in packed:
            tensor.data = tensor.data.float()


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
        and x.shape[-1] % SPAN == 0
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
        return packed[0].weights
    if any(type(layer) not in (nn.Linear, OutputLinear) for layer in layers):
        return None
    linears: Any = layers
    first = linears[0].weight
    if first.dtype != torch.float32 or not first.is_cpu or first.shape[1] % SPAN:
        return None
    if len(linears) == 1:
        weight = linears[0].weight
        return plain_weights(weight) if weight.is_contiguous() else None
    if fused_weight(linears) is None:
        fuse(linears)
    fused = fused_weight(linears)
    return None if fused is None else plain_weights(fused)


def _pack(weight_NK: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if kind == "bfloat16":
        return weight_NK.to(torch.bfloat16), _NO_SCALE
    N, K = weight_NK.shape
    size = _GROUP[kind]
    grouped = weight_NK.float().view(N, -1, size)
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
