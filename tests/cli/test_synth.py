"""`hanol synth`: files that other commands read, exit codes, and a killed run that goes on."""

import json
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.forked import Forked
from typer.testing import CliRunner, Result

from hanol.cli.synth import app
from hanol.research import read_official_runs
from hanol.runs import RunFolder, read_tasks
from hanol.synthesis import read_questions

runner = CliRunner()
WORLD = "encyclopedia:7"
PAGES = {
    "ada.md": "# Ada Bel\n\nAda Bel was born in [Port Ems](ems.md). She won Silver Oar.\n",
    "ems.md": "# Port Ems\n\nPort Ems was governed by [Cyr Dun](cyr.md).\n",
    "cyr.md": "# Cyr Dun\n\nCyr Dun was born in [Low Gate](gate.md).\n",
    "gate.md": "# Low Gate\n\nLow Gate was governed by [Ada Bel](ada.md).\n",
    "oar.md": "# Silver Oar\n\nSilver Oar is old.\n",
}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def invoke(*arguments: object) -> Result:
    return runner.invoke(app, [*map(str, arguments)], catch_exceptions=False)


def script(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return f"scripted:{path}"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_from_a_folder_to_questions(notes: Path) -> None:
    done = invoke("questions", notes, "--num-questions", 5, "--hops", "1,2")
    assert done.exit_code == 0, done.output
    assert "is not indexed yet: indexing it first" in done.stderr
    place = notes / ".hanol" / "synth"
    assert f"questions: {place / 'questions.jsonl'}" in done.stdout
    tasks = read_tasks(place / "questions.jsonl")
    assert [task.question for task in tasks] == [
        t.text for t in read_questions(place / "webshaper.jsonl")
    ]
    first = (place / "questions.jsonl").read_bytes()
    again = invoke("questions", notes, "--num-questions", 5, "--hops", "1,2", "--json")
    summary = json.loads(again.stdout)
    assert (place / "questions.jsonl").read_bytes() == first
    assert summary["kept"] == len(tasks) == 5
    assert summary["drawn"] == 5 + sum(summary["dropped"].values())
    assert summary["extracted"] is None
    assert not {"entities", "split"} & summary.keys()


def test_a_world_its_expert_and_its_training_data(tmp_path: Path) -> None:
    out = tmp_path / "synth"
    done = invoke(
        "questions", WORLD, "--num-questions", 6, "--num-entities", 60, "--output", out, "--json"
    )
    assert json.loads(done.stdout)["kept"] == 6
    file = out / "questions.jsonl"
    # The report beside the questions knows how large the world was.
    done = invoke("trajectories", WORLD, file, "--model", "expert", "--num-runs", 1, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["right"] == summary["solved"] == summary["questions"] == 6
    place = out / "trajectories"
    assert len(read_official_runs(place / "trajectories.jsonl")) == 6
    assert {row["kind"] for row in rows(place / "sft.jsonl")} == {"trajectory"}
    kinds = [row["kind"] for row in rows(place / "midtrain.jsonl")]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        kind: count for kind, count in summary["rows"].items() if kind != "trajectory"
    }
    assert set(kinds) == {"planning", "reasoning", "decision"}
    assert summary["spent"]["model_calls"] > 6
    for damaged in ("{", "[]", "{}"):
        (out / "report.json").write_text(damaged)
        refused = invoke("trajectories", WORLD, file, "--model", "expert")
        assert refused.exit_code == 1
        assert "is not a report of `hanol synth questions`" in refused.stderr


def test_the_factbook_its_expert_and_its_training_data(tmp_path: Path) -> None:
    out = tmp_path / "synth"
    command = ("questions", "factbook:bare", "--num-questions", 8, "--hops", "1,2,3,4")
    done = invoke(*command, "--output", out, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["kept"], report["leads"], report["split"]) == (8, 0, "train")
    file = out / "questions.jsonl"
    questions = read_questions(file)
    assert {question.hops for question in questions} <= {1, 2, 3, 4}
    assert all(question.details["steps"] for question in questions)
    done = invoke("trajectories", "factbook:bare", file, "--model", "expert", "--num-runs", 1)
    assert done.exit_code == 0, done.output
    assert "8 of 8 runs are right" in done.stdout
    learned = rows(out / "trajectories" / "sft.jsonl")
    assert len(learned) == 8
    turns = [m["content"] for row in learned for m in row["messages"] if m["role"] == "assistant"]
    assert all("<tool_call>" in turn or "<answer>" in turn for turn in turns)
    refused = invoke("pages", "factbook:bare", tmp_path / "pages", "--num-entities", 50)
    assert refused.exit_code == 1
    assert "has no option" in refused.stderr
    done = invoke("pages", "factbook:bare", tmp_path / "pages")
    assert done.stdout == f"254 pages in {tmp_path / 'pages'}\n"


def test_an_expert_quotes_the_documents_of_a_folder(notes: Path, tmp_path: Path) -> None:
    (notes / "other.md").write_text(
        "# Port Ems harbour\n\nThe harbour of Port Ems is deep.\n", "utf-8"
    )
    file = tmp_path / "written.jsonl"
    asked = {
        "Which prize did Ada Bel win?": ("ada.md", "She won Silver Oar."),
        "How old is the Silver Oar?": ("oar.md", "Silver Oar is old."),
        "Is the moon far away?": ("oar.md", "Silver Oar is old."),  # no search finds it
        "Where was Cyr Dun born?": ("cyr.md", "A sentence that this page has not."),
        "How do cats sleep?": ("cats.md", "They sleep a lot."),  # of another folder
        "What is in a row?": ("ada.md", "| a | b |"),  # no sentence
    }
    script(
        file,
        *({"question": q, "document": d, "answer": a} for q, (d, a) in asked.items()),
    )
    command = ("trajectories", notes, file, "--model", "expert", "--num-runs", 1)
    done = invoke(*command, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    learned = {
        row["messages"][1]["content"].split("\n")[0]: [
            message["content"] for message in row["messages"] if message["role"] == "assistant"
        ]
        for row in rows(tmp_path / "out" / "sft.jsonl")
    }
    first, opened, answer = learned["Which prize did Ada Bel win?"]
    assert '["prize Ada Bel win"]' in first
    assert "I open [Ada Bel](ada.md)." in opened
    assert answer.endswith("<answer>She won Silver Oar [1].</answer>")
    assert "[1] says it." in answer
    assert len(learned["How old is the Silver Oar?"]) == 3
    assert "What is in a row?" not in learned
    for question, turns in learned.items():
        if asked[question][1].rstrip(".") not in turns[-1]:
            assert "do not say it" in turns[-1]
    some = invoke(*command, "--num-questions", 2, "--output", tmp_path / "two", "--json")
    assert json.loads(some.stdout)["questions"] == 2
    script(file, {"question": "How do cats sleep?", "document": "cats.md", "answer": "A lot."})
    refused = invoke(*command, "--output", tmp_path / "none")
    assert refused.exit_code == 1
    assert "No question is about a document of" in refused.stderr


def test_questions_of_another_world_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "synth"
    invoke("questions", WORLD, "--num-questions", 3, "--num-entities", 60, "--output", out)
    other = invoke(
        *("trajectories", "encyclopedia:8", out / "questions.jsonl", "--model", "expert"),
        *("--num-entities", 60, "--json"),
    )
    assert other.exit_code == 1
    error = json.loads(other.stdout)["error"]
    assert error["kind"] == "DataError"
    assert "3 of 3 questions have answers that are not unique" in error["message"]


@pytest.mark.parametrize("report", ["{", "[1]", "{}"])
def test_a_report_that_tells_no_world(tmp_path: Path, report: str) -> None:
    file = tmp_path / "questions.jsonl"
    script(file, {"question": "Who?", "answer": "Ada"})
    (tmp_path / "report.json").write_text(report)
    common = ("trajectories", WORLD, file, "--model", "expert", "--json")
    error = json.loads(invoke(*common).stdout)["error"]
    assert "report.json' is not a report of `hanol synth questions`" in error["message"]
    given = invoke(*common, "--num-entities", 60, "--split", "train")
    assert "The expert cannot answer 'Who?'" in json.loads(given.stdout)["error"]["message"]


def test_options_of_a_world_win_over_its_report(tmp_path: Path) -> None:
    out = tmp_path / "synth"
    invoke("questions", WORLD, "--num-questions", 3, "--num-entities", 60, "--output", out)
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert (report["entities"], report["split"]) == (60, "train")
    file = out / "questions.jsonl"
    other = invoke("trajectories", WORLD, file, "--model", "expert", "--split", "dev", "--json")
    assert "not unique" in json.loads(other.stdout)["error"]["message"]


def test_pages_and_questions_of_one_name_are_of_one_world(tmp_path: Path) -> None:
    done = invoke("pages", WORLD, tmp_path / "pages", "--num-entities", 60)
    assert done.exit_code == 0, done.output
    invoke(
        "questions",
        WORLD,
        "--num-questions",
        3,
        "--num-entities",
        60,
        "--output",
        tmp_path / "synth",
    )
    written = {page.name for page in (tmp_path / "synth" / "world").glob("*.md")}
    assert {page.name for page in (tmp_path / "pages").glob("*.md")} == written
    (tmp_path / "file").write_text("")
    failed = invoke("pages", WORLD, tmp_path / "file")
    assert failed.exit_code == 1
    assert str(tmp_path / "file") in failed.stderr


def test_a_model_extracts_words_and_knows_by_heart(notes: Path, tmp_path: Path) -> None:
    fact = [{"subject": "Silver Oar", "relation": "is", "object": "old"}]
    model = script(
        tmp_path / "model.jsonl",
        {"match": "Silver Oar is old", "text": json.dumps(fact)},
        {"match": "# Passage", "text": "I do not know."},
        {"match": "# Puzzle", "text": "Which is it?"},
        {"match": "from what you know", "text": "Port Ems"},
    )
    done = invoke(
        *("questions", notes, "--num-questions", 50, "--hops", 1, "--model", model),
        *("--closed-book-model", model, "--json"),
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["extracted"] == {
        "passages": 5,
        "unreadable": 4,
        "facts": 1,
        "unsupported": 0,
        "unusable": 0,
    }
    assert summary["dropped"]["closed_book"] > 0
    assert summary["spent"]["model_calls"] > 5
    report = json.loads((notes / ".hanol" / "synth" / "report.json").read_text("utf-8"))
    assert report["spent"] == summary["spent"]
    assert summary["refused_wordings"] == summary["kept"]
    found = rows(notes / ".hanol" / "synth" / "questions.jsonl")
    assert "old" in [row["answer"] for row in found]
    assert "Port Ems" not in [row["answer"] for row in found]
    plain = invoke(
        *("questions", notes, "--num-questions", 50, "--hops", 1, "--model", model),
        *("--closed-book-model", model),
    )
    assert f"dropped: {summary['dropped']['closed_book']} closed book" in plain.stdout
    assert "50 were wanted" in plain.stderr
    assert "4 unreadable" in plain.stdout


def test_failed_runs_are_counted_and_the_exit_code_tells(notes: Path, tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    script(
        file, {"id": "1", "question": "Say a?", "answer": "a"}, {"question": "b?", "answer": "b"}
    )
    model = script(
        tmp_path / "model.jsonl",
        {"match": "Say a", "text": "<think>It is a, I know.</think><answer>a</answer>"},
    )
    done = invoke("trajectories", notes, file, "--model", model, "--num-runs", 2, "--json")
    assert done.exit_code == 1
    summary = json.loads(done.stdout)
    assert (summary["right"], summary["failed"], summary["attempts"]) == (2, 2, 4)
    assert summary["first_failure"].startswith("EngineError: ")
    plain = invoke("trajectories", notes, file, "--model", model, "--num-runs", 2)
    assert plain.exit_code == 1
    assert "2 of 4 runs are right, 2 failed; 1 of 2 questions are solved" in plain.stdout
    assert "failed: EngineError" in plain.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["questions", "{notes}", "--hops", "1,x"], 2, "give different numbers from 1 to 5"),
        (["questions", "{notes}", "--level", "3"], 2, "--level"),
        (["questions", "{notes}", "--hops", "6"], 2, "give different numbers from 1 to 5"),
        (["questions", "{notes}/none"], 1, "There is no folder"),
        (["questions", "encyclopedia:x"], 1, "There is no folder"),
        (["questions", "{notes}", "--split", "dev"], 1, "is a folder: --split is for"),
        (["questions", WORLD, "--index", "{notes}"], 1, "--index is for a folder of documents"),
        (
            ["questions", WORLD, "--model", "m", "--output", "{notes}/a"],
            1,
            "--model is for a folder",
        ),
        (["trajectories", "{notes}", "{notes}/none.jsonl", "--model", "m"], 1, "could not be read"),
    ],
    ids=lambda value: "-".join(value[:1] + value[2:]) if isinstance(value, list) else None,
)
def test_wrong_usage(notes: Path, arguments: list[str], code: int, message: str) -> None:
    done = invoke(*(argument.replace("{notes}", str(notes)) for argument in arguments))
    assert done.exit_code == code, done.output
    assert message in " ".join(done.stderr.split())


@pytest.fixture
def start(forked: Callable[..., Forked]) -> Callable[..., Forked]:
    return partial(forked, "from hanol.cli.synth import app; app()")


def kill_when(process: Forked, *, there_is: Any) -> None:
    until = time.monotonic() + 60
    while process.poll() is None and not there_is():
        assert time.monotonic() < until
        time.sleep(0.002)
    assert process.poll() is None, process.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_trajectories_go_on_and_end_the_same(
    notes: Path, tmp_path: Path, start: Callable[..., Forked]
) -> None:
    file = tmp_path / "q.jsonl"
    script(file, *({"id": str(n), "question": f"Who is {n}?", "answer": "Ada"} for n in range(6)))
    call = json.dumps({"name": "search", "arguments": {"query": ["Ada Bel"]}})
    model = script(
        tmp_path / "model.jsonl",
        {"text": f"<think>Look.</think><tool_call>{call}</tool_call>", "latency": 0.05},
        {"text": "<answer>Ada</answer>", "latency": 0.05},
    )
    common = ("trajectories", notes, file, "--model", model, "--num-runs", 2, "--concurrency", 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert invoke(*common, "--output", whole).exit_code == 0

    def logs() -> list[Path]:
        return sorted(killed.glob("runs/*/events.jsonl"))

    kill_when(start(*common, "--output", killed), there_is=lambda: len(logs()) >= 6)
    ended = {log: log.read_bytes() for log in logs() if RunFolder(log.parent).answer}
    assert 0 < len(ended) < 12
    done = start(*common, "--output", killed)
    assert done.wait(60) == 0, done.stderr
    assert "12 of 12 runs are right" in done.stdout
    assert {log: log.read_bytes() for log in ended} == ended
    for name in ("trajectories.jsonl", "sft.jsonl", "midtrain.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
        assert (killed / name).stat().st_size > 0


def test_an_interruption_says_how_to_go_on(
    notes: Path, tmp_path: Path, start: Callable[..., Forked]
) -> None:
    file = tmp_path / "q.jsonl"
    script(file, {"question": "Who?", "answer": "Ada"})
    model = script(tmp_path / "model.jsonl", {"text": "<answer>Ada</answer>", "latency": 30})
    out = tmp_path / "out"
    process = start("trajectories", notes, file, "--model", model, "--output", out)
    until = time.monotonic() + 60
    while not list(out.glob("runs/*/events.jsonl")):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130, process.stderr
    assert process.stderr.endswith("interrupted; the same command continues where it stopped\n")
    assert process.stdout == ""


def test_killed_questions_ask_the_model_nothing_twice(
    notes: Path, tmp_path: Path, start: Callable[..., Forked]
) -> None:
    model = script(tmp_path / "model.jsonl", {"match": "", "text": "[]", "latency": 0.1})
    place = notes / ".hanol" / "synth"
    common = (
        "questions",
        notes,
        "--num-questions",
        3,
        "--hops",
        1,
        "--model",
        model,
        "--concurrency",
        1,
    )
    log = place / "replies.jsonl"
    kill_when(start(*common), there_is=lambda: log.exists() and log.read_bytes().count(b"\n") >= 2)
    before = log.read_bytes()
    assert start(*common).wait(60) == 0
    whole = before[: before.rfind(b"\n") + 1]
    assert log.read_bytes().startswith(whole)
    keys = [row["request"] for row in rows(log)]
    assert len(keys) == len(set(keys)) == 5 + 3  # passages, then wordings
