"""`hanol ask` from the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hanol.cli import app

runner = CliRunner()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bridge.md").write_text(
        "# The bridge\n\nThe old bridge is \x1b[31mred\x1b[0m.\n\nThe bridge was built in 1901.\n",
        "utf-8",
    )
    return folder


def invoke(*arguments: object, **options: str) -> Result:
    return runner.invoke(app, ["ask", *map(str, arguments)], catch_exceptions=False, **options)


def script(path: Path, text: str) -> str:
    path.write_text(json.dumps({"text": text}) + "\n", "utf-8")
    return f"scripted:{path}"


def test_the_answer_and_its_source(notes: Path) -> None:
    done = invoke(notes, "When was the bridge built?")
    assert done.exit_code == 0, done.stderr
    assert (
        done.stdout
        == "The bridge was built in 1901. [1]\n[1] bridge.md: The bridge was built in 1901.\n"
    )
    assert "indexing it first" in done.stderr
    again = invoke(notes, "When was the bridge built?")
    assert again.stdout == done.stdout
    assert again.stderr == ""


def test_no_document_can_steer_the_terminal(notes: Path) -> None:
    done = invoke(notes, "Which colour is the old bridge?")
    assert "red" in done.stdout
    assert "\x1b" not in done.stdout


def test_json_is_exactly_the_published_object(notes: Path, tmp_path: Path) -> None:
    model = script(tmp_path / "says.jsonl", "It was built in 1901. [1]")
    done = invoke(notes, "When was the bridge built?", "--model", model, "--json")
    found = json.loads(done.stdout)
    assert list(found) == [
        *("question", "answer", "found", "doubt", "note", "sentences", "ledger"),
    ]
    assert found["answer"] == "It was built in 1901. [1]"
    assert found["found"] is True
    text = "The bridge was built in 1901."
    place = {"document": "bridge.md", "page": None, "text": text, "doubt": ""}
    sentence = {"text": "It was built in 1901.", "citations": [place], "supported": True}
    assert found["sentences"] == [sentence]
    assert found["ledger"]["model_calls"] == 1


def test_not_in_these_documents_is_an_answer(notes: Path) -> None:
    done = invoke(notes, "Who painted the Night Watch?")
    assert done.exit_code == 0
    assert done.stdout == "Not in these documents.\n"
    plain = json.loads(invoke(notes, "Who painted the Night Watch?", "--json").stdout)
    assert (plain["found"], plain["sentences"]) == (False, [])


def test_a_question_in_another_language_is_told_so(notes: Path) -> None:
    done = invoke(notes, "다리는 언제 지었습니까?")
    assert done.stdout == "Not in these documents.\n"
    assert "ask in their words and language" in done.stderr
    assert "language" not in invoke(notes, "Who painted the Night Watch?").stderr


def test_why_the_model_did_not_answer_is_said_apart(notes: Path, tmp_path: Path) -> None:
    model = script(tmp_path / "says.jsonl", "It is made of cheese.")
    done = invoke(notes, "When was the bridge built?", "--model", model)
    assert done.stdout.startswith("The bridge was built in 1901. [1]\n")
    assert "quoted instead" in done.stderr


def test_questions_come_one_per_line(notes: Path) -> None:
    questions = "When was the bridge built?\n\nWho painted the Night Watch?\n"
    done = invoke(notes, "--json", input=questions)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["found"] for row in rows] == [True, False]
    assert [row["question"] for row in rows] == [
        "When was the bridge built?",
        "Who painted the Night Watch?",
    ]
    shown = invoke(notes, input=questions).stdout
    assert shown.index("When was the bridge built?") < shown.index("1901. [1]")
    assert shown.index("Who painted") < shown.index("Not in these documents.")


def test_what_is_true_of_every_question_is_told_once(notes: Path) -> None:
    done = invoke(notes, input="다리는 언제 지었습니까?\n박물관은 어디에 있습니까?\n")
    assert done.stderr.count("ask in their words and language") == 1


def test_a_mistyped_model_is_told_before_anything_is_indexed(notes: Path) -> None:
    done = invoke(notes, "When was the bridge built?", "--model", "smolm2-reader")
    assert done.exit_code == 1
    assert "indexing" not in done.stderr
    assert not (notes / ".hanol").exists()


@pytest.mark.parametrize("question", ["", "  "])
def test_a_question_is_needed(notes: Path, question: str) -> None:
    done = runner.invoke(app, ["ask", str(notes), question])
    assert done.exit_code == 2
    assert "no question" in done.stderr
    assert runner.invoke(app, ["ask", str(notes)], input="\n").exit_code == 2


def test_who_writes_must_be_named(notes: Path) -> None:
    done = runner.invoke(app, ["ask", str(notes), "When?", "--write"])
    assert done.exit_code == 2
    assert "--write needs --model" in done.stderr


def test_a_folder_without_documents_is_one_line(tmp_path: Path) -> None:
    done = invoke(tmp_path, "Why?")
    assert done.exit_code == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hanol: ")]
    assert "There is no document to ask" in line
    searched = runner.invoke(app, ["search", str(tmp_path), "Why?"])
    assert searched.exit_code == 1
    assert "needs documents there" in searched.stderr
    missing = invoke(tmp_path / "nowhere", "Why?", "--json")
    assert missing.exit_code == 1
    assert json.loads(missing.stdout)["error"]["kind"] == "SearchIndexError"
