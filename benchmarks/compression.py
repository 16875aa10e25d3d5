"""Bits per byte of the held-out text: the bundled model beside `xz -9` and 5-gram models.

    python benchmarks/compression.py [--quick] [--json] [--record]

The text is that of `recipes/tiny/pretrain.yaml`: the standard library and language reference of
the Python that runs this. All see the same training text and are scored on the same bytes.
"""

import lzma
import time
from collections.abc import Callable
from math import log2
from typing import Any

import numpy as np

from _bench import ROOT, Report, Table, arguments, finish, progress
from _ngram import KneserNey
from hanol import models, training

CONTEXTS = (512, 2048)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    recipe = training.read_recipe(ROOT / "recipes" / "tiny" / "pretrain.yaml")
    sides: tuple[list[str], list[str]] = ([], [])
    for document in training.documents(recipe.data):
        if document.text:
            held_out = training.is_held_out(document.group, recipe.data.held_out)
            sides[held_out].append(document.text)
    train, held_out = (side[:40] if options.quick else side for side in sides)
    held_out_bytes = sum(len(text.encode()) for text in held_out)
    model, tokenizer = models.load("tiny")

    def xz(texts: list[str]) -> int:
        return len(lzma.compress("".join(texts).encode(), preset=9))

    def five_gram(encode: Callable[[str], list[int]], vocab_size: int) -> float:
        counts = KneserNey(stream(train, encode), vocab_size, order=5)
        scored = stream(held_out, encode)
        p = counts.probabilities(scored)
        return float(-np.log2(p[scored != tokenizer.bos_token_id]).sum())

    def stream(texts: list[str], encode: Callable[[str], list[int]]) -> np.ndarray:
        begin, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
        return np.concatenate([np.asarray(begin + encode(text) + end) for text in texts])

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    def of_bytes(text: str) -> list[int]:
        return [3 + byte for byte in text.encode()]

    parameters = model.num_parameters()
    runs: dict[str, Callable[[], float]] = {
        "xz -9, held-out text alone": lambda: 8.0 * xz(held_out),
        "xz -9, after the training text": lambda: 8.0 * (xz(train + held_out) - xz(train)),
        "interpolated 5-gram of bytes": lambda: five_gram(of_bytes, 259),
        "interpolated 5-gram of tiny's tokens": lambda: five_gram(tokens, len(tokenizer)),
        **{
            f"tiny ({parameters / 1e6:.1f} M parameters), {n:,} tokens at a time": lambda n=n: (
                training.bits_per_byte(model, tokenizer, held_out, context=n) * held_out_bytes
            )
            for n in (CONTEXTS[:1] if options.quick else CONTEXTS)
        },
    }
    report = Report("compression", "Bits per byte", "python benchmarks/compression.py")
    report.figures["held-out bytes"] = held_out_bytes
    rows: list[list[Any]] = []
    with progress() as bar:
        task = bar.add_task("bits per byte", total=len(runs))
        for name, run in runs.items():
            begin = time.perf_counter()
            bits = run() / held_out_bytes
            report.figures[name] = bits
            rows.append([name, f"{bits:.3f}", f"{time.perf_counter() - begin:,.0f} s"])
            bar.advance(task)
    best = min(report.figures[name] for name in list(runs)[:4])
    mine = report.figures[list(runs)[4]]
    report.figures["tiny, share of the best other"] = mine / best
    report.tables.append(
        Table(
            f"{held_out_bytes:,} held-out bytes, {len(held_out)} documents",
            ["", "bits per byte", "time"],
            rows,
            f"tiny needs {100 * (1 - mine / best):.0f} % fewer bits than the best of the others. "
            f"A uniform guess of a byte takes {log2(256):.0f} bits. The 5-gram models are "
            "interpolated Kneser-Ney; the time of a 5-gram includes counting, tiny's no training.",
        )
    )
    finish(report, options, ("transformers",))


if __name__ == "__main__":
    main()
