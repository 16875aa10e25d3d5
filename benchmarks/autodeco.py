"""AutoDeco: exact top-p without a full sort, what the heads add to a decoding step, training.

    python benchmarks/autodeco.py [--quick] [--json] [--record] [--threads 1]

Overhead is measured on equal work: the same tokens are fed to every peer (a model that chooses its
own temperature writes texts of other lengths), each peer has its own cache, peers take turns at
every single token, and the heads are set to choose what the static peer is given.

Shape suffixes: N rows, V vocabulary, H hidden width, B batch.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, TopPLogitsWarper

from _bench import Report, Table, arguments, finish, interleaved, medians
from hanol import models
from hanol.attention import CACHE_NAME
from hanol.autodeco import (
    AutoDecoForCausalLM,
    HeadsSettings,
    LossSettings,
    OnlineSource,
    TokenRow,
    autodeco_loss,
    dump_features,
    function_rows,
    statistics,
    tokenize,
    train_heads,
)
from hanol.claims import load_experiments
from hanol.errors import HanolError
from hanol.sampling import top_p_keep

load_experiments()  # the package `claims` of this repository
from claims.autodeco.overhead import (  # noqa: E402
    TEMPERATURE,
    TOP_P,
    excess,
    half_billion,
    random_qwen,
    step_seconds,
    usual_steps,
    with_heads,
)

TRAINING_VOCAB, CHUNK = 32_000, 256
OBVIOUS = "obvious"
METHODS = ("auto", "prefilter", "histogram")


def main() -> None:
    options = arguments(__doc__.splitlines()[0], threads=1)
    report = Report(
        "autodeco", "AutoDeco", f"python benchmarks/autodeco.py --threads {options.threads}"
    )
    exact_top_p(report, options.quick)
    training(report, options.quick, options.threads)
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
            for case, slope in (("peaked", 3.0), ("medium", 1.5), ("flat", 0.3)):
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


# -- training


def training(report: Report, quick: bool, threads: int) -> None:
    """A step of the heads' training, its memory, and a whole run from cached features."""
    rows = training_rows(16 if quick else 64, 32 if quick else 256)
    model = training_model()
    source = OnlineSource(model, rows)
    batch = range(8)
    ours, theirs = own_step(model, source, batch), obvious_step(model, rows[:8])
    off = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    if off > 1e-4:
        raise HanolError(f"Gradients of the two losses differ by {off:.1e}.")
    with TemporaryDirectory() as folder:
        cache = dump_features(model, rows, Path(folder) / "features", top_k=1024)
        peers: dict[str, Callable[[], object]] = {
            OBVIOUS: lambda: obvious_step(model, rows[:8]),
            "hanol": lambda: own_step(model, source, batch),
            "hanol, cached features": lambda: own_step(model, cache, batch),
        }
        for run in peers.values():
            run()
        middle = medians(interleaved(peers, 1 if quick else 7, "training step"))
    # What the allocator keeps differs from process to process by tens of megabytes.
    peaks: dict[str, list[int]] = {}
    for kind in ("base", "hanol", OBVIOUS):
        for _ in range(1 if quick or kind == OBVIOUS else 7):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                peaks.setdefault(kind, []).append(pool.submit(peak_of, kind, threads).result())
    extra = {kind: median(values) for kind, values in peaks.items()}
    spread = [(value - extra["base"]) / 1e6 for value in (min(peaks["hanol"]), max(peaks["hanol"]))]
    bound = 3 * CHUNK * TRAINING_VOCAB * 4
    positions = 8 * (len(rows[0].input_ids) - 1)
    cells = []
    for name in peers:
        kind = name if name in extra else None
        over = "" if kind is None else f"{(extra[kind] - extra['base']) / 1e6:,.0f} MB"
        ratio = middle[OBVIOUS] / middle[name]
        report.figures[f"training {name} ratio"] = ratio
        cells.append(
            [
                name,
                f"{middle[name]:.2f} s",
                f"{positions / middle[name]:,.0f}",
                f"{ratio:.1f}x",
                over,
            ]
        )
    report.figures["training memory over base, bytes"] = extra["hanol"] - extra["base"]
    report.tables.append(
        Table(
            f"Training the heads of a 3 M Llama with a vocabulary of {TRAINING_VOCAB:,}, one step",
            ["", "time", "tokens/s", "ratio", "peak memory over the base's forward"],
            cells,
            f"8 rows of {len(rows[0].input_ids)} tokens. Obvious: all hidden states kept, full "
            "sort, autograd through every tensor as wide as the vocabulary; the gradients agree "
            f"within {off:.0e}. The bound of 3 x chunk x V floats is {bound / 1e6:,.0f} MB "
            f"(chunk {CHUNK}); hanol's is the median of {len(peaks['hanol'])} processes, "
            f"{spread[0]:,.0f} to {spread[1]:,.0f} MB.",
        )
    )
    tiny = AutoDecoForCausalLM.from_base(models.load_model("tiny"))
    functions = function_rows(held_out=False)
    functions = functions[: 40 if quick else 1500]
    tokens = tokenize(functions, models.load_tokenizer("tiny")).rows
    with TemporaryDirectory() as folder:
        begin = time.perf_counter()
        cache = dump_features(tiny, tokens, Path(folder) / "features", top_k=512)
        dumped = time.perf_counter()
        recipe = HeadsSettings(steps=2 if quick else 400, min_rows=40)
        train_heads(tiny, cache, recipe, Path(folder) / "run")
        done = time.perf_counter()
    report.figures["tiny features seconds"] = dumped - begin
    report.figures["tiny heads seconds"] = done - dumped
    report.tables.append(
        Table(
            "A whole run on `tiny`",
            ["", "time"],
            [
                [f"features of {cache.num_labels:,} tokens, once", f"{dumped - begin:.0f} s"],
                [f"{recipe.steps} steps of {recipe.batch} answers", f"{done - dumped:.0f} s"],
            ],
            f"Features keep 512 of 2,048 tokens; the others hold {cache.tail_mass:.2%} of the "
            "probability.",
        )
    )


def training_rows(number: int, length: int) -> list[TokenRow]:
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(TRAINING_VOCAB, (number, length), generator=rng).tolist()
    return [TokenRow(row, row) for row in ids]


def training_model() -> AutoDecoForCausalLM:
    torch.manual_seed(0)
    base = models.build("llama-3m", vocab_size=TRAINING_VOCAB, seed=0)
    torch.nn.init.normal_(base.lm_head.weight, std=2.7 / math.sqrt(base.config.hidden_size))
    return AutoDecoForCausalLM.from_base(base)


def own_step(model: AutoDecoForCausalLM, source: Any, batch: range) -> list[Tensor]:
    """One micro-batch as hanol trains it; gives the gradients."""
    settings = LossSettings(easy_token_drop=0.0, chunk=CHUNK)
    features = source.micro_batch(batch)
    loss = autodeco_loss(*features, model.temp_head, model.top_p_head, settings).loss
    return list(torch.autograd.grad(loss, model.head_parameters()))


def obvious_features(model: AutoDecoForCausalLM, rows: list[TokenRow]) -> tuple[Tensor, Tensor]:
    ids_BT = torch.tensor([row.input_ids for row in rows])
    with torch.no_grad():
        out = model.llm(ids_BT, output_hidden_states=True, use_cache=False)
    return out.hidden_states[-1][:, :-1].flatten(0, 1), out.logits[:, :-1].flatten(0, 1)


def obvious_step(model: AutoDecoForCausalLM, rows: list[TokenRow]) -> list[Tensor]:
    """The same loss as the formulas read, all positions at once."""
    hidden_NH, logits_NV = obvious_features(model, rows)
    labels_N = torch.tensor([row.labels[1:] for row in rows]).flatten()
    assert model.temp_head is not None
    assert model.top_p_head is not None
    temperature_N = model.temp_head(hidden_NH)
    seen_N = temperature_N.detach()
    q_NV = (logits_NV / (seen_N + 1e-8).unsqueeze(-1)).softmax(-1)
    entropy_N = -(q_NV * (q_NV + 1e-8).log()).sum(-1)
    read_N4 = torch.stack(
        [q_NV.max(-1).values, entropy_N, q_NV.var(-1), q_NV.topk(5).values.sum(-1)], -1
    )
    top_p_N = model.top_p_head(hidden_NH, seen_N, read_N4)
    weight_N = logits_NV.softmax(-1).gather(1, labels_N.unsqueeze(-1)).squeeze(-1)
    cold_NV = logits_NV / temperature_N.clamp_min(1e-2).unsqueeze(-1)
    loss = (
        weight_N * torch.nn.functional.cross_entropy(cold_NV, labels_N, reduction="none")
    ).mean()
    p_NV = (logits_NV / temperature_N.clamp_min(1e-8).unsqueeze(-1)).softmax(-1)
    sorted_NV, order_NV = p_NV.sort(descending=True)
    fade_NV = (-30 * (sorted_NV.cumsum(-1) - top_p_N.unsqueeze(-1)).relu()).exp()
    kept_NV = p_NV * torch.zeros_like(fade_NV).scatter(1, order_NV, fade_NV)
    kept_NV = kept_NV / (kept_NV.sum(-1, keepdim=True) + 1e-9)
    at_label_N = kept_NV.gather(1, labels_N.unsqueeze(-1)).squeeze(-1)
    loss = loss + (weight_N * -(at_label_N + 1e-9).log()).mean()
    return list(torch.autograd.grad(loss, model.head_parameters()))


def peak_of(kind: str, threads: int) -> int:
    """Resident memory at its peak during a step, over its level before, in bytes."""
    torch.set_num_threads(threads)
    rows = training_rows(8, 256)
    model = training_model()
    own_step(model, OnlineSource(model, training_rows(8, 16)), range(8))
    before = psutil.Process().memory_info().rss
    source = OnlineSource(model, rows)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    if kind == "base":
        source.micro_batch(range(8))
    elif kind == "hanol":
        own_step(model, source, range(8))
    else:
        obvious_step(model, rows)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 - before


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
            hidden_BTH, logits_BTV, _ = model.features(ids_B1, **{CACHE_NAME: cache})
            return official_rescale(model, hidden_BTH[:, -1], logits_BTV[:, -1].float())

        steps = usual_steps(model) | {"AutoDeco, official way": official}
        seconds = step_seconds(steps, base, batch=batch, prompt=prompt, rounds=rounds)
        middle = medians(seconds)
        cells = [f"batch {batch}", *(f"{1e3 * value:.2f}" for value in middle.values())]
        for name in ("AutoDeco", "AutoDeco, official way"):
            for against in ("static", "T = 1, P = 1"):
                share, low, high = excess(seconds[name], seconds[against])
                report.figures[f"{title} batch {batch} {name} over {against}"] = share
                cells.append(f"{share:+.1%} ± {(high - low) / 2:.1%}")
        rows.append(cells)
        parts.append([f"batch {batch}", *breakdown(model, batch, rounds)])
    report.tables.append(
        Table(
            f"A decoding step of {title}, milliseconds",
            [
                "",
                *("T = P = 1", "static", "AutoDeco", "official"),
                *("AutoDeco / static", "/ T = P = 1"),
                *("official / static", "/ T = P = 1"),
            ],
            rows,
            f"Static: T = {TEMPERATURE}, P = {TOP_P} with the same exact top-p; AutoDeco's heads "
            "choose the same. Official way: two passes for the statistics and a full sort. "
            f"{base.config.vocab_size:,} tokens in the vocabulary, prompt of {prompt}, {rounds} "
            "steps, sampling included; behind ± half the 95 % bootstrap interval of the median "
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
