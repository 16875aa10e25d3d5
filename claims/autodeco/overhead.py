"""autodeco.overhead: what the heads add to a decoding step.

Shape suffixes: B batch, T tokens, V vocabulary.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from claims.small import one_thread
from hanol import models
from hanol.attention import CACHE_NAME
from hanol.autodeco import AutoDecoForCausalLM
from hanol.claims import Claim, Measurement
from hanol.sampling import top_p_keep

TEMPERATURE, TOP_P = 0.6, 0.95

Step = Callable[[Tensor, Any], Tensor]


def half_billion() -> PreTrainedModel:
    """Random weights in the shape of a 0.5 B Qwen2; logits as peaked as a trained model's."""
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    return random_qwen(config, torch.float32, "cpu")


def random_qwen(config: Qwen2Config, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """Random weights, with logits whose nucleus has a few hundred tokens."""
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        # The final norm gives every entry a mean square of 1: logits get a deviation of 2.7, at
        # temperature 0.6 a nucleus of a few hundred tokens.
        torch.nn.init.normal_(model.lm_head.weight, std=2.7 / math.sqrt(config.hidden_size))
    ready: PreTrainedModel = model.eval()
    return ready


def with_heads(base: PreTrainedModel) -> AutoDecoForCausalLM:
    """Heads that choose what the static peer is given, so that both truncate alike."""
    model = AutoDecoForCausalLM.from_base(base, init="neutral")
    assert model.temp_head is not None
    last = model.temp_head.mlp[2]
    assert isinstance(last, nn.Linear)
    # T is twice a sigmoid.
    nn.init.constant_(last.bias, math.log(TEMPERATURE / (2 - TEMPERATURE)))
    return model


def usual_steps(model: AutoDecoForCausalLM) -> dict[str, Step]:
    """A step without choices, with static ones, and with the heads': ids and cache to logits."""

    def plain(ids_B1: Tensor, cache: Any) -> Tensor:
        logits_BV: Tensor = model.llm(input_ids=ids_B1, **{CACHE_NAME: cache}).logits[:, -1]
        return logits_BV.float()

    def static(ids_B1: Tensor, cache: Any) -> Tensor:
        logits_BV = plain(ids_B1, cache) / TEMPERATURE
        share_B = torch.full(logits_BV.shape[:1], TOP_P, device=logits_BV.device)
        return logits_BV.masked_fill(~top_p_keep(logits_BV, share_B), -math.inf)

    def learned(ids_B1: Tensor, cache: Any) -> Tensor:
        logits_BV: Tensor = model(input_ids=ids_B1, **{CACHE_NAME: cache}).logits[:, -1]
        return logits_BV

    return {"T = 1, P = 1": plain, "static": static, "AutoDeco": learned}


@torch.inference_mode()
def step_seconds(
    steps: Mapping[str, Step],
    base: PreTrainedModel,
    *,
    batch: int,
    prompt: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every decoding step of each peer, sampling included.

    All are fed the same tokens and have caches of their own; they take turns at every token.
    """
    rng = torch.Generator().manual_seed(0)
    warm_up = 3
    ids_BT = torch.randint(
        base.config.vocab_size, (batch, prompt + warm_up + rounds), generator=rng
    ).to(base.device)
    first_BT = ids_BT[:, :prompt]
    caches = {
        name: base(input_ids=first_BT, use_cache=True, logits_to_keep=1)[CACHE_NAME]
        for name in steps
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for at in range(prompt, ids_BT.shape[1]):
        for name, step in steps.items():
            begin = clock()
            logits_BV = step(ids_BT[:, at : at + 1], caches[name])
            torch.multinomial(logits_BV.softmax(-1), 1)
            if logits_BV.device.type == "cuda":
                torch.cuda.synchronize()
            if at >= prompt + warm_up:
                seconds[name].append(clock() - begin)
    return seconds


def excess(seconds: list[float], others: list[float]) -> tuple[float, float, float]:
    """Median excess of neighbouring steps as a share, with its 95 % bootstrap interval."""
    ratio = np.asarray(seconds) / np.asarray(others) - 1
    rng = np.random.default_rng(0)
    drawn = np.median(ratio[rng.integers(len(ratio), size=(2000, len(ratio)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.median(ratio)), float(low), float(high)


def _measure(seeds: Sequence[int], quick: bool) -> Measurement:
    figures: dict[str, float] = {}
    with one_thread():
        shapes = {"tiny": models.load_model("tiny")}
        if not quick:
            shapes["0.5 B"] = half_billion()
        for name, base in shapes.items():
            rounds = 3 if quick else 60 if name == "0.5 B" else 400
            seconds = step_seconds(
                usual_steps(with_heads(base)), base, batch=1, prompt=16 if quick else 128,
                rounds=rounds, clock=time.process_time,
            )  # fmt: skip
            for against in ("static", "T = 1, P = 1"):
                share, low, high = excess(seconds["AutoDeco"], seconds[against])
                figures[f"{name}: AutoDeco over {against}"] = share
                figures[f"{name}: AutoDeco over {against}, low"] = low
                figures[f"{name}: AutoDeco over {against}, high"] = high
            for peer, values in seconds.items():
                figures[f"{name}: {peer}, ms"] = 1e3 * float(np.median(values))
    size = "tiny" if quick else "0.5 B"
    over_static = figures[f"{size}: AutoDeco over static"]
    over_plain = figures[f"{size}: AutoDeco over T = 1, P = 1"]
    return Measurement(
        verdict="shown" if over_static <= 0.02 and over_plain <= 0.03 else "not shown",
        summary=f"At the {size} shape a step takes {over_static:+.1%} over static top-p and "
        f"{over_plain:+.1%} over T = 1, P = 1; with `tiny` "
        f"{figures['tiny: AutoDeco over static']:+.1%} and "
        f"{figures['tiny: AutoDeco over T = 1, P = 1']:+.1%}.",
        figures=figures,
    )


OVERHEAD = Claim(
    id="autodeco.overhead",
    title="Choosing temperature and top-p at every token costs next to nothing.",
    paper="1 to 2 %, mean 1.7 % over default sampling, for a 7 B model (arXiv 2510.26697, table 4; "
    "recomputed from its rows 1.1 to 3.4 %, mean 1.85 %; hardware and batch are not given).",
    scale="A random model in the shape of a 0.5 B Qwen2 (vocabulary 151,936) and `tiny`; one "
    "thread, batch 1, prompt of 128 tokens, the same tokens fed to all, sampling included, CPU "
    "time, neighbouring steps compared; 95 % bootstrap intervals. Seeds do not matter.",
    expectation="Shown if a step at the 0.5 B shape takes at most 2 % more than with static "
    "T = 0.6, P = 0.95 by the same exact top-p, and at most 3 % more than with T = 1, P = 1. With "
    "`tiny`, whose whole step takes a few milliseconds, a larger share is expected.",
    larger="`make bench-autodeco` on a machine with a GPU adds a 7 B shape at batch 1 to 128.",
    experiment=_measure,
)
