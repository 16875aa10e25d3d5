"""What a user types, or a pipe gives: one turn at a time, some of them over several lines."""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from hanol.cli._console import tell
from hanol.errors import ConfigError

_FENCE = '"""'


class Typed(NamedTuple):
    """One input."""

    text: str
    is_command: bool = False


def is_interactive() -> bool:
    """Whether a person types."""
    return sys.stdin.isatty()


def reader() -> Callable[[str], str | None]:
    """A function that shows a prompt and reads a line; None at the end of the input."""
    if not is_interactive():
        return lambda _: _line()
    if not sys.stdout.isatty():  # `input` would write the prompt among the answers
        return _prompted
    with suppress(ImportError):  # not on every system; `input` edits lines where it is
        import readline  # noqa: F401

    def ask(prompt: str) -> str | None:
        try:
            return input(prompt)
        except EOFError:
            return None
        except UnicodeError as err:
            raise _no_text(err) from err

    return ask


def read_turn(read: Callable[[str], str | None]) -> Typed | None:
    """The next input; None at the end.

    A line that ends in a backslash goes on in the next one; lines between two lines of three
    quotes are one input. A line that begins with a slash is a command, with two slashes a question
    that begins with one.

    Raises:
        ConfigError: The input is not UTF-8.
    """
    line = read("> ")
    if line is None:
        return None
    if line.strip() == _FENCE:
        block: list[str] = []
        while (line := read("... ")) is not None and line.strip() != _FENCE:
            block.append(line)
        return Typed("\n".join(block))
    parts = []
    while line is not None and line.endswith("\\"):
        parts.append(line[:-1])
        line = read("... ")
    text = "\n".join([*parts, line or ""]).strip()
    if text.startswith("//"):
        return Typed(text[1:])
    return Typed(text, text.startswith("/"))


def _line() -> str | None:
    try:
        line = sys.stdin.readline()
    except UnicodeError as err:
        raise _no_text(err) from err
    return line.rstrip("\r\n") if line else None


def _no_text(err: UnicodeError) -> ConfigError:
    return ConfigError(f"The input is not valid UTF-8: {err}.")


def _prompted(prompt: str) -> str | None:
    tell(prompt, end="")
    return _line()
