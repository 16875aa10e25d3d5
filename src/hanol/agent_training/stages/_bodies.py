"""What the stages of a recipe do, one function a kind."""

import asyncio
import random
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hanol import models
from hanol.agent_training._environment import rollout_folder
from hanol.agent_training._trajectories import chat_row
from hanol.agent_training.stages._agent_model import starting_model
from hanol.agent_training.stages._arena import attempts_of, engine_of, glance
from hanol.agent_training.stages._charts import plot_skills
from hanol.agent_training.stages._recipe import GrpoStage, MergeStage, RejectStage, SftStage
from hanol.agent_training.stages._rows import stage_rows
from hanol.agent_training.stages._stages import CHECKPOINT, TRAJECTORIES, Body, Facts, StageRun
from hanol.engines import CheckpointEngine, Engine
from hanol.errors import DataError
from hanol.research import segments
from hanol.rl import GrpoSettings, GrpoTrainer, Rollout
from hanol.rows import replace_rows
from hanol.runs import RunEnded, RunFolder, Task
from hanol.training import SftSettings, merge_checkpoints, train_sft

# A killed process loses so many times `concurrency` attempts at most; few waits for the slowest.
_ROUNDS = 16


def learn(run: StageRun) -> Facts:
    """Mid-training and supervised fine-tuning."""
    stage = run.stage
    assert isinstance(stage, SftStage)
    model, tokenizer = starting_model(run.recipe, run.start)
    rows = stage_rows(run, tokenizer)
    tokens = stage.tokens
    if tokens is None:
        tokens = max(1, round((stage.epochs or 1) * sum(len(row.input_ids) for row in rows)))
    same = SftSettings.model_fields.keys() & SftStage.model_fields.keys()
    values = {name: getattr(stage, name) for name in same}
    values |= {"tokens": tokens, "seed": (run.recipe.seed + stage.seed) % 2**32}
    every = run.recipe.eval.every
    run.on_step({"total": tokens})
    result = train_sft(
        model,
        rows,
        SftSettings(**values, **({} if every is None else {"eval_tokens": every})),
        run.folder,
        resume=run.is_resumed,
        on_step=run.on_step,
        on_eval=None if every is None else lambda seen: glance(run, model, tokenizer),
    )
    plot_skills(run.folder)
    models.save(model, run.folder / CHECKPOINT, tokenizer)
    return result._asdict()


def reject(run: StageRun) -> Facts:
    """Keep the trajectories that ended in the right answer."""
    stage = run.stage
    assert isinstance(stage, RejectStage)
    seed = run.recipe.seed + stage.seed
    engine = engine_of(stage.engine or run.recipe.engine, run.start or run.recipe.model.checkpoint)
    rollouts = asyncio.run(_attempted(run, stage, engine, seed))
    kept = list(_right_ones(rollouts))
    random.Random(f"keep {seed}").shuffle(kept)  # noqa: S311 - an order, no secret
    kept = kept[: stage.keep]
    if not kept:
        raise DataError(
            f"None of {len(rollouts)} attempts of stage {stage.name!r} was right, so there is "
            "nothing to keep. Let it try easier questions, or train longer before."
        )
    replace_rows(run.folder / TRAJECTORIES, [row for rollout in kept for row in rollout])
    return {
        "attempts": len(rollouts),
        "right": sum(bool(rollout.reward) for rollout in rollouts),
        "broken": sum(rollout.reward is None for rollout in rollouts),
        "kept": len(kept),
    }


def reinforce(run: StageRun) -> Facts:
    """Reinforcement learning in the environment."""
    stage = run.stage
    assert isinstance(stage, GrpoStage)
    model, tokenizer = starting_model(run.recipe, run.start)
    values = {name: getattr(stage, name) for name in GrpoSettings.model_fields}
    settings = GrpoSettings(**{**values, "seed": run.recipe.seed + stage.seed})
    with attempts_of(run, stage, stage.mode) as (environment, tasks):
        trainer = GrpoTrainer(model, tokenizer, environment, tasks, run.folder, settings)
        last = trainer.train(run.on_step)
    models.save(models.load_model(last), run.folder / CHECKPOINT, tokenizer)
    return {"steps": settings.steps}


def merge(run: StageRun) -> Facts:
    """The average of models of earlier stages."""
    stage = run.stage
    assert isinstance(stage, MergeStage)
    target = run.folder / CHECKPOINT
    if not target.exists():  # else it is there whole: the process was killed after it
        parents = [run.folders[name] / CHECKPOINT for name in stage.of]
        merge_checkpoints(parents, stage.weights, target)
    return {"of": list(stage.of)}


BODIES: dict[str, Body] = {
    "midtrain": learn,
    "sft": learn,
    "reject": reject,
    "grpo": reinforce,
    "merge": merge,
}


async def _attempted(run: StageRun, stage: RejectStage, engine: Engine, seed: int) -> list[Rollout]:
    """All attempts; those of a process that was killed are read back from their logs."""
    found: list[Rollout] = []
    counts = {"attempts": 0, "right": 0}

    def count(rollout: Rollout) -> None:
        counts["attempts"] += 1
        counts["right"] += bool(rollout.reward)
        run.on_step({**counts, "total": stage.pool * stage.attempts})

    try:
        for mode, share in stage.modes.items():
            folder = run.folder / "attempts" / mode
            with attempts_of(run, stage, mode) as (environment, tasks):
                rng = random.Random(f"{mode} {seed}")  # noqa: S311 - a choice, no secret
                chosen = rng.sample(tasks, max(1, round(share * len(tasks))))
                # Calls of one attempt count on from its seed.
                jobs = [(task, seed + 1_000 * i) for task in chosen for i in range(stage.attempts)]
                size = _ROUNDS * stage.concurrency
                for first in range(0, len(jobs), size):
                    batch = jobs[first : first + size]
                    _forget_part(engine, folder, batch)
                    found += await environment.rollouts(
                        engine,
                        [task for task, _ in batch],
                        seeds=[number for _, number in batch],
                        concurrency=stage.concurrency,
                        folder=folder,
                        on_rollout=count,
                    )
    finally:
        await engine.aclose()
    return found


def _forget_part(engine: Engine, folder: Path, jobs: Sequence[tuple[Task, int]]) -> None:
    """Drop attempts of a batch that a killed process left unfinished.

    Which attempts are computed together decides the roundings of a model in this process, and so
    now and then a token: a batch is made by one process, from its beginning to its end.
    """
    if not isinstance(engine, CheckpointEngine):
        return  # the answers of others may have been paid for
    engine.forget()  # as in a process that begins with this batch
    places = [rollout_folder(folder, task, number) for task, number in jobs]
    logs = [RunFolder(place).events() for place in places]
    if not all(log and isinstance(log[-1], RunEnded) for log in logs):
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


def _right_ones(rollouts: Iterable[Rollout]) -> Iterable[list[dict[str, Any]]]:
    """The first right attempt at each question, as conversations to learn from."""
    first: dict[str, Rollout] = {}
    for rollout in rollouts:
        if rollout.reward and rollout.has_answer:
            first.setdefault(rollout.task.id, rollout)
    for name, rollout in first.items():
        yield [
            chat_row(segment, "trajectory", f"{name}.0.{number}")
            for number, segment in enumerate(segments(rollout.events))
        ]
