"""`hanol research`: a question to its report, and every way to go on from there."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.forked import Forked
from typer.testing import CliRunner, Result

from hanol import engines, tools
from hanol.cli import app
from hanol.research import read_official_runs
from hanol.runs import RunFolder

runner = CliRunner()
SEARCH = (
    "<think>I look for the bridge.</think>\n"
    '<tool_call>{"name": "search", "arguments": {"query": ["bridge colour"]}}</tool_call>'
)
ANSWER = "<answer>The old bridge is red [1]. It opened in 1902 [1]. See [7].</answer>"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bridge.md").write_text(
        "# The bridge\n\nThe old bridge is red. It was built in 1901.\n", "utf-8"
    )
    return folder


def script(path: Path, *turns: str | dict[str, Any]) -> str:
    rows = [{"text": turn} if isinstance(turn, str) else turn for turn in turns]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return f"scripted:{path}"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return script(tmp_path / "turns.jsonl", SEARCH, ANSWER)


def invoke(*arguments: object) -> Result:
    return runner.invoke(app, ["research", *map(str, arguments)], catch_exceptions=False)


def evaluate(*results: object) -> Result:
    arguments = ["eval", "answers", *map(str, results)]
    return runner.invoke(app, arguments, catch_exceptions=False)


def test_a_question_to_its_report(notes: Path, model: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = invoke(notes, "Which colour is the bridge?", "--model", model, "--output", run)
    assert done.exit_code == 0, done.output
    # Steps beside the result, so that a pipe gets the answer alone.
    assert "is not indexed yet: indexing it first" in done.stderr
    assert "I look for the bridge." in done.stderr
    assert "→ search: bridge colour" in done.stderr
    assert f"report: {run / 'report.html'}" in done.stderr
    assert "The old bridge is red [1]." in done.stdout
    assert "≠ unsupported: It opened in 1902 [1]." in done.stdout
    assert "✗ invented" in done.stdout
    assert "[1] The bridge  doc://" in done.stdout
    assert "I look" not in done.stdout
    assert "The old bridge is red. It was built" in (run / "report.html").read_text("utf-8")


def test_the_group_takes_an_option_first_and_a_folder_named_like_a_command(
    notes: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = invoke("--model", model, notes, "Colour?", "--output", tmp_path / "a")
    assert first.exit_code == 0, first.output
    notes.rename(tmp_path / "resume")
    monkeypatch.chdir(tmp_path)
    named = invoke("./resume", "Colour?", "--model", model)
    assert named.exit_code == 0, named.output
    assert len(list((tmp_path / "resume" / ".hanol" / "runs").glob("*-colour/report.html"))) == 1
    missing = invoke("no-such-folder", "Colour?", "--model", model)
    assert missing.exit_code == 1
    assert "There is no folder" in missing.stderr
    typo = invoke("replya", "Colour?", "--json")
    assert typo.exit_code == 2
    assert "Did you mean 'replay'?" in typo.stdout
    empty = invoke("./resume", " ", "--model", model, "--dry-run", "--json")
    assert empty.exit_code == 2
    assert "the question is empty" in empty.stdout


@pytest.mark.parametrize("unsafe", [False, True])
def test_a_missing_sandbox_is_told_once(notes: Path, model: str, unsafe: bool) -> None:
    option = ["--unsafe-python"] * unsafe
    done = subprocess.run(
        [sys.executable, "-m", "hanol", "research", notes, "Colour?", "--model", model, *option],
        env={**os.environ, "PATH": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "Python code of a model" in line]
    assert len(told) == 1
    assert ("runs with all of your rights" if unsafe else "is not run") in told[0]
    assert "apt install bubblewrap" in told[0]
    # Results of small models are short, and Python is not among their tools.
    assert "Python code" not in invoke(notes, "Colour?", "--model", model, "--compact").stderr


def test_what_no_source_supports_is_followed_by_the_best_passages(
    notes: Path, model: str, tmp_path: Path
) -> None:
    best = "Passages that fit the question best:\n- The bridge  doc://"
    nothing = script(tmp_path / "nothing.jsonl", *["<think>hm</think>"] * 4)
    uncited = script(tmp_path / "uncited.jsonl", "<answer>The bridge is blue.")

    def ask(with_model: str, run: str, *more: str) -> Result:
        arguments = (notes, "Which colour is the bridge?", "--model", with_model, *more)
        return invoke(*arguments, "--output", tmp_path / run)

    found = ask(nothing, "nothing")
    assert found.exit_code == 0, found.output
    assert "No answer was found." in found.stdout
    assert best in found.stdout
    assert "The old bridge is red." in found.stdout
    found = ask(uncited, "uncited")
    assert "The bridge is blue." in found.stdout
    assert best in found.stdout
    assert "(repaired)" in found.stderr
    assert "1 turn repaired" in found.stderr
    assert best not in ask(model, "supported").stdout
    [passage] = json.loads(ask(nothing, "json", "--json").stdout)["passages"]
    assert "The old bridge is red." in passage["text"]
    assert json.loads(ask(model, "both", "--json").stdout)["passages"] == []


def test_turns_can_be_left_free(notes: Path, model: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = invoke(notes, "Colour?", "--model", model, "--turns", "free", "--output", run)
    assert done.exit_code == 0, done.output
    assert RunFolder(run).started().settings["turns"] == "free"
    assert invoke("resume", run).exit_code == 0
    assert invoke(notes, "Colour?", "--model", model, "--turns", "loose").exit_code == 2


def test_one_json_object(notes: Path, model: str, tmp_path: Path) -> None:
    done = invoke(notes, "Colour?", "--model", model, "--output", tmp_path / "run", "--json")
    result = json.loads(done.stdout)
    assert result["termination"] == "answer"
    assert result["citations"]["invented"] == [7]
    assert result["sources"][0]["text"].startswith("# The bridge")
    assert result["spent"]["model_calls"] == 2
    assert Path(result["report"]).exists()
    failed = invoke(notes, "Colour?", "--model", "scripted:nowhere", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["error"]["kind"] == "EngineError"


def test_a_dry_run_makes_no_call(notes: Path, tmp_path: Path) -> None:
    model = script(tmp_path / "empty.jsonl")  # would fail at the first call
    arguments = [notes, "Colour?", "--model", model, "--dry-run", "--max-calls", 3]
    arguments += ["--prompt-price", 2, "--completion-price", 8, "--max-total-tokens", 100_000]
    plain = invoke(*arguments)
    assert plain.exit_code == 0, plain.output
    assert "model calls 3" in plain.stdout or "model_calls 3" in plain.stdout
    assert "search" in plain.stdout
    assert "no call was made." in plain.stdout
    plan = json.loads(invoke(*arguments, "--json").stdout)
    assert plan["budget"]["model_calls"] == 3
    assert plan["prompt_tokens"] > 100
    assert plan["documents"] == 1
    assert plan["cost_at_most"] == pytest.approx(0.8)  # 100,000 tokens at the higher price
    assert not (notes / ".hanol" / "runs").exists()
    money = invoke(notes, "Colour?", "--model", model, "--max-cost", 1)
    assert money.exit_code == 1
    assert "no prices" in money.stderr


def test_a_run_that_failed_can_go_on(notes: Path, tmp_path: Path) -> None:
    path = tmp_path / "turns.jsonl"
    model = script(path, SEARCH)  # has no second answer
    run = tmp_path / "run"
    failed = invoke(notes, "Colour?", "--model", model, "--output", run)
    assert failed.exit_code == 1
    assert f"hanol research resume {run}" in failed.stderr
    script(path, {"match": "never", "text": ""}, "the first turn is not asked again", ANSWER)
    done = invoke("resume", run)
    assert done.exit_code == 0, done.output
    assert "The old bridge is red [1]." in done.stdout
    again = invoke(notes, "Another?", "--model", model, "--output", run)
    assert again.exit_code == 1
    assert "Cannot resume the run" in again.stderr


def test_replay_fork_and_export(notes: Path, model: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    asked = invoke(notes, "Colour?", "--model", model, "--output", run)
    Path(model.partition(":")[2]).unlink()
    replayed = invoke("replay", run)
    assert replayed.exit_code == 0, replayed.output
    assert replayed.stdout == asked.stdout
    line = invoke("export", run, "--format", "tongyi", "--answer", "red")
    (tmp_path / "iter1.jsonl").write_bytes(line.stdout_bytes)
    (official,) = read_official_runs(tmp_path / "iter1.jsonl")
    assert (official.answer, official.termination) == ("red", "answer")
    assert invoke("export", run).stdout == (run / "report.md").read_text("utf-8")
    assert invoke("export", run, "--format", "html").stdout.startswith("<!doctype html>")
    other = script(tmp_path / "other.jsonl", SEARCH, "<answer>It is blue [1].</answer>")
    forked = invoke("fork", run, "--at", 2, "--model", other, "--output", tmp_path / "fork")
    assert forked.exit_code == 0, forked.output
    assert "It is blue [1]." in forked.stdout
    started = RunFolder(tmp_path / "fork").started()
    assert started.parent == f"{RunFolder(run).started().run_id}@2"
    assert invoke("replay", tmp_path).exit_code == 1


def test_a_resumed_run_loads_its_model_as_before(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def open_one(spec: str, **options: Any) -> engines.Engine:
        opened.append(options)
        return engines.ScriptedEngine([SEARCH, ANSWER], name=spec)

    monkeypatch.setattr(engines, "open_engine", open_one)
    run, loading = tmp_path / "run", {"dtype": "bfloat16", "device": "cpu"}
    words = [word for name, value in loading.items() for word in (f"--{name}", value)]
    assert invoke(notes, "Colour?", "--model", "m", "--output", run, *words).exit_code == 0
    assert invoke("resume", run).exit_code == 0
    assert invoke("fork", run, "--at", 2).exit_code == 0
    assert invoke("fork", run, "--at", 2, "--model", "n", "--seed", 2).exit_code == 0
    assert opened == [loading, loading, loading, {}]


# A file is read in a thread that works for a minute in C++, where no thread can be stopped.
STUCK = """
import sys, time, torch
from hanol.cli import main
from hanol.tools import _parse_file

big = torch.randn(600, 600)

def parse_document(name, data, **options):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        big @ big

_parse_file.parse_document = parse_document
main()
"""


def test_a_budget_holds_with_a_thread_that_cannot_be_stopped(
    notes: Path, tmp_path: Path, forked: Callable[..., Forked]
) -> None:
    assert runner.invoke(app, ["index", str(notes)]).exit_code == 0
    call = '<tool_call>{"name": "parse_file", "arguments": {"files": ["bridge.md"]}}</tool_call>'
    model, run = script(tmp_path / "t.jsonl", call, "<answer>late</answer>"), tmp_path / "run"
    common = ("research", notes, "q", "--model", model, "--output", run, "--max-seconds", 2)
    process = forked(STUCK, *common)
    assert process.wait(50) == 0, process.stderr
    assert "late" in process.stdout
    assert "Traceback" not in process.stderr
    assert "terminate" not in process.stderr
    events = RunFolder(run).events()
    assert events[-1].time - events[0].time < 4
    assert any("time was used up" in getattr(event, "text", "") for event in events)


REMOTE = "https://203.0.113.1/v1#m"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What models were opened; none is asked over a network."""
    specs: list[str] = []

    def open_one(spec: str, **options: Any) -> engines.Engine:
        specs.append(spec)
        return engines.ScriptedEngine([SEARCH, ANSWER], name=spec)

    monkeypatch.setattr(engines, "open_engine", open_one)
    return specs


def test_a_run_of_this_machine_goes_on_with_its_endpoint_and_one_of_elsewhere_does_not(
    notes: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert invoke(notes, "Colour?", "--model", REMOTE, "--output", run).exit_code == 0
    assert invoke("resume", run).exit_code == 0
    assert invoke("fork", run, "--at", 2, "--output", tmp_path / "fork").exit_code == 0
    assert invoke("resume", tmp_path / "fork").exit_code == 0
    assert opened == [REMOTE] * 4
    secret = next(Path(os.environ["XDG_STATE_HOME"]).rglob("secret"))
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_bytes()) == 32

    def refused(model: str, run: Path) -> None:
        for command in (("resume", run), ("fork", run, "--at", 2, "--output", tmp_path / "new")):
            done = invoke(*command)
            assert done.exit_code == 1
            [line] = done.stderr.splitlines()
            assert f"names the model {model!r}" in line
            assert "--model" in line
            assert not (tmp_path / "new").exists()

    log = RunFolder(run).log
    text = log.read_text()
    opened.clear()
    for old, new in [
        ("Colour?", "Secrets?"),
        (str(notes), str(notes.parent)),
        ('"seal":"', '"seal":"0'),
    ]:
        assert old in text
        log.write_text(text.replace(old, new))
        refused(REMOTE, run)
    log.write_text(text)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of another user"))
    refused(REMOTE, run)
    for model in ("http://localhost@203.0.113.1/v1#m", "cached:x.jsonl:tiny", "ray:1:tiny"):
        log.write_text(text.replace(REMOTE, model))
        refused(model, run)
    assert opened == []
    for model in ("http://127.0.0.1:1/v1#m", "http://localhost:1/v1#m", "tiny"):
        log.write_text(text.replace(REMOTE, model))
        assert invoke("resume", run).exit_code == 0
    log.write_text(text)
    assert invoke("resume", run, "--model", REMOTE).exit_code == 0  # named, so agreed to
    assert opened[-1] == REMOTE


def test_where_no_secret_can_be_kept_a_run_is_not_known(
    notes: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    run = tmp_path / "run"
    assert invoke(notes, "Colour?", "--model", REMOTE, "--output", run).exit_code == 0
    assert "begun elsewhere" in invoke("resume", run).stderr


def test_a_resumed_run_keeps_its_web(
    notes: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    agent_tools = tools.agent_tools

    def agent_tools_of(index: Any, *, web: Any, web_consent: bool, **options: Any) -> Any:
        used.append((web, web_consent))
        return agent_tools(index, web=web, web_consent=web_consent, **options)

    monkeypatch.setattr(tools, "agent_tools", agent_tools_of)
    run, web = tmp_path / "run", "http://127.0.0.1:9"
    common = (notes, "Colour?", "--model", "tiny", "--output", run)
    assert invoke(*common, "--web", web, "--web-consent").exit_code == 0
    assert RunFolder(run).started().settings["web"] == web
    assert invoke("resume", run).exit_code == 0
    assert invoke("resume", run, "--web", "http://127.0.0.1:8").exit_code == 1  # no consent to it
    assert used == [(web, True), (web, True), ("http://127.0.0.1:8", False)]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of another user"))
    elsewhere = invoke("resume", run)
    assert elsewhere.exit_code == 1
    assert f"with the web search of {web!r}" in elsewhere.stderr
    assert len(used) == 3


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"today": 5}', '{"today": "x"}', "\xff", "[" * 9999]
)
def test_an_odd_file_of_a_batch_is_named(notes: Path, tmp_path: Path, content: str) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Colour?"}\n')
    batch = tmp_path / "batch"
    batch.mkdir()
    (batch / "batch.json").write_text(content, "latin-1")
    model = script(tmp_path / "turns.jsonl", SEARCH, ANSWER)
    done = invoke("batch", notes, questions, "--model", model, "--output", batch)
    assert done.exit_code == 1
    assert f"'{batch / 'batch.json'}' does not hold the date" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1"])
@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--prompt-price", "prompt_price"), ("--completion-price", "completion_price"),
        ("--max-cost", "money"), ("--max-seconds", "seconds"),
    ],
)  # fmt: skip
def test_odd_prices_and_budgets_are_refused_by_name(
    notes: Path, model: str, option: str, name: str, value: str
) -> None:
    prices = () if "price" in option else ("--prompt-price", 1)
    done = invoke(notes, "Colour?", "--model", model, *prices, f"{option}={value}")
    assert done.exit_code == 1
    assert f"`{name}` of the budget is {value}" in done.stderr.splitlines()[-1]
    assert not (notes / ".hanol" / "runs").exists()


def test_a_folder_that_is_a_file_or_missing_is_named(notes: Path, model: str) -> None:
    file = notes / "bridge.md"
    asked = invoke(notes, "Colour?", "--model", model, "--output", file)
    questions = notes / "questions.jsonl"
    questions.write_text('{"question": "Colour?"}\n')
    asked_many = invoke("batch", notes, questions, "--model", model, "--output", file)
    for done, path in [
        (asked, file),
        (asked_many, file),
        (invoke("replay", file), file),
        (invoke("replay", notes / "none"), notes / "none"),
        (invoke("export", notes / "none"), notes / "none"),
    ]:
        assert done.exit_code == 1
        assert done.stderr.splitlines()[-1].startswith("hanol: ")
        assert f"'{path}" in done.stderr


def test_heavy_and_markov(notes: Path, tmp_path: Path) -> None:
    model = script(
        tmp_path / "turns.jsonl",
        {"match": "# Report 1", "text": "<answer>The bridge is red [1].</answer>"},
        {"match": r"\[1\]", "text": f"<report>Red [1].</report>{ANSWER}"},
        {"match": "", "text": f"<report>Nothing yet.</report>{SEARCH}"},
    )
    run = tmp_path / "run"
    options = ["--model", model, "--heavy", 2, "--temperature", 0.5, "--output", run]
    done = invoke(notes, "Colour?", *options)
    assert done.exit_code == 0, done.output
    assert "The bridge is red [1]." in done.stdout
    assert "2: → search: bridge colour" in done.stderr
    assert (run / "rollouts" / "02" / "report.html").exists()
    started = RunFolder(run).started()
    assert (started.mode, started.settings["sampling"]["temperature"]) == ("markov", 0.5)
    assert invoke("replay", run).stdout == done.stdout


def test_options_reach_the_run(notes: Path, model: str, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("You are terse.", "utf-8")
    run = tmp_path / "run"
    options = ["--system-prompt", prompt, "--seed", 7, "--today", "2020-02-29"]
    options += ["--mode", "resum", "--max-seconds", 30, "--max-calls", 5]
    done = invoke(notes, "Colour?", "--model", model, "--output", run, *options)
    assert done.exit_code == 0, done.output
    started = RunFolder(run).started()
    assert (started.mode, started.system_prompt) == ("resum", "You are terse.")
    assert (started.settings["seed"], started.settings["today"]) == (7, "2020-02-29")
    budget = started.settings["budget"]
    assert (budget["seconds"], budget["model_calls"], budget["context_tokens"]) == (30, 5, 32768)


def test_the_web_wants_consent(notes: Path, model: str, tmp_path: Path) -> None:
    common = [notes, "Colour?", "--model", model, "--web", "http://127.0.0.1:9/"]
    refused = invoke(*common)
    assert refused.exit_code == 1
    assert "consent" in refused.stderr
    agreed = invoke(*common, "--web-consent", "--dry-run")
    assert agreed.exit_code == 0, agreed.output
    assert invoke(*common[:-1], "nonsense").exit_code == 1


def test_a_document_cannot_steer_the_terminal(notes: Path, tmp_path: Path) -> None:
    (notes / "evil.md").write_text("The bridge \x1b[2J\x1b]0;owned\x07 [red]bold[/red] colour.")
    answer = "<answer>It is \x1b[2Jred [1]. [bold]x[/bold]</answer>"
    done = invoke(notes, "Colour?", "--model", script(tmp_path / "t.jsonl", SEARCH, answer))
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert "[bold]x[/bold]" in done.stdout


def test_a_batch_and_its_scores(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = script(tmp_path / "t.jsonl", SEARCH, "<answer>red</answer>")
    rows = [
        {"question": "Colour?", "answer": "red"},
        {"question": "Colour?", "answer": "blue"},
        {"question": "Year?", "answer": "1901"},
    ]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = invoke("batch", notes, questions, "--model", model)
    assert done.exit_code == 0, done.output
    assert "3 questions, 3 answered, 0 failed" in done.stdout
    results = notes / ".hanol" / "batches" / "questions" / "results.jsonl"
    assert len(results.read_text("utf-8").splitlines()) == 3
    again = tmp_path / "again.jsonl"
    again.write_bytes(results.read_bytes())
    scored = evaluate(results, again, "--metric", "exact", "--json")
    scores = json.loads(scored.stdout)
    assert scores["avg_at_k"]["value"] == pytest.approx(0.3333)
    assert (scores["k"], scores["questions"]) == (2, 3)
    assert scores["runs_summary"]["effort"]["tool_calls"] == 1
    assert "Avg@1" in evaluate(results).stdout
    assert "completion tokens a run " in evaluate(results).stdout
    assert "given twice" in evaluate(results, results.parent).stderr
    judge = script(tmp_path / "judge.jsonl", {"match": "", "text": "Absolutely not"})
    assert evaluate(results, "--metric", "judge").exit_code == 1
    closed = []

    async def close(engine: engines.Engine) -> None:
        closed.append(engine.name)

    monkeypatch.setattr(engines.ScriptedEngine, "aclose", close)
    undecided = evaluate(results, "--metric", "judge", "--judge", judge)
    assert undecided.exit_code == 1
    assert "verdict" in undecided.stderr
    assert closed == [judge]


def test_a_batch_with_a_failure_exits_with_1_and_is_tried_again(
    notes: Path, tmp_path: Path
) -> None:
    model = script(tmp_path / "t.jsonl", SEARCH)
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Colour?"}\n', "utf-8")
    failed = invoke("batch", notes, questions, "--model", model, "--output", tmp_path / "out")
    assert failed.exit_code == 1
    assert "EngineError" in failed.stderr
    script(tmp_path / "t.jsonl", SEARCH, ANSWER)
    done = invoke(
        "batch", notes, questions, "--model", model, "--output", tmp_path / "out", "--json"
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["answered"] == 1
    assert (summary["spent"]["model_calls"], summary["spent"]["tool_calls"]) == (2, 1)
    unscored = evaluate(tmp_path / "out")
    assert unscored.exit_code == 1
    assert "no `answer` to compare with" in unscored.stderr


def test_ctrl_c_says_how_to_go_on(notes: Path, tmp_path: Path) -> None:
    model = script(tmp_path / "t.jsonl", SEARCH, {"text": ANSWER, "latency": 600})
    run = tmp_path / "run"
    arguments = ["research", notes, "Colour?", "--model", model, "--output", run]
    # A test that runs in the background of a shell would hand its deafness on.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from hanol.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while len(RunFolder(run).events()) < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"continue with: hanol research resume {run}" in errors
    assert "Traceback" not in errors
    script(tmp_path / "t.jsonl", SEARCH, ANSWER)
    assert "The old bridge is red" in invoke("resume", run).stdout


def test_help_and_a_run_need_no_torch(notes: Path, model: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['hanol', *sys.argv[1:]]\n"
        "from hanol.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'ray', 'openai'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for arguments in (
        ["research", "--help"],
        ["research", str(notes), "Colour?", "--model", model, "--output", str(tmp_path / "run")],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
