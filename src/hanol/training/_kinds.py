"""The kinds of recipes: each is one class, which checks the file, and one function, which runs it.

Rooms above this one are named by text and imported when a recipe asks for them.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field

from hanol.errors import RecipeError
from hanol.training._estimate import Estimate, with_hours
from hanol.training._recipe import Recipe, recipe_content, with_overrides

OnStep = Callable[[Mapping[str, Any]], None]
_DEFAULT = "pretrain"


class TrainingResult(BaseModel):
    """What a finished run made; kinds of recipes add their own fields."""

    folder: str
    checkpoint: str | None = Field(description="The model to use; None where none was trained.")

    def summary(self) -> str:
        """The result in a sentence."""
        return self.checkpoint or self.folder


@dataclass(frozen=True)
class _Kind:
    recipe: str
    run: str


_KINDS = {
    "pretrain": _Kind("hanol.training:PretrainRecipe", "hanol.training:pretrain"),
    "heads": _Kind("hanol.autodeco:HeadsRecipe", "hanol.evaluation:run_heads"),
    "steering": _Kind("hanol.autodeco:SteeringRecipe", "hanol.autodeco:run_steering"),
    "researcher": _Kind(
        "hanol.agent_training:ResearcherRecipe", "hanol.agent_training:train_researcher"
    ),
}


def register_kind(kind: str, recipe: str, run: str) -> None:
    """Make a kind of recipe known.

    Args:
        kind: Value of `kind` in a recipe file.
        recipe: "module:Class" of a `Recipe`, with an `estimate`.
        run: "module:function" that runs such a recipe, called as
            `run(recipe, folder, resume=..., on_step=..., on_stage=...)` with the meanings of
            `train`; returns a `TrainingResult`.

    Example:
        >>> register_kind("distil", "my_package.distil:DistilRecipe", "my_package.distil:distil")
    """
    _KINDS[kind] = _Kind(recipe, run)


def read_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file of any kind; one without `kind` is of the kind `pretrain`.

    Args:
        path: YAML file.
        overrides: "dotted.key=value" texts; values are YAML.

    Raises:
        RecipeError: The file is missing or not YAML, its kind or a key is unknown (the nearest
            right one is named), or a value is out of range.
    """
    content = recipe_content(path)
    kind = content.get("kind", _DEFAULT)
    if kind not in _KINDS:
        near = get_close_matches(str(kind), _KINDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(_KINDS))}."
        raise RecipeError(f"The recipe {str(path)!r} has the unknown kind {kind!r}, {hint}")
    return with_overrides(
        _named(_KINDS[kind].recipe), content, overrides, f"The recipe {str(path)!r}"
    )


def estimate(recipe: Recipe) -> Estimate:
    """What a run will take: parameters, tokens, memory and time.

    Raises:
        CheckpointError: The configuration of a checkpoint that the recipe names cannot be read.
    """
    return with_hours(recipe.estimate())


def train(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> TrainingResult:
    """Run a recipe of any kind.

    Args:
        recipe: What to do.
        folder: Folder of the run; None is `runs/<name>`.
        resume: Continue from the folder's newest checkpoint, or start if there is none.
        on_step: Called with each line of metrics, and with how far the run is.
        on_stage: Called with the result of each finished stage, by kinds that have such.

    Returns:
        What the run made; the kind says which class it is.

    Raises:
        RecipeError: The folder holds another run, or the recipe cannot be run as it is.
        DataError: The data cannot be used.
        TrainingError: The run had to stop; what it saved is whole.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    folder = Path("runs") / recipe.name if folder is None else Path(folder)
    run = _named(_KINDS[recipe.kind].run)
    result: TrainingResult = run(recipe, folder, resume=resume, on_step=on_step, on_stage=on_stage)
    return result


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
