"""Folders, runs and indexes that somebody sends: nothing is written or made where they say."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import hanol
from hanol.cli import app
from hanol.errors import SearchIndexError, WriteError
from hanol.files import refuse_links
from hanol.retrieval import Index

runner = CliRunner()
ANSWER = "<answer>The old bridge is red [1].</answer>"
SEARCH = '<tool_call>{"name": "search", "arguments": {"query": ["bridge colour"]}}</tool_call>'


def invoke(*arguments: object) -> Result:
    return runner.invoke(app, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps({"text": x}) + "\n" for x in (SEARCH, ANSWER)))
    return f"scripted:{path}"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bridge.md").write_text("# The bridge\n\nThe old bridge is red.\n")
    return folder


@pytest.fixture
def run(notes: Path, model: str, tmp_path: Path) -> Path:
    """A whole run."""
    place = tmp_path / "run"
    assert invoke("research", notes, "Colour?", "--model", model, "--output", place).exit_code == 0
    return place


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.mkdir()
    (path / "file").write_text("mine\n")
    return path


def refused(done: Result, mine: Path) -> str:
    assert done.exit_code == 1, done.output
    assert sorted(mine.rglob("*")) == [mine / "file"]
    assert (mine / "file").read_text() == "mine\n"
    line: str = done.stderr.strip().splitlines()[-1]
    assert line.startswith("hanol: ")
    return line


@pytest.mark.parametrize("target", ["file", "not there", "."])
@pytest.mark.parametrize("name", ["report.md", "rollouts", "notes.txt"])
def test_a_run_with_a_link_is_not_written_to(
    run: Path, mine: Path, model: str, name: str, target: str
) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine / target)
    for done in (
        invoke("research", "export", run),
        invoke("research", "resume", run, "--model", model),
    ):
        assert "symbolic link" in refused(done, mine)


def test_a_log_that_is_a_link_is_not_cut_or_extended(run: Path, mine: Path, model: str) -> None:
    log = run / "events.jsonl"
    torn = log.read_text()[:-40]
    (mine / "file").write_text(torn)
    log.unlink()
    log.symlink_to(mine / "file")
    assert invoke("research", "resume", run, "--model", model).exit_code == 1
    assert (mine / "file").read_text() == torn


@pytest.mark.parametrize("planted", ["batches/q/results.jsonl", "batches/q", "batches", "runs"])
def test_links_below_the_index_of_a_folder(
    notes: Path, mine: Path, model: str, tmp_path: Path, planted: str
) -> None:
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "Colour?"}\n')
    place = notes / ".hanol" / planted
    place.parent.mkdir(parents=True)
    place.symlink_to(mine / ("file" if place.suffix else ""))
    command = ["batch", notes, questions] if "batches" in planted else [notes, "Colour?"]
    assert "symbolic link" in refused(invoke("research", *command, "--model", model), mine)


def changed(run: Path, change: Callable[[dict[str, Any]], object], number: int = 0) -> None:
    lines = (run / "events.jsonl").read_text().splitlines()
    event = json.loads(lines[number])
    change(event)
    lines[number] = json.dumps(event)
    (run / "events.jsonl").write_text("".join(line + "\n" for line in lines))


def test_documents_that_a_log_of_elsewhere_names_are_not_indexed(
    run: Path, mine: Path, model: str
) -> None:
    lines = (run / "events.jsonl").read_text().splitlines()
    (run / "events.jsonl").write_text(lines[0] + "\n")  # not finished
    changed(run, lambda event: event.update(index=str(mine)))
    done = invoke("research", "resume", run, "--model", model)
    assert "begun elsewhere" in refused(done, mine)


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event.update(question=""),
        lambda event: event["settings"].update(heavy={"n": 10**6, "sampling": "parallel"}),
        lambda event: event["settings"].update(heavy={"n": "x", "sampling": "parallel"}),
        lambda event: event["settings"].update(heavy={"n": 2, "sampling": []}),
        lambda event: event["settings"].update(heavy={}),
        lambda event: event["settings"].update(fork_step=-5),
        lambda event: event["settings"].update(today="x"),
    ],
)
def test_settings_that_no_run_has(
    run: Path, mine: Path, model: str, change: Callable[[dict[str, Any]], object]
) -> None:
    changed(run, change)
    refused(invoke("research", "resume", run, "--model", model), mine)


@pytest.mark.parametrize("value", [1e300, float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("name", ["time", "seconds"])
def test_times_that_no_clock_has(run: Path, mine: Path, name: str, value: float) -> None:
    changed(run, lambda event: event.update({name: value}), number=-1)
    assert "is damaged" in refused(invoke("research", "export", run), mine)


def test_an_index_with_a_view_is_not_searched(notes: Path) -> None:
    with Index.open(notes) as index:
        index.add(isolated=False)
    with sqlite3.connect(notes / ".hanol" / "index.sqlite") as db:
        db.execute("DROP TABLE passages")
        db.execute(
            "CREATE VIEW passages AS WITH RECURSIVE r(id) AS "
            "(SELECT 1 UNION ALL SELECT id + 1 FROM r) SELECT id FROM r"
        )
    db.close()
    (notes / ".hanol" / "index.sum").unlink()
    with pytest.raises(SearchIndexError, match="view or a trigger"):
        Index.open(notes).search("bridge")


def test_links_are_found_at_any_depth(tmp_path: Path, mine: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    refuse_links(tmp_path / "a")
    refuse_links(tmp_path / "not there")
    (tmp_path / "named").symlink_to(tmp_path / "a")  # by the user
    refuse_links(tmp_path / "named")
    (deep / "link").symlink_to(mine / "file")
    with pytest.raises(WriteError, match="c/link' could not be written: it is a symbolic link"):
        refuse_links(tmp_path / "named")


@pytest.mark.parametrize("name", ["questions.jsonl", "report.json", "."])
def test_questions_of_a_folder_follow_no_link(notes: Path, mine: Path, name: str) -> None:
    place = notes / ".hanol" / "synth"
    place.parent.mkdir()
    if name == ".":
        place.symlink_to(mine)
    else:
        place.mkdir()
        (place / name).symlink_to(mine / "file")
    done = invoke("synth", "questions", notes, "--num-questions", "1", "--hops", "1")
    assert "symbolic link" in refused(done, mine)


def test_weights_outside_of_a_checkpoint_are_not_read(mine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(Path(hanol.__file__).parent / "models" / "bundled" / "tiny", folder)
    (folder / "model.safetensors").rename(mine / "model.safetensors")
    (folder / "model.safetensors").write_text("decoy")
    names = {"weight_map": dict.fromkeys(["a"], "../mine/model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(names))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    done = invoke("generate", folder, "-p", "x")
    assert done.exit_code == 1
    assert "names no files of weights" in done.stderr


def test_a_folder_without_words_has_no_questions(mine: Path, model: str) -> None:
    (mine / "file").rename(mine.with_name("file"))
    command = [sys.executable, "-m", "hanol", "synth", "questions", str(mine), "--model", model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "There is no document with words" in done.stderr
