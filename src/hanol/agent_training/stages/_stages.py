"""Stages in order, each in a folder of its own: what is done is not done again.

In the run's folder: `recipe.yaml`, all of it resolved; `1-midtrain/`, `2-sft/`, ... with
`stage.yaml`, `checkpoint/`, `metrics.jsonl`, `made.json` once the stage is trained, and
`accuracy.json` once it is judged; `summary.json` and `accuracy.png` over all stages.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from hanol.agent_training.stages._recipe import AgentStage, ResearcherRecipe
from hanol.errors import RecipeError, require
from hanol.files import replace_text
from hanol.runs import ResumeGuard
from hanol.scoring import Interval, wilson
from hanol.training import FREE, OnStep, TrainingResult

CHECKPOINT = "checkpoint"  # folder of a finished stage's model
TRAJECTORIES = "trajectories.jsonl"  # what a `reject` stage keeps

# By number of hops ("1", "2", ...) or another kind of question: whether each was answered rightly.
Outcomes = Mapping[str, Sequence[bool]]
Facts = dict[str, Any]

# What a stage may have other than when it was begun: what is learned stays what it is.
_FREE = FREE | {
    "save_tokens", "keep_rollouts_every", "micro_batches", "concurrency", "micro_batch_tokens",
    "gradient_checkpointing",
}  # fmt: skip


@dataclass(frozen=True)
class StageRun:
    """What the body of a stage is told.

    Args:
        recipe: All of it.
        stage: The part of it that is to be run.
        folder: Of the stage. The body leaves its model in `folder / CHECKPOINT`, or, of a `reject`
            stage, its trajectories in `folder / TRAJECTORIES`.
        start: Checkpoint to go on from; None begins with what `recipe.model` says.
        folders: Of the stages before it, by name.
        is_begun: Whether an earlier process has begun this stage: the body goes on from what it
            finds in `folder`.
        on_step: Told of each line of metrics, for a person who watches.
    """

    recipe: ResearcherRecipe
    stage: AgentStage
    folder: Path
    start: Path | None
    folders: Mapping[str, Path]
    is_begun: bool
    on_step: OnStep = field(default=lambda line: None)


Body = Callable[[StageRun], Facts]
Evaluate = Callable[[Path, Path], Outcomes]


class Accuracy(Interval, frozen=True):
    """Share of right answers to one kind of question, with a 95 % interval."""

    n: int = Field(description="Questions.")

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> "Accuracy":
        """From whether each was answered rightly."""
        return cls(**wilson(sum(outcomes), len(outcomes)).model_dump(), n=len(outcomes))


class StageResult(BaseModel):
    """What a stage made."""

    name: str
    kind: str
    folder: str
    start: list[str] = Field(description="Checkpoints it went on from; none: random weights.")
    checkpoint: str | None = Field(None, description="None of a stage that trains no model.")
    minutes: float = Field(description="Of the calls that finished it, without the evaluation.")
    facts: dict[str, Any] = Field(default={}, description="What its body says of it.")
    accuracy: dict[str, Accuracy] = Field(default={}, description="By kind of question.")

    def accuracy_text(self) -> str:
        """Right answers by kind of question, with their intervals."""
        return "   ".join(f"{kind_label(kind)} {found}" for kind, found in self.accuracy.items())


def kind_label(kind: str) -> str:
    """A kind of question in words: "1" is "1 hop", "2 described" is "2 hops described"."""
    number, _, rest = kind.partition(" ")
    if not number.isdigit():
        return kind
    return f"{number} hop{'s' * (number != '1')} {rest}".rstrip()


class ResearcherResult(TrainingResult):
    """What a run made; `summary.json`. Its checkpoint is that of the last stage that has one."""

    name: str
    stages: list[StageResult]

    def summary(self) -> str:
        """The result in a sentence."""
        judged = [stage for stage in self.stages if stage.accuracy]
        accuracy = f": {judged[-1].accuracy_text()}" if judged else ""
        minutes = sum(stage.minutes for stage in self.stages)
        return f"{self.checkpoint or self.folder}{accuracy} after {minutes:.1f} minutes"


def run_stages(
    recipe: ResearcherRecipe,
    folder: str | Path,
    bodies: Mapping[str, Body],
    evaluate: Evaluate,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[StageResult], None] = lambda result: None,
) -> ResearcherResult:
    """Run the stages of a recipe.

    Args:
        recipe: What to do.
        folder: Of the run.
        bodies: What trains, by kind of stage.
        evaluate: Judges a checkpoint; gets a folder of its own for what it wants to keep.
        resume: Go on with what the folder has. A finished stage is read back; a stage that was
            interrupted is handed to its body again, which goes on from its last checkpoint.
        on_step: See `StageRun`.
        on_stage: Told of each stage as it is finished, also of those read back.

    Raises:
        RecipeError: The folder holds a run and `resume` is not set, or a stage in it was made with
            other settings (they are named).
    """
    folder = Path(folder)
    _prepare(recipe, folder, resume)
    folders: dict[str, Path] = {}
    results: list[StageResult] = []
    before: Path | None = None
    for number, stage in enumerate(recipe.stages, start=1):
        place = folder / f"{number}-{stage.name}"
        run = StageRun(
            recipe,
            stage,
            place,
            _start_of(stage, folders, before),
            dict(folders),
            is_begun=_begin(recipe, stage, place),
            on_step=on_step,
        )
        result = _finish(run, bodies[stage.kind], evaluate)
        folders[stage.name] = place
        before = place / CHECKPOINT if result.checkpoint is not None else before
        results.append(result)
        on_stage(result)
        _summarise(recipe, folder, results)
    return _summarise(recipe, folder, results)


def _prepare(recipe: ResearcherRecipe, folder: Path, resume: bool) -> None:
    """Write the resolved recipe; refuse a folder with another or an unfinished run."""
    guard = ResumeGuard(folder, {"recipe": recipe.model_dump(mode="json")})
    if not resume:
        guard.check(resume=False)
    for number, stage in enumerate(recipe.stages, start=1):
        for other in sorted(folder.glob(f"{number}-*")):
            if other.name != f"{number}-{stage.name}":
                raise RecipeError(
                    f"Stage {number} of the run in {str(folder)!r} is {other.name!r}, but that of "
                    f"this recipe is called {stage.name!r}. Give another folder by --output."
                )
    guard.write()


def _begin(recipe: ResearcherRecipe, stage: AgentStage, place: Path) -> bool:
    """Note what a stage depends on; whether it was started before, with the same."""
    whole = recipe.model_dump(mode="json")
    content = {key: whole[key] for key in ("model", "world", "documents", "seed")}
    content["stage"] = stage.model_dump(mode="json")
    guard = ResumeGuard(place, content, what="stage", free=_FREE, file="stage.yaml")
    if guard.check(resume=True):
        return True
    guard.write()
    return False


def _start_of(stage: Any, folders: Mapping[str, Path], before: Path | None) -> Path | None:
    name = getattr(stage, "start", None)
    return before if name is None else folders[name] / CHECKPOINT


def _finish(run: StageRun, body: Body, evaluate: Evaluate) -> StageResult:
    """The result of a stage: read back, or made now."""
    made = run.folder / "made.json"
    if not made.exists():
        began = time.perf_counter()
        facts = body(run)
        minutes = (time.perf_counter() - began) / 60
        _write_json(made, {"minutes": minutes, "facts": facts})
    stored = json.loads(made.read_text("utf-8"))
    checkpoint = run.folder / CHECKPOINT
    result = StageResult(
        name=run.stage.name,
        kind=run.stage.kind,
        start=[str(checkpoint) for checkpoint in _starts(run)],
        folder=str(run.folder),
        checkpoint=str(checkpoint) if checkpoint.exists() else None,
        **stored,
    )
    if result.checkpoint is None:
        return result
    judged = run.folder / "accuracy.json"
    # Another evaluation was asked for: its answers are wanted, the model stays what it is.
    asked = run.recipe.eval.model_dump(mode="json")
    if not judged.exists() or json.loads(judged.read_text("utf-8"))["eval"] != asked:
        outcomes = evaluate(checkpoint, run.folder / "evaluation")
        found = {kind: Accuracy.of(right).model_dump() for kind, right in outcomes.items() if right}
        _write_json(judged, {"eval": asked, "accuracy": found})
    accuracy = json.loads(judged.read_text("utf-8"))["accuracy"]
    return result.model_copy(
        update={"accuracy": {kind: Accuracy(**values) for kind, values in accuracy.items()}}
    )


def _starts(run: StageRun) -> list[Path]:
    if run.stage.kind == "merge":
        return [run.folders[name] / CHECKPOINT for name in run.stage.of]
    return [] if run.start is None else [run.start]


def _summarise(
    recipe: ResearcherRecipe, folder: Path, results: Sequence[StageResult]
) -> ResearcherResult:
    trained = [result.checkpoint for result in results if result.checkpoint is not None]
    summary = ResearcherResult(
        name=recipe.name,
        folder=str(folder),
        checkpoint=trained[-1] if trained else None,
        stages=list(results),
    )
    _write_json(folder / "summary.json", summary.model_dump())
    if any(result.accuracy for result in results):
        plot_stages(summary, folder / "accuracy.png")
    return summary


def plot_stages(result: ResearcherResult, file: str | Path) -> Path:
    """Draw the accuracy after each stage by kind of question, with intervals.

    Lines join a stage with the one, or those, whose model it went on from.
    """
    require("matplotlib", extra="train", feature="The chart of the stages")
    from matplotlib.figure import Figure

    judged = [stage for stage in result.stages if stage.accuracy]
    kinds = list(judged[0].accuracy)  # every stage is judged by the same
    figure = Figure(figsize=(max(5, 2 + 1.2 * len(judged)), 4.5), layout="constrained")
    axes = figure.subplots()
    number_of = {stage.checkpoint: number for number, stage in enumerate(judged)}
    for i, kind in enumerate(kinds):
        beside = 0.06 * (i - (len(kinds) - 1) / 2)  # bars side by side
        points = [stage.accuracy[kind] for stage in judged]
        values = [100 * point.value for point in points]
        below = [100 * (point.value - point.low) for point in points]
        above = [100 * (point.high - point.value) for point in points]
        label = kind_label(kind)
        places = [x + beside for x in range(len(points))]
        axes.errorbar(
            places, values, (below, above), fmt="o", capsize=3, color=f"C{i}", label=label
        )
        for x, stage in enumerate(judged):
            for before in (number_of[start] for start in stage.start if start in number_of):
                line = (before + beside, x + beside), (values[before], values[x])
                axes.plot(*line, color=f"C{i}", alpha=0.6)
    axes.set(ylabel="right answers (%), 95 % interval", ylim=(-3, 103))
    axes.set_xticks(range(len(judged)), [stage.name for stage in judged])
    axes.grid(alpha=0.3, axis="y")
    axes.legend()
    figure.savefig(file, dpi=120, format="png")
    return Path(file)


def _write_json(file: Path, content: Facts) -> None:
    replace_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
