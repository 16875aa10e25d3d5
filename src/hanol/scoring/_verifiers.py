"""Verifiers: whether a model's completion solves its problem, by name.

Completions are text of a model: they are parsed, never run.
Source: arXiv 2510.26697, section 3.1.
"""

import ast
import importlib
import io
import re
import tokenize
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from hanol.errors import ConfigError, DataError
from hanol.scoring._checker import shared_checker
from hanol.scoring._countdown import CountdownVerifier

_LONGEST = 100_000  # characters of a program or text that are looked at


class Problem(Protocol):
    """What a verifier compares with: a training row, or anything that has these two."""

    @property
    def answer(self) -> str | None:
        """The right answer."""

    @property
    def where(self) -> str:
        """Where the problem comes from, for messages."""


# Says whether a completion is right, given the prompt, the completion and the problem.
Verifier = Callable[[str, str, Problem], bool]


# What makes a verifier from the rest of its name, in the rooms that have the data or the sandbox:
# imported when it is named, as a user's own function is.
_MAKERS = {
    "gym": ("hanol.worlds", "gym_verifier"),
    "humaneval": ("hanol.tools", "human_eval_verifier"),
}


def parse_verifier(spec: str) -> Verifier:
    """The verifier that a text names.

    Args:
        spec: "arithmetic"; "python", or "python:body" to look at the body of the prompt's
            function only; "regex:PATTERN"; "countdown:TARGET:NUMBERS"; "gym:NAME:SEED:INDEX", an
            entry of reasoning-gym; "humaneval:TASK", whose tests run in the sandbox;
            "module:function" of the user's own.

    Raises:
        ConfigError: It names none, the pattern is not valid, or the function cannot be imported.
        MissingExtraError: The package that it needs is not installed.
    """
    kind, _, rest = spec.partition(":")
    if kind == "arithmetic" and not rest:
        return verify_arithmetic
    if kind == "python" and rest in ("", "body"):
        return PythonVerifier(body=rest == "body")
    if kind == "regex":
        return RegexVerifier(rest)
    if kind == "countdown":
        return CountdownVerifier(rest)
    if kind in _MAKERS and rest:
        module, name = _MAKERS[kind]
        made: Verifier = getattr(importlib.import_module(module), name)(rest)
        return made
    if rest and kind.replace(".", "").isidentifier() and rest.isidentifier():
        return _imported(kind, rest)
    raise ConfigError(
        f'No verifier is named {spec!r}. Give "arithmetic", "python", "python:body", '
        '"regex:PATTERN", "countdown:TARGET:NUMBERS", "gym:NAME:SEED:INDEX", "humaneval:TASK" or '
        '"module:function".'
    )


def verify_arithmetic(prompt: str, completion: str, row: Problem) -> bool:
    """Whether the answer that a completion gives is the row's (`check_answer`).

    Formulas are compared in a process of their own, which has five seconds for each.
    """
    return shared_checker().check(completion, answer_of(row)).right


@dataclass(frozen=True)
class PythonVerifier:
    """Whether prompt and completion together are Python, as `ast.parse` sees it.

    Attributes:
        body: Look only at the body of the last function of the prompt: what the model wrote after
            its end does not count.
    """

    body: bool = False

    def __call__(self, prompt: str, completion: str, row: Problem) -> bool:
        """Judge one completion; an empty one is wrong."""
        return self.cut(prompt, completion) is not None

    def cut(self, prompt: str, completion: str) -> str | None:
        """The part of a completion that counts; None when it does not parse or is blank."""
        if not completion.strip() or len(prompt) + len(completion) > _LONGEST:
            return None
        if not self.body:
            return completion if _parses(prompt + completion) else None
        indent = _margin_of_last_function(prompt)
        if indent is None:
            return None
        begin = 0
        ends = []
        for line in completion.splitlines(keepends=True):
            # What the completion begins with goes on the prompt's last line.
            starts_line = begin > 0 or prompt.endswith(("\n", "\r"))
            if starts_line and line.strip():
                margin = line.expandtabs()
                if len(margin) - len(margin.lstrip()) <= indent:
                    ends.append(begin)
            begin += len(line)
        # A line at the margin may lie within a string or brackets: then what is before it does
        # not parse, and the next one may be the end.
        for end in [*ends[:20], len(completion)]:
            part = completion[:end]
            if part.strip() and _parses(prompt + part):
                return part
        return None


def _margin_of_last_function(prompt: str) -> int | None:
    """Columns before the last `def` that is code, not part of a string; None without one."""
    margin = None
    # The prompt is unfinished: the tokens before what is wrong with its end are all there.
    with suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(prompt).readline):
            if token.type == tokenize.NAME and token.string == "def":
                line = token.line.expandtabs()
                margin = len(line) - len(line.lstrip())
    return margin


def _parses(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes and the like
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


class RegexVerifier:
    """Whether the last match of a pattern, or its first group, is the row's answer."""

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise ConfigError('"regex:" needs a pattern behind it, as in "regex:answer: (.*)".')
        try:
            self.pattern = re.compile(pattern)
        except re.error as err:
            raise ConfigError(f"The pattern {pattern!r} is not valid: {err}.") from err

    def __call__(self, prompt: str, completion: str, row: Problem) -> bool:
        """Judge one completion."""
        answer = answer_of(row)
        matches = list(self.pattern.finditer(completion[-_LONGEST:]))
        if not matches:
            return False
        found = matches[-1][1] if self.pattern.groups else matches[-1][0]
        return found is not None and found.strip() == answer.strip()


def _imported(module: str, name: str) -> Verifier:
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ImportError as err:
        raise ConfigError(f"The verifier's module {module!r} cannot be imported: {err}") from err
    if not callable(function):
        raise ConfigError(f"The module {module!r} has no function {name!r}.")

    def verify(prompt: str, completion: str, row: Problem) -> bool:
        verdict = function(prompt, completion, row)
        if not isinstance(verdict, bool):
            raise DataError(f"{module}:{name} gave {verdict!r}, but a verifier says True or False.")
        return verdict

    return verify


def needs_answer(verifier: Verifier) -> bool:
    """Whether a verifier of `parse_verifier` compares with the problem's answer."""
    return verifier is verify_arithmetic or isinstance(verifier, RegexVerifier)


def answer_of(row: Problem) -> str:
    """The right answer of a problem.

    Raises:
        DataError: It has none.
    """
    if row.answer is None:
        raise DataError(f'{row.where}: this verifier compares with "answer", which is missing.')
    return row.answer
