"""kimi-linear.decode-flat and kimi-linear.prefill-linear: time against the length of the text.

CPU seconds of one thread, runs of the twins interleaved: other work on the machine changes them
less than the clock on the wall.
"""

import logging
import math
import time
from collections.abc import Sequence
from statistics import median

import torch
from transformers import DynamicCache, PreTrainedModel

from hanol import models
from hanol.claims._claim import Claim, Measurement
from hanol.claims._small import one_thread, slope

_log = logging.getLogger(__name__)


@torch.no_grad()
def long_cache(model: PreTrainedModel, tokens: int) -> DynamicCache:
    """A cache as long as after `tokens` tokens, without the prefill.

    A short prompt is run, then random latents fill the places up to `tokens`: the work of a decode
    step does not depend on the values.
    """
    prompt = min(64, tokens)
    cache = DynamicCache(config=model.config)
    model(torch.ones(1, prompt, dtype=torch.long), past_key_values=cache)
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
        model(token, past_key_values=cache)
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


def _measure_prefill(seeds: Sequence[int], quick: bool) -> Measurement:
    lengths = (64, 128) if quick else (1024, 2048, 4096, 8192, 16384)
    every = {"kda alone": 0, "kimi linear": 4, "mla": 1}
    seconds: dict[tuple[str, int], float] = {}
    with one_thread(), torch.no_grad():
        family = {}
        for name, n in every.items():
            config = models.kimi_config(
                vocab_size=512, hidden_size=192, num_layers=8, num_heads=3, head_dim=64,
                intermediate_size=512, kv_lora_rank=64, full_attention_every=n,
            )  # fmt: skip
            family[name] = models.build(config, seed=seeds[0]).eval()
        for length in lengths:
            ids = torch.ones(1, length, dtype=torch.long)
            runs: dict[str, list[float]] = {name: [] for name in every}
            for _ in range(1 if quick or length > 8192 else 3):
                for name, model in family.items():
                    begin = time.process_time()
                    model.model(input_ids=ids, use_cache=False)
                    runs[name].append(time.process_time() - begin)
            for name in every:
                seconds[name, length] = median(runs[name])
            _log.info("prefill of %d: %s", length, {n: round(seconds[n, length], 2) for n in every})
    figures = {f"{name} seconds at {n}": value for (name, n), value in seconds.items()}
    tail = lengths[-3:]
    slopes = {
        name: slope([math.log(n) for n in tail], [math.log(seconds[name, n]) for n in tail])
        for name in every
    }
    figures |= {f"{name} log-log slope from {tail[0]}": value for name, value in slopes.items()}
    ratios = {n: seconds["mla", n] / seconds["kimi linear", n] for n in lengths}
    figures |= {f"speed-up at {n}": value for n, value in ratios.items()}
    shown = (
        slopes["kda alone"] <= 1.1
        and slopes["kda alone"] < slopes["kimi linear"] < slopes["mla"]
        and ratios[lengths[-1]] > 1 > ratios[lengths[0]]
    )
    crossed = [n for n in lengths if ratios[n] > 1]
    return Measurement(
        verdict="shown" if shown else "not shown",
        summary=f"Time grows as length to the {slopes['kda alone']:.2f} (KDA alone), "
        f"{slopes['kimi linear']:.2f} (hybrid) and {slopes['mla']:.2f} (all attention) from "
        f"{tail[0]:,} to {tail[-1]:,} tokens; the hybrid is {ratios[lengths[0]]:.2f}x as fast at "
        f"{lengths[0]:,} and {ratios[lengths[-1]]:.2f}x at {lengths[-1]:,}"
        + (f", ahead from {crossed[0]:,}." if crossed else ", never ahead."),
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

PREFILL_LINEAR = Claim(
    id="kimi-linear.prefill-linear",
    title="Reading a prompt takes time linear in its length in the delta layers.",
    paper="Prefill 2.3x as fast as MLA at 512k and 2.9x at 1M tokens, no gain at 4k to 16k "
    "(arXiv 2510.26692, figure 7).",
    scale="8 layers of width 192, 3 heads of 64: KDA alone, hybrid, and all latent attention; 1k "
    "to 16k tokens, float32; CPU seconds of one thread, median of 3 interleaved runs (1 at 16k).",
    expectation="Shown if the log-log slope from 4k to 16k is at most 1.1 for KDA alone, larger "
    "for the hybrid and larger again for all attention, and the hybrid is slower at 1k and "
    "faster at 16k (a small width moves the crossing to short texts).",
    larger="recipes/kimi-linear/48b-a3b.yaml gives the official shape; 1M tokens need a GPU node "
    "of 8 x 80 GB.",
    experiment=_measure_prefill,
)
