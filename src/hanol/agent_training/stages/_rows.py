"""What a stage reads, as token sequences: from the expert, from kept trajectories, from files.

Every row is a conversation of the agent as it takes place: the prompt of each turn is rendered as
an engine renders it, so that training and use cannot drift apart.
"""

import asyncio
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from transformers import PreTrainedTokenizerBase

from hanol.agent_training._actions import decision_rows, planning_rows, reasoning_rows
from hanol.agent_training._environment import WorldEnvironment
from hanol.agent_training._trajectories import Attempt, trajectory_rows
from hanol.agent_training.expert._expert import Expert
from hanol.agent_training.stages._recipe import DataShares, SftStage, WorldSection
from hanol.agent_training.stages._stages import TRAJECTORIES, StageRun
from hanol.engines import Message
from hanol.errors import DataError, RecipeError
from hanol.files import read_rows, replace_text
from hanol.rl import SampledTurn, TokenSegment, join_turns
from hanol.runs import Event, Mode
from hanol.synthesis import SynthQuestion
from hanol.tools import compact_tools
from hanol.training import SftRow
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


@dataclass(frozen=True)
class _Remembered(Attempt):
    """An attempt whose log is in memory."""

    log: tuple[Event, ...] = ()

    def events(self) -> list[Event]:
        return list(self.log)


def stage_rows(run: StageRun, tokenizer: PreTrainedTokenizerBase) -> list[SftRow]:
    """The rows of a stage, made once: a resumed stage reads what was kept in its folder.

    Raises:
        RecipeError: Nothing can give a kind of data that the recipe wants.
        DataError: A file cannot be used.
    """
    file = run.folder / "rows.jsonl"
    if not file.exists():
        assert isinstance(run.stage, SftStage)
        rows = _mixed(run, run.stage, tokenizer)
        lines = ([row.input_ids, [int(acts) for acts in row.action_mask]] for row in rows)
        replace_text(file, "".join(json.dumps(line) + "\n" for line in lines))
    with file.open(encoding="utf-8") as stream:
        pairs = (json.loads(line) for line in stream)
        return [SftRow(tuple(ids), tuple(map(bool, mask))) for ids, mask in pairs]


def chat_rows(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, skip: Skip | None = None
) -> list[SftRow]:
    """The turns of a conversation as rows, each turn in exactly one of them.

    Args:
        messages: With the assistant's turns in it.
        tokenizer: With a chat template; it need not mark what the assistant writes.
        skip: Told of what a turn answers; says whether it must not be learned.

    Raises:
        DataError: The tokenizer has no chat template, or no end token.
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
        prompt: Any = tokenizer.apply_chat_template(
            dialogue[:place], tokenize=False, add_generation_prompt=True
        )
        read = tokenizer(prompt, add_special_tokens=False).input_ids
        said = tokenizer(message.text, add_special_tokens=False).input_ids
        written = (*said, tokenizer.eos_token_id)
        turns.append(SampledTurn(tuple(read), written, (0.0,) * len(written)))
    return rows_of(join_turns(turns))


def rows_of(segments: Sequence[TokenSegment]) -> list[SftRow]:
    """The segments of a rollout as rows."""
    return [SftRow(segment.input_ids, segment.action_mask) for segment in segments]


def expert_rows(
    expert: Expert,
    tokenizer: PreTrainedTokenizerBase,
    *,
    mode: Mode = "react",
    seed: int = 0,
) -> list[SftRow]:
    """What an expert does in the real environment, as rows; what it gets wrong is not learned.

    Args:
        expert: Is asked its questions; runs without the right answer make no row.
        tokenizer: As for `chat_rows`.
        mode: Of the agent.
        seed: Of the order in which results are shown.

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


def text_row(text: str, tokenizer: PreTrainedTokenizerBase) -> SftRow:
    """Plain text, all of it to be learned."""
    ids = tuple(tokenizer(text, add_special_tokens=False).input_ids)
    ids = (*ids, tokenizer.eos_token_id)
    return SftRow(ids, (True,) * len(ids))


def _mixed(run: StageRun, stage: SftStage, tokenizer: PreTrainedTokenizerBase) -> list[SftRow]:
    """Rows of all kinds, in the shares of tokens that the recipe says."""
    shares = {kind: getattr(stage.data, kind) for kind in DataShares.model_fields}
    shares = {kind: share for kind, share in shares.items() if share > 0}
    stored = {kind: found for kind in shares if (found := _stored(run, stage, kind, tokenizer))}
    wanted = stage.different_tokens or stage.tokens or math.inf
    for kind, rows in stored.items():  # the scarcest decides, or the shares would not be kept
        wanted = min(wanted, _tokens(rows) / shares[kind])
    if math.isinf(wanted):
        raise RecipeError(
            f"Stage {stage.name!r} has `epochs`, but its data are generated without end: give "
            "`tokens`, or `different_tokens` as well."
        )
    made = _from_world(run, stage, {k: s for k, s in shares.items() if k not in stored}, tokenizer)
    mixed: list[SftRow] = []
    for kind, share in shares.items():
        source = iter(stored[kind]) if kind in stored else made(kind)
        mixed += _enough(source, share * wanted)
    if stage.loss == "all":
        mixed = [SftRow(row.input_ids, (True,) * len(row.input_ids)) for row in mixed]
    return mixed


def _stored(
    run: StageRun, stage: SftStage, kind: str, tokenizer: PreTrainedTokenizerBase
) -> list[SftRow]:
    """The rows of a file, or of the stage that kept trajectories; none if they are generated."""
    file: Path | None = getattr(stage.files, kind)
    if file is None and kind == "trajectories" and stage.source is not None:
        file = run.folders[stage.source] / TRAJECTORIES
    if file is None:
        return []
    rows: list[SftRow] = []
    for line, row in read_rows(file):
        if kind == "text" and isinstance(row.get("text"), str):
            rows.append(text_row(row["text"], tokenizer))
        elif kind != "text" and isinstance(row.get("messages"), list):
            rows += chat_rows(_messages(row, file, line), tokenizer)
        else:
            key = "text" if kind == "text" else "messages"
            raise DataError(f"{str(file)!r}, line {line}: `{key}` is missing or of another type.")
    if not rows:
        raise DataError(f"{str(file)!r} has no rows for {kind!r} of stage {stage.name!r}.")
    return rows


def _messages(row: Chat, file: Path, line: int) -> list[Message]:
    try:
        return [Message(message["role"], message["content"]) for message in row["messages"]]
    except (KeyError, TypeError) as err:
        raise DataError(
            f"{str(file)!r}, line {line}: a message needs `role` and `content`."
        ) from err


def _from_world(
    run: StageRun,
    stage: SftStage,
    shares: Mapping[str, float],
    tokenizer: PreTrainedTokenizerBase,
) -> Callable[[str], Iterator[SftRow]]:
    """A source of rows of each kind, by the expert and the pages of training worlds."""
    section = run.recipe.world
    missing = [kind for kind in shares if section is None or kind not in (*_FROM_ATTEMPTS, "text")]
    if missing:
        raise RecipeError(
            f"Stage {stage.name!r} wants {missing[0]!r}, which nothing here makes: name a file of "
            f"them by `files.{missing[0]}`."
        )
    seed = run.recipe.seed * 1_000 + stage.seed

    def rows(kind: str) -> Iterator[SftRow]:
        assert section is not None
        for number in itertools.count():
            world = training_world(section, number)
            if kind == "text":
                yield from (text_row(page.markdown, tokenizer) for page in world.pages)
                continue
            questions = draw_questions(
                world,
                _AT_ONCE,
                hops=section.hops,
                described=section.described,
                seed=seed + number // section.worlds,
            )
            expert = Expert(world, questions, detours=section.detours)
            attempts = _expert_attempts(expert, stage.modes.by_mode, seed + number)
            skip = None if kind == "reasoning" else expert.is_detour
            yield from _dialogues(_FROM_ATTEMPTS[kind](attempts), tokenizer, skip)

    return rows


def training_world(section: WorldSection, number: int) -> Encyclopedia:
    """A training world; after the last one they begin again."""
    return Encyclopedia(
        section.seed + number % section.worlds,
        section.entities,
        setting=section.setting,
        num_distractors=section.fillers[number % len(section.fillers)],
    )


def draw_questions(
    world: Encyclopedia, count: int, *, hops: Sequence[int], described: float, seed: int
) -> list[GraphQuestion]:
    """Questions of a world, a share of them with a start that is described.

    Raises:
        DataError: The world does not have so many.
    """
    num_described = round(count * described)
    found: list[GraphQuestion] = []
    for number, is_described in ((count - num_described, False), (num_described, True)):
        if number:
            found += world.questions(number, hops=hops, described=is_described, seed=seed)
    return found


def _expert_attempts(expert: Expert, modes: Mapping[Mode, float], seed: int) -> list[Attempt]:
    """The expert's runs at its questions, each question in one of the modes."""
    attempts: list[Attempt] = []
    for mode, asked in _by_share(expert.questions, modes, seed).items():
        with WorldEnvironment(
            expert.world, tools=lambda index: compact_tools(index, shuffle=seed), mode=mode
        ) as environment:
            rollouts = asyncio.run(
                environment.rollouts(
                    expert,
                    environment.tasks(asked),
                    seeds=[seed + i for i in range(len(asked))],
                    concurrency=1,
                )
            )
        for question, rollout in zip(asked, rollouts, strict=True):
            attempts.append(_attempt(question, rollout.task.id, rollout.events, rollout.reward))
    Random(f"attempts {seed}").shuffle(attempts)  # noqa: S311 - modes mixed, whatever is cut
    return attempts


def _by_share(
    questions: Sequence[GraphQuestion], shares: Mapping[Mode, float], seed: int
) -> dict[Mode, list[GraphQuestion]]:
    """Each question in one mode, every kind of question in all of them."""
    rng = Random(f"modes {seed}")  # noqa: S311 - a choice, no secret
    chosen = rng.choices(list(shares), list(shares.values()), k=len(questions))
    found: dict[Mode, list[GraphQuestion]] = {}
    for question, mode in zip(questions, chosen, strict=True):
        found.setdefault(mode, []).append(question)
    return found


def _attempt(
    question: GraphQuestion, name: str, events: tuple[Event, ...], reward: float | None
) -> Attempt:
    answer = getattr(events[-1], "answer", None) if events else None
    known = SynthQuestion(
        id=name,
        question=question.text,
        answers=tuple(sorted(question.answers)),
        formalization=question.triples,
        hops=question.hops,
        level=question.level,
        entities=question.entities,
    )
    return _Remembered(
        question=known,
        number=0,
        prediction=answer,
        is_right=bool(reward),
        error=None if reward is not None else "broken",
        run=Path(),
        log=events,
    )


def _enough(rows: Iterable[SftRow], tokens: float) -> list[SftRow]:
    taken: list[SftRow] = []
    seen = 0
    for row in rows:
        if seen >= tokens:
            break
        taken.append(row)
        seen += len(row.input_ids)
    return taken


def _tokens(rows: Iterable[SftRow]) -> int:
    return sum(len(row.input_ids) for row in rows)
