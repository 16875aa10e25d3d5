"""From the recipe of a research agent to its checkpoint."""

from collections.abc import Callable
from pathlib import Path

from hanol.agent_training.stages._arena import evaluation
from hanol.agent_training.stages._bodies import BODIES
from hanol.agent_training.stages._recipe import ResearcherRecipe
from hanol.agent_training.stages._stages import ResearcherResult, StageResult, run_stages
from hanol.errors import require
from hanol.training import OnStep


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
        resume: Go on with what the folder has, from the last checkpoint of the stage that was
            interrupted.
        on_step: Told of each line of metrics, and of how far attempts and evaluations are.
        on_stage: Told of each finished stage and its accuracy.

    Raises:
        RecipeError: The folder holds another run, or the recipe cannot be run as it is.
        DataError: The data cannot be used.
        TrainingError: The run had to stop; what it saved is whole.
    """
    require("accelerate", extra="train", feature="Training a research agent")
    return run_stages(
        recipe,
        folder,
        BODIES,
        evaluation(recipe, on_step),
        resume=resume,
        on_step=on_step,
        on_stage=on_stage,
    )
