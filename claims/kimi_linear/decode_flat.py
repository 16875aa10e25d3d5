"""kimi-linear.decode-flat: seconds per decoded token against the length of the text.

CPU seconds of one thread, runs of the twins interleaved: other work on the machine changes them
less than the clock on the wall.
"""

import logging
import time
from collections.abc import Sequence
from statistics import median

import torch
from transformers import DynamicCache, PreTrainedModel

from claims.small import one_thread, slope
from hanol import models
from hanol.attention import CACHE_NAME
from hanol.claims import Claim, Measurement

_log = logging.getLogger(__name__)


@torch.no_grad()
def long_cache(model: PreTrainedModel, tokens: int) -> DynamicCache:
    """A cache as long as after `tokens` tokens, without the prefill.

    A short prompt is run, then random latents fill the places up to `tokens`: the work of a decode
    step does not depend on the values.
    """
    prompt = min(64, tokens)
    cache = DynamicCache(config=model.config)
    model(torch.ones(1, prompt, dtype=torch.long), **{CACHE_NAME: cache})
    rng = torch.Generator().manual_seed(0)
    for layer in cache.layers:
        if hasattr(layer, "append"):
            width = layer.latent_BLR.shape[-1]
            if tokens > prompt:
                layer.append(torch.randn(1, tokens - prompt, width, generator=rng), None)
        else:
            layer.length = tokens
    return cache


@torch.no_grad()
def _decode_seconds(model: PreTrainedModel, cache: DynamicCache, steps: int) -> float:
    token = torch.ones(1, 1, dtype=torch.long)
    begin = time.process_time()
    for _ in range(steps):
        model(token, **{CACHE_NAME: cache})
    return (time.process_time() - begin) / steps


def _measure_decode(seeds: Sequence[int], quick: bool) -> Measurement:
    size = "3m" if quick else "30m"
    lengths = (128, 256) if quick else (1024, 4096, 16384, 65536)
    rounds, steps = (1, 1) if quick else (7, 6)
    names = (f"kimi-linear-{size}", f"mla-{size}")
    seconds: dict[tuple[str, int], float] = {}
    with one_thread():
        twins = {name: models.build(name, seed=seeds[0]).eval() for name in names}
        for length in lengths:
            caches = {name: long_cache(model, length) for name, model in twins.items()}
            for name, model in twins.items():  # room for the new tokens, compiled code
                _decode_seconds(model, caches[name], 1)
            runs: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for name, model in twins.items():
                    runs[name].append(_decode_seconds(model, caches[name], steps))
            for name in names:
                seconds[name, length] = median(runs[name])
            _log.info("decode at %d: %s", length, {n: round(seconds[n, length], 4) for n in names})
    figures = {
        f"{name} ms/token at {length}": 1e3 * value for (name, length), value in seconds.items()
    }
    hybrid, full = names
    first, last = lengths[0], lengths[-1]
    slopes = {
        name: slope(lengths, [1e3 * seconds[name, length] for length in lengths]) * 1024
        for name in names
    }
    figures |= {f"{name} ms/token for each 1,024 tokens": value for name, value in slopes.items()}
    ratio = slopes[full] / slopes[hybrid]
    grown = {name: seconds[name, last] / seconds[name, first] for name in names}
    figures["slope ratio"] = ratio
    figures |= {f"{name} grown": value for name, value in grown.items()}
    speed_up = seconds[full, last] / seconds[hybrid, last]
    figures[f"speed-up at {last}"] = speed_up
    shown = 3.0 <= ratio <= 5.0 and grown[hybrid] < grown[full] and speed_up > 1
    return Measurement(
        verdict="shown" if shown else "not shown",
        summary=f"From {first:,} to {last:,} tokens a decode step takes {grown[hybrid]:.2f}x in "
        f"the hybrid and {grown[full]:.2f}x in the all-attention twin, whose time grows "
        f"{ratio:.1f} times as steeply; at {last:,} tokens the hybrid is {speed_up:.2f}x as fast.",
        figures=figures,
    )


DECODE_FLAT = Claim(
    id="kimi-linear.decode-flat",
    title="Decoding hardly slows down as the text grows.",
    paper="At batch 1, decoding 1.8x (512k) and 2.2x (1M) as fast as MLA; up to 6.3x at 1M with "
    "the batch enlarged into the freed memory (arXiv 2510.26692, figures 1 and 7).",
    scale="30 M twins of 8 layers, batch 1, float32, caches of 1k to 64k tokens, the latent "
    "attention absorbed in both; CPU seconds of one thread, median of 7 interleaved rounds.",
    expectation="Shown if the all-attention twin's time per token grows between 3 and 5 times as "
    "steeply with the length (4 is the ratio of full-attention layers, 8 to 2), and the hybrid "
    "slows down less from 1k to 64k and is faster at 64k.",
    larger="recipes/kimi-linear/48b-a3b.yaml gives the official shape; 512k to 1M tokens need a "
    "GPU node of 8 x 80 GB.",
    experiment=_measure_decode,
)
