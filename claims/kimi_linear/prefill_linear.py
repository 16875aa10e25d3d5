"""kimi-linear.prefill-linear: seconds to read a prompt against its length.

CPU seconds of one thread, runs of the twins interleaved: other work on the machine changes them
less than the clock on the wall.
"""

import logging
import math
import time
from collections.abc import Sequence
from statistics import median

import torch

from claims.small import one_thread, slope
from hanol import models
from hanol.claims import Claim, Measurement

_log = logging.getLogger(__name__)


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
