"""What a joined model is made of, read off its two parts.

Shape suffixes: S tiles, N visual tokens, C channels of the tower.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hanol.errors import ConfigError
from hanol.multimodal.nvlm._config import NvlmConfig
from hanol.multimodal.nvlm._cross import GatedCrossAttention

Counts = Sequence[int] | Tensor


def projector(config: NvlmConfig, text: Any) -> nn.Sequential:
    """From the tower's tokens to the language model's width; of "x" one linear layer."""
    width, joined = text.hidden_size, config.vision_width * config.downsample**2
    inner = config.projector_width or getattr(text, "intermediate_size", None) or 4 * width
    if config.kind == "x":
        layers: list[nn.Module] = [nn.Linear(joined, width, bias=False)]
    else:
        layers = [
            nn.LayerNorm(joined),
            nn.Linear(joined, inner, bias=False),
            nn.GELU(),
            nn.Linear(inner, width, bias=False),
        ]
    for layer in layers:
        if isinstance(layer, nn.Linear) and not layer.weight.is_meta:
            nn.init.normal_(layer.weight, std=0.02)
    return nn.Sequential(*layers)


def cross_layer(config: NvlmConfig, text: Any, index: int) -> GatedCrossAttention:
    heads = text.num_attention_heads
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return GatedCrossAttention(
        text.hidden_size,
        heads,
        getattr(text, "num_key_value_heads", None) or heads,
        getattr(text, "head_dim", None) or text.hidden_size // heads,
        intermediate_size=inner if config.cross_ffn else None,
        eps=getattr(text, "rms_norm_eps", None) or 1e-6,
        index=index,
    )


def decoder_layers(language: nn.Module, count: int) -> nn.ModuleList:
    lists = [part for part in language.modules() if isinstance(part, nn.ModuleList)]
    for one in lists:
        if len(one) == count:
            return one
    raise ConfigError(
        f"No list of {count} decoder layers was found in {type(language).__name__}, so gated "
        'layers cannot be put between them. Use `kind="d"`.'
    )


def image_size(config: Any) -> int:
    size = getattr(config, "image_size", None)
    if isinstance(size, list | tuple):
        size = size[0] if len(set(size)) == 1 else None
    if not isinstance(size, int):
        raise ConfigError(
            f"{type(config).__name__} does not name one side of its pictures: pass `tile_size`."
        )
    return size


@torch.no_grad()
def measure(vision: PreTrainedModel, size: int) -> tuple[int, int, int]:
    """Tokens of a tile, those before them, and their width."""
    blank = torch.zeros(1, 3, size, size, device=vision.device, dtype=vision.dtype)
    was_training = vision.training
    _, found, width = patches(vision.eval(), blank).shape
    vision.train(was_training)
    side = math.isqrt(found)
    if side < 1 or found - side**2 > 2 * side:
        raise ConfigError(f"{type(vision).__name__} gives {found} tokens, which are no square.")
    return side**2, found - side**2, width


def patches(vision: Any, pixel_values: Tensor) -> Tensor:
    """What a tower sees, `[S, N, C]`; of a convolutional one, row by row."""
    x: Tensor = vision(pixel_values=pixel_values).last_hidden_state
    return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x


def numbers(counts: Counts | None) -> list[int]:
    if counts is None:
        return []
    found = counts.flatten().tolist() if isinstance(counts, Tensor) else counts
    return [int(count) for count in found]
