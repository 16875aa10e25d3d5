"""kimi-linear.kv-cache: three of four layers need no cache that grows."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from hanol import models
from hanol.attention import CACHE_NAME
from hanol.claims import Claim, Measurement


def _measure(seeds: Sequence[int], quick: bool) -> Measurement:
    figures: dict[str, float] = {}
    official = models.cache_size(models.preset("kimi-linear-48b-a3b"), itemsize=2)
    figures["48b bytes per token"] = official.bytes_per_token
    figures["48b all-attention bytes per token"] = official.twin_bytes_per_token
    figures["48b saved"] = 1 - official.bytes_per_token / official.twin_bytes_per_token
    figures["48b fixed bytes"] = official.fixed_bytes
    figures["48b break-even tokens"] = official.fixed_bytes / (
        official.twin_bytes_per_token - official.bytes_per_token
    )
    lengths = (64, 192) if quick else (256, 1280)
    live = {}
    for name in ("kimi-linear-30m", "mla-30m"):
        model = models.build(name, seed=seeds[0]).eval()
        held = [_held_bytes(model, length) for length in lengths]
        live[name] = (held[1] - held[0]) / (lengths[1] - lengths[0])
        counted = models.cache_size(model.config, itemsize=4)
        figures[f"{name} counted bytes per token"] = counted.bytes_per_token
        figures[f"{name} held bytes per token"] = live[name]
    saved = 1 - live["kimi-linear-30m"] / live["mla-30m"]
    figures["30m saved, held"] = saved
    exact = (
        official.bytes_per_token == 8064
        and official.twin_bytes_per_token == 31104
        and all(
            figures[f"{name} counted bytes per token"] == figures[f"{name} held bytes per token"]
            for name in live
        )
        and saved == 0.75
    )
    return Measurement(
        verdict="shown" if exact else "not shown",
        summary=(
            f"The official shape keeps {official.bytes_per_token:,} of "
            f"{official.twin_bytes_per_token:,} bytes a token ({figures['48b saved']:.1%} saved), "
            f"the 30 M twins {saved:.1%}; the fixed state pays off after "
            f"{figures['48b break-even tokens']:,.0f} tokens."
        ),
        figures=figures,
    )


@torch.no_grad()
def _held_bytes(model: torch.nn.Module, length: int) -> float:
    """Bytes that the cache's filled places take after a prompt of this length."""
    cache = DynamicCache(config=model.config)
    model(torch.ones(1, length, dtype=torch.long), **{CACHE_NAME: cache})
    total = 0
    for layer in cache.layers:
        for name in ("keys", "values", "state_BHKV", "window_BWC"):
            tensor = getattr(layer, name, None)
            if tensor is not None:
                total += tensor.numel() * tensor.element_size()
    return total


KV_CACHE = Claim(
    id="kimi-linear.kv-cache",
    title="The cache that grows with the text shrinks by up to 75 %.",
    paper='"reducing KV cache by up to 75%" (arXiv 2510.26692, abstract); the nominal 3:1 ratio.',
    scale="The official 48B-A3B configuration counted exactly; 30 M twins with live caches.",
    expectation=(
        "Shown if the official configuration keeps 8,064 of 31,104 bytes a token (74.1 % saved: 20 "
        "of 27 layers), the live caches of the 30 M twins hold exactly the counted bytes, and "
        "those differ by 75 % (6 of 8 layers)."
    ),
    larger="The count needs no model; a live cache of the 48B checkpoint needs about 100 GB.",
    experiment=_measure,
)
