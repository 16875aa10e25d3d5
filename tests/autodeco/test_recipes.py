"""Recipes of the kinds `heads` and `steering`: the committed ones, and a small run."""

import copy
from pathlib import Path
from typing import Any

import pytest

from hanol.autodeco import HeadsRecipe, training_rows
from hanol.errors import RecipeError, RunError
from hanol.training import estimate, read_metrics, read_recipe, train, with_overrides

RECIPES = Path(__file__).parents[2] / "recipes" / "autodeco"
HEADS: dict[str, Any] = {
    "kind": "heads", "name": "small", "model": "tiny", "steps": 2, "batch": 2, "micro_batch": 1,
    "data": {"max_rows": 8, "max_length": 256}, "threads": 1, "min_rows": 1, "min_tokens": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", ["tiny", "steering"])
def test_a_committed_recipe_is_valid_and_can_be_estimated(name: str) -> None:
    size = estimate(read_recipe(RECIPES / f"{name}.yaml"))
    assert size.parameters > 3_000_000
    assert size.steps > 0


def test_the_recipe_of_a_pulled_model_is_valid() -> None:
    """It cannot be sized up here: the model is not in the repository."""
    recipe: Any = read_recipe(RECIPES / "smollm2.yaml")
    assert recipe.model == "smollm2"
    assert len(training_rows(recipe.data.rows, recipe.data.max_rows)) == recipe.data.max_rows


def test_what_a_recipe_refuses() -> None:
    for override, said in (
        ("data.verify=nothing", "`data`.*nothing"),
        ("data.row=x", "unknown key `data.row`, did you mean 'rows'"),
        ("rate=1", "unknown key `rate`"),
    ):
        with pytest.raises(RecipeError, match=said):
            with_overrides(HeadsRecipe, copy.deepcopy(HEADS), [override], "It")


@pytest.mark.slow
def test_a_small_run_of_heads_follows_from_its_seed(tmp_path: Path) -> None:
    recipe = HeadsRecipe.model_validate(HEADS)
    lines: list[dict[str, Any]] = []
    result = train(recipe, tmp_path / "a", on_step=lambda line: lines.append(dict(line)))
    train(recipe, tmp_path / "b")
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in "ab"]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2
    assert lines[0]["rows"] + lines[0]["rows_too_long"] == 8
    assert result.checkpoint == str(tmp_path / "a" / "heads")
    assert result.summary().startswith(f"{result.checkpoint}: T ")
    with pytest.raises(RunError, match="already has a run"):
        train(recipe, tmp_path / "a")
