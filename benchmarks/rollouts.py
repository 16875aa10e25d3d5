"""Rollouts of a tiny research agent: one conversation after another, and hundreds at once.

    python benchmarks/rollouts.py [--model FOLDER] [--quick] [--json] [--record]

Every conversation is a run of the real agent: its parser, its tools, an index of an encyclopedia's
pages. `--model random` or `--model random-lfm2` needs no trained model: the words are an expert's,
and a model of the same shape with random weights does the work that writing them would be. What it
wrote itself is not in the transcript, so a little less can be taken up than of a trained model.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import Lfm2Config

from _bench import Report, Table, arguments, finish, progress
from hanol import models
from hanol.engines import ChatRequest, CheckpointEngine, Completion, Engine, Message
from hanol.research import Budget, Sampling
from hanol.research._training._environment import WorldEnvironment
from hanol.research._training._expert import Expert
from hanol.research._training._rollout import Rollout
from hanol.research._training._tokenizer import encyclopedia_tokenizer
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


class Puppet:
    """Says what the expert says, after a model has written as many tokens."""

    def __init__(self, engine: CheckpointEngine, expert: Expert) -> None:
        self._engine, self._expert = engine, expert
        self.name, self.context_window = engine.name, engine.context_window

    async def complete(self, request: ChatRequest) -> Completion:
        """The model's completion with the expert's text."""
        text = self._expert.turn(request.messages)
        tokens = self._engine.count_tokens([Message("assistant", text)])
        asked = replace(request, max_tokens=tokens, stop=())
        return replace(await self._engine.complete(asked), text=text, finish_reason="stop")

    async def complete_batch(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """As the protocol asks."""
        return list(await asyncio.gather(*map(self.complete, requests)))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As the model's tokenizer counts."""
        return self._engine.count_tokens(messages)

    async def aclose(self) -> None:
        """Stop the engine."""
        await self._engine.aclose()


def random_model(kind: str) -> tuple[Any, Any]:
    """Two layers of width 128; answers seldom end by themselves."""
    tokenizer = encyclopedia_tokenizer()
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 320,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config: Any
    if kind == "random-lfm2":
        config = Lfm2Config(
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, conv_L_cache=4,
            layer_types=["conv", "full_attention"], max_position_embeddings=2048,
            block_auto_adjust_ff_dim=False, **sizes,
        )  # fmt: skip
    else:
        config = models.kimi_config(
            num_layers=2, num_heads=4, head_dim=32, kv_lora_rank=32, full_attention_every=2,
            model_max_length=2048, **sizes,
        )  # fmt: skip
    model = models.build(config, seed=0).eval()
    model.get_output_embeddings().weight.data[tokenizer.eos_token_id] = 0
    return model, tokenizer


def engine_of(name: str, way: Way, world: Encyclopedia, questions: list[Question]) -> Engine:
    """The policy, new for each way."""
    options: dict[str, Any] = {"max_batch": way.at_once}
    if not way.keeps:
        options["cache_bytes"] = 0
    if name not in ("random", "random-lfm2"):
        return CheckpointEngine.load(name, **options)
    model, tokenizer = random_model(name)
    return Puppet(CheckpointEngine(model, tokenizer, **options), Expert(world, questions))


def run(
    name: str, way: Way, environment: WorldEnvironment, questions: list[Question]
) -> tuple[float, list[Rollout]]:
    """Seconds that a way takes, and its rollouts."""
    engine = engine_of(name, way, environment.world, questions)
    tasks = environment.tasks(questions)

    async def roll(count: int) -> list[Rollout]:
        return await environment.rollouts(
            engine, tasks[:count], seeds=range(count), concurrency=way.at_once
        )

    async def timed() -> tuple[float, list[Rollout]]:
        await roll(2)  # kernels and templates are compiled
        if isinstance(engine, CheckpointEngine):
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
