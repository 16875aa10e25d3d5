"""Solvers by name: one question, a prompt of the user's, thinking aloud, a vote, own functions."""

import inspect
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, cast

from hanol.errors import ConfigError, DataError
from hanol.evaluation.tasks._task import Ask, TaskItem, TaskSolver, said
from hanol.files import read_text
from hanol.scoring import last_answer, select

_STEPS = "{question}\n\nThink step by step, then end with a line: The answer is ..."
_MOST_VOTES = 1024


class _Solver:
    """A solver of one function."""

    def __init__(
        self, name: str, solve: Callable[[TaskItem, Ask], Awaitable[str]], calls: int = 1
    ) -> None:
        self.name, self.calls, self._solve = name, calls, solve

    async def __call__(self, item: TaskItem, ask: Ask) -> str:
        return await self._solve(item, ask)


def open_solver(spec: str = "generate") -> TaskSolver:
    """A solver by name.

    Args:
        spec: "generate", which asks the question as it is; "steps", which asks for steps first;
            "vote:N", the most frequent of N such answers; "prompt:FILE", a file in which
            {question} is replaced; "module:function", an async function of a `TaskItem` and an
            `Ask` that returns text, or what makes one.

    Raises:
        ConfigError: There is no such solver, or a function cannot be imported.
        DataError: The file cannot be read, or has no {question}.
    """
    kind, _, rest = spec.partition(":")
    if spec == "generate":
        return _prompted(spec, "{question}")
    if spec == "steps":
        return _prompted(spec, _STEPS)
    if kind == "prompt" and rest:
        try:
            template = read_text(rest)
        except (OSError, ValueError) as err:
            raise DataError(f"The prompt {rest!r} could not be read: {err}") from err
        if "{question}" not in template:
            raise DataError(f"The prompt {rest!r} has no {{question}} to put the question into.")
        return _prompted(f"prompt:{template}", template)  # its text decides, not its place
    if kind == "vote" and rest.isdecimal() and 1 <= int(rest) <= _MOST_VOTES:
        return _voting(int(rest))
    if rest and kind not in ("vote", "prompt"):
        return _Solver(spec, cast(Any, imported(spec, "solver")))
    raise ConfigError(
        f'No solver is named {spec!r}. Give "generate", "steps", "vote:N" (N up to {_MOST_VOTES}), '
        '"prompt:FILE" or "module:function".'
    )


def imported(spec: str, what: str) -> Callable[..., Any]:
    """A function that a user names as module:function.

    Raises:
        ConfigError: It cannot be imported.
    """
    module, _, name = spec.partition(":")
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, ValueError) as err:
        raise ConfigError(f"The {what}'s module {module!r} cannot be imported: {err}") from err
    if not callable(found):
        raise ConfigError(f"The module {module!r} has no function {name!r} for a {what}.")
    if what == "solver" and not inspect.iscoroutinefunction(found):
        raise ConfigError(f"The solver {spec!r} is no async function of an item and an `Ask`.")
    return cast(Callable[..., Any], found)


def _prompted(name: str, template: str) -> TaskSolver:
    async def solve(item: TaskItem, ask: Ask) -> str:
        return (await ask(template.replace("{question}", item.question))).text

    return _Solver(name, solve)


def _voting(number: int) -> TaskSolver:
    async def solve(item: TaskItem, ask: Ask) -> str:
        done = await ask(_STEPS.replace("{question}", item.question), n=number)
        answers = [last_answer(said(choice.text)) for choice in done.choices]
        chosen = select(answers, method="majority")
        if chosen.answer is None:  # none could be read: the scorer may still find it
            return done.text
        return f"The answer is {chosen.answer}."

    # Engines without "n" are asked one by one.
    return _Solver(f"vote:{number}", solve, calls=number)
