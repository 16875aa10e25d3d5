"""Recipes of reward models: what is learned, what is left out, and that a run goes on exactly."""

import json
import random
import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification

from hanol import models
from hanol.errors import DataError, RecipeError
from hanol.test_time import (
    PrmRecipe,
    PrmResult,
    ProcessRewardModel,
    RevisionRecipe,
    label_entropy,
)
from hanol.training import read_metrics, read_recipe, train
from hanol.worlds import open_problems

ROOT = Path(__file__).parents[3]
CHAT = Path(__file__).parents[2] / "training" / "chat_model.py"
chat = SimpleNamespace(**runpy.run_path(str(CHAT)))
VALUES = {"A": 0.9, "B": 0.5, "C": 0.2}
ROLLOUTS = 16


def process_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Walks of three states, each step labelled by 16 draws of its state's value."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        steps = rng.choices(list(VALUES), k=rng.randint(2, 5))
        labels = [sum(rng.random() < VALUES[s] for _ in range(ROLLOUTS)) / ROLLOUTS for s in steps]
        rows.append({"prompt": f"go {number}", "completions": steps, "labels": labels})
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prm")
    chat.make_checkpoint(root / "model")
    chat.write_rows(root / "rows.jsonl", process_rows(600))
    return root


def recipe(folder: Path, **changes: Any) -> PrmRecipe:
    values: dict[str, Any] = {
        "kind": "prm", "name": "small", "model": str(folder / "model"),
        "data": {"path": str(folder / "rows.jsonl"), "held_out": 0.1}, "epochs": 1,
        "batch_size": 16, "adamw_lr": 0.003, "warmup_steps": 5, "max_length": 200,
        "separator": "\n", "min_rows": 8, "dropout": 0.0,
    }  # fmt: skip
    return PrmRecipe(**{**values, **changes})


def run(folder: Path, made: PrmRecipe, **options: Any) -> PrmResult:
    result = train(made, folder, **options)
    assert isinstance(result, PrmResult)
    return result


def test_soft_labels_teach_the_value_function(folder: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "run", recipe(folder, epochs=5))
    prm = ProcessRewardModel.from_pretrained(result.checkpoint)  # type: ignore[arg-type]
    assert prm.config() == {"format": "native", "separator": "\n", "aggregation": "last"}
    unseen = process_rows(150, seed=9)
    scores = prm.score_batch([(row["prompt"], row["completions"]) for row in unseen])
    found: dict[str, list[float]] = {state: [] for state in VALUES}
    for row, values in zip(unseen, scores, strict=True):
        for state, value in zip(row["completions"], values, strict=True):
            found[state].append(value)
    for state, value in VALUES.items():
        assert sum(found[state]) / len(found[state]) == pytest.approx(value, abs=0.02)
    # The loss has a floor, the entropy of the labels; what is above it is left to learn.
    assert result.eval_loss is not None
    assert result.eval_loss > 0.4
    assert result.eval_excess == pytest.approx(0, abs=0.05)
    assert result.labels > 1_500
    # It is an ordinary token classifier.
    plain = AutoModelForTokenClassification.from_pretrained(result.checkpoint)
    assert plain.config.num_labels == 1


def test_a_run_that_was_broken_off_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    made = recipe(folder, dropout=0.1, save_tokens=2_000, micro_batches=2)
    whole = run(tmp_path / "whole", made)

    def stop(line: Mapping[str, Any]) -> None:
        if line.get("step", 0) > whole.steps * 0.6 and "loss" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", made, on_step=stop)
    again = run(tmp_path / "part", made, resume=True)
    weights = [
        ProcessRewardModel.from_pretrained(one.checkpoint).model.state_dict()  # type: ignore[arg-type]
        for one in (whole, again)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert again.eval_loss == whole.eval_loss
    assert len(read_metrics(tmp_path / "part")) == len(read_metrics(tmp_path / "whole"))


def test_the_model_of_the_lowest_evaluation_is_kept(folder: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = process_rows(60)
    for row in rows:  # labels that say nothing: what is learned of them is wrong elsewhere
        row["labels"] = [rng.choice([0.0, 1.0]) for _ in row["labels"]]
    path = chat.write_rows(tmp_path / "rows.jsonl", rows)
    made = recipe(
        folder, data={"path": str(path), "held_out": 0.3}, epochs=25, adamw_lr=0.01,
        eval_tokens=1_500,
    )  # fmt: skip
    best = run(tmp_path / "best", made)
    last = run(tmp_path / "last", made.model_copy(update={"keep_best": False}))
    losses = [x["eval_loss"] for x in read_metrics(tmp_path / "best") if "eval_loss" in x]
    assert best.eval_loss == min(losses) < losses[-1] == last.eval_loss, "it learns noise"
    scores = [
        ProcessRewardModel.from_pretrained(str(one.checkpoint)).score("go 1", ["A", "C"])
        for one in (best, last)
    ]
    assert scores[0] != scores[1]


def test_rows_of_people_of_samples_and_broken_ones(folder: Path, tmp_path: Path) -> None:
    rows = [
        *({"prompt": f"go {i}", "completions": ["A", "B", "C"], "labels": [True, False, True]}
          for i in range(20)),
        *({"prompt": f"on {i}", "completions": ["A", "B", "C"], "labels": [0.5, 0.0, 0.25]}
          for i in range(20)),
        {"prompt": "go", "completions": ["A", "B"], "labels": [1.0]},
        {"prompt": "go", "completions": ["A"], "labels": ["yes"]},
        {"prompt": "go", "completions": ["A"], "labels": [1.5]},
        {"prompt": "go", "completions": ["A"], "labels": [None]},
        {"prompt": "", "completions": ["A"], "labels": [1]},
        {"prompt": "x" * 300, "completions": ["A"], "labels": [1]},
        {"prompt": "long", "completions": ["A", "B" * 100, "C" * 150], "labels": [1, 0.5, 0.5]},
    ]  # fmt: skip
    path = chat.write_rows(tmp_path / "rows.jsonl", rows)
    data = {"path": str(path), "held_out": 0.0}
    result = run(tmp_path / "run", recipe(folder, data=data))
    assert result.left_out == {"malformed": 4, "no_label": 1, "too_long": 1}
    # People's labels behind the first error are ignored, measured ones are kept.
    assert result.labels == 20 * 2 + 20 * 3 + 2
    assert result.dropped_steps == 1
    zero = run(tmp_path / "zero", recipe(folder, data=data, after_first_error="zero"))
    assert zero.labels == 20 * 3 + 20 * 3 + 2
    outcome = run(tmp_path / "outcome", recipe(folder, data=data, target="outcome"))
    assert outcome.labels == 40
    assert outcome.left_out["too_long"] == 2, "an outcome without its end is none"


def test_questions_are_held_out_and_not_solutions(folder: Path, tmp_path: Path) -> None:
    rows = [{**row, "prompt": f"go {i % 30}"} for i, row in enumerate(process_rows(300))]
    path = chat.write_rows(tmp_path / "rows.jsonl", rows)
    data = {"path": str(path), "held_out": 0.3}
    result = run(tmp_path / "run", recipe(folder, data=data))
    assert result.held_out_rows % 10 == 0
    assert 0 < result.held_out_rows < 200


def test_too_few_rows_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Only \d+ of 600 .* `min_rows` \(1000\)"):
        run(tmp_path / "run", recipe(folder, min_rows=1000))
    assert PrmRecipe.model_fields["min_rows"].default == 200


def test_adapters_become_a_whole_checkpoint(folder: Path, tmp_path: Path) -> None:
    made = recipe(folder, lora={"rank": 4, "alpha": 8}, adamw_lr=0.01, epochs=2)
    result = run(tmp_path / "run", made)
    assert result.trained_parameters < result.parameters / 2
    prm = ProcessRewardModel.from_pretrained(result.checkpoint)  # type: ignore[arg-type]
    good, bad = prm.score("go 5", ["A", "C"])
    assert good > bad + 0.2
    assert not (Path(str(result.checkpoint)) / "adapter_config.json").exists()


def test_a_reward_model_is_trained_further(folder: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "first", recipe(folder))
    second = run(tmp_path / "second", recipe(folder, model=first.checkpoint))
    assert second.eval_loss is not None
    assert first.eval_loss is not None
    assert second.eval_loss <= first.eval_loss + 0.01


@pytest.mark.parametrize("name", ["chains", "smollm2", "revision"])
def test_shipped_recipes(name: str) -> None:
    made = read_recipe(ROOT / "recipes" / "prm" / f"{name}.yaml")
    assert isinstance(made, RevisionRecipe if name == "revision" else PrmRecipe)
    assert made.rollouts is not None
    problems = open_problems(made.rollouts.problems, count=20)
    assert len(problems) == 20
    assert made.rollouts.settings().separator == made.rollouts.separator


def test_values_of_a_recipe(folder: Path) -> None:
    for changes, text in (
        ({"data": None}, "either `data` or `rollouts`"),
        ({"muon_lr": 0.1}, "AdamW"),
        ({"target": "answer"}, "target"),
    ):
        with pytest.raises((RecipeError, ValueError), match=text):
            recipe(folder, **changes)


def test_label_entropy() -> None:
    assert label_entropy([0.0, 1.0]) == 0
    assert label_entropy([0.5]) == pytest.approx(0.6931471805599453)
    with pytest.raises(DataError, match="no labels"):
        label_entropy([])


def test_a_model_without_a_token_classifier(folder: Path, tmp_path: Path) -> None:
    config = models.load_config("tiny")
    made = recipe(folder, model="tiny")
    if config.model_type == "llama":
        return
    with pytest.raises(RecipeError, match="no token classifier"):
        run(tmp_path / "run", made)


def test_metrics_say_how_far_the_loss_is_above_the_floor(folder: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", recipe(folder))
    lines = read_metrics(tmp_path / "run")
    assert all("excess_loss" in line for line in lines if "loss" in line)
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"labels", "dropped_steps", "eval_excess"} <= stored.keys()
