"""AutoDeco: exact top-p without a full sort, and what the heads add to a decoding step.

    python benchmarks/autodeco.py [--quick] [--json] [--record] [--threads 1]

Overhead is measured on equal work: the same tokens are fed to every peer (a model that chooses its
own temperature writes texts of other lengths), each peer has its own cache, peers take turns at
every single token, and the heads are set to choose what the static peer is given.

Shape suffixes: N rows, V vocabulary, H hidden width, B batch.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, TopPLogitsWarper

from _bench import Report, Table, arguments, finish, interleaved, medians
from hanol import models
from hanol.claims._autodeco_overhead import (
    TEMPERATURE,
    TOP_P,
    excess,
    half_billion,
    random_qwen,
    step_seconds,
    usual_steps,
    with_heads,
)
from hanol.decoding import AutoDecoForCausalLM, statistics, top_p_keep
from hanol.errors import HanolError

METHODS = ("auto", "prefilter", "histogram")


def main() -> None:
    options = arguments(__doc__.splitlines()[0], threads=1)
    report = Report(
        "autodeco", "AutoDeco", f"python benchmarks/autodeco.py --threads {options.threads}"
    )
    exact_top_p(report, options.quick)
    with torch.inference_mode():
        if options.quick:
            overhead(report, "tiny", models.load_model("tiny"), batches=(1,), prompt=16, rounds=5)
        else:
            overhead(report, "0.5 B shape", half_billion(), batches=(1, 8), prompt=128, rounds=60)
            tiny = models.load_model("tiny")
            overhead(report, "tiny", tiny, batches=(1, 8), prompt=128, rounds=300)
        if torch.cuda.is_available() and not options.quick:
            shape = seven_billion()
            overhead(report, "7 B shape, GPU", shape, (1, 8, 32, 128), prompt=1024, rounds=100)
    finish(report, options, ("transformers",))


# -- exact top-p


def exact_top_p(report: Report, quick: bool) -> None:
    """Rows like those of a language model, by size of the nucleus."""
    rounds = 2 if quick else 15
    rows: list[list[str]] = []
    for vocab in (32_000, 151_936):
        for batch in (1, 8):
            for case, slope in (("peaked", 3.0), ("medium", 1.25), ("flat", 0.3)):
                logits_NV = zipf(batch, vocab, slope)
                share_N = torch.full((batch,), TOP_P)
                warper = TopPLogitsWarper(TOP_P)
                wanted_NV = warper(None, logits_NV.clone()) > -math.inf
                for method in METHODS:
                    check_equal(top_p_keep(logits_NV, share_N, method), wanted_NV, method)
                peers: dict[str, Callable[[], object]] = {
                    "TopPLogitsWarper": lambda w=warper, x=logits_NV: w(None, x)
                } | {
                    method: lambda m=method, x=logits_NV, p=share_N: top_p_keep(x, p, m)
                    for method in METHODS
                }
                middle = medians(interleaved(peers, rounds, f"top-p, {vocab:,} x {batch}"))
                nucleus = int(wanted_NV.sum(-1).float().mean())
                ratio = middle["TopPLogitsWarper"] / middle["auto"]
                report.figures[f"top-p {vocab}x{batch} {case} ratio"] = ratio
                rows.append(
                    [f"{vocab:,} x {batch}, {case}", f"{nucleus:,}"]
                    + [f"{1e3 * seconds:.2f}" for seconds in middle.values()]
                    + [f"{ratio:.1f}x"]
                )
    report.tables.append(
        Table(
            "Exact top-p, milliseconds",
            ["vocabulary x rows", "nucleus", "TopPLogitsWarper (full sort)", *METHODS, "ratio"],
            rows,
            f"top-p {TOP_P}; every method gave the keep set of `TopPLogitsWarper` before it was "
            "timed. The ratio is the full sort's time by that of `auto`.",
        )
    )


def zipf(rows: int, vocab: int, slope: float) -> Tensor:
    """Logits that fall with the logarithm of the rank, in random order, with some noise."""
    rng = torch.Generator().manual_seed(0)
    rank_V = torch.arange(1, vocab + 1).log()
    noise_NV = torch.randn(rows, vocab, generator=rng) * 0.3
    order_NV = torch.rand(rows, vocab, generator=rng).argsort(-1)
    return (noise_NV - slope * rank_V).gather(-1, order_NV)


def check_equal(keep_NV: Tensor, wanted_NV: Tensor, method: str) -> None:
    """Equal, but for tokens where both float32 running sums are within rounding of top-p."""
    off = int((keep_NV != wanted_NV).sum(-1).max())
    if off > 3 or (off and wanted_NV.sum() < 10_000):
        raise HanolError(f"{method} keeps {off} other tokens in a row: its time means nothing.")


# -- overhead


def seven_billion() -> PreTrainedModel:
    """Random weights in the shape of a 7 B Qwen2, bfloat16, on the GPU."""
    config = Qwen2Config(
        vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28,
        num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    return random_qwen(config, torch.bfloat16, "cuda")


def overhead(
    report: Report,
    title: str,
    base: PreTrainedModel,
    batches: tuple[int, ...],
    prompt: int,
    rounds: int,
) -> None:
    """Time of a step without choices, with static ones, and with the heads'."""
    model = with_heads(base)
    rows, parts = [], []
    for batch in batches:

        def official(ids_B1: Tensor, cache: Any) -> Tensor:
            hidden_BTH, logits_BTV, _ = model.features(ids_B1, past_key_values=cache)
            return official_rescale(model, hidden_BTH[:, -1], logits_BTV[:, -1].float())

        steps = usual_steps(model) | {"AutoDeco, official way": official}
        seconds = step_seconds(steps, base, batch=batch, prompt=prompt, rounds=rounds)
        middle = medians(seconds)
        cells = [f"batch {batch}", *(f"{1e3 * value:.2f}" for value in middle.values())]
        for name in ("AutoDeco", "AutoDeco, official way"):
            for against in ("static", "T = 1, P = 1"):
                share, low, high = excess(seconds[name], seconds[against])
                report.figures[f"{title} batch {batch} {name} over {against}"] = share
                cells.append(f"{share:+.1%} ({low:+.1%} to {high:+.1%})")
        rows.append(cells)
        parts.append([f"batch {batch}", *breakdown(model, batch, rounds)])
    report.tables.append(
        Table(
            f"A decoding step of {title}, milliseconds",
            [
                "",
                *("T = 1, P = 1", "static", "AutoDeco", "official way"),
                *("AutoDeco over static", "over T = 1, P = 1"),
                *("official way over static", "over T = 1, P = 1"),
            ],
            rows,
            f"Static: T = {TEMPERATURE}, P = {TOP_P} with the same exact top-p; AutoDeco's heads "
            "choose the same. Official way: two passes for the statistics and a full sort. "
            f"{base.config.vocab_size:,} tokens in the vocabulary, prompt of {prompt}, {rounds} "
            "steps, sampling included; in brackets the 95 % bootstrap interval of the median "
            "ratio of neighbouring steps.",
        )
    )
    report.tables.append(
        Table(
            f"Where AutoDeco's part of a step goes, {title}, milliseconds",
            ["", "temperature head", "statistics", "top-p head", "truncation"],
            parts,
        )
    )


def official_rescale(model: AutoDecoForCausalLM, hidden_BH: Tensor, logits_BV: Tensor) -> Tensor:
    """What the paper's code does for a token: softmax, statistics one by one, full sort."""
    assert model.temp_head is not None
    assert model.top_p_head is not None
    temperature_B = model.temp_head(hidden_BH)
    q_BV = (logits_BV / (temperature_B + 1e-8).unsqueeze(-1)).softmax(-1)
    entropy_B = -(q_BV * (q_BV + 1e-8).log()).sum(-1)
    largest_B = q_BV.max(-1).values
    five_B = q_BV.topk(5).values.sum(-1)
    read_B4 = torch.stack([largest_B, entropy_B, q_BV.var(-1), five_B], -1)
    top_p_B = model.top_p_head(hidden_BH, temperature_B, read_B4)
    tempered_BV = logits_BV / temperature_B.unsqueeze(-1)
    sorted_BV, order_BV = tempered_BV.sort(descending=True)
    running_BV = sorted_BV.softmax(-1).cumsum(-1)
    cut_BV = running_BV - sorted_BV.softmax(-1) >= top_p_B.unsqueeze(-1)
    cut_BV = torch.zeros_like(cut_BV).scatter(-1, order_BV, cut_BV)
    return tempered_BV.masked_fill(cut_BV, -math.inf)


def breakdown(model: AutoDecoForCausalLM, batch: int, rounds: int) -> list[str]:
    """Milliseconds of each part on the hidden states and logits of one position."""
    ids_BT = torch.arange(16, device=model.device).expand(batch, -1)
    hidden_BTH, logits_BTV, _ = model.features(ids_BT, logits_to_keep=1)
    hidden_BH, logits_BV = hidden_BTH[:, -1], logits_BTV[:, -1].float()
    temp_head, top_p_head = model.temp_head, model.top_p_head
    assert temp_head is not None
    assert top_p_head is not None
    temperature_B = temp_head(hidden_BH)
    read_B4 = statistics(logits_BV, temperature_B)
    top_p_B = top_p_head(hidden_BH, temperature_B, read_B4)
    parts = {
        "temperature head": lambda: temp_head(hidden_BH),
        "statistics": lambda: statistics(logits_BV, temperature_B),
        "top-p head": lambda: top_p_head(hidden_BH, temperature_B, read_B4),
        "truncation": lambda: top_p_keep(logits_BV / temperature_B.unsqueeze(-1), top_p_B),
    }
    for run in parts.values():
        run()
    return [f"{1e3 * v:.3f}" for v in medians(interleaved(parts, rounds, "parts")).values()]


if __name__ == "__main__":
    main()
