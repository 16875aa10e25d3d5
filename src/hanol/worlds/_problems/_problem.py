"""What a problem is, and how different ones are drawn: seeded, and apart from held-out ones."""

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from hanol.errors import ConfigError, DataError

ProblemSplit = Literal["train", "test"]
_HELD_OUT = 0.25  # share of what can be asked that is kept for the split "test"
_TRIES = 2_000  # draws in vain after which a source counts as used up
_PAIR = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


@dataclass(frozen=True)
class MathProblem:
    """A problem and how an answer to it is checked; a `hanol.scoring.Problem`.

    Attributes:
        id: Name of the problem. Of those made here it follows from the text, so that the same
            problem has the same id under every seed.
        problem: What is asked.
        answer: The right answer; empty where many are and only the verifier tells.
        verifier: What checks a completion, for `hanol.scoring.parse_verifier`.
        level: Difficulty, from 1 up, in the unit of its source (steps, numbers); None if unknown.
        source: The spec it was opened by.
        steps: One right solution, a step each, the last of which gives the answer; empty where
            none is known.
        extra: Further keys of its row, which some verifiers read.
    """

    id: str
    problem: str
    answer: str
    verifier: str = "arithmetic"
    level: int | None = None
    source: str = ""
    steps: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Its name in messages."""
        return f"the problem {self.id!r}"

    @property
    def solution(self) -> str:
        """The steps, one a line."""
        return "\n".join(self.steps)

    def row(self) -> dict[str, Any]:
        """Its JSON line, which `open_problems` reads back."""
        known = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "extra"}
        return {**self.extra, **known, "steps": list(self.steps)}

    def chat(self) -> dict[str, Any]:
        """A row of training data: the problem, and its solution as the assistant's answer."""
        messages = [
            {"role": "user", "content": self.problem},
            {"role": "assistant", "content": self.solution},
        ]
        return {"messages": messages, "meta": {"problem": self.id, "source": self.source}}


@dataclass(frozen=True)
class DraftProblem:
    """A problem before it has a name.

    Attributes:
        key: What is asked for, however it is worded: equal keys are on one side of the split.
    """

    key: str
    problem: str
    answer: str
    level: int | None
    steps: tuple[str, ...] = ()
    verifier: str = "arithmetic"
    extra: Mapping[str, Any] = field(default_factory=dict)

    def named(self, source: str) -> MathProblem:
        """The problem of this source."""
        return MathProblem(
            id=f"{source.partition(':')[0]}-{hashlib.sha256(self.problem.encode()).hexdigest()[:12]}",
            problem=self.problem,
            answer=self.answer,
            verifier=self.verifier,
            level=self.level,
            source=source,
            steps=self.steps,
            extra=self.extra,
        )


def is_kept_for_tests(key: str) -> bool:
    """Whether what is asked belongs to the split "test": a stable hash, no seed."""
    return hashlib.sha256(key.encode()).digest()[0] < 256 * _HELD_OUT


def distinct(
    draws: Iterable[DraftProblem], count: int, source: str, split: ProblemSplit
) -> list[MathProblem]:
    """The first different problems of a split.

    Raises:
        DataError: The source has fewer.
    """
    found: dict[str, MathProblem] = {}
    failures = 0
    for drawn in draws:
        if drawn.problem in found or is_kept_for_tests(drawn.key) != (split == "test"):
            failures += 1
        else:
            found[drawn.problem] = drawn.named(source)
            failures = 0
        if len(found) == count:
            return list(found.values())
        if failures == _TRIES:
            break
    raise DataError(
        f"{source!r} has only {len(found)} problems in the split {split!r}, but {count} were "
        "wanted. Ask for fewer, or for a wider range of its options."
    )


def endless(draw: Callable[[random.Random], DraftProblem], seed: str) -> Iterable[DraftProblem]:
    """Draws of a generator without end."""
    rng = random.Random(seed)  # noqa: S311
    while True:
        yield draw(rng)


OptionsT = TypeVar("OptionsT")


def read_options(options: Callable[..., OptionsT], known: Mapping[str, Any], text: str) -> OptionsT:
    """Options written as "level=1-4,modulus=23".

    Args:
        options: Class of the options.
        known: Their defaults, by name; a pair is a range, of which one number may be given.
        text: What is behind the source's name and ":".

    Raises:
        ConfigError: There is no such option, or its value cannot be read.
    """
    given: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise ConfigError(
                f"No option is named {name!r}. Known: {', '.join(known)}, as in "
                f"{next(iter(known))}=3."
            )
        given[name] = _value(name, value, known[name])
    return options(**given)


def _value(name: str, value: str, default: Any) -> Any:
    if isinstance(default, tuple):
        if (pair := _PAIR.fullmatch(value)) is None:
            raise ConfigError(f"`{name}` is {value!r}, but is a number or a range such as 1-4.")
        return int(pair[1]), int(pair[2] or pair[1])
    try:
        return type(default)(value)
    except ValueError as err:
        raise ConfigError(f"`{name}` is {value!r}, but is a number such as {default}.") from err


def check_range(name: str, value: tuple[int, int], least: int, most: int) -> None:
    """Refuse a range that is empty or out of bounds."""
    if not least <= value[0] <= value[1] <= most:
        low, high = value
        raise ConfigError(
            f"`{name}` is {low}-{high}, but is a range from at least {least} to at most {most}."
        )
