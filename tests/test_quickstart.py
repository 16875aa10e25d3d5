"""`make quickstart` without its models: what it runs with a network, and what without one."""

import os
import subprocess
from pathlib import Path

import pytest
import typer

from hanol.cli import app  # private: the application is no part of the Python interface

ROOT = Path(__file__).parents[1]
# Writes down how it was called; without a network, nothing can be pulled.
FAKE = """#!/bin/sh
for word in "$@"; do printf '%s\\037' "$word"; done >> "$CALLS"; echo >> "$CALLS"
if [ "$1 $2" = "models pull" ] && [ -n "${OFFLINE-}" ]; then
    echo "hanol: no network: get the package elsewhere" >&2
    exit 1
fi
[ "$1" = "${BROKEN-}" ] && { echo "hanol: broken" >&2; exit 1; }
exit 0
"""


def quickstart(tmp_path: Path, **settings: str) -> tuple[subprocess.CompletedProcess[str], list]:
    fake, calls = tmp_path / "bin" / "hanol", tmp_path / "calls"
    fake.parent.mkdir()
    fake.write_text(FAKE)
    fake.chmod(0o755)
    path = f"{fake.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", ROOT / "dev" / "quickstart.sh"], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PATH": path, "CALLS": str(calls)} | settings, check=False,
    )  # fmt: skip
    lines = calls.read_text("utf-8").splitlines()
    return done, [line.rstrip("\x1f").split("\x1f") for line in lines]


def test_every_command_exists_and_is_shown(tmp_path: Path) -> None:
    done, calls = quickstart(tmp_path)
    assert done.returncode == 0, done.stderr
    assert [words[0] for words in calls] == [
        "models", "index", "ask", "index", "ask", "chat", "generate", "synth", "research",
    ]  # fmt: skip
    assert done.stdout.count("$ hanol ") == len(calls)
    for words in calls:
        group, rest = typer.main.get_command(app), words
        while hasattr(group, "commands"):
            rest = ["ask", *rest] if group.name == "research" else rest
            group, rest = group.commands[rest[0]], rest[1:]
        known = {name for parameter in group.params for name in parameter.opts}
        assert {word for word in rest if word[0] == "-"} <= known


def test_without_a_network_all_but_the_chat_is_shown(tmp_path: Path) -> None:
    done, calls = quickstart(tmp_path, OFFLINE="yes")
    assert done.returncode == 0
    assert done.stderr == "hanol: no network: get the package elsewhere\n"
    asked = [words for words in calls if words[0] == "ask"]
    assert [len(words) for words in asked] == [3, 3]
    assert "chat" not in {words[0] for words in calls}
    assert calls[-1][0] == "research"


@pytest.mark.parametrize("name", ["ask", "research"])
def test_any_other_failure_is_shown_and_stops(tmp_path: Path, name: str) -> None:
    done, calls = quickstart(tmp_path, BROKEN=name)
    assert done.returncode == 1
    assert calls[-1][0] == name
    assert "hanol: broken" in done.stdout + done.stderr
