"""`hanol research --compact --greedy`, and how such a run is gone on with."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hanol.cli import app
from hanol.research import AGENT_SAMPLING, GREEDY
from hanol.runs import RunFolder, ToolReturned
from hanol.sampling import Sampling

SEARCH = '<tool_call>{"name": "search", "arguments": {"query": ["bridge colour"]}}</tool_call>'
VISIT = (
    '<tool_call>{"name": "visit", "arguments": {"url": ["bridge.md"], "goal": "colour"}}'
    "</tool_call>"
)
ANSWER = "<answer>The old bridge is red [1].</answer>"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bridge.md").write_text(
        "# The bridge\n\nThe old bridge is red. It was built in 1901.\n", "utf-8"
    )
    return folder


def script(path: Path, *turns: str) -> str:
    path.write_text("".join(json.dumps({"text": turn}) + "\n" for turn in turns), "utf-8")
    return f"scripted:{path}"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["research", *map(str, arguments)], catch_exceptions=False)


def results(run: Path) -> list[str]:
    return [event.text for event in RunFolder(run).events() if isinstance(event, ToolReturned)]


COMPACT = [
    "1. The old bridge is red. [The bridge](bridge.md)",
    "[1] The old bridge is red. It was built in 1901.",
]


def test_results_are_in_few_words_and_the_likeliest_token_is_taken(
    notes: Path, tmp_path: Path
) -> None:
    model, run = script(tmp_path / "turns.jsonl", SEARCH, VISIT, ANSWER), tmp_path / "run"
    done = invoke(notes, "Colour?", "--model", model, "--compact", "--greedy", "--output", run)
    assert done.exit_code == 0, done.output
    assert "The old bridge is red [1]." in done.stdout
    assert results(run) == COMPACT
    started = RunFolder(run).started()
    assert started.tools == ["search", "visit"]  # and no Python
    sampling = Sampling(**started.settings["sampling"])
    assert sampling == GREEDY
    assert (sampling.temperature, sampling.presence_penalty) == (0.0, 0.0)


def test_the_model_may_choose_its_own_sampling(notes: Path, tmp_path: Path) -> None:
    model, run = script(tmp_path / "turns.jsonl", SEARCH, ANSWER), tmp_path / "run"
    done = invoke(notes, "Colour?", "--model", model, "--own-sampling", "--output", run)
    assert done.exit_code == 0, done.output
    sampling = Sampling(**RunFolder(run).started().settings["sampling"])
    assert (sampling.temperature, sampling.top_p, sampling.presence_penalty) == (None, None, 0.0)
    both = invoke(notes, "Colour?", "--model", model, "--own-sampling", "--greedy")
    assert both.exit_code == 2
    assert "--greedy and --own-sampling" in both.output


def test_without_the_options_nothing_changes(notes: Path, tmp_path: Path) -> None:
    model, run = script(tmp_path / "turns.jsonl", SEARCH, ANSWER), tmp_path / "run"
    assert invoke(notes, "Colour?", "--model", model, "--output", run).exit_code == 0
    started = RunFolder(run).started()
    assert Sampling(**started.settings["sampling"]) == AGENT_SAMPLING
    assert "parse_file" in started.tools
    assert results(run)[0].startswith('A search for "bridge colour" found 1 result.')


def test_a_compact_run_goes_on_and_forks_with_its_own_tools(notes: Path, tmp_path: Path) -> None:
    path, run = tmp_path / "turns.jsonl", tmp_path / "run"
    options = ["--compact", "--greedy", "--output", run]
    failed = invoke(notes, "Colour?", "--model", script(path, SEARCH), *options)
    assert failed.exit_code == 1
    script(path, SEARCH, VISIT, ANSWER)
    done = invoke("resume", run)
    assert done.exit_code == 0, done.output
    assert results(run) == COMPACT
    other = script(tmp_path / "other.jsonl", SEARCH, VISIT, "<answer>It is red [1].</answer>")
    new = tmp_path / "fork"
    forked = invoke("fork", run, "--at", 2, "--model", other, "--output", new)
    assert forked.exit_code == 0, forked.output
    assert "It is red [1]." in forked.stdout
    assert results(new) == COMPACT
    assert (
        RunFolder(new).started().settings["sampling"]
        == (RunFolder(run).started().settings["sampling"])
    )
    replayed = invoke("replay", run)
    assert replayed.stdout == done.stdout


def test_a_batch_is_compact_too(notes: Path, tmp_path: Path) -> None:
    model = script(tmp_path / "turns.jsonl", SEARCH, VISIT, ANSWER)
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"id": "a", "question": "Colour?", "answer": "red"}) + "\n")
    out = tmp_path / "batch"
    done = invoke(
        "batch", notes, questions, "--model", model, "--compact", "--greedy", "--output", out
    )
    assert done.exit_code == 0, done.output
    [run] = [path.parent for path in out.rglob("events.jsonl")]
    assert results(run) == COMPACT
    assert Sampling(**RunFolder(run).started().settings["sampling"]) == GREEDY


def test_a_model_with_a_small_window_gets_them_unasked(notes: Path, tmp_path: Path) -> None:
    for option in ("--greedy", "--no-compact"):
        run = tmp_path / option
        command = (notes, "Colour?", "--model", "tiny-researcher", "--max-calls", 1, option)
        done = invoke(*command, "--output", run)
        assert done.exit_code == 0, done.output
        found = RunFolder(run).started().tools
        assert (found == ["search", "visit"]) == (option == "--greedy")
        assert ("parse_file" in found) == (option == "--no-compact")


def test_compact_is_for_documents(notes: Path, tmp_path: Path) -> None:
    model = script(tmp_path / "turns.jsonl", ANSWER)
    done = invoke(
        notes, "Colour?", "--model", model, "--compact", "--web", "http://127.0.0.1:9/",
        "--web-consent",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "Compact tools are for documents" in done.stderr
