"""What the claims about research agents stand on: small agents, worlds and trainings that go on.

Everything that is made is kept (`claims.kept`): a claim that was interrupted goes on from there,
and claims share what they train.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen3Config

from claims import kept
from claims.figures import Figures
from claims.kept import read_lines
from hanol import agent_training, models, rl, tools, training
from hanol.agent_training import WorldEnvironment
from hanol.attention import ConvAttentionConfig
from hanol.engines import CheckpointEngine, Engine
from hanol.errors import RunError
from hanol.research import GREEDY
from hanol.retrieval import Index
from hanol.rows import replace_rows
from hanol.runs import Budget, ModelAnswered, RunEnded, TurnRejected
from hanol.sampling import Sampling
from hanol.worlds import Encyclopedia, GraphQuestion

log = logging.getLogger(__name__)

PAPER = "arXiv 2510.24701"
BENCHMARKS = (
    "HLE, BrowseComp and GAIA need a chat model, the web and a judge: `hanol.evaluation."
    "read_benchmark` reads their questions, `hanol research batch --web` answers them and "
    "`hanol eval answers --metric judge` scores the answers; nobody has run that here"
)
MODEL = "tiny-researcher"  # of the claims that train nothing
WINDOW = 2048
TURN = 160  # tokens at most; the expert's longest have about half as many
Shape = Literal["convolution", "plain", "hybrid"]
Kinds = Mapping[str, Sequence[GraphQuestion]]  # of questions, by number of hops or another name

Tools = Callable[[Index], Sequence[tools.Tool]]

_SYSTEM = "Research ."  # the template leaves it out; our long one would only be counted
_CONVOLUTION_STD = 0.3
_WORLDS, _QUESTIONS = 60, 150  # for demonstrations: worlds, and questions of each
_AT_ONCE = 64  # rollouts


place = partial(kept.place, "deep-research")


# -- models


def small_agent(shape: Shape, seed: int) -> models.Loaded:
    """Random weights of 2 layers and width 128, with the encyclopedia's tokenizer.

    Args:
        shape: "convolution" is Qwen3 with a short convolution on queries, keys and values, "plain"
            Qwen3 without, "hybrid" a layer of Kimi Delta Attention, which has such convolutions,
            and one of latent attention.
        seed: Of the weights.
    """
    tokenizer = agent_training.encyclopedia_tokenizer(WINDOW)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 320,
        "initializer_range": 128**-0.5,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
    }
    if shape == "hybrid":
        config: Any = models.kimi_config(
            num_layers=2, num_heads=4, head_dim=32, kv_lora_rank=64, full_attention_every=2,
            model_max_length=WINDOW, **sizes,
        )  # fmt: skip
    else:
        kind = ConvAttentionConfig if shape == "convolution" else Qwen3Config
        config = kind(
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, head_dim=32,
            max_position_embeddings=WINDOW, **sizes,
        )  # fmt: skip
    model = models.build(config, seed=seed)
    if shape == "hybrid":  # as the other one's are made
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "conv" in name and parameter.dim() == 3:
                nn.init.normal_(parameter, 0, _CONVOLUTION_STD, generator=generator)
    return models.Loaded(model, tokenizer)


# -- data


def demonstrated(
    seed: int, quick: bool, *, worlds: int = _WORLDS, questions: int = _QUESTIONS
) -> "list[training.SftRow]":
    """Rows of an expert's rollouts at questions of one and two hops, each world another seed's."""
    worlds, questions = (1, 8) if quick else (worlds, questions)
    file = place(seed, quick, f"demonstrations-{worlds}x{questions}.jsonl")
    if not file.exists():
        tokenizer = agent_training.encyclopedia_tokenizer(WINDOW)
        lines = []
        for number in range(worlds):
            rows = _rows_of_expert(1_000 * seed + number, questions, tokenizer)
            lines += [[row.input_ids, [int(acts) for acts in row.action_mask]] for row in rows]
            log.info("Seed %d: demonstrations in world %d of %d", seed, number + 1, worlds)
        replace_rows(file, lines)
    return [training.SftRow(tuple(ids), tuple(map(bool, mask))) for ids, mask in read_lines(file)]


def held_out_rows(seed: int, quick: bool) -> "list[training.SftRow]":
    """Demonstrations in a world of names that no training world has."""
    tokenizer = agent_training.encyclopedia_tokenizer(WINDOW)
    return _rows_of_expert(seed, 4 if quick else 100, tokenizer, split="test")


def _rows_of_expert(
    world_seed: int, count: int, tokenizer: Any, split: Literal["train", "test"] = "train"
) -> "list[training.SftRow]":
    world = Encyclopedia(world_seed, 300, split=split)
    questions = world.questions(count, hops=(1, 2), seed=world_seed)
    return agent_training.expert_rows(
        agent_training.Expert(world, questions), tokenizer, seed=world_seed
    )


def shuffled(seed: int) -> Tools:
    """The tools of an index, with results in an order that says nothing."""
    return lambda index: tools.compact_tools(index, shuffle=seed)


def unseen(seed: int, quick: bool, hops: Iterable[int], count: int) -> tuple[Encyclopedia, Kinds]:
    """A world of names that no training world has, and questions by number of hops."""
    world = Encyclopedia(10_000 + seed, 100 if quick else 1000, split="test")
    count = 2 if quick else count
    return world, {str(n): world.questions(count, hops=n, seed=seed) for n in hops}


# -- training


def fine_tuned(
    start: models.Loaded,
    rows: "Sequence[training.SftRow]",
    folder: Path,
    *,
    tokens: int,
    **settings: Any,
) -> Path:
    """Train a model on rows; what the folder already has is gone on with.

    Args:
        start: Where it begins.
        rows: What it learns from.
        folder: Of the run.
        tokens: To train on.
        settings: Others of `SftSettings`.

    Returns:
        The checkpoint.
    """
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        said = 0

        def tell(line: Mapping[str, Any]) -> None:
            nonlocal said
            if line["tokens"] - said >= 200_000 or line["tokens"] < said:
                said = line["tokens"]
                log.info("%s: %d of %d tokens, loss %.3f", folder, said, tokens, line["loss"])

        chosen = training.SftSettings(tokens=tokens, save_tokens=200_000, **settings)
        training.train_sft(start.model, rows, chosen, folder, resume=True, on_step=tell)
        models.save(start.model, checkpoint, start.tokenizer)
    return checkpoint


@torch.no_grad()
def token_accuracy(model: PreTrainedModel, rows: "Sequence[training.SftRow]") -> float:
    """Share of the expert's tokens that a model ranks first, the true ones before them given."""
    model.eval()
    hits: list[bool] = []
    for row in rows:
        ids = torch.tensor([row.input_ids])
        acts = torch.tensor(row.action_mask)[1:]
        best = model(input_ids=ids, use_cache=False).logits[0, :-1].argmax(-1)
        hits += (best == ids[0, 1:])[acts].tolist()
    return mean(hits)


# -- questions


class Attempt(NamedTuple):
    """What is kept of one rollout."""

    kind: str
    question: str
    right: bool
    ended: str  # why
    prompts: list[int]  # tokens of each turn's prompt
    written: int  # tokens
    refused: int  # turns


def attempted(
    model: str | Path | models.Loaded,
    world: Encyclopedia,
    kinds: Kinds,
    file: Path,
    *,
    tools: Tools | None = None,
    mode: Literal["react", "markov"] = "react",
    max_calls: int = 12,
    context_tokens: int = WINDOW,
    sampling: Sampling = GREEDY,
    seed: int = 0,
) -> list[Attempt]:
    """Ask all questions once in the real environment; what the file has is read back.

    Args:
        model: A checkpoint or a bundled name, or the model itself.
        world: Of the questions.
        kinds: The questions.
        file: Where the attempts are kept.
        tools: As for `WorldEnvironment`; None takes shuffled ones.
        mode: Of the agent.
        max_calls: Turns at most.
        context_tokens: Longest prompt.
        sampling: Of the turns, which have `TURN` tokens at most.
        seed: Of the sampling, and of what tools leave to chance.
    """
    if not file.exists():
        log.info("%s: %d questions", file, sum(map(len, kinds.values())))
        budget = Budget(model_calls=max_calls, context_tokens=context_tokens, seconds=None)
        with WorldEnvironment(
            world, file.parent / f"world-{world.split}-{world.seed}-{world.num_entities}",
            tools=tools or shuffled(world.seed), mode=mode, budget=budget,
            sampling=replace(sampling, max_tokens=TURN), system_prompt=_SYSTEM,
        ) as environment:  # fmt: skip
            asked = [(kind, task) for kind in kinds for task in environment.tasks(kinds[kind])]
            made = asyncio.run(_asked(environment, model, [task for _, task in asked], seed))
        found = [_attempt(kind, rollout) for (kind, _), rollout in zip(asked, made, strict=True)]
        replace_rows(file, found)
    return [Attempt(*line) for line in read_lines(file)]


async def _asked(
    environment: WorldEnvironment, model: str | Path | models.Loaded, tasks: Any, seed: int
) -> list[rl.Rollout]:
    engine = engine_of(model)
    try:
        made = await environment.rollouts(
            engine, tasks, seeds=range(seed, seed + len(tasks)), concurrency=_AT_ONCE
        )
    finally:
        await engine.aclose()
    if problems := [rollout.problem for rollout in made if rollout.reward is None]:
        raise RunError(
            f"{len(problems)} of {len(made)} rollouts broke, so nothing can be concluded. The "
            f"first: {problems[0]} Remove the cause and run the claim again: it goes on."
        )
    return made


def engine_of(model: str | Path | models.Loaded) -> Engine:
    """A model as an engine that decodes many conversations together."""
    if isinstance(model, models.Loaded):
        return CheckpointEngine(model.model.eval(), model.tokenizer, max_batch=_AT_ONCE)
    return CheckpointEngine.load(str(model), max_batch=_AT_ONCE)


def _attempt(kind: str, rollout: rl.Rollout) -> Attempt:
    turns = [e for e in rollout.events if isinstance(e, ModelAnswered)]
    last = rollout.events[-1]
    assert isinstance(last, RunEnded)
    return Attempt(
        kind,
        rollout.task.question,
        rollout.reward == 1.0,
        last.termination,
        [turn.prompt_tokens for turn in turns],
        sum(turn.completion_tokens for turn in turns),
        sum(isinstance(event, TurnRejected) for event in rollout.events),
    )


# -- figures


def accuracy(attempts: Sequence[Attempt], kind: str | None = None) -> float:
    """Right answers, of all or of one kind, in percent."""
    return 100 * mean(attempt.right for attempt in attempts if kind in (None, attempt.kind))


def right(attempts: Sequence[Attempt], kind: str | None = None) -> list[float]:
    """1.0 for each right answer, 0.0 for the others, in the order of the questions."""
    return [float(one.right) for one in attempts if kind in (None, one.kind)]


def add_attempts(figures: Figures, name: str, attempts: Sequence[Attempt]) -> None:
    """Note right answers by kind and overall."""
    for kind in dict.fromkeys(attempt.kind for attempt in attempts):
        figures.add(f"{name}: {kind}", accuracy(attempts, kind))
    figures.add(name, accuracy(attempts))
