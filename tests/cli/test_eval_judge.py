"""`hanol eval judge` and `rescore`: from a file of outputs to a table, a page and a folder."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

# Private: the application is no part of the Python interface.
from hanol.cli import app

REPLY = """
{"thoughts": "apt", "judge": "yes", "judge_reasons": "they agree", "sp": %d, "g_1": 1, "g_2": 1}"""


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    rows = [
        {"id": f"{n}{system}", "task": task, "source": "马马虎虎", "candidate": f"{word} {n}.",
         "system": system, "reference": "Careless."}
        for n, task in enumerate(["idiom", "idiom", "zero"])
        for system, word in (("good", "Careless"), ("bad", "Horse tiger"))
    ]  # fmt: skip
    path = tmp_path / "outputs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def engine(path: Path, good: int = 2, bad: int = 0) -> str:
    replies = [{"text": REPLY % good, "match": "Careless"}, {"text": REPLY % bad, "match": "Horse"}]
    path.write_text("\n".join(map(json.dumps, replies)))
    return f"scripted:{path}"


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)], env={"COLUMNS": "160"})
    assert done.exit_code == code, done.output
    return done.stdout


def test_outputs_are_judged_and_nothing_twice(outputs: Path, tmp_path: Path) -> None:
    judge = engine(tmp_path / "judge.jsonl")
    page, official = tmp_path / "report.html", tmp_path / "official.json"
    shown = run("judge", outputs, "--judge", judge, "--html", page, "--official", official)
    assert "6 of 6 scored" in shown
    assert "18 calls now, 0 judgements were there" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert next(x for x in lines if x[:1] == ["good"])[:5] == ["good", "4.00", "4.00", "to", "4.00"]
    assert next(x for x in lines if x[:1] == ["bad"])[1] == "0.00"
    assert "they agree" in page.read_text()
    assert [row["specific"] for row in json.loads(official.read_text())] == [2, 0] * 3
    assert (tmp_path / "outputs.jsonl.judged/judgements.jsonl").exists()
    again = json.loads(run("judge", outputs, "--judge", judge, "--json"))
    assert (again["spent"]["model_calls"], again["reused"]) == (0, 6)


def test_rescoring_generates_nothing_and_keeps_the_rubric(outputs: Path, tmp_path: Path) -> None:
    rubric = tmp_path / "own.yaml"
    rubric.write_text("""
criteria:
- {id: sp, kind: specific, levels: {2: right, 1: nearly, 0: wrong}}
- {id: g_1, levels: {2: fluent, 1: stiff, 0: broken}}
""")
    first = engine(tmp_path / "first.jsonl")
    run("judge", outputs, "--suite", rubric, "--judge", first, "--protocol", "single")
    rubric.unlink()
    outputs.unlink()  # what is judged stands in the run
    other = engine(tmp_path / "other.jsonl", good=1, bad=2)
    done = json.loads(run("rescore", f"{outputs}.judged", "--judge", other, "--protocol", "single",
                          "--json"))  # fmt: skip
    assert done["spent"]["model_calls"] == 6
    assert [one["system"] for one in done["systems"]] == ["bad", "good"]
    assert done["most"] == 4


def test_a_dry_run_calls_nothing(outputs: Path, tmp_path: Path) -> None:
    shown = run("judge", outputs, "--judge", engine(tmp_path / "j.jsonl"), "--dry-run")
    assert "6 judgements to make" in shown
    assert "18 to 72 calls" in shown
    assert not (tmp_path / "outputs.jsonl.judged").exists()


def test_limits_give_partial_results_and_honest_coverage(outputs: Path, tmp_path: Path) -> None:
    judge = engine(tmp_path / "j.jsonl")
    limited = ("judge", outputs, "--judge", judge, "--max-calls", 12, "--concurrency", 1)
    assert "coverage" in run(*limited, "--json", "--protocol", "single", "--max-calls", 3, code=1)
    shown = run(*limited, "--allow-coverage")
    assert "4 of 6 scored" in shown
    assert "stopped at the limit of 12 calls" in shown
    assert "6 of 6 scored" in run("judge", outputs, "--judge", judge)


def test_pointers_need_sources(tmp_path: Path) -> None:
    judge = engine(tmp_path / "j.jsonl")
    outputs, sources = tmp_path / "o.jsonl", tmp_path / "sources.jsonl"
    row = {"id": 4, "task": "idiom", "source_ref": "novel 3", "candidate": "Careless."}
    outputs.write_text(json.dumps(row))
    error = json.loads(run("judge", outputs, "--judge", judge, "--json", code=1))["error"]
    assert error["kind"] == "MissingSourceError"
    assert "Item '4'" in error["message"]
    sources.write_text('{"id": "4", "source": "马马虎虎"}')
    assert "1 of 1 scored" in run("judge", outputs, "--judge", judge, "--sources", sources)
    kept = "".join(path.read_text() for path in (tmp_path / "o.jsonl.judged").iterdir())
    assert "马马虎虎" not in kept  # a text that may not be passed on stays where it is


def test_metrics_judge_without_a_model(outputs: Path) -> None:
    given = ("judge", outputs, "--protocol", "single", "--judge")
    done = json.loads(run(*given, "metric:residue:-2,-1", "--json"))
    assert [one["total"]["value"] for one in done["systems"]] == [6, 6]  # nothing is left over
    error = json.loads(run(*given, "metric:residue", "--json", code=1))["error"]
    assert "write metric:chrf:30,50" in error["message"]


def test_an_engine_without_answers_is_an_error(outputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    path.write_text('{"text": "x", "match": "never"}')
    error = json.loads(run("judge", outputs, "--judge", f"scripted:{path}", "--json", code=1))
    assert "None of 6 items got a score" in error["error"]["message"]
