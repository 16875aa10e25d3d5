"""Computes several projections of one input as one matrix product; parameter names stay.

The parameters become views of one buffer. They stay parameters of their own: saving, loading and
optimizers see what they saw before. Whatever breaks the neighbourhood (a load, a copy, a move)
only costs the speed until the next `fuse`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def fuse(layers: Sequence[nn.Linear]) -> None:
    """Store the weights of bias-free linear layers with one input width in one buffer."""
    weights = [layer.weight for layer in layers]
    if any(type(w.data) is not Tensor or w.device.type != "cpu" for w in weights):
        return  # sharded, quantised or meta parameters stay as they are
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return  # FSDP lends its own memory to a parameter and fills it again for every pass
    with torch.inference_mode(False):  # else the parameters could never be trained again
        buffer = torch.cat([w.data for w in weights])
    for weight, view in zip(weights, buffer.split([len(w) for w in weights]), strict=True):
        weight.data = view


def fused_weight(layers: Sequence[nn.Linear]) -> Tensor | None:
    """The matrix that these weights are adjacent views of, or None."""
    first = layers[0].weight
    expected = first.data_ptr()
    rows = 0
    for layer in layers:
        weight = layer.weight
        if weight.data_ptr() != expected or weight.dtype != first.dtype:
            return None
        rows += weight.shape[0]
        expected += weight.numel() * weight.element_size()
    whole = first.untyped_storage().nbytes() - first.storage_offset() * first.element_size()
    if whole < rows * first.shape[1] * first.element_size():
        return None
    return first.data.as_strided((rows, first.shape[1]), (first.shape[1], 1))


def project(layers: Sequence[nn.Linear], x: Tensor) -> tuple[Tensor, ...]:
    """Apply all layers to `x`, as one product when no gradient is needed."""
    weight = None
    plain = all(type(layer) is nn.Linear for layer in layers)  # no adapters, not quantised
    if plain and x.device.type == "cpu" and not torch.is_grad_enabled():
        weight = fused_weight(layers)
        if weight is None:
            fuse(layers)
            weight = fused_weight(layers)
    if weight is None:
        return tuple(layer(x) for layer in layers)
    out = nn.functional.linear(x, weight)
    return out.split([layer.weight.shape[0] for layer in layers], dim=-1)
