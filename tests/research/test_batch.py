"""Many questions at once: resumed after a kill, none in the way of another, here and over Ray."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hanol.engines import Request, ScriptedEngine
from hanol.errors import DataError, RunError
from hanol.research import run_batch, run_batch_on_ray
from hanol.retrieval import Index
from hanol.runs import RunFolder, Task, read_tasks
from hanol.tools import local_tools

CALL = '<tool_call>{"name": "search", "arguments": {"query": ["bridge"]}}</tool_call>'


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch") / "notes"
    folder.mkdir()
    (folder / "bridge.md").write_text("The old bridge is red. It was built in 1901.", "utf-8")
    with Index.open(folder) as index:
        index.add()
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def answering(request: Request) -> str:
    """Searches once, then answers with its question."""
    if "[1]" not in request.messages[-1].content:
        return CALL
    return f"<answer>{request.messages[1].content} The bridge is red [1].</answer>"


def test_one_batch_a_folder(notes: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from hanol.runs import alone\n"
        "with alone(sys.argv[1]):\n    print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with Index.open(notes) as index, pytest.raises(RunError, match="Another process"):
            run_batch([Task("a", "What?")], index, ScriptedEngine(answering), tmp_path)
        assert not any(tmp_path.iterdir())
        other.kill()


def test_equal_questions_are_different_tasks(tmp_path: Path) -> None:
    rows = [{"question": "Same?"}, {"question": "Other?"}, {"question": "Same?"}]
    before = read_tasks(write(tmp_path / "a.jsonl", rows))
    assert len({task.id for task in before}) == 3
    # A row put in front changes no id of the others: their runs are found again.
    after = read_tasks(write(tmp_path / "b.jsonl", [{"question": "New?"}, *rows]))
    assert after[1:] == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1, "question": "a"}, {"id": "1", "question": "b"}], "line 2: the id '1' occurs"),
        ([{"question": " "}], "line 1: `question` is missing or empty"),
        ([{"question": "a", "files": "b.md"}], "`files` is not a list of paths"),
        ([], "has no questions"),
    ],
)
def test_files_that_are_refused(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_tasks(write(tmp_path / "q.jsonl", rows))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "..", "한글 id", "x" * 400, "CON.", "~"]
)
def test_an_id_is_a_folder_inside_the_batch(name: str, notes: Path, tmp_path: Path) -> None:
    with Index.open(notes) as index:
        (row,) = run_batch(
            [Task(name, "Colour?")], index, ScriptedEngine(answering), tmp_path / "out"
        )
    assert row["error"] is None
    folder = (tmp_path / "out" / row["run"]).resolve()
    assert folder.parent == (tmp_path / "out" / "runs").resolve()
    assert RunFolder(folder).answer == row["prediction"]


def test_a_failure_is_a_row_and_stops_nobody(notes: Path, tmp_path: Path) -> None:
    failing = [True]

    def script(request: Request) -> str:
        if "fails" in request.messages[1].content and failing[0]:
            raise RuntimeError("the endpoint is on fire")
        return answering(request)

    tasks = [Task("a", "One?", "red"), Task("b", "This fails?"), Task("c", "Three?")]
    with Index.open(notes) as index:
        common = (tasks, index, ScriptedEngine(script), tmp_path)
        rows = run_batch(*common)
        assert [row["error"] and row["error"]["message"] for row in rows] == [
            None,
            "the endpoint is on fire",
            None,
        ]
        assert rows[0]["prediction"] == "One? The bridge is red [1]."
        assert (rows[0]["answer"], rows[0]["termination"]) == ("red", "answer")
        assert rows[1]["prediction"] is None
        failing.clear()
        failing.append(False)
        rows = run_batch(*common)
    assert [row["error"] for row in rows] == [None] * 3
    lines = (tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_finished_runs_ask_nothing_again(notes: Path, tmp_path: Path) -> None:
    asked = []

    def script(request: Request) -> str:
        asked.append(request)
        return answering(request)

    tasks = [Task(str(n), f"Question {n}?") for n in range(5)]
    with Index.open(notes) as index:
        first = run_batch(tasks, index, ScriptedEngine(script), tmp_path, concurrency=2)
        assert len(asked) == 10
        more = [*tasks, Task("new", "New?")]
        second = run_batch(more, index, ScriptedEngine(script), tmp_path, concurrency=2)
    assert len(asked) == 12
    assert second[:5] == first


def test_a_batch_goes_on_with_the_date_it_was_begun_on(notes: Path, tmp_path: Path) -> None:
    tasks = [Task("a", "One?")]
    with Index.open(notes) as index:
        run_batch(tasks, index, ScriptedEngine(answering), tmp_path)
        begun = RunFolder(tmp_path / "runs" / "a").started().settings["today"]
        assert json.loads((tmp_path / "batch.json").read_text("utf-8")) == {"today": begun}
        (tmp_path / "batch.json").write_text('{"today": "2020-02-29"}', "utf-8")
        run_batch([Task("b", "Two?")], index, ScriptedEngine(answering), tmp_path)
    assert RunFolder(tmp_path / "runs" / "b").started().settings["today"] == "2020-02-29"


KILLED = """
import json, os, sys
from hanol.engines import ScriptedEngine
from hanol.research import run_batch
from hanol.retrieval import Index
from hanol.runs import read_tasks

folder, questions, out, calls = sys.argv[1:]
CALL = '<tool_call>{"name": "search", "arguments": {"query": ["bridge"]}}</tool_call>'

def script(request):
    with open(calls, "a") as file:
        file.write(json.dumps([message.content for message in request.messages[1:]]) + "\\n")
    if "[1]" not in request.messages[-1].content:
        return CALL
    return f"<answer>{request.messages[1].content} Red [1].</answer>"

with Index.open(folder) as index:
    run_batch(
        read_tasks(questions), index, ScriptedEngine(script, latency=0.05), out, concurrency=3
    )
"""


def test_a_killed_batch_goes_on_without_asking_twice(notes: Path, tmp_path: Path) -> None:
    count = 30
    questions = write(tmp_path / "q.jsonl", [{"question": f"Question {n}?"} for n in range(count)])
    calls, out = tmp_path / "calls", tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(notes), str(questions), str(out), str(calls)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not calls.exists() or len(calls.read_text().splitlines()) < 12:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [json.loads(line) for line in calls.read_text("utf-8").splitlines()]
    finished = [
        run
        for run in (out / "runs").iterdir()
        if RunFolder(run).events() and RunFolder(run).events()[-1].type == "run_ended"
    ]
    assert 0 < len(finished) < count
    assert subprocess.run(command, timeout=80).returncode == 0
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text("utf-8").splitlines()]
    assert [row["prediction"] for row in rows] == [f"Question {n}? Red [1]." for n in range(count)]
    after = [json.loads(line) for line in calls.read_text("utf-8").splitlines()]
    # Only what was under way when the process died is asked again: one call of each worker.
    assert len(before) < len(after) <= 2 * count + 3


@pytest.mark.slow
def test_over_ray_the_results_are_the_same(notes: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    import ray

    rows = [{"question": f"Question {n}?", "answer": "red"} for n in range(12)]
    tasks = read_tasks(write(tmp_path / "q.jsonl", rows))

    def make() -> Any:
        call = '<tool_call>{"name": "search", "arguments": {"query": ["bridge"]}}</tool_call>'

        def script(request: Request) -> str:
            if "[1]" not in request.messages[-1].content:
                return call
            return f"<answer>{request.messages[1].content} The bridge is red [1].</answer>"

        index = Index.open(notes)
        return index, ScriptedEngine(script), {"tools": local_tools(index)}

    seen: list[Any] = []
    try:
        remote = run_batch_on_ray(
            tasks, make, tmp_path / "ray", workers=2, concurrency=2, on_result=seen.append
        )
    finally:
        ray.shutdown()
    index, engine, options = make()
    with index:
        local = run_batch(tasks, index, engine, tmp_path / "local", **options)

    def untimed(results: list[Any]) -> list[Any]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in results]

    assert untimed(remote) == untimed(local)
    assert len(seen) == 12
    assert all(row["error"] is None for row in remote)
