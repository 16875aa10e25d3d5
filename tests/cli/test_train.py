"""`hanol train` with the recipe of a research agent: a small one, run for real."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from hanol.cli import app
from hanol.cli.train import TrainingView
from hanol.models import load

runner = CliRunner()
RECIPE: dict[str, Any] = {
    "kind": "researcher",
    "name": "small",
    "model": {
        "config": "lfm2", "hidden_size": 16, "num_layers": 2, "num_heads": 2,
        "intermediate_size": 16,
    },
    "world": {"entities": 60, "worlds": 1, "hops": [1], "detours": 0.0},
    "stages": [{
        "kind": "sft", "tokens": 9000, "different_tokens": 3000, "save_tokens": 3000,
        "warmup_steps": 1, "batch_size": 2, "muon_lr": None,
    }],
    "eval": {"every": 4000, "questions": 2, "glance": 1, "entities": 60, "model_calls": 1},
    "threads": 1,
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE), "utf-8")
    return path


def invoke(*arguments: object) -> Result:
    return runner.invoke(app, ["train", *map(str, arguments)], catch_exceptions=False)


def test_a_recipe_becomes_a_model_a_chart_and_lines_that_say_so(
    recipe: Path, tmp_path: Path
) -> None:
    done = invoke(recipe, "--output", tmp_path / "run", "--set", "seed=3")
    assert done.exit_code == 0, done.output
    said = done.stderr.splitlines()
    assert said[0].startswith("small: ")
    assert "hours of matrix products here" in said[0], "what it takes stands before the start"
    assert said[1:3] == ["  1 sft: 9,000 tokens, 5 steps", "small: stage 1 of 1, sft"]
    looks = [line for line in said if "call format" in line]
    assert len(looks) == 3, "at 4,000 and 8,000 tokens, and at the end"
    assert "of 9,000 tokens" in looks[0]
    assert done.stdout.startswith(f"{tmp_path}/run/1-sft/checkpoint: 1 hop 0.0 % [0.0, 65.8]")
    stage = tmp_path / "run" / "1-sft"
    assert load(str(stage / "checkpoint")).model.num_parameters() > 0
    assert (stage / "skills.png").read_bytes().startswith(b"\x89PNG")
    metrics = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert [len(line["skills"]) for line in metrics if "skills" in line] == [6, 6, 6]
    stored = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text("utf-8"))
    assert stored["recipe"]["seed"] == 3


def test_an_interrupted_run_says_how_it_goes_on_and_does(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(view: TrainingView, line: dict[str, Any]) -> None:
        if line.get("tokens", 0) > 7000:
            raise KeyboardInterrupt

    output = tmp_path / "a run"
    with monkeypatch.context() as patched:
        patched.setattr(TrainingView, "on_step", interrupt)
        stopped = invoke(recipe, "--output", output, "--set", "seed=3")
    assert stopped.exit_code == 130
    command = f"hanol train {recipe} --set seed=3 --output '{output}' --resume"
    assert f"interrupted; continue with: {command}" in stopped.stderr
    assert stopped.stdout == ""
    again = invoke(recipe, "--output", output, "--set", "seed=3")
    assert again.exit_code == 1
    assert "Resume it with --resume" in again.stderr

    done = invoke(recipe, "--output", output, "--set", "seed=3", "--resume", "--json")
    assert done.exit_code == 0, done.output
    assert not done.stderr.strip()  # rich 14.0 ends a bar that nobody sees with a line end
    result = json.loads(done.stdout)
    assert result["checkpoint"] == str(output / "1-sft" / "checkpoint")
    [stage] = result["stages"]
    assert stage["facts"]["tokens"] >= 9000
    assert stage["accuracy"]["1"]["n"] == 2
    steps = [
        json.loads(line)["step"]
        for line in (output / "1-sft" / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    assert steps == sorted(steps), "what was done twice is told once"


def test_dry_run_tells_what_each_stage_takes(recipe: Path, tmp_path: Path) -> None:
    reject = {"kind": "reject", "pool": 10, "attempts": 3}
    stages = [*RECIPE["stages"], reject]
    recipe.write_text(yaml.safe_dump({**RECIPE, "stages": stages}), "utf-8")
    plain = invoke(recipe, "--dry-run")
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.startswith("small: ")
    assert "9,000 tokens" in plain.stdout
    assert "  2 reject: 30 rollouts" in plain.stdout
    size = json.loads(invoke(recipe, "--dry-run", "--json").stdout)
    assert size["rollouts"] == 30
    assert size["parameters"] > 0
    assert not (tmp_path / "runs").exists()


def test_a_wrong_key_names_the_right_one(recipe: Path) -> None:
    done = invoke(recipe, "--set", "world.entites=5", "--json")
    assert done.exit_code == 1
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "RecipeError"
    assert "unknown key `world.entites`, did you mean 'entities'?" in error["message"]
