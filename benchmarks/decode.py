"""Decoding on a CPU: tokens a second for each type of weights, beside transformers and llama.cpp.

    python benchmarks/decode.py [--quick] [--json] [--record] [--threads 2]

Models: a Kimi-Linear and a Llama of 30 M parameters and a Qwen3.5 of 73 M with random weights, and
`smollm2` where it is pulled. Before anything is timed, hanol's float32 logits are compared with
those of transformers; of fewer bits the mean KL divergence from float32 over a real text is
printed, llama.cpp's on the same text beside it.
The limit is what reading weights and cache once from memory would allow.
"""

import copy
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from _bench import Report, Table, arguments, finish, interleaved, medians
from _llama_cpp import LlamaCpp, is_installed, quantized, write_gguf
from hanol import attention, models
from hanol.attention import CACHE_NAME

PEER, FLOAT = "transformers", "float32"
# hanol's types of weights, and llama.cpp's with as many bits.
SAME_BITS = {FLOAT: "F32", "bfloat16": "F16", "int8": "Q8_0", "int4": "Q4_0"}
STEPS, ROUNDS = 16, 5
MOST_OF_PEER = 8192  # tokens; transformers' Kimi-Linear wants 34 GB for the prompt of 32k
TEXT = (
    "The lighthouse was built in 1811 on a reef that is covered by the sea twice a day. Its stones "
    "were cut to fit into each other, so that no wave could lift a single one of them. For two "
    "years the masons lived on a ship beside it, and worked for a few hours at each low tide. The "
    "lamp could be seen from more than thirty miles away. Three keepers kept it burning, and a "
    "fourth lived on the shore, to take the place of one who was ill. Since 1988 nobody has lived "
    "there: the light is watched from an office in Edinburgh, and a helicopter brings the rest."
)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    transformers.logging.set_verbosity_error()
    report = Report(
        "decode", "Decoding on a CPU", f"python benchmarks/decode.py --threads {options.threads}"
    )
    rate = reading_rate()
    report.figures["machine, bytes a second"] = rate
    with tempfile.TemporaryDirectory() as folder:
        size = "3m" if options.quick else "30m"
        lengths = (64,) if options.quick else (1024, 4096, 8192)
        longer = lengths if options.quick else (*lengths, 32_768)
        kimi = models.build(f"kimi-linear-{size}", seed=0).eval()
        measure(report, f"kimi-linear-{size}", kimi, longer, rate, Path(folder), options)
        llama = models.build(f"llama-{size}", seed=0).eval()
        measure(report, f"llama-{size}", llama, lengths, rate, Path(folder), options)
        qwen = models.build(qwen35(options.quick), seed=0).eval()
        measure(report, "Qwen3.5", qwen, lengths, rate, Path(folder), options)
        if not options.quick:
            try:
                model = models.load_model("smollm2")
            except models.CheckpointError:
                print("smollm2 is not pulled: it takes no part", file=sys.stderr)
            else:
                measure(report, "smollm2", model, (64, 1024), rate, Path(folder), options)
    finish(report, options, ("transformers", "numba", "llama-cpp-python"))


def qwen35(quick: bool) -> Qwen3_5TextConfig:
    """Three gated delta nets to one gated attention, as in the models of 0.8 B and more."""
    return Qwen3_5TextConfig(
        vocab_size=512 if quick else 32_768, hidden_size=128 if quick else 640,
        intermediate_size=384 if quick else 1_920, num_hidden_layers=4 if quick else 8,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64 if quick else 128,
        linear_num_key_heads=4 if quick else 8, linear_num_value_heads=4 if quick else 8,
        linear_key_head_dim=64 if quick else 128, linear_value_head_dim=64 if quick else 128,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def reading_rate() -> float:
    """Bytes a second that a product with a matrix of 256 MB reads."""
    matrix, vector = torch.randn(8192, 8192), torch.randn(8192)
    torch.mv(matrix, vector)
    seconds = medians(interleaved({"": lambda: torch.mv(matrix, vector)}, 9, "memory"))[""]
    return matrix.numel() * 4 / seconds


class Writer:
    """A model and its cache after a prompt; writes tokens."""

    def __init__(self, model: Any, ids: Tensor) -> None:
        self.model = model
        with torch.no_grad():
            self.cache = model(ids, use_cache=True, logits_to_keep=1)[CACHE_NAME]

    def __call__(self, rows: int = 1) -> Tensor:
        with torch.no_grad():
            for _ in range(STEPS):
                out = self.model(
                    torch.full((rows, 1), 7), use_cache=True, **{CACHE_NAME: self.cache}
                )
        return out.logits


def of_kind(base: Any, kind: str) -> Any:
    """A copy of a model with its decode step, and weights of a kind."""
    model = copy.deepcopy(base)
    attention.accelerate_decoding(model)
    if kind != FLOAT:
        attention.pack(model, kind)
    return model


def held_bytes(model: Any) -> int:
    """Bytes of the weights that a token reads: not of an embedding's table of its own."""
    tensors = {x.data_ptr(): x for x in (*model.parameters(), *model.buffers())}
    head = model.get_output_embeddings()
    shared = {x.data_ptr() for x in (*head.parameters(), *head.buffers())}
    embedding = model.get_input_embeddings()
    for tensor in (*embedding.parameters(), *embedding.buffers()):
        if tensor.data_ptr() not in shared:
            tensors.pop(tensor.data_ptr(), None)
    return sum(x.numel() * x.element_size() for x in tensors.values())


def measure(
    report: Report, name: str, base: Any, lengths: tuple[int, ...], rate: float, folder: Path,
    options: Any,
) -> None:  # fmt: skip
    """Rates of one model."""
    ours = {kind: of_kind(base, kind) for kind in SAME_BITS}

    peers = llama_cpp_files(name, base, folder) if is_installed() else {}
    divergence(report, name, ours, peers)
    rows = []
    for length in lengths:
        ids = torch.randint(3, base.config.vocab_size, (1, length), generator=_seeded())
        writers: dict[str, Callable[[], object]] = {}
        if length <= MOST_OF_PEER:
            writers[PEER] = Writer(plain(base), ids)
        writers |= {kind: Writer(model, ids) for kind, model in ours.items()}
        for kind, path in peers.items():
            peer = LlamaCpp(path, length + STEPS * (ROUNDS + 2), options.threads)
            peer.prefill(ids[0].tolist())
            writers[f"llama.cpp {kind}"] = partial(peer.decode, STEPS)
        for one in writers.values():
            one()
        seconds = medians(interleaved(writers, ROUNDS, f"{name}, {length:,} tokens"))
        size = models.cache_size(base.config, 4)
        cached = size.bytes_per_token * length + size.fixed_bytes
        for kind, model in ours.items():
            tokens = STEPS / seconds[kind]
            share = (held_bytes(model) + cached) / rate * tokens
            row = [f"{length:,}", kind, f"{tokens:,.1f}", f"{share:.2f}"]
            report.figures[f"{name} {length} {kind} tokens/s"] = tokens
            peers_seconds = {
                "transformers": seconds.get(PEER),
                "llama.cpp": seconds.get(f"llama.cpp {SAME_BITS[kind]}"),
            }
            for peer, taken in peers_seconds.items():
                row.append("" if taken is None else f"{taken / seconds[kind]:.2f}x")
                if taken is not None:
                    report.figures[f"{name} {length} {kind} over {peer}"] = taken / seconds[kind]
            rows.append(row)
    header = ["tokens before", "weights", "tokens/s", "share of the limit", "transformers float32"]
    report.tables.append(Table(name, [*header, "llama.cpp, same bits"], rows))
    many = eight_rows(base, ours)
    report.figures |= {f"{name} eight rows, {kind}": x for kind, x in many.items()}
    report.tables.append(
        Table(
            f"{name}, eight rows at once, tokens of one row", list(many),
            [[f"{x:.1f}x" for x in many.values()]],
        )
    )  # fmt: skip


def plain(base: Any) -> Any:
    """Transformers' own model with the same weights."""
    attention.unregister()
    model = type(base)(base.config).eval()
    model.load_state_dict(base.state_dict())
    return model


def eight_rows(base: Any, ours: dict[str, Any]) -> dict[str, float]:
    """Tokens a second of eight rows over those of one, for each type."""
    ids = torch.randint(3, base.config.vocab_size, (8, 64), generator=_seeded())
    found = {}
    for kind, model in ours.items():
        one, eight = Writer(model, ids[:1]), Writer(model, ids)
        runs = {"one": one, "eight": partial(eight, 8)}
        for run in runs.values():
            run()
        seconds = medians(interleaved(runs, ROUNDS, f"eight rows, {kind}"))
        found[kind] = 8 * seconds["one"] / seconds["eight"]
    return found


def llama_cpp_files(name: str, base: Any, folder: Path) -> dict[str, Path]:
    """The model in llama.cpp's types."""
    source = folder / f"{name}-f32.gguf"
    if name == "smollm2":
        models.convert(name, source, to="gguf")
    else:
        write_gguf(base, source, "f32")
    paths = {"F32": source}
    for kind in ("F16", "Q8_0", "Q4_0"):
        paths[kind] = quantized(source, folder / f"{name}-{kind}.gguf", kind)
    return paths


@torch.no_grad()
def divergence(report: Report, name: str, ours: dict[str, Any], peers: dict[str, Path]) -> None:
    """Mean KL divergence from float32, on a text (random tokens for a random model)."""
    if name == "smollm2":
        ids = models.load_tokenizer(name)(TEXT, return_tensors="pt").input_ids
    else:
        ids = torch.randint(3, ours[FLOAT].config.vocab_size, (1, 128), generator=_seeded())
    exact = ours[FLOAT](ids).logits[0]
    error = float((plain(ours[FLOAT])(ids).logits[0] - exact).abs().max())
    if error > 1e-4:
        sys.exit(f"The logits of {name} differ from transformers' by {error:.1e}.")
    expected = exact.log_softmax(-1)
    rows = []
    for kind, model in ours.items():
        found = model(ids).logits[0].log_softmax(-1)
        row = [kind, f"{float((expected.exp() * (expected - found)).sum(-1).mean()):.5f}"]
        if SAME_BITS[kind] in peers:
            logits = LlamaCpp(peers[SAME_BITS[kind]], 512, 2).all_logits(ids[0].tolist())
            theirs = logits.log_softmax(-1)
            row.append(f"{float((expected.exp() * (expected - theirs)).sum(-1).mean()):.5f}")
        report.figures[f"{name} {kind} KL"] = float(row[1])
        rows.append(row)
    header = ["weights", "hanol", *(["llama.cpp, same bits"] if peers else [])]
    report.tables.append(Table(f"{name}, mean KL divergence from float32", header, rows))


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


if __name__ == "__main__":
    main()
