"""Beam search with prefixes that are computed once, beside the same search that reads them again.

    python benchmarks/thinking.py [--quick] [--json] [--record]

64 beams, 4 next steps each, a prompt of 256 tokens, 8 steps of 32: for a model of attention layers
and for a hybrid one, whose recurrent states can be taken up only where a copy was made. Weights are
random and the scorer is arithmetic, so that nothing but the engine is measured. The peer reads
every prefix again for each of its next steps, as searches over a stateless server do; in between
stands one that reads it once for all of them. its_hub, where it is installed (pip install its_hub),
searches over the same engine, which keeps its prefixes too.
"""

import asyncio
import random
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from _bench import Report, Table, arguments, finish, interleaved, medians
from hanol import models
from hanol.engines import CheckpointEngine, Request
from hanol.sampling import Sampling
from hanol.test_time import BeamSearch, Prefix, Step

WIDTH, STEP = 4, 32
KEPT, ONCE, EACH = "kept", "read again for each prefix", "read again for each next step"
PEER = "its_hub's beam search, prefixes kept"


@dataclass(frozen=True)
class Size:
    """Of the search."""

    beams: int
    prompt: int
    steps: int


def engine_of(kind: str, tokenizer: Any, *, keeps: bool, beams: int) -> CheckpointEngine:
    """An engine with random weights."""
    torch.manual_seed(0)
    if kind == "hybrid":
        model = models.load_model("tiny").eval()
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=256, intermediate_size=688,
            num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=2048, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        model = LlamaForCausalLM(config).eval()
    room = {} if keeps else {"cache_bytes": 0}
    return CheckpointEngine(model, tokenizer, name=kind, max_batch=beams, **room)


def count_positions(engine: CheckpointEngine) -> list[int]:
    """Positions that pass through the model from now on, one entry a pass."""
    counts: list[int] = []

    def count(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        counts.append(ids.shape[0] * ids.shape[1])

    engine._model.register_forward_pre_hook(count, with_kwargs=True)
    return counts


async def search(engine: CheckpointEngine, prompt: tuple[int, ...], size: Size, way: str) -> int:
    """One search; the distinct tokens of its tree."""
    if way == PEER:
        from _thinking_peer import peer_search

        return await peer_search(engine, prompt, size.beams, WIDTH, size.steps, STEP)
    found = BeamSearch(size.beams, WIDTH, answer_tokens=size.steps * STEP)

    async def steps(prefix: Prefix) -> list[Step]:
        ids = prompt + tuple(i for step in prefix.path for i in step.ids)
        several = way != EACH
        requests = [
            Request(
                (), Sampling(temperature=1.0, seed=prefix.seed + i, max_tokens=STEP),
                prompt_ids=ids, n=prefix.n if several else 1,
            )
            for i in range(1 if several else prefix.n)
        ]  # fmt: skip
        answers = await asyncio.gather(*map(engine.complete, requests))
        last = len(prefix.path) + 1 == size.steps
        return [
            Step(f"{choice.ids}", ids=choice.ids or (), final=last, answer="1" if last else None)
            for answer in answers
            for choice in answer.choices
        ]

    while not found.done:
        asked = found.ask()
        told = await asyncio.gather(*map(steps, asked))
        for prefix, made in zip(asked, told, strict=True):
            scores = [random.Random(step.text).random() for step in made]
            found.tell(prefix, made, scores)
    return len(prompt) + sum(len(step.ids) for node in found.nodes for step in node.steps)


def compare(report: Report, kind: str, size: Size, rounds: int) -> None:
    """The three ways with one model."""
    tokenizer = models.load_tokenizer("tiny")
    drawn = random.Random(0)
    prompts = [
        tuple(drawn.randrange(5, len(tokenizer)) for _ in range(size.prompt))
        for _ in range(rounds + 1)
    ]
    ways = (KEPT, ONCE, EACH, *([PEER] if find_spec("its_hub") else []))
    engines = {
        way: engine_of(kind, tokenizer, keeps=way in (KEPT, PEER), beams=size.beams) for way in ways
    }
    positions = {way: count_positions(engine) for way, engine in engines.items()}
    distinct, turn = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)

    def once(way: str) -> None:
        # Another prompt each time: nothing may be left of an earlier search.
        distinct[way] += asyncio.run(search(engines[way], prompts[turn[way]], size, way))
        turn[way] += 1

    for way in ways:
        once(way)
        distinct[way] = 0
        positions[way].clear()
    seconds = interleaved({way: (lambda way=way: once(way)) for way in ways}, rounds, kind)
    middle = medians(seconds)
    rows = []
    for way in ways:
        asyncio.run(engines[way].aclose())
        share = sum(positions[way]) / distinct[way]
        report.figures |= {
            f"{kind}, {way}, positions over distinct tokens": share,
            f"{kind}, {way}, seconds": middle[way],
        }
        rows.append(
            [way, f"{distinct[way] // rounds:,}", f"{sum(positions[way]) // rounds:,}",
             f"{share:.3f}", f"{middle[way]:.2f}", f"{middle[KEPT] / middle[way]:.2f}"]
        )  # fmt: skip
    for way in ways[2:]:
        report.figures[f"{kind}, wall time over that of {way}"] = middle[KEPT] / middle[way]
    parameters = engines[KEPT].parameters
    report.tables.append(
        Table(
            f"{kind}: {size.beams} beams, {WIDTH} next steps, prompt of {size.prompt}, "
            f"{size.steps} steps of {STEP}",
            [
                "prefixes are",
                "distinct tokens",
                "positions",
                "positions / distinct",
                "seconds",
                "time of kept over it",
            ],
            rows,
            f"{parameters:,} parameters, float32, batches of up to {size.beams}; medians of "
            f"{rounds} searches, each with a prompt of its own.",
        )
    )


def main() -> None:
    options = arguments(__doc__.splitlines()[0], threads=1)
    report = Report("thinking", "Searches with shared prefixes", "python benchmarks/thinking.py")
    size = Size(8, 32, 3) if options.quick else Size(64, 256, 8)
    for kind in ("attention", "hybrid"):
        compare(report, kind, size, 1 if options.quick else 3)
    if find_spec("its_hub") is None:
        report.tables[-1].note += " its_hub is not installed, so it is not compared."
    finish(report, options, ("transformers", "its_hub"))


if __name__ == "__main__":
    main()
