"""Rollouts of a tiny research agent: one conversation after another, and hundreds at once.

    python benchmarks/rollouts.py [--model FOLDER] [--quick] [--json] [--record]

Every conversation is a run of the real agent: its parser, its tools, an index of an encyclopedia's
pages.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Any

from _bench import Report, Table, arguments, finish, progress
from hanol.engines import CheckpointEngine
from hanol.research import Budget, Rollout, Sampling, WorldEnvironment
from hanol.worlds import Encyclopedia, Question

TURNS = 12
SAMPLING = Sampling(temperature=1.0, top_p=1.0, presence_penalty=0.0, max_tokens=120)


@dataclass(frozen=True)
class Way:
    """How conversations are run."""

    name: str
    conversations: int
    at_once: int
    keeps: bool


def engine_of(name: str, way: Way) -> CheckpointEngine:
    """The policy, new for each way."""
    kept: dict[str, Any] = {} if way.keeps else {"cache_bytes": 0}
    return CheckpointEngine.load(name, max_batch=way.at_once, **kept)


def run(
    name: str, way: Way, environment: WorldEnvironment, questions: list[Question]
) -> tuple[float, list[Rollout]]:
    """Seconds that a way takes, and its rollouts."""
    engine = engine_of(name, way)
    tasks = environment.tasks(questions)

    async def roll(count: int) -> list[Rollout]:
        return await environment.rollouts(
            engine, tasks[:count], seeds=range(count), concurrency=way.at_once
        )

    async def timed() -> tuple[float, list[Rollout]]:
        await roll(2)  # kernels and templates are compiled
        engine.forget()
        begin = time.perf_counter()
        done = await roll(way.conversations)
        seconds = time.perf_counter() - begin
        await engine.aclose()
        return seconds, done

    return asyncio.run(timed())


def tokens_of(rollouts: list[Rollout]) -> int:
    """Tokens of all transcripts at their ends, written and read."""
    last = [rollout.turns[-1] for rollout in rollouts if rollout.turns]
    return sum(len(turn.prompt_ids) + len(turn.token_ids) for turn in last)


def compare(report: Report, name: str, quick: bool) -> None:
    """Every way over the questions of one world."""
    many = 16 if quick else 256
    few = 2 if quick else 24
    ways = [
        Way("one after another, nothing kept", few, 1, False),
        Way("one after another", few, 1, True),
        Way(f"{many // 4} at once", many // 2, many // 4, True),
        Way(f"{many} at once", many if quick else 2 * many, many, True),
    ]
    world = Encyclopedia(1, 150 if quick else 1000)
    questions = world.questions(max(way.conversations for way in ways), hops=(1, 2, 3))
    rows, first = [], 0.0
    with (
        WorldEnvironment(world, sampling=SAMPLING, budget=Budget(model_calls=TURNS)) as pages,
        progress() as bar,
    ):
        for way in bar.track(ways, description="rollouts"):
            seconds, rollouts = run(name, way, pages, questions)
            speed = tokens_of(rollouts) / seconds
            first = first or speed
            written = sum(len(turn.token_ids) for one in rollouts for turn in one.turns)
            turns = sum(len(one.turns) for one in rollouts)
            broken = sum(one.problem is not None for one in rollouts)
            report.figures |= {
                f"{way.name}, tokens a second": speed,
                f"{way.name}, conversations a second": len(rollouts) / seconds,
                f"{way.name}, ratio": speed / first,
                f"{way.name}, problems": broken,
            }
            rows.append(
                [
                    way.name,
                    f"{len(rollouts)}",
                    f"{turns / len(rollouts):.1f}",
                    f"{tokens_of(rollouts) / len(rollouts):.0f} ({written / len(rollouts):.0f})",
                    f"{len(rollouts) / seconds:.2f}",
                    f"{speed:,.0f}",
                    f"{speed / first:.1f}x",
                ]
            )
    report.tables.append(
        Table(
            f"Conversations of {name} over {len(world.pages)} pages",
            [
                *("way", "conversations", "turns", "tokens (written)"),
                *("conversations/s", "tokens/s", "ratio"),
            ],
            rows,
            "Turns and tokens are means of a conversation; tokens are those of its transcript, "
            "each counted once. Tools, parser and index are in the time.",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", default="tiny-researcher")
    own, sys.argv[1:] = parser.parse_known_args()
    options = arguments(__doc__.splitlines()[0], threads=1)
    report = Report(
        "rollouts",
        "Rollouts of a research agent",
        f"python benchmarks/rollouts.py --model {own.model} --threads {options.threads}",
    )
    compare(report, own.model, options.quick)
    finish(report, options, ("transformers",))


if __name__ == "__main__":
    main()
