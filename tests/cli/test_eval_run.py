"""`hanol eval run` with answers from a file."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

# Private: the application is no part of the Python interface.
from hanol.cli import app


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": "a", "question": "Capital?", "answer": "Seoul"},
            {"id": "b", "question": "Sum?", "answer": 2}]  # fmt: skip
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replies = [{"match": "Capital", "text": "The answer is Seoul."}, {"match": "Sum", "text": "3"}]
    Path("script.jsonl").write_text("".join(json.dumps(row) + "\n" for row in replies))
    return ["eval", "run", "own.jsonl", "--model", "scripted:script.jsonl"]


def test_a_run_is_kept_and_scored_again(own: list[str]) -> None:
    first = CliRunner().invoke(app, [*own, "--output", "run"])
    assert first.exit_code == 0, first.output
    assert "score                   50.0 % [9.5, 90.5]" in first.stdout
    assert "2 of 2 answers, 2 new" in first.stdout
    again = CliRunner().invoke(app, [*own, "--output", "run", "--scorer", "contains", "--json"])
    found = json.loads(again.stdout)
    assert (found["new_answers"], found["scored"], found["score"]["value"]) == (0, 2, 0.5)
    assert found["spent"]["model_calls"] == 2


def test_a_threshold_and_a_plan(own: list[str]) -> None:
    assert CliRunner().invoke(app, [*own, "--fail-under", "60"]).exit_code == 3
    assert CliRunner().invoke(app, [*own, "--fail-under", "50"]).exit_code == 0
    plan = CliRunner().invoke(app, [*own, "--dry-run", "--num-runs", "3", "--solver", "vote:2",
                                    "--json"])  # fmt: skip
    assert json.loads(plan.stdout)["calls"] == 12
    assert not Path("run").exists()


def test_what_goes_wrong_is_a_line(own: list[str]) -> None:
    Path("script.jsonl").write_text('{"match": "nothing", "text": "x"}\n')
    done = CliRunner().invoke(app, [*own, "--json"])
    assert done.exit_code == 1
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "EngineError"
    assert "None of the 2 items" in error["message"]
    done = CliRunner().invoke(app, [*own, "--scorer", "guess"])
    assert done.exit_code == 1
    assert "No scorer is named 'guess'" in done.output
