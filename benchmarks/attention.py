"""Kimi-Linear on CPU: hanol against transformers, a Llama of the same size, and llama.cpp.

    python benchmarks/attention.py [--quick] [--json] [--record] [--threads 2]

The model has 30 M parameters: width 512, 8 layers (6 KDA, 2 MLA), SwiGLU of 1,408, vocabulary
4,096, random weights, float32. Before anything is timed, the logits of hanol are compared with
those of transformers and of llama.cpp. llama.cpp takes part where `llama-cpp-python` is installed.

Shape suffixes: B batch, T tokens, H heads, K key width, V value width.
"""

import copy
import resource
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from torch import Tensor
from transformers import KimiLinearForCausalLM
from transformers.models.kimi_linear import modeling_kimi_linear as upstream

from _bench import Report, Table, arguments, finish, interleaved, medians, progress, spread
from _llama_cpp import LlamaCpp, is_installed, write_gguf
from hanol import attention, models
from hanol.attention import CACHE_NAME

HANOL, PEER, LLAMA = "hanol", "transformers", "Llama, transformers"


@dataclass
class Sizes:
    """What is measured."""

    preset: str
    llama: str
    core_tokens: int
    prefill: tuple[int, ...]
    train_tokens: int
    rounds: int
    decode_steps: int


FULL = Sizes("kimi-linear-30m", "llama-30m", 1024, (1024, 4096, 8192), 512, 5, 16)
QUICK = Sizes("kimi-linear-3m", "llama-3m", 128, (128, 256), 64, 1, 2)


def llama_cpp_peers(
    folder: Path, kimi: Any, llama: Any, sizes: Sizes, threads: int
) -> dict[tuple[str, int], LlamaCpp]:
    """llama.cpp with both models in float32 and float16, where it is installed, for each length."""
    peers: dict[tuple[str, int], LlamaCpp] = {}
    if not is_installed():
        return peers
    for name, model in (("Kimi-Linear", kimi), ("Llama", llama)):
        for dtype in ("f32", "f16"):
            path = write_gguf(model, folder / f"{name}-{dtype}.gguf", dtype)
            for T in sizes.prefill:
                try:
                    peer = LlamaCpp(path, T + 512, threads)
                except ValueError as err:
                    print(f"llama.cpp does not load {name} {dtype}: {err}", file=sys.stderr)
                else:
                    peers[f"{name}, llama.cpp {dtype.upper()}", T] = peer
    return peers


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    transformers.logging.set_verbosity_error()  # it warns of every slow path that it takes
    sizes = QUICK if options.quick else FULL
    report = Report(
        "attention",
        "Kimi-Linear on CPU",
        f"python benchmarks/attention.py --threads {options.threads}",
    )
    theirs = KimiLinearForCausalLM(models.preset(sizes.preset))
    ours = attention.accelerate(copy.deepcopy(theirs))
    llama = models.build(sizes.llama, seed=0)
    for model in (theirs, ours, llama):
        model.eval()
    limits = machine_limits()
    report.figures |= {f"machine {name}": value for name, value in limits.items()}

    core(report, sizes)
    with tempfile.TemporaryDirectory() as folder:
        cpp = llama_cpp_peers(Path(folder), ours, llama, sizes, options.threads)
        whole_model(report, sizes, {PEER: theirs, HANOL: ours, LLAMA: llama}, cpp, limits)
    training_step(report, sizes, {PEER: theirs, HANOL: ours, LLAMA: llama}, limits)
    memory(report, sizes, options.threads)
    finish(report, options, ("transformers", "numba", "llama-cpp-python"))


def machine_limits() -> dict[str, float]:
    """Reading rate of memory (bytes/s) and rate of a large matrix product (FLOP/s), measured."""
    n = 8192
    matrix, vector = torch.randn(n, n), torch.randn(n)
    square = torch.randn(2048, 2048)
    runs = {"stream": lambda: torch.mv(matrix, vector), "gemm": lambda: square @ square}
    for run in runs.values():
        run()
    seconds = medians(interleaved(runs, 9, "limits of the machine"))
    return {"stream": 4 * n * n / seconds["stream"], "gemm": 2 * 2048**3 / seconds["gemm"]}


def core(report: Report, sizes: Sizes) -> None:
    """The delta attention operator alone."""
    rows = []
    T = sizes.core_tokens
    for H, D in ((8, 64), (4, 128)):
        rng = torch.Generator().manual_seed(0)
        shape = (1, T, H, D)
        q, k, v = (torch.randn(shape, generator=rng) for _ in range(3))
        g = -torch.nn.functional.softplus(torch.randn(shape, generator=rng))
        beta = torch.rand(1, T, H, generator=rng)
        grad = torch.randn(shape, generator=rng)
        inputs = (q, k, v, g, beta)

        def theirs(*x: Tensor) -> Tensor:
            return upstream.chunk_kimi_delta_attention(*x, use_qk_l2norm_in_kernel=True)[0]

        def ours(*x: Tensor) -> Tensor:
            return attention.chunk_kda(*x, use_qk_l2norm=True)[0]

        def both(run: Callable[..., Tensor], inputs=inputs, grad=grad) -> None:  # noqa: ANN001
            leaves = [x.detach().requires_grad_() for x in inputs]
            torch.autograd.grad(run(*leaves), leaves, grad)

        error = float((theirs(*inputs) - ours(*inputs)).abs().max())
        if error > 1e-5:
            sys.exit(f"The two cores differ by {error:.1e}: no speed is worth reporting.")
        with torch.no_grad():
            forward = interleaved(
                {PEER: lambda x=inputs, f=theirs: f(*x), HANOL: lambda x=inputs, f=ours: f(*x)},
                2 * sizes.rounds,
                f"core {H}x{D}, forward",
            )
        both(theirs), both(ours)
        backward = interleaved(
            {PEER: lambda f=theirs: both(f), HANOL: lambda f=ours: both(f)},
            sizes.rounds,
            f"core {H}x{D}, forward and backward",
        )
        for what, seconds in (("forward", forward), ("forward and backward", backward)):
            middle = medians(seconds)
            ratio = middle[PEER] / middle[HANOL]
            report.figures[f"core {H}x{D} {what} ratio"] = ratio
            rows.append(
                [
                    f"{H} heads of {D}, {what}",
                    f"{1e3 * middle[PEER]:,.0f} ms",
                    f"{1e3 * middle[HANOL]:,.1f} ms",
                    f"{ratio:.1f}x",
                    spread(seconds[HANOL]),
                ]
            )
    report.tables.append(
        Table(
            f"KDA core, {T:,} tokens",
            ["", "transformers", "hanol", "ratio", "hanol's range"],
            rows,
        )
    )


@torch.inference_mode()
def whole_model(
    report: Report,
    sizes: Sizes,
    peers: dict[str, Any],
    cpp: dict[tuple[str, int], LlamaCpp],
    limits: dict[str, float],
) -> None:
    """Prefill and decode of whole models."""
    rng = torch.Generator().manual_seed(0)
    vocab_size = peers[HANOL].config.vocab_size
    caches: dict[tuple[str, int], Any] = {}
    prefill: dict[int, dict[str, float]] = {}
    writers: dict[tuple[str, int], Callable[[], object]] = {}
    for T in sizes.prefill:
        ids = torch.randint(3, vocab_size, (1, T), generator=rng)
        tokens = ids[0].tolist()

        def read(name: str, ids: Tensor = ids, T: int = T) -> Tensor:
            out = peers[name](ids, use_cache=True, logits_to_keep=1)
            caches[name, T] = out[CACHE_NAME]
            return out.logits[0, -1]

        def write(name: str, T: int = T) -> None:
            token = torch.full((1, 1), 7)
            for _ in range(sizes.decode_steps):
                peers[name](token, **{CACHE_NAME: caches[name, T]}, use_cache=True)

        runs = {name: lambda name=name, read=read: read(name) for name in peers}
        writers |= {(name, T): lambda name=name, write=write: write(name) for name in peers}
        for (name, length), peer in cpp.items():
            if length == T:
                runs[name] = lambda p=peer, ids=tokens: p.prefill(ids)
                writers[name, T] = lambda p=peer: p.decode(sizes.decode_steps)
        if not prefill:  # warms up, too
            found = read(HANOL)
            error = float((read(PEER) - found).abs().max())
            report.figures["logits, largest difference to transformers"] = error
            if error > 1e-4:
                sys.exit(f"The logits differ from transformers' by {error:.1e}.")
            read(LLAMA)
            for (name, length), peer in cpp.items():
                if length == T:
                    peer.prefill(tokens)
                    difference = float((peer.last_logits() - found).abs().max())
                    if name.startswith("Kimi"):
                        report.figures[f"logits, largest difference to {name}"] = difference
        prefill[T] = medians(interleaved(runs, sizes.rounds, f"prefill of {T:,}"))
    # All lengths take turns too: what is compared is one length with another.
    for write in writers.values():
        write()
    seconds = medians(interleaved(writers, 2 * sizes.rounds, "decode"))
    decode = {
        T: {name: seconds[name, T] / sizes.decode_steps for name in prefill[T]} for T in prefill
    }
    caches.clear()

    columns = [PEER, HANOL, LLAMA, *dict.fromkeys(name for name, _ in cpp)]
    lengths = [f"{T:,}" for T in sizes.prefill]
    for T in sizes.prefill:
        for name in columns:
            report.figures[f"prefill {T} {name} tokens/s"] = T / prefill[T][name]
            report.figures[f"decode {T} {name} tokens/s"] = 1 / decode[T][name]
        report.figures |= {
            f"prefill {T} ratio": prefill[T][PEER] / prefill[T][HANOL],
            f"decode {T} ratio": decode[T][PEER] / decode[T][HANOL],
            f"prefill {T} share of the limit": prefill_flop(peers[HANOL], T)
            / limits["gemm"]
            / prefill[T][HANOL],
            f"decode {T} share of the limit": decode_bytes(peers[HANOL], T)
            / limits["stream"]
            / decode[T][HANOL],
        }
    first, last = sizes.prefill[0], sizes.prefill[-1]
    slower = {name: decode[last][name] / decode[first][name] - 1 for name in columns}
    report.figures |= {f"decode slow-down, {name}": value for name, value in slower.items()}

    def shares(kind: str) -> list[list[str]]:
        ratios = [f"{report.figures[f'{kind} {T} ratio']:.1f}x" for T in sizes.prefill]
        parts = [f"{report.figures[f'{kind} {T} share of the limit']:.2f}" for T in sizes.prefill]
        return [["hanol : transformers", *ratios], ["hanol, share of the limit", *parts]]

    report.tables.append(
        Table(
            "Prefill, tokens/s",
            ["tokens", *lengths],
            [
                *([name, *(f"{T / prefill[T][name]:,.0f}" for T in prefill)] for name in columns),
                *shares("prefill"),
            ],
            "The limit is the rate of a large float32 matrix product, "
            f"{limits['gemm'] / 1e9:,.0f} GFLOP/s, measured in the same run.",
        )
    )
    report.tables.append(
        Table(
            "Decode, tokens/s",
            ["tokens in the context", *lengths, "slower from first to last"],
            [
                *(
                    [
                        name,
                        *(f"{1 / decode[T][name]:,.0f}" for T in decode),
                        f"{100 * slower[name]:.0f} %",
                    ]
                    for name in columns
                ),
                *([*row, ""] for row in shares("decode")),
            ],
            "The limit is reading weights, state and cache once at the rate of memory, "
            f"{limits['stream'] / 1e9:,.1f} GB/s, measured in the same run.",
        )
    )


def prefill_flop(model: Any, T: int) -> float:
    """Operations of a prefill: two for each weight and token, plus both kinds of attention."""
    config = model.config
    blocks = sum(p.numel() for p in model.model.layers.parameters())
    head = model.lm_head.weight.numel()
    kda = 6 * T * config.linear_num_heads * config.linear_head_dim**2  # the recurrence itself
    width = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
    mla = T * T * config.num_attention_heads * width  # half of all pairs
    full = config.layer_types.count("full_attention")
    layers = len(config.layer_types)
    return 2.0 * (blocks * T + head) + (layers - full) * kda + full * mla


def decode_bytes(model: Any, T: int) -> float:
    """Bytes that a decode step touches: weights, state (read and written), latent cache."""
    weights = sum(p.numel() for p in model.model.layers.parameters()) + model.lm_head.weight.numel()
    cache = models.cache_size(model.config, 4)
    return 4.0 * weights + 2 * cache.fixed_bytes + T * cache.bytes_per_token


def training_step(
    report: Report, sizes: Sizes, peers: dict[str, Any], limits: dict[str, float]
) -> None:
    """Forward and backward of one row."""
    T = sizes.train_tokens
    ids = torch.randint(3, peers[HANOL].config.vocab_size, (1, T))

    def step(model: Any) -> None:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad()

    for model in peers.values():
        model.train()
        step(model)
    seconds = interleaved(
        {name: lambda m=model: step(m) for name, model in peers.items()},
        sizes.rounds,
        f"training step of {T}",
    )
    middle = medians(seconds)
    ratio = middle[PEER] / middle[HANOL]
    weights = sum(p.numel() for p in peers[HANOL].parameters())
    weights -= peers[HANOL].model.embed_tokens.weight.numel()
    share = 6.0 * weights * T / limits["gemm"] / middle[HANOL]
    report.figures |= {"train ratio": ratio, "train share of the GEMM rate": share}
    report.figures |= {f"train {name} seconds": value for name, value in middle.items()}
    report.tables.append(
        Table(
            f"Training step, {T} tokens, forward and backward",
            [*peers, "hanol : transformers", "hanol, of the limit"],
            [[*(f"{middle[name]:.2f} s" for name in peers), f"{ratio:.1f}x", f"{share:.2f}"]],
            "The limit is six operations for each weight and token at the rate of a large matrix "
            f"product: no float32 step could be more than {ratio / share:.1f}x as fast as "
            "transformers' here.",
        )
    )
    for model in peers.values():
        model.eval()


def memory(report: Report, sizes: Sizes, threads: int) -> None:
    """Extra peak memory of a prefill, each in a process of its own."""
    whole, parts = "hanol", "hanol, prefill_chunk_size=1024"
    kinds = {
        PEER: (PEER, sizes.preset, None),
        whole: (HANOL, sizes.preset, None),
        parts: (HANOL, sizes.preset, 1024),
        LLAMA: (LLAMA, sizes.llama, None),
    }
    rows = []
    with progress() as bar:
        task = bar.add_task("memory", total=len(kinds) * len(sizes.prefill))
        for name, kind in kinds.items():
            row = [name]
            for T in sizes.prefill:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    extra = pool.submit(extra_peak, *kind, T, threads).result()
                report.figures[f"memory {T} {name} bytes"] = extra
                row.append(f"{extra / 1e6:,.0f} MB")
                bar.advance(task)
            rows.append(row)
    cache = models.cache_size(models.preset(sizes.preset), 4)
    held = [cache.fixed_bytes + T * cache.bytes_per_token for T in sizes.prefill]
    rows.append(["cache of Kimi-Linear alone", *(f"{size / 1e6:,.1f} MB" for size in held)])
    report.tables.append(
        Table(
            "Extra peak memory of a prefill",
            ["tokens", *(f"{T:,}" for T in sizes.prefill)],
            rows,
            "Resident memory at its peak over its level before, by `model.generate` in a process "
            "of its own.",
        )
    )


def extra_peak(peer: str, preset: str, chunk: int | None, T: int, threads: int) -> int:
    """Bytes by which the resident memory peaks above its level before the prefill."""
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    if peer == PEER:
        model = KimiLinearForCausalLM(models.preset(preset)).eval()
    else:
        model = models.build(preset, seed=0).eval()
    ids = torch.randint(3, model.config.vocab_size, (1, T))
    options = {"do_sample": False, "max_new_tokens": 1, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        model.generate(ids[:, :64], **options)
        before = psutil.Process().memory_info().rss
        clear = Path("/proc/self/clear_refs")
        if clear.exists():
            clear.write_text("5")  # the peak starts again from here
        model.generate(ids, prefill_chunk_size=chunk, **options)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    status = Path("/proc/self/status")
    if status.exists():
        peak = int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return max(0, peak - before)


if __name__ == "__main__":
    main()
