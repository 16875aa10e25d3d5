"""`hanol eval meta`, `correct`, `plan` and `drift` on a few labels of our own."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

# Private: the application is no part of the Python interface.
from hanol.cli import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 outputs of three systems, 30 of them labelled, and a judge that is generous."""
    made = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(0)
    labels, judge, later = [], [], []
    for n in range(60):
        quality = int(np.clip(rng.normal(2 + n % 3, 1), 0, 6).round())
        text = "fine " * quality + "poor " * (6 - quality)
        row = {"id": n, "candidate": text, "reference": "fine " * 6, "system": f"S{n % 3}",
               "group": n // 3}  # fmt: skip
        if n < 30:
            labels.append(row | {"human": quality})
        score = {"id": n, "metric": "judge", "score": quality + 1 + rng.normal() / 2,
                 "system": f"S{n % 3}"}  # fmt: skip
        judge.append(score)
        later.append(score | {"score": score["score"] + 0.5})
    for name, rows in (("labels", labels), ("judge", judge), ("later", later)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (made / f"{name}.jsonl").write_text(text)
    return made


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    return done.exit_code, done.stdout


def test_meta_prints_a_table_and_the_same_as_json(folder: Path) -> None:
    options = ["meta", "--human", folder / "labels.jsonl", "--scores", folder / "judge.jsonl",
               "--metrics", "wrong-sentence,length"]  # fmt: skip
    code, text = run(*options, "--output", folder / "metrics.jsonl")
    assert code == 0
    assert "30 outputs of 10 sources by 3 systems, 1 raters, criterion total" in text
    assert "judge" in text
    assert "-length" in text
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 60
    code, text = run(*options, "--json")
    found = json.loads(text)
    assert found["metrics"][0]["name"] == "judge"
    assert found["metrics"][0]["pooled"]["spearman"] > 0.8
    assert run(*options, "--fail-under", 0.99)[0] == 3
    code, text = run("meta", "--human", folder / "labels.jsonl", "--metrics", "bleuu", "--json")
    assert code == 1
    assert json.loads(text)["error"]["kind"] == "UnknownNameError"


def test_correct_ranks_systems(folder: Path) -> None:
    options = ["--human", folder / "labels.jsonl", "--scores", folder / "judge.jsonl"]
    code, text = run("correct", *options)
    assert code == 0
    assert "prediction-powered" in text
    found = json.loads(run("correct", *options, "--json")[1])
    assert [one["name"] for one in found["systems"]] == ["S2", "S1", "S0"]
    assert all(one["judge"] > one["mean"]["value"] for one in found["systems"])
    shares = json.loads(run("correct", *options, "--pass-from", "3,4", "--json")[1])
    assert shares["method"] == "rogan-gladen"
    exact = json.loads(run("correct", *options, "--finite", "--json")[1])
    for one, other in zip(exact["systems"], found["systems"], strict=True):
        assert one["mean"]["value"] == pytest.approx(other["mean"]["value"], abs=0.5)
    assert run("correct", *options, "--pass-from", "3")[0] == 2


def test_plan_needs_a_pilot_or_three_numbers(folder: Path) -> None:
    pilot = ["--human", folder / "labels.jsonl", "--scores", folder / "judge.jsonl"]
    code, text = run("plan", "--half-width", 0.5, *pilot)
    assert code == 0
    assert "with the judge" in text
    found = json.loads(
        run("plan", "--half-width", 0.2, "--deviation", 1.5, "--rho", 0.7, "--num-outputs", 1000,
            "--json")[1]
    )  # fmt: skip
    assert found["corrected"] < found["alone"]
    code, text = run("plan", "--half-width", 0.2, "--rho", 0.7, "--json")
    assert code == 1
    assert "--deviation" in json.loads(text)["error"]["message"]


def test_drift_exits_with_3(folder: Path) -> None:
    judge, later = folder / "judge.jsonl", folder / "later.jsonl"
    code, text = run("drift", judge, later, "--human", folder / "labels.jsonl")
    assert code == 3
    assert "100.0% of the scores changed" in text
    assert run("drift", judge, judge)[0] == 0
    code, text = run("drift", folder / "labels.jsonl", judge, "--json")
    assert code == 1
    assert "a row has `score`" in json.loads(text)["error"]["message"]
