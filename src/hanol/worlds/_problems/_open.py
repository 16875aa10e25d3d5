"""Problems by what a command calls them."""

import random
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hanol.errors import ConfigError, DataError
from hanol.rows import read_rows
from hanol.worlds._problems._chains import Chains
from hanol.worlds._problems._code import human_eval_tasks
from hanol.worlds._problems._countdown import Countdown
from hanol.worlds._problems._gym import gym_draws
from hanol.worlds._problems._problem import (
    DraftProblem,
    MathProblem,
    ProblemSplit,
    distinct,
    endless,
    read_options,
)
from hanol.worlds._problems._stories import Stories
from hanol.worlds._problems._sums import Sums
from hanol.worlds._tasks import small_tasks

_GENERATORS: dict[str, Any] = {
    "chains": Chains, "countdown": Countdown, "stories": Stories, "sums": Sums
}  # fmt: skip
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
_OWN = ("id", "problem", "question", "answer", "verifier", "level", "steps", "source")
_MOST = 1_000_000


def open_problems(
    spec: str, *, count: int | None = None, seed: int = 0, split: ProblemSplit = "train"
) -> list[MathProblem]:
    """Different problems of a world, a package or a file.

    Args:
        spec: A world, with options as in "chains:level=1-4,table=0":
            "chains" (operations modulo a prime, one of them a table that is never shown: `level`,
            `modulus`, `table`), "countdown" (make a target from numbers: `numbers`, `largest`,
            `target`), "stories" (word problems: `steps`, `largest`, `asides`), "sums" (`terms`,
            `digits`), "capitals". "gym:NAME" or "gym:NAME:OPTIONS", a generator of reasoning-gym.
            "humaneval", whose tasks are all in the split "test". Or a file of rows with "problem"
            (or "question") and "answer", and if they like "id", "verifier", "level", "steps" and
            other keys; a row with "split" is in that split, any other one in both.
        count: Number of problems; None takes 100 of a world or generator, and all of the others.
        seed: The same seed gives the same problems, of which fewer are the first of more. Of a file
            or package from which some are taken it chooses which.
        split: Problems for training, or those that are kept for tests. They are apart whatever
            seed and options made them: a hash of what is asked decides.

    Raises:
        DataError: There are not so many, or a row cannot be read.
        ConfigError: The spec has no such option, or a value is out of range.
        MissingExtraError: The package is not installed; the message names the extra.

    Example:
        >>> open_problems("countdown:numbers=2", count=1)[0].problem
        'Make 20 from 10 and 10. Use every number once.'
    """
    if split not in ("train", "test"):
        raise ConfigError(f'`split` is {split!r}, but is "train" or "test".')
    if count is not None and not 1 <= count <= _MOST:
        raise ConfigError(f"`count` is {count}, but is a number from 1 to {_MOST:,}.")
    name, _, rest = spec.partition(":")
    if spec.endswith(_SUFFIXES):
        return _some(_from_file(spec, split), count, seed, spec)
    if spec == "capitals":
        return _some(_capitals(seed, split), count, seed, spec)
    if spec == "humaneval":
        return _some(_human_eval(split), count, seed, spec)
    wanted = 100 if count is None else count
    if name == "gym" and rest:
        generator, _, options = rest.partition(":")
        # Numbers that differ by one would share all entries but one.
        draws: Iterable[DraftProblem] = gym_draws(generator, options, seed * _MOST)
    elif name in _GENERATORS:
        kind = _GENERATORS[name]
        world = read_options(kind, {one.name: one.default for one in fields(kind)}, rest)
        draw: Callable[[random.Random], DraftProblem] = world.draw
        draws = endless(draw, f"{spec} {seed} {split}")
    else:
        raise ConfigError(
            f"{spec!r} names no problems. Write {', '.join(_GENERATORS)}, capitals, gym:NAME, "
            f"humaneval, or a file whose name ends in {', '.join(_SUFFIXES)}."
        )
    return distinct(draws, wanted, spec, split)


def _some(found: list[MathProblem], count: int | None, seed: int, spec: str) -> list[MathProblem]:
    """So many of what there is, in their order."""
    if not found:
        raise DataError(f"{spec!r} has no problems in this split.")
    if count is None:
        return found
    if count > len(found):
        raise DataError(f"{spec!r} has only {len(found)} problems in this split, not {count}.")
    chosen = random.Random(f"{spec} {seed}").sample(range(len(found)), count)  # noqa: S311
    return [found[i] for i in sorted(chosen)]


def _capitals(seed: int, split: ProblemSplit) -> list[MathProblem]:
    tasks = small_tasks(1_000, seed=seed, kinds=["capital"], held_out=split == "test")
    drawn = [
        DraftProblem(
            task.question, task.question, task.answer, None, (f"The answer is {task.answer}.",),
            "hanol.worlds:check_task", {"check": task.check},
        )
        for task in tasks
    ]  # fmt: skip
    return [one.named("capitals") for one in drawn]


def _human_eval(split: ProblemSplit) -> list[MathProblem]:
    if split == "train":
        raise DataError('"humaneval" has nothing to train on: use the split "test".')
    return [
        MathProblem(
            task["task_id"], task["prompt"], task["canonical_solution"], f"humaneval:{name}",
            source="humaneval",
        )
        for name, task in human_eval_tasks().items()
    ]  # fmt: skip


def _from_file(path: str, split: ProblemSplit) -> list[MathProblem]:
    found: dict[str, MathProblem] = {}
    for line, row in read_rows(path):
        if row.get("split", split) != split:
            continue
        one = _read(row, f"{path!r}, line {line}")
        one = replace(one, id=one.id or f"{Path(path).stem}-{line}", source=one.source or path)
        if one.id in found:
            raise DataError(f"{path!r}, line {line}: the id {one.id!r} occurs twice.")
        found[one.id] = one
    return list(found.values())


def _read(row: dict[str, Any], where: str) -> MathProblem:
    text, answer = row.get("problem", row.get("question")), row.get("answer")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f'{where}: "problem" is missing or empty.')
    if not isinstance(answer, str | int | float) or not str(answer).strip():
        raise DataError(f'{where}: "answer" is {answer!r:.60}, but is a text or a number.')
    level, steps = row.get("level"), row.get("steps") or []
    if isinstance(level, str):  # "Level 3", as MATH writes it
        level = int(digits) if (digits := level.rpartition(" ")[2]).isdecimal() else None
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise DataError(f'{where}: "steps" is no list of texts.')
    return MathProblem(
        id=str(row.get("id") or ""),
        problem=text,
        answer=str(answer),
        verifier=str(row.get("verifier") or "arithmetic"),
        level=level if isinstance(level, int) else None,
        source=str(row.get("source") or ""),
        steps=tuple(steps),
        extra={key: value for key, value in row.items() if key not in _OWN},
    )
