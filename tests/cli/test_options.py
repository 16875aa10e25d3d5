"""Every command's help is complete, and its options are a decision: they stand in a file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import hanol

# Private: the application is no part of the Python interface.
from hanol.cli import app

FROZEN = Path(__file__).with_name("options.json")
MOST = 12  # options of a command's own, beside the sets that several share
PANELS = {"Model", "Sampling", "Budget", "Agent", "Tools", "Trees", "World", "Judging"}


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its words."""
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, sub in command.commands.items():
        yield from commands(sub, (*words, name))


COMMANDS = dict(commands(typer.main.get_command(app)))
GROUPS = ["", "models", "documents", "eval", "research", "synth", "claims", "think", "vision"]


def options(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "option"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete(name: str) -> None:
    command = COMMANDS[name]
    text = command.help
    assert re.match(r"[A-Z][^\n]*\.\n", text), "the first line says what the command does"
    assert re.search(r"[^\n]\n[^\n]", text) is None, "a paragraph has line ends of the source"
    assert len(text.splitlines()[0]) <= 80
    assert text.rstrip().splitlines()[-1].strip().startswith(f"Example: hanol {name}".rstrip()) or (
        name == "research ask"
    )
    for param in command.params:
        if param.name == "help":
            continue
        sentence = param.help
        assert sentence, f"{param.name} has no help"
        assert re.fullmatch(r"[A-Z0-9](.|\n)*\.(\.\.)?\)?", sentence), sentence
        assert not sentence.startswith("Of "), sentence


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_default_that_is_shown(name: str) -> None:
    for param in options(COMMANDS[name]):
        is_switch = param.is_flag and not param.default
        if param.name == "help" or is_switch:  # a switch is off
            continue
        if param.default is None or param.default == () or param.required:
            stated = "Omitted" in param.help or "Required" in param.help or param.required
            assert stated, f"{param.opts[0]}: {param.help}"
        else:
            assert param.show_default, param.opts


def test_no_command_has_more_than_its_share_of_options() -> None:
    for name, command in COMMANDS.items():
        own = [p for p in options(command) if getattr(p, "rich_help_panel", None) not in PANELS]
        assert len(own) <= MOST, name


def test_options_are_the_frozen_ones() -> None:
    found = {
        name: sorted(text for param in options(command) for text in param.opts)
        for name, command in sorted(COMMANDS.items())
    }
    assert len(found) >= 20
    stored = json.loads(FROZEN.read_text("utf-8"))
    assert found == stored, f"a new option is a decision: write it to {FROZEN.name}"


def test_one_word_for_one_thing() -> None:
    every = {text for command in COMMANDS.values() for p in options(command) for text in p.opts}
    for other in ("--out", "--n", "--max-new-tokens", "--dir", "--base", "--quiet"):
        assert other not in every
    for number in (text for text in every if re.match(r"--n(um)?-", text)):
        assert number.startswith("--num-")


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_ends_with_a_command_to_paste(group: str) -> None:
    shown = CliRunner().invoke(app, [*group.split(), "--help"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    assert "Example: hanol" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["research", "ask", "notes", "--json"],
        ["generate", "tiny", "--no-such-option", "--json"],
        ["eval", "world", "--model", "tiny", "--num-questions", "many", "--json"],
        ["no-such-command", "--json"],
    ],
    ids=["missing argument", "unknown option", "no number", "unknown command"],
)
def test_wrong_usage_is_one_object_too(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "UsageError"
    assert error["message"]
    assert done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["merge", "a", "b", "--output", "c", "--weights", "1;0"],
            "'1;0': give numbers like 0.5,0.5.",
        ),
        (["merge", "a", "b", "--output", "c", "--weights", ""], "'': give numbers like 0.5,0.5."),
        (
            ["synth", "questions", "notes", "--hops", "2,2"],
            "'2,2': give different numbers from 1 to 5, like 1,2,3.",
        ),
    ],
    ids=["no number", "nothing", "twice"],
)
def test_lists_of_numbers_say_what_they_take(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["message"].endswith(said)


def test_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"hanol {hanol.__version__}\n")
