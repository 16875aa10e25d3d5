"""`hanol index` and `hanol search` as a user runs them."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from hanol.cli import app

HOSTILE = "\x1b[31mred\nline.txt"


def hanol(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, args)], env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "my notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "keys.md").write_text(
        "# Keys\n\n" + "Unrelated words stand here. " * 30 + "Keys are rotated every 90 days."
    )
    (folder / "sub" / "seoul.txt").write_text("서울특별시의 인구는 약 940만 명이다.", "utf-8")
    (folder / HOSTILE).write_text("zebra")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    (folder / "a.bin").write_bytes(b"\0")
    done = hanol("index", folder)
    assert done.exit_code == 0, done.stderr
    assert "3 added, 0 changed, 0 removed, 0 unchanged, 1 ignored, 1 failed" in done.stdout
    assert "3 documents, 3 passages" in done.stdout
    assert "failed: broken.pdf: " in done.stderr
    return folder


def test_index_again_in_json(folder: Path) -> None:
    done = hanol("index", folder, "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert (report["added"], report["unchanged"], report["ignored"]) == (0, 3, 1)
    assert [file["document"] for file in report["failed"]] == ["broken.pdf"]


def test_embedder_none_goes_back_to_words(folder: Path) -> None:
    with sqlite3.connect(folder / ".hanol" / "index.sqlite") as db:
        db.execute("INSERT INTO meta VALUES ('embedder', 'nosuch'), ('width', '3')")
    db.close()
    (folder / ".hanol" / "index.sum").unlink()
    done = hanol("index", folder, "--embedder", "none", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["embedded"] == 0
    assert hanol("index", folder).exit_code == 0, "the embedder is forgotten"


def test_search_prints_place_and_the_matching_stretch(folder: Path) -> None:
    done = hanol("search", folder, "how often are keys rotated", "-k", "2")
    assert done.exit_code == 0
    assert done.stderr == ""
    first, snippet, *_ = done.stdout.splitlines()
    assert first.startswith("1. keys.md  ")
    assert "rotated every 90 days" in snippet
    assert "\x1b" not in done.stdout, "no colour in a pipe"
    assert "sub/seoul.txt" in hanol("search", folder, "인구").stdout


def test_search_in_json(folder: Path) -> None:
    done = hanol("search", folder, "서울", "--json")
    (hit,) = json.loads(done.stdout).pop("hits")
    keys = "document page text score address title start end highlights doubt"
    assert list(hit) == keys.split()
    assert hit["document"] == "sub/seoul.txt"
    assert hit["page"] is None
    assert hit["address"].startswith("doc://")
    assert hit["score"] > 0
    [[start, end]] = hit["highlights"]
    assert hit["text"][start:end] == "서울"
    assert json.loads(hanol("search", folder, "nowhere", "--json").stdout) == {"hits": []}


def test_nothing_found(folder: Path) -> None:
    done = hanol("search", folder, "\"' NEAR( * ; --")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "No passage has a word of the query" in done.stderr


def test_terminal_codes_of_file_names_are_not_printed(folder: Path) -> None:
    done = hanol("search", folder, "zebra")
    assert "\x1b" not in done.stdout
    assert "red" in done.stdout.splitlines()[0]
    assert "line.txt" in done.stdout.splitlines()[0]


def test_a_page_is_named(tmp_path: Path) -> None:
    (tmp_path / "talk.html").write_text("<html><body><p>plain</p></body></html>")
    from pptx import Presentation

    deck = Presentation()
    deck.slides.add_slide(deck.slide_layouts[5]).shapes.title.text = "first"
    deck.slides.add_slide(deck.slide_layouts[5]).shapes.title.text = "second zebra"
    deck.save(str(tmp_path / "talk.pptx"))
    assert hanol("index", tmp_path).exit_code == 0
    assert "talk.pptx, page 2" in hanol("search", tmp_path, "zebra").stdout


def test_folder_that_is_not_indexed(tmp_path: Path) -> None:
    done = hanol("search", tmp_path, "keys", "--json")
    assert done.exit_code == 1
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "SearchIndexError"
    assert f"Run `hanol index {tmp_path}`" in error["message"]
    assert done.stderr.startswith("hanol: ")
    assert not (tmp_path / ".hanol").exists()
    assert hanol("index", tmp_path / "missing").exit_code == 1
    assert hanol("search", tmp_path, "a", "--mode", "fuzzy").exit_code == 2


def test_index_elsewhere(tmp_path: Path) -> None:
    documents, place = tmp_path / "documents", tmp_path / "index"
    documents.mkdir()
    (documents / "a.txt").write_text("amber")
    assert hanol("index", documents, "--index", place).exit_code == 0
    assert "a.txt" in hanol("search", documents, "amber", "--index", place).stdout
    assert sorted(path.name for path in documents.iterdir()) == ["a.txt"]


def test_searching_loads_no_model_library(folder: Path) -> None:
    code = """
import sys
from hanol.cli._app import app
app(["search", sys.argv[1], "keys"], standalone_mode=False)
heavy = {"torch", "transformers", "sentence_transformers", "pypdfium2", "lxml", "docx"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "keys.md" in done.stdout


def test_every_command_names_a_damaged_index_and_its_cure(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("amber rotates every 90 days")
    assert hanol("index", tmp_path).exit_code == 0
    file = tmp_path / ".hanol" / "index.sqlite"
    file.write_bytes(file.read_bytes().replace(b"every 90 days", b"every 10 days"))
    (tmp_path / "script.jsonl").write_text('{"text": "<answer>done</answer>"}\n')
    script = f"scripted:{tmp_path / 'script.jsonl'}"
    for arguments in (
        ["search", tmp_path, "amber"], ["index", tmp_path], ["mcp", tmp_path],
        ["ask", tmp_path, "What rotates?"],
        ["research", tmp_path, "What rotates?", "--model", script],
    ):  # fmt: skip
        done = hanol(*arguments)
        assert done.exit_code == 1, arguments
        assert done.stderr.count("\n") == 1
        assert "is damaged" in done.stderr
        assert "hanol index --rebuild" in done.stderr
    assert "2 added" in hanol("index", tmp_path, "--rebuild").stdout
    assert "90 days" in hanol("search", tmp_path, "amber").stdout
