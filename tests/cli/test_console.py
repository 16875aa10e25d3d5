"""Whatever strangers name things does not steer the terminal; whatever is raised is one line."""

import json
import logging
import re
import threading
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.forked import Forked
from typer.testing import CliRunner

from hanol import models
from hanol.cli import app
from hanol.cli._console import new_console, tame_libraries  # private: tables and logs of libraries

runner = CliRunner()
# Title, clipboard, colour in 8 bits, overwriting, and text that runs backwards.
EVIL = "\x1b]0;owned\x07\x1b]52;c;ZXZpbA==\x1b\\\x9b31m\rOK \u202egpj\u2066"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def invoke(*arguments: object, code: int) -> str:
    done = runner.invoke(app, [str(one) for one in arguments])
    assert done.exit_code == code, done.output
    shown = done.stdout + done.stderr
    assert not STEERING.search(shown), repr(shown)
    return shown


def script(path: Path, *turns: str) -> str:
    path.write_text("".join(json.dumps({"text": turn}) + "\n" for turn in turns), "utf-8")
    return f"scripted:{path}"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bridge.md").write_text("# Bridge\n\nThe bridge is red.\n")
    return folder


def test_names_of_files(notes: Path) -> None:
    (notes / f"{EVIL}.pdf".replace("/", "")).write_bytes(b"no pdf")
    assert "owned" in invoke("index", notes, code=0)
    assert "owned" in invoke("index", notes, "--report", code=0)
    assert "owned" in invoke("index", notes, "--json", code=0)
    assert "owned" in invoke("documents", "show", notes / f"{EVIL}.pdf", code=1)
    assert "owned" in invoke("search", notes, "x", "--mode", EVIL, code=2)


def test_runs_and_their_exports(notes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer = f"<answer>The bridge is {EVIL} red.</answer>"
    model = script(tmp_path / "t.jsonl", answer)
    assert "owned" in invoke(
        "research", notes, f"Colour{EVIL}?", "--model", model, "--output", run, code=0
    )
    for layout in ("md", "html", "tongyi"):
        assert "owned" in invoke("research", "export", run, "--format", layout, code=0)
    assert "owned" in invoke("research", "replay", run, "--json", code=0)
    report = (run / "report.md").read_text("utf-8")
    assert "owned" in report
    assert not STEERING.search(report)


def test_ids_of_a_batch(notes: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"id": f"q{EVIL}", "question": "Colour?"}) + "\n")
    model = script(tmp_path / "empty.jsonl")
    shown = invoke("research", "batch", notes, questions, "--model", model, code=1)
    assert "failed: q" in shown


class Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        data = json.dumps({"error": {"message": f"bad request {EVIL}"}}).encode()
        self.send_response(400)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


def test_errors_of_an_endpoint(notes: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1#m"
        assert "owned" in invoke("research", notes, "Colour?", "--model", url, code=1)
        server.shutdown()


def test_checkpoints_and_recipes(tmp_path: Path) -> None:
    model, tokenizer = models.load("tiny")
    tokenizer.chat_template = "{{ raise_exception(messages[0].content) }}"
    folder = models.save(model, tmp_path / "m", tokenizer)
    assert "owned" in invoke("generate", folder, "-p", EVIL, code=1)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = f"llama{EVIL}"
    (folder / "config.json").write_text(json.dumps(config))
    assert "owned" in invoke("inspect", folder, code=1)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"kind": "sft", f"key{EVIL}": 1}))
    assert "owned" in invoke("train", recipe, code=1)


def test_tables_and_other_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table(title=EVIL)
    table.add_row(EVIL, "[bold]x[/bold]")
    new_console().print(table)
    shown = capsys.readouterr().out
    assert not STEERING.search(shown)
    assert "[bold]x" not in shown or "[/bold]" in shown
    factory, formatted = logging.getLogRecordFactory(), warnings.formatwarning
    try:
        tame_libraries()
        record = logging.getLogRecordFactory()("a", 10, "b", 1, "%s", (EVIL,), None)
        told = record.getMessage() + warnings.formatwarning(EVIL, UserWarning, "c", 1)
    finally:
        logging.setLogRecordFactory(factory)
        warnings.formatwarning = formatted
    assert told.count("owned") == 2
    assert not STEERING.search(told)


RAISE = """
import sys
from hanol import cli, retrieval

import builtins

class Panic(BaseException):
    pass

def raised(*_, **__):
    kind = {"Panic": Panic}.get(KIND) or getattr(builtins, KIND)
    raise kind(
        "Bearer abcdefgh, secret-of-mine \\x1b]0;owned\\nand a second line"
    )

retrieval.Index.open = raised
KIND = sys.argv.pop()
sys.argv[0] = "hanol"
cli.main()
"""


@pytest.mark.parametrize("kind", ["RuntimeError", "MemoryError", "Panic"])
def test_what_nobody_foresaw_is_one_line_and_a_log(
    kind: str, forked: Callable[..., Forked], notes: Path, tmp_path: Path
) -> None:
    environment: dict[str, Any] = {
        "XDG_STATE_HOME": str(tmp_path / "state"), "SOME_API_KEY": "secret-of-mine",
    }  # fmt: skip
    done = forked(RAISE, "search", notes, "x", "--json", kind, **environment)
    assert done.wait() == 70
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not STEERING.search(done.stderr)
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == kind
    log = Path(re.search(r"log (\S+)$", done.stderr.strip())[1])
    assert log.parent == tmp_path / "state" / "hanol" / "faults"
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text("utf-8")
    assert "Traceback" in text
    assert kind in text
    for told in (text, done.stderr, done.stdout):
        assert "secret-of-mine" not in told
        assert "abcdefgh" not in told


def test_a_log_needs_no_home(forked: Callable[..., Forked], notes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = forked(RAISE, "search", notes, "x", "Panic", XDG_STATE_HOME=str(tmp_path / "file"))
    assert done.wait() == 70
    log = Path(re.search(r"log (\S+)$", done.stderr.strip())[1])
    assert "Traceback" in log.read_text("utf-8")
    assert log.stat().st_mode & 0o777 == 0o600
    log.unlink()


@pytest.mark.parametrize("words", [["index"], ["search", "{}", "x"], ["convert", "{}", "new"]])
def test_a_path_that_no_file_can_have_is_named_in_a_line(words: list[str]) -> None:
    path = "x" * 300
    arguments = [word.format(path) for word in words] + [path] * (len(words) == 1)
    assert "is no path: File name too long. Name another." in invoke(*arguments, code=1)
