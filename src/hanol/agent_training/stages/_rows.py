"""What a stage reads, as token sequences: from the expert, from kept trajectories, from files.

Every row is a conversation of the agent as it takes place: the prompt of each turn is rendered as
an engine renders it, so that training and use cannot drift apart.
"""

import asyncio
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from transformers import PreTrainedTokenizerBase

from hanol import models
from hanol.agent_training._actions import decision_rows, planning_rows, reasoning_rows
from hanol.agent_training._trajectories import Attempt, trajectory_rows
from hanol.agent_training._world_environment import WorldEnvironment
from hanol.agent_training.expert._expert import Expert
from hanol.agent_training.stages._recipe import DataKind, SftStage
from hanol.agent_training.stages._stages import TRAJECTORIES, StageRun
from hanol.engines import Message
from hanol.errors import DataError, RecipeError
from hanol.files import (
    open_regular,
    sha256,
)
from hanol.rl import Rollout, SampledTurn, join_turns
from hanol.rows import replace_rows
from hanol.runs import Mode, can_reuse, note_sources
from hanol.tools import compact_tools, located_rows, messages_field, text_field
from hanol.training import SftRow, checkpoints, tokenizer_hash
from hanol.worlds import Encyclopedia, GraphQuestion

_AT_ONCE = 150  # questions of a world before the next world
Chat = Mapping[str, Any]
Skip = Callable[[Sequence[Message]], bool]

_FROM_ATTEMPTS: dict[str, Callable[[Sequence[Attempt]], list[dict[str, Any]]]] = {
    "trajectories": trajectory_rows,
    "planning": planning_rows,
    "reasoning": reasoning_rows,
    "decisions": decision_rows,
}
_GENERATED = (*_FROM_ATTEMPTS, "text")


def stage_rows(run: StageRun, tokenizer: PreTrainedTokenizerBase) -> list[SftRow]:
    """The rows of a stage, made once: a resumed stage reads what was kept in its folder.

    Raises:
        DataError: A file cannot be used, or what was kept is damaged.
        RunError: A file has changed since the stage began to learn from it.
    """
    file, stage = run.folder / "rows.jsonl", run.stage
    assert isinstance(stage, SftStage)
    read = {kind: found for kind in stage.data if (found := _file_of(run, stage, kind)) is not None}
    sources = {
        # What cannot be read is named by who reads it.
        "files": {kind: sha256(path) if path.is_file() else "" for kind, path in read.items()},
        "tokenizer": tokenizer_hash(tokenizer),
    }
    if not can_reuse(file, sources, in_use=bool(checkpoints(run.folder))):
        rows = _mixed(run, stage, tokenizer)
        replace_rows(file, ([row.input_ids, [*map(int, row.action_mask)]] for row in rows))
        note_sources(file, sources)
    try:
        with open_regular(file) as stream:
            pairs = (json.loads(line) for line in stream)
            return [SftRow(tuple(ids), tuple(map(bool, mask))) for ids, mask in pairs]
    except (ValueError, TypeError) as err:
        raise DataError(f"{str(file)!r} is damaged ({err}): delete it and resume.") from err


def chat_rows(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, skip: Skip | None = None
) -> list[SftRow]:
    """The turns of a conversation as rows, each turn in exactly one of them.

    The chat template need not mark what the assistant writes. `skip` is given the messages before
    a turn, and says whether the turn must not be learned.
    """
    if tokenizer.chat_template is None or tokenizer.eos_token_id is None:
        raise DataError(
            "The tokenizer has no chat template or no end token, so turns cannot be told apart. "
            "Take a chat model, or put `chat_template.jinja` into the checkpoint."
        )
    dialogue = [message.to_dict() for message in messages]
    turns = []
    for place, message in enumerate(messages):
        if message.role != "assistant" or (skip is not None and skip(messages[:place])):
            continue
        prompt = models.render_chat(tokenizer, dialogue[:place], add_generation_prompt=True)
        read = tokenizer(prompt, add_special_tokens=False).input_ids
        said = tokenizer(message.text, add_special_tokens=False).input_ids
        written = (*said, tokenizer.eos_token_id)
        turns.append(SampledTurn(tuple(read), written, (0.0,) * len(written)))
    return [SftRow(segment.input_ids, segment.action_mask) for segment in join_turns(turns)]


def expert_rows(
    expert: Expert, tokenizer: PreTrainedTokenizerBase, *, mode: Mode = "react", seed: int = 0
) -> list[SftRow]:
    """What an expert does at its questions in the real environment, as rows.

    Runs without the right answer make no row, and detours are not learned.

    Args:
        expert: Answers its questions.
        tokenizer: With a chat template.
        mode: Mode of the agent.
        seed: Seed for the order in which results are shown.

    Raises:
        DataError: The tokenizer has no chat template, or no end token.
    """
    attempts = _expert_attempts(expert, {mode: 1.0}, seed)
    return list(_dialogues(trajectory_rows(attempts), tokenizer, expert.is_detour))


def _dialogues(
    rows: Iterable[Chat], tokenizer: PreTrainedTokenizerBase, skip: Skip | None
) -> Iterator[SftRow]:
    for row in rows:
        dialogue = [Message(m["role"], m["content"]) for m in row["messages"]]
        yield from chat_rows(dialogue, tokenizer, skip)


def _text_row(text: str, tokenizer: PreTrainedTokenizerBase) -> SftRow:
    """Plain text, all of it to be learned."""
    ids = tuple(tokenizer(text, add_special_tokens=False).input_ids)
    ids = (*ids, tokenizer.eos_token_id)
    return SftRow(ids, (True,) * len(ids))


def _mixed(run: StageRun, stage: SftStage, tokenizer: PreTrainedTokenizerBase) -> list[SftRow]:
    """Rows of all kinds, in the shares of tokens that the recipe says."""
    shares = stage.data
    stored = {kind: found for kind in shares if (found := _stored(run, stage, kind, tokenizer))}
    wanted = stage.different_tokens or stage.tokens or math.inf
    for kind, rows in stored.items():  # the scarcest decides, or the shares would not be kept
        wanted = min(wanted, sum(len(row.input_ids) for row in rows) / shares[kind])
    if math.isinf(wanted):
        raise RecipeError(
            f"Stage {stage.name!r} has `epochs`, but its data are generated without end: give "
            "`tokens`, or `different_tokens` as well."
        )
    for kind in shares:
        if kind not in stored and (run.recipe.world is None or kind not in _GENERATED):
            raise RecipeError(
                f"Stage {stage.name!r} wants {kind!r}, which is not generated here: name a file "
                f"by `files.{kind}`."
            )
    mixed: list[SftRow] = []
    for kind, share in shares.items():
        tokens = 0
        for row in stored.get(kind) or _generated(run, stage, kind, tokenizer):
            if tokens >= share * wanted:
                break
            mixed.append(row)
            tokens += len(row.input_ids)
    if stage.loss == "all":
        mixed = [SftRow(row.input_ids, (True,) * len(row.input_ids)) for row in mixed]
    return mixed


def _stored(
    run: StageRun, stage: SftStage, kind: DataKind, tokenizer: PreTrainedTokenizerBase
) -> list[SftRow]:
    """The rows of a file, or of the stage that kept trajectories; none if they are generated."""
    file = _file_of(run, stage, kind)
    if file is None:
        return []
    rows: list[SftRow] = []
    for place, row in located_rows(file):
        if kind == "text":
            rows.append(_text_row(text_field(row, "text", place), tokenizer))
        else:  # ours, WebDancer's (arXiv 2505.22648) or ParallelMuse's (2510.24698) dialogues
            key = "rollout" if "rollout" in row else "messages"
            rows += chat_rows(messages_field(row, key, place), tokenizer)
    if not rows:
        raise DataError(f"{str(file)!r} has no rows for {kind!r} of stage {stage.name!r}.")
    return rows


def _file_of(run: StageRun, stage: SftStage, kind: DataKind) -> Path | None:
    """The file that holds the data of a kind; None if they are generated."""
    file = stage.files.get(kind)
    if file is None and kind == "trajectories" and stage.source is not None:
        return run.folders[stage.source] / TRAJECTORIES
    return None if file is None else Path(file)


def _generated(
    run: StageRun, stage: SftStage, kind: DataKind, tokenizer: PreTrainedTokenizerBase
) -> Iterator[SftRow]:
    """Rows without end, by the expert and the pages of training worlds."""
    section = run.recipe.world
    assert section is not None
    seed = run.recipe.seed * 1_000 + stage.seed
    for number in itertools.count():
        turn, place = divmod(number, section.worlds)  # after the last one they begin again
        world = Encyclopedia(
            section.seed + place,
            section.entities,
            num_distractors=section.num_distractors[number % len(section.num_distractors)],
        )
        if kind == "text":
            yield from (_text_row(page.markdown, tokenizer) for page in world.pages)
            continue
        questions = draw_questions(
            world, _AT_ONCE, hops=section.hops, described=section.described, seed=seed + turn
        )
        expert = Expert(world, questions, detours=section.detours)
        attempts = _expert_attempts(expert, stage.modes, seed + number)
        skip = None if kind == "reasoning" else expert.is_detour
        yield from _dialogues(_FROM_ATTEMPTS[kind](attempts), tokenizer, skip)


def draw_questions(
    world: Encyclopedia, count: int, *, hops: Sequence[int], described: float, seed: int
) -> list[GraphQuestion]:
    """Questions of a world, a share of them with a start that is described."""
    num_described = round(count * described)
    found: list[GraphQuestion] = []
    for number, is_described in ((count - num_described, False), (num_described, True)):
        if number:
            found += world.questions(number, hops=hops, described=is_described, seed=seed)
    return found


def _expert_attempts(expert: Expert, modes: Mapping[Mode, float], seed: int) -> list[Attempt]:
    """The expert's runs at its questions, each question in one of the modes."""
    rng = Random(f"modes {seed}")  # noqa: S311 - a choice, no secret
    chosen = rng.choices(list(modes), list(modes.values()), k=len(expert.questions))
    by_mode: dict[Mode, list[GraphQuestion]] = {}
    for question, mode in zip(expert.questions, chosen, strict=True):
        by_mode.setdefault(mode, []).append(question)
    attempts: list[Attempt] = []
    for mode, asked in by_mode.items():
        with WorldEnvironment(
            expert.world, tools=lambda index: compact_tools(index, shuffle=seed), mode=mode
        ) as environment:
            tasks, seeds = environment.tasks(asked), range(seed, seed + len(asked))
            running = environment.rollouts(expert, tasks, seeds=seeds, concurrency=1)
            attempts += map(_attempt, asked, asyncio.run(running))
    Random(f"attempts {seed}").shuffle(attempts)  # noqa: S311 - modes mixed, whatever is cut
    return attempts


def _attempt(question: GraphQuestion, rollout: Rollout) -> Attempt:
    events = rollout.events
    answer = getattr(events[-1], "answer", None) if events else None
    asked = replace(question, id=rollout.task.id)
    return Attempt(asked, 0, answer, bool(rollout.reward), rollout.problem, lambda: events)
