"""Where the stages of a recipe attempt questions, and where their models are judged."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hanol.agent_training._environment import ResearchEnvironment
from hanol.agent_training._examination import exam_questions
from hanol.agent_training._skills import measure_skills, skill_rates
from hanol.agent_training._world_environment import DAY, WorldEnvironment
from hanol.agent_training.stages._recipe import GrpoStage, RejectStage, ResearcherRecipe
from hanol.agent_training.stages._rows import draw_questions
from hanol.agent_training.stages._stages import CHECKPOINT, Facts, Outcomes, StageRun
from hanol.engines import CheckpointEngine, Engine, open_engine
from hanol.errors import DataError, TrainingError
from hanol.retrieval import Index
from hanol.rl import Rollout
from hanol.runs import Budget, Mode, Task, read_tasks
from hanol.sampling import Sampling
from hanol.scoring import exact_match, set_match
from hanol.tools import compact_tools
from hanol.worlds import Encyclopedia

_HELD_OUT = 5  # one in so many questions about one's own documents is kept for the evaluation
_AT_ONCE = 64
_TOOLS = partial(compact_tools, shuffle=0)


@contextmanager
def attempts_of(
    run: StageRun, stage: RejectStage | GrpoStage, mode: Mode
) -> Iterator[tuple[ResearchEnvironment, list[Task]]]:
    """Where a stage attempts its questions, and these."""
    options = {"mode": mode, **_limits(stage.model_calls, stage.max_length, stage.temperature)}
    section = run.recipe.world
    if section is None:
        with _documents(run.recipe, options, held_out=False) as (environment, tasks):
            yield environment, tasks[: stage.pool]
        return
    # After the worlds that the expert shows: no question was seen with its answer.
    seed = section.seed + section.worlds + stage.seed
    world = Encyclopedia(seed, stage.entities, num_distractors=section.num_distractors[0])
    questions = draw_questions(
        world,
        stage.pool,
        hops=stage.hops or section.hops,
        described=section.described if stage.described is None else stage.described,
        seed=run.recipe.seed + stage.seed,
    )
    with WorldEnvironment(world, run.folder / "world", tools=_TOOLS, **options) as environment:
        yield environment, environment.tasks(questions)


def evaluate(run: StageRun) -> Outcomes:
    """Judge the model of a stage: greedy answers to questions that no stage trains on."""
    recipe = run.recipe
    with _held_out(run, recipe.eval.questions) as (environment, groups):
        total = sum(map(len, groups.values()))
        judged = itertools.count(1)
        rollouts = _answered(
            recipe,
            environment,
            groups,
            engine_of(recipe.engine, run.folder / CHECKPOINT),
            lambda rollout: run.on_step({"judged": next(judged), "of": total}),
        )
    return {
        kind: [bool(rollouts[task.id].reward) for task in tasks if task.id in rollouts]
        for kind, tasks in groups.items()
    }


def glance(run: StageRun, model: Any, tokenizer: Any) -> Facts:
    """What a model can do in the middle of a stage: accuracy, and in a world each skill, 0 to 1."""
    recipe = run.recipe
    with _held_out(run, recipe.eval.glance) as (environment, groups):
        engine = CheckpointEngine(model, tokenizer, max_batch=_AT_ONCE)
        rollouts = list(_answered(recipe, environment, groups, engine).values())
        facts: Facts = {"accuracy": sum(bool(r.reward) for r in rollouts) / len(rollouts)}
        if isinstance(environment, WorldEnvironment):
            measured = (
                measure_skills(r, environment.question(r.task), environment.world) for r in rollouts
            )
            facts["skills"] = skill_rates(measured)
    return facts


def engine_of(spec: str, checkpoint: Path | str | None) -> Engine:
    """The engine of a recipe, with the model so far in the place of "{checkpoint}"."""
    if "{checkpoint}" in spec and checkpoint is None:
        raise DataError(
            "There is no model yet to attempt questions with: put a stage that trains one before, "
            "begin with a `checkpoint`, or name an `engine`."
        )
    return open_engine(spec.replace("{checkpoint}", str(checkpoint)))


def _answered(
    recipe: ResearcherRecipe,
    environment: ResearchEnvironment,
    groups: Mapping[str, Sequence[Task]],
    engine: Engine,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> dict[str, Rollout]:
    """The rollouts that did not break, by the ids of their questions; the engine is closed."""
    tasks = [task for group in groups.values() for task in group]
    seeds = [recipe.eval.seed] * len(tasks)

    async def answer() -> list[Rollout]:
        try:
            return await environment.rollouts(
                engine, tasks, seeds=seeds, concurrency=_AT_ONCE, on_rollout=on_rollout
            )
        finally:
            await engine.aclose()

    rollouts = asyncio.run(answer())
    whole = {rollout.task.id: rollout for rollout in rollouts if rollout.reward is not None}
    if not whole:  # an accuracy of 0 would be a lie
        raise TrainingError(
            f"None of {len(rollouts)} questions could be asked: {rollouts[0].problem}"
            if rollouts
            else "There are no questions to judge the model by: give more of them."
        )
    return whole


@contextmanager
def _held_out(
    run: StageRun, count: int
) -> Iterator[tuple[ResearchEnvironment, dict[str, list[Task]]]]:
    """Where models are judged, and on what: so many questions of each kind."""
    section, learned = run.recipe.eval, run.recipe.world
    options = _limits(section.model_calls, section.max_length, 0.0, section.turn_tokens)
    if learned is None:
        with _documents(run.recipe, options, held_out=True) as (environment, tasks):
            yield environment, {"all": tasks[:count]}
        return
    world = Encyclopedia(
        section.seed, section.entities, split="test", num_distractors=learned.num_distractors[0]
    )
    kinds = exam_questions(
        world, count, section.hops, described=learned.described > 0, seed=section.seed
    )
    folder = run.folder / "evaluation" / "world"
    with WorldEnvironment(world, folder, tools=_TOOLS, **options) as environment:
        yield environment, {kind: environment.tasks(asked) for kind, asked in kinds.items()}


def _limits(
    model_calls: int, max_length: int, temperature: float, turn_tokens: int | None = None
) -> dict[str, Any]:
    """Limits of one attempt; tokens are drawn from the whole distribution, as learning needs."""
    return {
        "today": DAY,
        "budget": Budget(
            model_calls, context_tokens=max_length, observation_tokens=max_length // 2, seconds=None
        ),
        "sampling": Sampling(
            temperature, top_p=1.0, presence_penalty=0.0, max_tokens=turn_tokens or max_length // 8
        ),
    }


@contextmanager
def _documents(
    recipe: ResearcherRecipe, options: Mapping[str, Any], *, held_out: bool
) -> Iterator[tuple[ResearchEnvironment, list[Task]]]:
    """One's own documents, and those of the questions that are held out, or the others."""
    section = recipe.documents
    assert section is not None
    tasks = read_tasks(section.questions)
    if unknown := [task.id for task in tasks if not task.answer]:
        raise DataError(
            f"{str(section.questions)!r}: the question {unknown[0]!r} has no `answer`, so attempts "
            "at it cannot be judged."
        )
    with Index.open(section.folder) as index:
        index.add()
        draws = (random.Random(f"held out {task.id}").randrange(_HELD_OUT) for task in tasks)  # noqa: S311
        chosen = [task for task, n in zip(tasks, draws, strict=True) if (n == 0) == held_out]
        yield ResearchEnvironment(index, _reward, **options), chosen


def _reward(task: Task, answer: str | None) -> float:
    if isinstance(task.answer, list):
        return float(set_match(answer, task.answer))
    return float(exact_match(answer, task.answer or ""))
