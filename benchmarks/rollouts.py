"""Rollouts of a tiny research agent: one conversation after another, and hundreds at once.

    python benchmarks/rollouts.py [--model FOLDER] [--quick] [--json] [--record]

Every conversation is a run of the real agent: its parser, its tools, an index of an encyclopedia's
pages. The peer is what a loop around transformers does: `generate` for each turn, over the whole
conversation so far. Several processes share the questions as `GrpoTrainer` shares them under
`accelerate launch`.
"""

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from _bench import Report, Table, arguments, finish, progress
from hanol import models
from hanol.agent_training import WorldEnvironment
from hanol.engines import CheckpointEngine, Completion, Engine, Message, Request, Usage
from hanol.rl import Rollout
from hanol.runs import Budget
from hanol.sampling import Sampling
from hanol.worlds import Encyclopedia, GraphQuestion

TURNS = 12
SAMPLING = Sampling(temperature=1.0, top_p=1.0, presence_penalty=0.0, max_tokens=120)


@dataclass(frozen=True)
class Way:
    """How conversations are run."""

    name: str
    conversations: int  # of each process
    at_once: int
    keeps: bool = True
    processes: int = 1
    generates: bool = False  # by transformers


class GenerateEngine(Engine):
    """`generate` of transformers, one request after another."""

    capabilities = frozenset({"logprobs"})

    def __init__(self, name: str) -> None:
        self.name = name
        self._model, self._tokenizer = models.load(name)
        self._model.eval()
        self.context_window = int(self._model.config.max_position_embeddings)

    def _ids(self, messages: Sequence[Message]) -> torch.Tensor:
        turns = [message.to_dict() for message in messages]
        encoded = self._tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        return encoded["input_ids"]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Of the rendered conversation."""
        return self._ids(messages).shape[1]

    @torch.inference_mode()
    async def complete(self, request: Request) -> Completion:
        """One turn, sampled, with the log-probabilities that learning needs."""
        ids = self._ids(request.messages)
        torch.manual_seed(request.sampling.seed or 0)
        made = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.sampling.max_tokens,
            do_sample=True, temperature=request.sampling.temperature, top_k=0,
            top_p=request.sampling.top_p,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        new = made.sequences[0, ids.shape[1] :]
        chances = torch.cat(made.scores).log_softmax(-1).gather(-1, new[:, None])[:, 0]
        text = self._tokenizer.decode(new, skip_special_tokens=True)
        text = min(
            (text.partition(stop)[0] for stop in request.sampling.stop), key=len, default=text
        )
        return Completion.of(
            text,
            usage=Usage(ids.shape[1], len(new), 0),
            logprobs=tuple(chances.tolist()),
            ids=tuple(new.tolist()),
            prompt_ids=tuple(ids[0].tolist()),
        )

    def forget(self) -> None:
        """There is nothing to forget."""


def engine_of(name: str, way: Way) -> Any:
    """The policy, new for each way."""
    if way.generates:
        return GenerateEngine(name)
    kept: dict[str, Any] = {} if way.keeps else {"cache_bytes": 0}
    return CheckpointEngine.load(name, max_batch=way.at_once, **kept)


@dataclass(frozen=True)
class Share:
    """What one process found."""

    begin: float  # seconds of the machine's clock
    end: float
    turns: int
    tokens: int  # of all transcripts at their ends, written and read
    written: int
    problems: int


def share_of(
    name: str, way: Way, world: Encyclopedia, questions: list[GraphQuestion], start: Any = None
) -> Share:
    """Run conversations in this process; `start` lets all processes begin together."""

    async def timed(environment: WorldEnvironment) -> tuple[float, float, list[Rollout]]:
        engine = engine_of(name, way)
        tasks = environment.tasks(questions)

        async def roll(count: int) -> list[Rollout]:
            return await environment.rollouts(
                engine, tasks[:count], seeds=range(count), concurrency=way.at_once
            )

        await roll(2)  # kernels and templates are compiled
        engine.forget()
        if start is not None:
            start.wait()
        begin = time.monotonic()
        done = await roll(way.conversations)
        end = time.monotonic()
        await engine.aclose()
        return begin, end, done

    budget = Budget(model_calls=TURNS)
    with WorldEnvironment(world, sampling=SAMPLING, budget=budget) as environment:
        begin, end, rollouts = asyncio.run(timed(environment))
    last = [one.turns[-1] for one in rollouts if one.turns]
    return Share(
        begin,
        end,
        turns=sum(len(one.turns) for one in rollouts),
        tokens=sum(len(turn.prompt_ids) + len(turn.token_ids) for turn in last),
        written=sum(len(turn.token_ids) for one in rollouts for turn in one.turns),
        problems=sum(one.problem is not None for one in rollouts),
    )


def run(name: str, way: Way, world: Encyclopedia, questions: list[GraphQuestion]) -> list[Share]:
    """What each process of a way found."""
    if way.processes == 1:
        return [share_of(name, way, world, questions)]
    spawning = multiprocessing.get_context("spawn")
    with (
        spawning.Manager() as manager,
        ProcessPoolExecutor(
            way.processes, spawning, torch.set_num_threads, (torch.get_num_threads(),)
        ) as pool,
    ):
        start = manager.Barrier(way.processes)
        waiting = [
            pool.submit(share_of, name, way, world, questions[i :: way.processes], start)
            for i in range(way.processes)
        ]
        return [one.result() for one in waiting]


def compare(report: Report, name: str, quick: bool) -> None:
    """Every way over the questions of one world."""
    many = 16 if quick else 256
    few = 2 if quick else 96
    ways = [
        Way("transformers' `generate`, one after another", few, 1, generates=True),
        Way("one after another, nothing kept", few, 1, keeps=False),
        Way("one after another", few, 1),
        Way(f"{many // 4} at once", many, many // 4),
        Way(f"{many} at once", 2 * many, many),
        Way(f"{many} at once in each of 2 processes", 4 * many, many, processes=2),
    ]
    world = Encyclopedia(1, 150 if quick else 1000)
    questions = world.questions(max(w.conversations * w.processes for w in ways), hops=(1, 2, 3))
    rows, speeds = [], list[float]()
    with progress() as bar:
        for way in bar.track(ways, description="rollouts"):
            shares = run(name, way, world, questions)
            seconds = max(one.end for one in shares) - min(one.begin for one in shares)
            count = way.conversations * way.processes
            turns, tokens, written = (
                sum(getattr(one, field) for one in shares)
                for field in ("turns", "tokens", "written")
            )
            speeds.append(tokens / seconds)
            ratios = [speeds[-1] / speed for speed in speeds[:2]]
            report.figures |= {
                f"{way.name}, tokens a second": speeds[-1],
                f"{way.name}, conversations a second": count / seconds,
                f"{way.name}, ratio": speeds[-1] / speeds[min(1, len(speeds) - 1)],
                f"{way.name}, ratio to transformers": speeds[-1] / speeds[0],
                f"{way.name}, problems": sum(one.problems for one in shares),
            }
            rows.append(
                [
                    way.name,
                    f"{count}",
                    f"{turns / count:.1f}",
                    f"{tokens / count:.0f} ({written / count:.0f})",
                    f"{count / seconds:.2f}",
                    f"{speeds[-1]:,.0f}",
                    f"{ratios[0]:.1f}x",
                    f"{ratios[1]:.1f}x" if len(ratios) > 1 else "",
                ]
            )
    report.tables.append(
        Table(
            f"Conversations of {name} over {len(world.pages)} pages",
            [
                *("way", "conversations", "turns", "tokens (written)", "conversations/s"),
                *("tokens/s", "to transformers", "to nothing kept"),
            ],
            rows,
            "Turns and tokens are means of a conversation; tokens are those of its transcript, "
            "each counted once. Tools, parser and index are in the time. Two processes share the "
            "questions as the trainer's do; everything else runs in one.",
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
