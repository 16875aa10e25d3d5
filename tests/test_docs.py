"""The documentation cannot drift: its Python runs, its commands exist, its reference is fresh."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "README.ko.md", *(ROOT / "docs").glob("*.md"),
     *(ROOT / "docs" / "ko").glob("*.md")]
)  # fmt: skip


def blocks(language: str) -> list[tuple[Path, str]]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page, code) for page in PAGES for code in pattern.findall(page.read_text("utf-8"))]


def test_there_are_pages_with_python() -> None:
    assert len({page for page, _ in blocks("python")}) >= 3


# The Korean readme has the Python of the English one, see below.
@pytest.mark.parametrize(
    "page",
    sorted({page for page, _ in blocks("python")} - {ROOT / "README.ko.md"}),
    ids=lambda page: page.stem,
)
def test_every_python_block_runs(page: Path, tmp_path, monkeypatch) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n".join(code for where, code in blocks("python") if where == page), "utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")


def test_every_command_and_option_in_the_pages_exists() -> None:
    import typer

    from hanol.cli import app

    group = typer.main.get_command(app)
    seen = 0
    for page, code in blocks("bash"):
        for line in code.splitlines():
            words = line.split("#")[0].split("|")[-1].split()
            if words[:1] != ["hanol"]:
                continue
            command, rest = group, words[1:]
            while rest and hasattr(command, "commands"):
                short = {"research": "ask", "think": "solve"}.get(command.name)
                if short and rest[0] not in command.commands:
                    rest = [short, *rest]  # a folder, a model
                assert rest[0] in command.commands, f"{page.name}: {line}"
                command, rest = command.commands[rest[0]], rest[1:]
            known = {name for param in command.params for name in param.opts} | {"--help"}
            for word in rest:
                if re.fullmatch(r"--?[a-z][a-z-]*", word):
                    assert word in known, f"{page.name}: {word} in {line!r}"
            seen += 1
    assert seen >= 8


def test_the_run_in_the_research_guide_prints_what_it_shows(tmp_path) -> None:
    notes = tmp_path / "docs" / "examples"
    shutil.copytree(ROOT / "docs" / "examples", notes)
    guide = (ROOT / "docs" / "research.md").read_text("utf-8")
    (line,) = [line for line in guide.splitlines() if "scripted:docs/" in line]
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(line)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    shown = [row for row in done.stdout.splitlines() if row]
    assert len(shown) == 5
    assert [row for row in shown if row not in guide] == []


def test_every_recipe_and_make_target_in_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    named = set(re.findall(r"recipes/[\w./-]+\.ya?ml", text))
    assert len(named) >= 3
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    for target in re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets


PINNED = re.search(r"^typer==(\S+)", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)


@pytest.mark.skipif(
    PINNED is None or version("typer") != PINNED[1],
    reason="the reference is written by the typer of constraints.txt",
)
def test_command_line_reference_is_fresh() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "typer", "hanol.cli._app", "utils", "docs", "--name", "hanol"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    stored = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert stored.split() == made.split(), "run `make reference`"


def test_both_readmes_begin_with_the_same_lines() -> None:
    pages = {"README.md", "README.ko.md"}
    found = [(page.name, code) for page, code in blocks("python") if page.name in pages]
    texts = {name: [line for line in code.splitlines() if line[:1] != "#"] for name, code in found}
    assert len(found) == len(texts) == 2
    assert texts["README.md"] == texts["README.ko.md"]
    assert {page.name for page, code in blocks("bash") if code == "pip install .\n"} >= pages


@pytest.mark.parametrize("page", ["README.md", "README.ko.md"])
def test_links_in_the_readme_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
