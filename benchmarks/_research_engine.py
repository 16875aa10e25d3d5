"""The in-process engine: what a growing transcript and requests at the same time cost."""

import asyncio
import time
from typing import Any

import numpy as np

from _bench import Report, Table, progress
from _research_text import documents
from hanol import models
from hanol.engines import Message, Request, Sampling
from hanol.runs import gather

AT_ONCE = 8


def engine(report: Report, quick: bool) -> None:
    """Both on a random model of 30 M parameters in Kimi-Linear's shape, float32."""
    from hanol.engines import CheckpointEngine

    preset = "kimi-linear-3m" if quick else "kimi-linear-30m"
    tokenizer = models.load_tokenizer("tiny")
    model = models.build(preset, vocab_size=len(tokenizer), seed=0).eval()
    # Random weights would end an answer anywhere: every answer is to have its full length.
    model.generation_config.eos_token_id = None
    options: dict[str, Any] = {"chat_template": "chatml", "max_batch": AT_ONCE}
    engines = {
        "kept": CheckpointEngine(model, tokenizer, **options),
        "again": CheckpointEngine(model, tokenizer, cache_bytes=0, **options),
    }
    growing(report, engines, 3 if quick else 12, preset)
    together(report, engines["again"], 4 if quick else 96, preset)
    for one in engines.values():
        asyncio.run(one.aclose())


def growing(report: Report, engines: dict[str, Any], rounds: int, preset: str) -> None:
    """A conversation to which each round adds an answer and an observation."""
    observations = list(documents(rounds, 120, seed=3))
    taken: dict[str, list[float]] = {}
    lengths: dict[str, list[tuple[int, int]]] = {}
    texts: dict[str, list[str]] = {}
    with progress() as bar:
        task = bar.add_task("growing transcript", total=rounds * len(engines))
        for name, one in engines.items():
            messages = [Message("system", "You research."), Message("user", "Where is it?")]
            for i in range(rounds):
                request = Request(tuple(messages), Sampling(max_tokens=8, temperature=0.0))
                begin = time.perf_counter()
                answer = asyncio.run(one.complete(request))
                taken.setdefault(name, []).append(time.perf_counter() - begin)
                sizes = (
                    answer.usage.prompt_tokens,
                    answer.usage.prompt_tokens - answer.usage.cached_tokens,
                )
                lengths.setdefault(name, []).append(sizes)
                texts.setdefault(name, []).append(answer.text)
                messages += [Message("assistant", answer.text), Message("user", observations[i])]
                bar.advance(task)
    kept, again = engines
    rows = []
    for i in sorted({1, rounds // 2, rounds - 1}):
        rows.append(
            [
                f"{i + 1}",
                f"{lengths[kept][i][0]:,}",
                *(f"{lengths[name][i][1]:,}" for name in engines),
                *(f"{1e3 * taken[name][i]:.0f} ms" for name in engines),
                f"{taken[again][i] / taken[kept][i]:.1f}x",
            ]
        )
    ratio = taken[again][-1] / taken[kept][-1]
    report.figures["growing transcript, last round, ratio"] = ratio
    report.figures["growing transcript, new tokens of the last round"] = lengths[kept][-1][1]
    same = "the same" if texts[kept] == texts[again] else "NOT the same"
    report.tables.append(
        Table(
            f"A transcript that grows, {preset}",
            [
                *("round", "prompt tokens"),
                *(f"computed, {name}" for name in engines),
                *(f"time, {name}" for name in engines),
                "ratio",
            ],
            rows,
            "Kept: what was computed in earlier rounds stays; again: everything is encoded again. "
            f"Each round adds 120 words and writes 8 tokens, greedily; the answers are {same}.",
        )
    )


def together(report: Report, one: Any, tokens: int, preset: str) -> None:
    """Eight requests at once against one after another."""
    prompts = list(documents(6 * AT_ONCE, 10, seed=4))

    def request(i: int) -> Request:
        return Request((Message("user", prompts[i]),), Sampling(max_tokens=tokens, seed=i))

    async def serial(first: int) -> int:
        return sum(
            [
                (await one.complete(request(i))).usage.generated_tokens
                for i in range(first, first + AT_ONCE)
            ]
        )

    async def batch(first: int) -> int:
        answers = await gather(
            one.complete, [request(i) for i in range(first, first + AT_ONCE)], concurrency=64
        )
        return sum(answer.usage.generated_tokens for answer in answers)

    speeds: dict[str, list[float]] = {"one after another": [], f"{AT_ONCE} at once": []}
    length = asyncio.run(one.complete(request(0))).usage.prompt_tokens
    for turn in range(3):
        for i, (name, run) in enumerate(zip(speeds, (serial, batch), strict=True)):
            begin = time.perf_counter()
            # Prompts of its own: none finds what was computed for another.
            written = asyncio.run(run((2 * turn + i) * AT_ONCE))
            speeds[name].append(written / (time.perf_counter() - begin))
    middle = {name: float(np.median(values)) for name, values in speeds.items()}
    ratio = middle[f"{AT_ONCE} at once"] / middle["one after another"]
    report.figures[f"{AT_ONCE} requests at once, ratio"] = ratio
    report.tables.append(
        Table(
            f"{AT_ONCE} requests of about {length} prompt tokens and {tokens} new ones, {preset}",
            ["", "tokens/s"],
            [*([name, f"{value:,.0f}"] for name, value in middle.items()), ["", f"{ratio:.1f}x"]],
            "New tokens by the time from the first prompt to the last answer; medians of 3 turns.",
        )
    )
