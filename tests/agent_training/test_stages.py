"""The stages of a run: in order, each once, also when the process is killed."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from hanol.agent_training import ResearcherRecipe, ResearcherResult
from hanol.agent_training.stages import _train  # private: what trains and judges is replaced
from hanol.agent_training.stages._stages import (  # private: stages without their training
    CHECKPOINT,
    TRAJECTORIES,
    Body,
    Facts,
    Outcomes,
    StageRun,
)
from hanol.errors import RecipeError, RunError
from hanol.training import with_overrides

RECIPE = {
    "kind": "researcher",
    "name": "staged",
    "model": {"config": "kimi-linear"},
    "world": {"entities": 40},
    "stages": [
        {"kind": "midtrain", "name": "mid", "tokens": 10, "data": {"text": 1.0}},
        {"kind": "reject"},
        {"kind": "sft", "tokens": 20, "source": "reject"},
        {"kind": "grpo", "name": "a", "start": "sft"},
        {"kind": "grpo", "name": "b", "start": "sft", "seed": 1},
        {"kind": "merge", "of": ["a", "b"]},
    ],
}
STEPS = 5


def recipe(*overrides: str) -> ResearcherRecipe:
    content = json.loads(json.dumps(RECIPE))
    return with_overrides(ResearcherRecipe, content, list(overrides), "The recipe")


def model_body(run: StageRun) -> Facts:
    """Counts to STEPS as training would: a line a step, on from what is there."""
    steps = run.folder / "steps.txt"
    done = len(steps.read_text().splitlines()) if steps.exists() else 0
    assert run.is_resumed or not done
    for step in range(done, STEPS):
        with steps.open("a") as file:
            file.write(f"{step}\n")
        run.on_step({"step": step})
    if (run.folder / CHECKPOINT).exists():  # killed between this and the note that it is made
        return {"steps": STEPS}
    part = run.folder / "part"
    part.mkdir(exist_ok=True)
    start = None if run.start is None else (run.start / "weights.txt").read_text()
    (part / "weights.txt").write_text(f"{run.stage.name}({start or ''})")
    part.rename(run.folder / CHECKPOINT)
    return {"steps": STEPS}


def reject_body(run: StageRun) -> Facts:
    assert run.start is not None
    (run.folder / TRAJECTORIES).write_text((run.start / "weights.txt").read_text())
    return {"kept": 1}


def merge_body(run: StageRun) -> Facts:
    names = [(run.folders[name] / CHECKPOINT / "weights.txt").read_text() for name in run.stage.of]
    (run.folder / CHECKPOINT).mkdir(exist_ok=True)
    (run.folder / CHECKPOINT / "weights.txt").write_text("+".join(names))
    return {}


BODIES = {
    "midtrain": model_body, "sft": model_body, "grpo": model_body, "reject": reject_body,
    "merge": merge_body,
}  # fmt: skip


def evaluate(run: StageRun) -> Outcomes:
    checkpoint = run.folder / CHECKPOINT
    with (checkpoint.parents[1] / "judged.txt").open("a") as file:
        file.write(f"{checkpoint.parent.name}\n")
    right = 2 * len((checkpoint / "weights.txt").read_text())
    return {"1": [i < right for i in range(50)], "2": [i < right / 2 for i in range(50)]}


def run_stages(
    recipe: ResearcherRecipe,
    folder: Path,
    bodies: Mapping[str, Body],
    evaluate: Callable[[StageRun], Outcomes],
    **options: Any,
) -> ResearcherResult:
    """A run whose stages do what `bodies` do."""
    with patch.multiple(_train, BODIES=bodies, evaluate=evaluate):
        return _train.train_researcher(recipe, folder, **options)


def weights(folder: Path) -> dict[str, str]:
    return {file.parts[-3]: file.read_text() for file in folder.glob("*/checkpoint/weights.txt")}


def test_stages_run_in_order_and_go_on_from_the_right_model(tmp_path) -> None:
    seen: list[str] = []
    result = run_stages(
        recipe(), tmp_path / "run", BODIES, evaluate, on_stage=lambda s: seen.append(s.name)
    )
    assert seen == ["mid", "reject", "sft", "a", "b", "merge"]
    assert weights(tmp_path / "run") == {
        "1-mid": "mid()",
        "3-sft": "sft(mid())",  # a stage without a model is stepped over
        "4-a": "a(sft(mid()))",
        "5-b": "b(sft(mid()))",  # not from "a"
        "6-merge": "a(sft(mid()))+b(sft(mid()))",
    }
    assert (tmp_path / "run/2-reject" / TRAJECTORIES).read_text() == "mid()"
    assert result.checkpoint == str(tmp_path / "run/6-merge/checkpoint")


def test_what_a_run_leaves_behind(tmp_path) -> None:
    run_stages(recipe(), tmp_path, BODIES, evaluate)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(s["name"], s["facts"]) for s in summary["stages"]] == [
        ("mid", {"steps": 5}), ("reject", {"kept": 1}), ("sft", {"steps": 5}), ("a", {"steps": 5}),
        ("b", {"steps": 5}), ("merge", {}),
    ]  # fmt: skip
    starts = [[Path(start).parts[-2] for start in s["start"]] for s in summary["stages"]]
    assert starts == [[], ["1-mid"], ["1-mid"], ["3-sft"], ["3-sft"], ["4-a", "5-b"]]
    assert summary["stages"][1]["checkpoint"] is None
    assert summary["stages"][1]["accuracy"] == {}
    assert summary["stages"][0]["accuracy"]["1"]["value"] == 0.2
    assert summary["stages"][0]["accuracy"]["1"]["n"] == 50
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    resolved = yaml.safe_load((tmp_path / "recipe.yaml").read_text())["recipe"]
    assert ResearcherRecipe.model_validate(resolved) == recipe()
    stage = yaml.safe_load((tmp_path / "3-sft/stage.yaml").read_text())
    assert stage["stage"]["adamw_lr"] == 0.002  # defaults are filled in
    assert stage["versions"].keys() >= {"hanol", "torch"}


def test_a_folder_with_a_run_is_not_touched_without_resume(tmp_path) -> None:
    run_stages(recipe(), tmp_path, BODIES, evaluate)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match="already has a run"):
        run_stages(recipe(), tmp_path, BODIES, evaluate)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_nothing_that_is_finished_is_done_again(tmp_path) -> None:
    first = run_stages(recipe(), tmp_path, BODIES, evaluate)
    bodies = dict.fromkeys(BODIES, lambda run: pytest.fail("it was finished"))
    told = []
    again = run_stages(recipe(), tmp_path, bodies, evaluate, resume=True, on_stage=told.append)
    assert again == first
    assert told == first.stages
    assert len((tmp_path / "judged.txt").read_text().splitlines()) == 5  # once each


@pytest.mark.parametrize("name", ["made.json", "accuracy.json"])
@pytest.mark.parametrize("content", ["", "[1]", '{"eval": '])
def test_odd_notes_of_a_stage_are_made_again(tmp_path, name: str, content: str) -> None:
    first = run_stages(recipe(), tmp_path, BODIES, evaluate)
    (tmp_path / "3-sft" / name).write_text(content)
    again = run_stages(recipe(), tmp_path, BODIES, evaluate, resume=True)
    assert [s.accuracy for s in again.stages] == [s.accuracy for s in first.stages]
    assert [s.facts for s in again.stages] == [s.facts for s in first.stages]


def test_stages_may_be_added_at_the_end(tmp_path) -> None:
    run_stages(recipe("stages=[{kind: sft, tokens: 5}]"), tmp_path, BODIES, evaluate)
    longer = recipe("stages=[{kind: sft, tokens: 5}, {kind: grpo}]")
    result = run_stages(longer, tmp_path, BODIES, evaluate, resume=True)
    assert [stage.name for stage in result.stages] == ["sft", "grpo"]
    assert weights(tmp_path)["2-grpo"] == "grpo(sft())"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.2.tokens=21", "`stage.tokens`"),
        ("stages.0.data={planning: 1.0}", "`stage.data.planning`"),
        ("world.entities=41", "`world.entities`"),
        ("seed=1", "`seed`"),
        ("stages.5.name=mean", "Stage 6 .* is '6-merge', but .* 'mean'"),
    ],
)
def test_a_stage_made_with_other_settings_is_not_gone_on_with(tmp_path, override, said) -> None:
    run_stages(recipe(), tmp_path, BODIES, evaluate)
    with pytest.raises((RecipeError, RunError), match=said):
        run_stages(recipe(override), tmp_path, BODIES, evaluate, resume=True)


@pytest.mark.parametrize("name", ["rows.jsonl", "made.json", CHECKPOINT])
def test_what_a_stage_did_not_make_is_refused(tmp_path, name: str) -> None:
    (tmp_path / "1-mid").mkdir()
    (tmp_path / "1-mid" / name).write_text("{}")
    with pytest.raises(RunError, match=f"1-mid/{name}' has no 'stage.yaml' beside it"):
        run_stages(recipe(), tmp_path, BODIES, evaluate, resume=True)


def test_what_does_not_change_the_model_may_change(tmp_path) -> None:
    first = run_stages(recipe(), tmp_path, BODIES, evaluate)
    other = recipe("stages.2.save_tokens=7", "threads=2", "name=other")
    again = run_stages(other, tmp_path, BODIES, evaluate, resume=True)
    assert again.stages == first.stages


def test_another_evaluation_judges_the_same_models_again(tmp_path) -> None:
    run_stages(recipe(), tmp_path, BODIES, evaluate)
    bodies = dict.fromkeys(BODIES, lambda run: pytest.fail("it was finished"))
    run_stages(recipe("eval.seed=5"), tmp_path, bodies, evaluate, resume=True)
    judged = (tmp_path / "judged.txt").read_text().splitlines()
    assert judged == ["1-mid", "3-sft", "4-a", "5-b", "6-merge"] * 2


def test_a_stage_that_fails_is_tried_again_and_the_others_are_kept(tmp_path) -> None:
    def fail(run: StageRun) -> Facts:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_stages(recipe(), tmp_path, BODIES | {"sft": fail}, evaluate)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["mid", "reject"]
    result = run_stages(recipe(), tmp_path, BODIES, evaluate, resume=True)
    assert len(result.stages) == 6
    assert (tmp_path / "1-mid/steps.txt").read_text().count("\n") == STEPS


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_nothing_had_been(tmp_path) -> None:
    whole = run_stages(recipe(), tmp_path / "whole", BODIES, evaluate)
    folder = tmp_path / "killed"
    driver = Path(__file__).with_name("killed_stages.py")
    done = subprocess.run([sys.executable, driver, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15
    assert weights(folder) == weights(tmp_path / "whole")
    for file in sorted(folder.glob("*/steps.txt")):
        assert file.read_text() == "0\n1\n2\n3\n4\n", file  # no step twice, none left out
    summary = json.loads((folder / "summary.json").read_text())
    assert [s["accuracy"] for s in summary["stages"]] == [
        {kind: found.model_dump() for kind, found in stage.accuracy.items()}
        for stage in whole.stages
    ]
