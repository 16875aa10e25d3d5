"""From the recipe of a research agent to its checkpoint."""

from collections.abc import Callable
from pathlib import Path

import torch

from hanol.agent_training._arena import evaluation
from hanol.agent_training._bodies import BODIES
from hanol.agent_training._recipe import ResearcherRecipe
from hanol.agent_training._stages import Facts, RunResult, StageResult, run_stages
from hanol.errors import require


def train_researcher(
    recipe: ResearcherRecipe,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    on_step: Callable[[Facts], None] = lambda line: None,
    on_stage: Callable[[StageResult], None] = lambda result: None,
) -> RunResult:
    """Run all stages of a recipe.

    Args:
        recipe: What to do.
        folder: Of the run; None is `runs/<name>`.
        resume: Go on with what the folder has, from the last checkpoint of the stage that was
            interrupted.
        on_step: Told of each line of metrics, and of how far attempts and evaluations are.
        on_stage: Told of each finished stage and its accuracy.

    Raises:
        RecipeError: The folder holds another run, or the recipe cannot be run as it is.
        DataError: The data cannot be used.
        TrainingError: The run had to stop; what it saved is whole.
    """
    require("trl", extra="grpo", feature="Training a research agent")
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    folder = Path("runs") / recipe.name if folder is None else folder
    return run_stages(
        recipe,
        folder,
        BODIES,
        evaluation(recipe, on_step),
        resume=resume,
        on_step=on_step,
        on_stage=on_stage,
    )
