"""From the recipe of a research agent to its checkpoint: stages in order, each done once.

In the run's folder: `recipe.yaml`, all of it resolved; `1-midtrain/`, `2-sft/`, ... with
`stage.yaml`, `checkpoint/`, `metrics.jsonl`, `made.json` once the stage is trained, and
`accuracy.json` once it is judged; `summary.json` and `accuracy.png` over all stages.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hanol.agent_training.stages._arena import evaluate
from hanol.agent_training.stages._bodies import BODIES
from hanol.agent_training.stages._charts import plot_stages
from hanol.agent_training.stages._recipe import AgentStage, ResearcherRecipe
from hanol.agent_training.stages._stages import (
    CHECKPOINT,
    TRAJECTORIES,
    Accuracy,
    ResearcherResult,
    StageResult,
    StageRun,
)
from hanol.errors import RecipeError, require
from hanol.files import (
    read_json,
    replace_json,
)
from hanol.runs import ResumeGuard
from hanol.training import FREE, OnStep

# Settings of a stage that may change when it is resumed: what is learned stays the same.
_FREE = FREE | {
    "save_tokens", "keep_rollouts_every", "micro_batches", "concurrency", "micro_batch_tokens",
    "gradient_checkpointing",
}  # fmt: skip
_MADE = ("rows.jsonl", TRAJECTORIES, CHECKPOINT, "made.json", "accuracy.json")  # of a stage


def train_researcher(
    recipe: ResearcherRecipe,
    folder: str | Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[StageResult], None] = lambda result: None,
) -> ResearcherResult:
    """Run all stages of a recipe.

    Args:
        recipe: What to do.
        folder: Folder of the run.
        resume: Continue what the folder has. A finished stage is read back; one that was
            interrupted continues from its last checkpoint.
        on_step: Called with each line of metrics, and with the progress of attempts and
            evaluations.
        on_stage: Called with each stage and its accuracy once finished or read back.

    Raises:
        RecipeError: The recipe cannot be run as it is, or the folder has other stages.
        RunError: The folder holds a run and `resume` is not set, or a stage in it was made with
            other settings (they are named).
        DataError: The data cannot be used.
        TrainingError: The run had to stop; what it saved is whole.
    """
    require("accelerate", extra="train", feature="Training a research agent")
    folder = Path(folder)
    _prepare(recipe, folder, resume)
    folders: dict[str, Path] = {}
    results: list[StageResult] = []
    before: Path | None = None
    for number, stage in enumerate(recipe.stages, start=1):
        place = folder / f"{number}-{stage.name}"
        start = getattr(stage, "start", None)
        origin = before if start is None else folders[start] / CHECKPOINT
        is_resumed = _begin(recipe, stage, place)
        run = StageRun(recipe, stage, place, origin, dict(folders), is_resumed, on_step)
        result = _finish(run)
        folders[stage.name] = place
        before = place / CHECKPOINT if result.checkpoint is not None else before
        results.append(result)
        on_stage(result)
        summary = _summarise(recipe, folder, results)
    return summary


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
    """Note what a stage depends on; returns whether it was started before, with the same."""
    whole = recipe.model_dump(mode="json")
    content = {key: whole[key] for key in ("model", "world", "documents", "seed")}
    content["stage"] = stage.model_dump(mode="json")
    guard = ResumeGuard(place, content, what="stage", free=_FREE, file="stage.yaml", made=_MADE)
    if guard.check(resume=True):
        return True
    guard.write()
    return False


def _finish(run: StageRun) -> StageResult:
    """The result of a stage: read back, or made now."""
    file = run.folder / "made.json"
    made = _read(file)
    if not {"minutes", "facts"} <= made.keys():
        began = time.perf_counter()
        facts = BODIES[run.stage.kind](run)
        made = {"minutes": (time.perf_counter() - began) / 60, "facts": facts}
        replace_json(file, made)
    checkpoint = run.folder / CHECKPOINT
    has_model = checkpoint.exists()
    start = [run.start] if run.start is not None else []
    if run.stage.kind == "merge":
        start = [run.folders[name] / CHECKPOINT for name in run.stage.of]
    return StageResult(
        name=run.stage.name,
        kind=run.stage.kind,
        start=list(map(str, start)),
        folder=str(run.folder),
        checkpoint=str(checkpoint) if has_model else None,
        accuracy=_judged(run) if has_model else {},
        **made,
    )


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or none that can be read: then it is made again."""
    try:
        found = read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _judged(run: StageRun) -> dict[str, Any]:
    """The accuracy of a stage's model: read back, unless another evaluation is asked for."""
    file, asked = run.folder / "accuracy.json", run.recipe.eval.model_dump(mode="json")
    found = _read(file)
    if found.get("eval") != asked:
        outcomes = evaluate(run)
        kinds = {kind: Accuracy.of(right).model_dump() for kind, right in outcomes.items() if right}
        found = {"eval": asked, "accuracy": kinds}
        replace_json(file, found)
    return found["accuracy"]


def _summarise(
    recipe: ResearcherRecipe, folder: Path, results: Sequence[StageResult]
) -> ResearcherResult:
    checkpoint = next((done.checkpoint for done in reversed(results) if done.checkpoint), None)
    summary = ResearcherResult(
        name=recipe.name, folder=str(folder), checkpoint=checkpoint, stages=list(results)
    )
    replace_json(folder / "summary.json", summary.model_dump())
    if any(result.accuracy for result in results):
        plot_stages(summary, folder / "accuracy.png")
    return summary
