"""The kinds of recipes: each is one class, which checks the file, and one function, which runs it.

Rooms above this one are named by text and imported when a recipe asks for them.
"""

import importlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field

from hanol.errors import RecipeError, WriteError
from hanol.runs import alone
from hanol.training._recipe import Estimate, Recipe, recipe_content, with_overrides

OnStep = Callable[[Mapping[str, Any]], None]


class TrainingResult(BaseModel):
    """What a finished run made; kinds of recipes add their own fields."""

    folder: str
    checkpoint: str | None = Field(description="The model to use; None where none was trained.")

    def summary(self) -> str:
        """The result in a sentence."""
        return self.checkpoint or self.folder


# The class and the function of each kind.
_KINDS = {
    "pretrain": ("hanol.training:PretrainRecipe", "hanol.training:pretrain"),
    "sft": ("hanol.training:SftRecipe", "hanol.training:finetune"),
    "preference": ("hanol.training:PreferenceRecipe", "hanol.training:train_preference"),
    "prm": ("hanol.test_time:PrmRecipe", "hanol.test_time:train_prm"),
    "revision": ("hanol.test_time:RevisionRecipe", "hanol.test_time:train_revision"),
    "rlvr": ("hanol.rl:RlvrRecipe", "hanol.rl:train_rlvr"),
    "heads": ("hanol.autodeco:HeadsRecipe", "hanol.evaluation:run_heads"),
    "steering": ("hanol.autodeco:SteeringRecipe", "hanol.autodeco:run_steering"),
    "researcher": (
        "hanol.agent_training:ResearcherRecipe",
        "hanol.agent_training:train_researcher",
    ),
}


def register_kind(kind: str, recipe: str, run: str) -> None:
    """Make a kind of recipe known.

    `hanol train` finds the kinds of other packages by their entry points: each of the group
    `hanol.recipe_kinds` is a module that calls this function when it is imported.

    Args:
        kind: Value of `kind` in a recipe file.
        recipe: "module:Class" of a `Recipe`, with an `estimate`.
        run: "module:function" that runs such a recipe, called as
            `run(recipe, folder, resume=..., on_step=..., on_stage=...)` with the meanings of
            `train`; returns a `TrainingResult`.

    Example:
        >>> register_kind("distil", "my_package.distil:DistilRecipe", "my_package.distil:distil")
    """
    _KINDS[kind] = (recipe, run)


def read_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file of any kind.

    Args:
        path: YAML file.
        overrides: "dotted.key=value" texts; values are YAML.

    Raises:
        RecipeError: The file is missing or not YAML, it has no kind, its kind or a key is unknown
            (the nearest right one is named), or a value is out of range.
    """
    content = recipe_content(path)
    kind = str(content.get("kind"))
    if kind not in _KINDS:
        for module in entry_points(group="hanol.recipe_kinds"):
            module.load()
    if content.get("kind") is None:
        kinds = ", ".join(sorted(_KINDS))
        raise RecipeError(f"The recipe {str(path)!r} has no `kind`: give one of {kinds}.")
    if kind not in _KINDS:
        near = get_close_matches(kind, _KINDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(_KINDS))}."
        raise RecipeError(f"The recipe {str(path)!r} has the unknown kind {kind!r}, {hint}")
    section = _named(_KINDS[kind][0])
    return with_overrides(section, content, overrides, f"The recipe {str(path)!r}")


def estimate(recipe: Recipe) -> Estimate:
    """What a run will take: parameters, tokens, memory and time.

    Raises:
        CheckpointError: The configuration of a checkpoint that the recipe names cannot be read.
    """
    found = recipe.estimate()
    hours = found.train_flops / _product_speed() / 3600
    return found.model_copy(update={"hours": hours})


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
        RunError: Another process is writing the folder, or what it holds cannot be resumed.
        WriteError: The folder is a file, or cannot be written.
        DataError: The data cannot be used.
        TrainingError: The run had to stop; what it saved is whole.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    folder = Path("runs") / recipe.name if folder is None else Path(folder)
    if folder.exists() and not folder.is_dir():
        raise WriteError(folder, "it is a file", "Give a folder.")
    run = _named(_KINDS[recipe.kind][1])
    is_first = os.environ.get("RANK", "0") == "0"  # the one of several processes that writes
    with alone(folder) if is_first else nullcontext():
        result: TrainingResult = run(
            recipe, folder, resume=resume, on_step=on_step, on_stage=on_stage
        )
    return result


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _product_speed(size: int = 512, seconds: float = 0.05) -> float:
    """Floating-point operations a second of float32 matrix products on the device in use."""
    on_gpu = torch.cuda.is_available()
    # The time of the processor: what else runs on the machine does not count.
    clock = time.perf_counter if on_gpu else time.process_time
    a = torch.ones(size, size, device="cuda" if on_gpu else "cpu")
    (a @ a).sum().item()  # the first one sets things up
    began, count = clock(), 0
    while clock() - began < seconds:
        (a @ a)[0, 0].item()
        count += 1
    used = clock() - began
    return 2 * size**3 * count / used * (1 if on_gpu else torch.get_num_threads())
