"""How well a model answers questions about a world that it has not been trained on."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import BaseModel, Field

from hanol.agent_training._skills import Skills, measure_skills, skill_rates
from hanol.agent_training._world_environment import WorldEnvironment
from hanol.agent_training.expert._reading import expert_of
from hanol.engines import Engine
from hanol.research import GREEDY
from hanol.rl import Rollout
from hanol.runs import Budget, Ledger, Mode, Spent
from hanol.sampling import Sampling
from hanol.scoring import wilson
from hanol.tools import compact_tools
from hanol.worlds import AnyPage, Encyclopedia, GraphQuestion, Split, World

EXAM_SAMPLING = replace(GREEDY, max_tokens=192)  # the expert's turns have at most 125 tokens
_SEEDS = 1_000_003  # between the first runs of two sampling seeds: each run takes the next seed


class Examination(BaseModel):
    """Results on a world, as shares."""

    accuracy: dict[str, float] = Field(
        description='By number of hops, "1", "2", ...; "described" for starts that are described.'
    )
    intervals: dict[str, tuple[float, float]] = Field(description="95 % of each (Wilson).")
    format_errors: float = Field(description="Turns that could not be used, of all turns.")
    cited: float = Field(description="Right answers whose citations all check out, of all right.")
    skills: dict[str, float | None] = Field(description="Done, of all trials; None without any.")
    questions: int
    broken: int = Field(description="Rollouts that something around the model broke.")
    spent: Ledger = Field(default=Ledger(), description="What all rollouts have cost.")


def examine(
    engine: Engine | None,
    *,
    seed: int,
    num_questions: int,
    world: World[AnyPage] | None = None,
    split: Split = "test",
    hops: Sequence[int] = (1, 2, 3),
    num_entities: int = 1000,
    num_distractors: int = 1,
    mode: Mode = "react",
    sampling: Sampling = EXAM_SAMPLING,
    sampling_seed: int = 0,
    constrained: bool = False,
    max_calls: int = 16,
    concurrency: int = 64,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> Examination:
    """Ask questions about a world that no training data are from.

    Args:
        engine: The model; None asks the expert, whose accuracy is the most that can be reached.
        seed: Seed of the questions, and of the world where it is generated.
        num_questions: Number of questions of each kind.
        world: The world; None generates an encyclopedia of names that no training world has.
        hops: Kinds of questions; in an encyclopedia those with a named start, and starts that are
            described are one kind more.
        split: Split of the names of a generated encyclopedia.
        num_entities: Number of pages of an encyclopedia.
        num_distractors: Distractor sentences per page of an encyclopedia; 7 make about 120 words.
        mode: Mode of the agent.
        sampling: How turns are drawn; greedy by default.
        sampling_seed: Seed for sampling; it makes no difference to greedy turns.
        constrained: Hold turns to the agent's grammar where the engine can.
        max_calls: Maximum number of turns per run.
        concurrency: Runs at once.
        on_rollout: Called with each run.

    Raises:
        DataError: The world has fewer different questions.
    """
    is_generated = world is None
    if world is None:
        world = Encyclopedia(seed, num_entities, split=split, num_distractors=num_distractors)
    kinds = exam_questions(world, num_questions, hops, described=is_generated, seed=seed)
    shuffle = seed if is_generated else None  # tiny policies are trained on shuffled results
    with WorldEnvironment(
        world,
        tools=lambda index: compact_tools(index, shuffle=shuffle),
        mode=mode,
        sampling=sampling,
        constrained=constrained,
        budget=Budget(model_calls=max_calls),
    ) as environment:
        questions = [question for kind in kinds.values() for question in kind]
        engine = engine or expert_of(world, questions)
        rollouts = asyncio.run(
            environment.rollouts(
                engine,
                environment.tasks(questions),
                seeds=[sampling_seed * _SEEDS + i for i in range(len(questions))],
                concurrency=concurrency,
                on_rollout=on_rollout,
            )
        )
    names = [name for name, kind in kinds.items() for _ in kind]
    return _summed_up(names, questions, rollouts, world)


def exam_questions(
    world: World[AnyPage], count: int, hops: Sequence[int], *, described: bool, seed: int
) -> dict[str, list[GraphQuestion]]:
    """Questions of each kind: by number of hops, and of 1 and 2 hops from described starts."""
    kinds = {str(number): world.questions(count, hops=number, seed=seed) for number in hops}
    if described:
        kinds["described"] = world.questions(count, hops=(1, 2), described=True, seed=seed)
    return kinds


def _summed_up(
    names: list[str], questions: list[GraphQuestion], rollouts: list[Rollout], world: World[AnyPage]
) -> Examination:
    right: dict[str, list[bool]] = defaultdict(list)
    measured: list[Skills] = []
    for name, question, rollout in zip(names, questions, rollouts, strict=True):
        if rollout.reward is not None:
            right[name].append(rollout.reward == 1.0)
            measured.append(measure_skills(rollout, question, world))
    scores = {name: wilson(sum(outcomes), len(outcomes)) for name, outcomes in right.items()}
    rates = skill_rates(measured)
    usable = rates["call format"]
    return Examination(
        accuracy={name: round(score.value, 4) for name, score in scores.items()},
        intervals={
            name: (round(score.low, 4), round(score.high, 4)) for name, score in scores.items()
        },
        format_errors=1.0 if usable is None else round(1 - usable, 4),
        cited=_cited(rollouts),
        skills={name: None if rate is None else round(rate, 4) for name, rate in rates.items()},
        questions=len(questions),
        broken=sum(rollout.reward is None for rollout in rollouts),
        spent=Spent.of(event for rollout in rollouts for event in rollout.events).ledger,
    )


def _cited(rollouts: Sequence[Rollout]) -> float:
    """Share of the right answers of which every claim is supported by what it cites."""
    every: list[dict[str, int]] = [
        (getattr(rollout.events[-1], "citations", None) or {}).get("counts", {})
        for rollout in rollouts
        if rollout.reward == 1.0
    ]
    whole = [
        counts.get("supported", 0) > 0
        and counts["unsupported"] + counts["invented"] + counts["uncited"] == 0
        for counts in every
    ]
    return round(sum(whole) / len(whole), 4) if whole else 0.0
