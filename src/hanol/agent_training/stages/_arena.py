"""Where the stages of a recipe attempt questions, and where their models are judged."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hanol.agent_training._environment import ResearchEnvironment, WorldEnvironment
from hanol.agent_training._examination import exam_questions
from hanol.agent_training._skills import measure_skills, skill_rates
from hanol.agent_training.stages._recipe import GrpoStage, RejectStage, ResearcherRecipe
from hanol.agent_training.stages._rows import draw_questions
from hanol.agent_training.stages._stages import Evaluate, Facts, Outcomes, StageRun
from hanol.engines import CheckpointEngine, Engine, open_engine
from hanol.errors import DataError, TrainingError
from hanol.retrieval import Index
from hanol.rl import Rollout
from hanol.runs import Budget, Mode, Task, read_tasks
from hanol.sampling import Sampling
from hanol.scoring import exact_match, set_match
from hanol.tools import Tool, compact_tools
from hanol.training import OnStep
from hanol.worlds import Encyclopedia

_HELD_OUT = 5  # one in so many questions about one's own documents is kept for the evaluation
_AT_ONCE = 64


@contextmanager
def attempts_of(
    run: StageRun, stage: RejectStage | GrpoStage, mode: Mode
) -> Iterator[tuple[ResearchEnvironment, list[Task]]]:
    """Where a stage attempts its questions, and these.

    Raises:
        DataError: The world has too few of them, or one's own have no answers.
    """
    options = {"mode": mode, **_limits(stage.model_calls, stage.max_length, stage.temperature)}
    section = run.recipe.world
    with ExitStack() as stack:
        if section is None:
            index, tasks = stack.enter_context(_documents(run.recipe))
            asked = [task for task in tasks if not _is_held_out(task)][: stage.pool]
            yield ResearchEnvironment(index, _reward, **options), asked
            return
        # After the worlds that the expert shows: no question was seen with its answer.
        world = Encyclopedia(
            section.seed + section.worlds + stage.seed,
            stage.entities,
            setting=section.setting,
            num_distractors=section.fillers[0],
        )
        questions = draw_questions(
            world,
            stage.pool,
            hops=stage.hops or section.hops,
            described=section.described if stage.described is None else stage.described,
            seed=run.recipe.seed + stage.seed,
        )
        environment = stack.enter_context(
            WorldEnvironment(world, run.folder / "world", tools=_tools, **options)
        )
        yield environment, environment.tasks(questions)


def evaluation(recipe: ResearcherRecipe, on_step: OnStep = lambda line: None) -> Evaluate:
    """What judges a checkpoint: greedy answers to questions that no stage trains on.

    Args:
        recipe: Says how many.
        on_step: Told how many are judged, for a person who watches.
    """

    def evaluate(checkpoint: Path, folder: Path) -> Outcomes:
        with _held_out(recipe, folder, recipe.eval.questions) as (environment, groups):
            judged, total = 0, sum(map(len, groups.values()))

            def count(_: Rollout) -> None:
                nonlocal judged
                judged += 1
                on_step({"judged": judged, "of": total})

            engine = engine_of(recipe.engine, checkpoint)
            rollouts = _answered(recipe, environment, groups, engine, count)
        return {
            kind: [bool(rollouts[task.id].reward) for task in tasks if task.id in rollouts]
            for kind, tasks in groups.items()
        }

    return evaluate


def glance(run: StageRun, model: Any, tokenizer: Any) -> Facts:
    """What a model can do in the middle of a stage: accuracy, and in a world each skill, 0 to 1."""
    recipe = run.recipe
    with _held_out(recipe, run.folder / "evaluation", recipe.eval.glance) as (environment, groups):
        engine = CheckpointEngine(model, tokenizer, max_batch=_AT_ONCE)
        rollouts = list(_answered(recipe, environment, groups, engine).values())
        facts: Facts = {"accuracy": sum(bool(r.reward) for r in rollouts) / len(rollouts)}
        if isinstance(environment, WorldEnvironment):
            measured = (
                measure_skills(r, environment.question(r.task), environment.world) for r in rollouts
            )
            facts["skills"] = {name: skill.rate for name, skill in skill_rates(measured).items()}
    return facts


def engine_of(spec: str, checkpoint: Path | str | None) -> Engine:
    """The engine of a recipe, with the model so far in the place of "{checkpoint}".

    Raises:
        DataError: There is no model yet.
    """
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
    """The rollouts that did not break, by the ids of their questions; the engine is closed.

    Raises:
        TrainingError: All of them broke: an accuracy of 0 would be a lie.
    """
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
    if not whole:
        raise TrainingError(
            f"None of {len(rollouts)} questions could be asked: {rollouts[0].problem}"
            if rollouts
            else "There are no questions to judge the model by: give more of them."
        )
    return whole


@contextmanager
def _held_out(
    recipe: ResearcherRecipe, folder: Path, count: int
) -> Iterator[tuple[ResearchEnvironment, dict[str, list[Task]]]]:
    """Where models are judged, and on what: so many questions of each kind."""
    section, learned = recipe.eval, recipe.world
    options = _limits(section.model_calls, section.max_length, 0.0, section.turn_tokens)
    with ExitStack() as stack:
        if learned is None:
            index, tasks = stack.enter_context(_documents(recipe))
            held_out = [task for task in tasks if _is_held_out(task)][:count]
            yield ResearchEnvironment(index, _reward, **options), {"all": held_out}
            return
        world = Encyclopedia(
            section.seed,
            section.entities,
            setting=learned.setting,
            split="test",
            num_distractors=learned.fillers[0],
        )
        environment = stack.enter_context(
            WorldEnvironment(world, folder / "world", tools=_tools, **options)
        )
        kinds = exam_questions(
            world, count, section.hops, described=learned.described > 0, seed=section.seed
        )
        yield environment, {kind: environment.tasks(asked) for kind, asked in kinds.items()}


def _limits(
    model_calls: int, max_length: int, temperature: float, turn_tokens: int | None = None
) -> dict[str, Any]:
    """Of one attempt. Tokens are drawn from the whole distribution, as learning needs it."""
    return {
        "budget": Budget(
            model_calls=model_calls,
            context_tokens=max_length,
            observation_tokens=max_length // 2,
            seconds=None,
        ),
        "sampling": Sampling(
            temperature=temperature,
            top_p=1.0,
            presence_penalty=0.0,
            max_tokens=turn_tokens or max_length // 8,
        ),
    }


def _tools(index: Index) -> Sequence[Tool]:
    return compact_tools(index, shuffle=0)


@contextmanager
def _documents(recipe: ResearcherRecipe) -> Iterator[tuple[Index, list[Task]]]:
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
        yield index, tasks


def _is_held_out(task: Task) -> bool:
    return random.Random(f"held out {task.id}").randrange(_HELD_OUT) == 0  # noqa: S311


def _reward(task: Task, answer: str | None) -> float:
    if isinstance(task.answer, list):
        return float(set_match(answer, task.answer))
    return float(exact_match(answer, task.answer or ""))
