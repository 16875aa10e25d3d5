"""Countdown: make a target from a few numbers, each of them used once; a task for search."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hanol.errors import ConfigError
from hanol.worlds._problems._problem import DraftProblem, check_range


@dataclass(frozen=True)
class Countdown:
    """Options of countdown.

    Args:
        numbers: How many numbers are given, fewest and most.
        largest: The largest of them.
        target: The smallest and the largest target; steps on the way stay below the latter, too.
    """

    numbers: tuple[int, int] = (3, 3)
    largest: int = 20
    target: tuple[int, int] = (1, 99)

    def __post_init__(self) -> None:
        check_range("numbers", self.numbers, 2, 5)
        check_range("target", self.target, 0, 9_999)
        if not 2 <= self.largest <= 999:
            raise ConfigError(f"`largest` is {self.largest}, but is a number from 2 to 999.")

    def draw(self, rng: random.Random) -> DraftProblem:
        """Numbers, the target that some way through them has, and that way."""
        level = rng.randint(*self.numbers)
        while True:
            pool = [rng.randint(1, self.largest) for _ in range(level)]
            given, steps = list(pool), []
            while len(pool) > 1:
                left, right = rng.sample(range(len(pool)), 2)
                ways = [
                    way for way in _results(pool[left], pool[right]) if way[1] <= self.target[1]
                ]
                if not ways:
                    break
                sign, result = rng.choice(ways)
                steps.append(f"{pool[left]} {sign} {pool[right]} = {result}")
                pool = [n for i, n in enumerate(pool) if i not in (left, right)] + [result]
            if len(pool) == 1 and pool[0] >= self.target[0] and pool[0] not in given:
                break
        target = pool[0]
        text = f"Make {target} from {_listed(given)}. Use every number once."
        return DraftProblem(
            key=f"countdown {target} {sorted(given)}",
            problem=text,
            answer=str(target),
            level=level,
            steps=(*steps, f"The answer is {target}."),
            verifier=f"countdown:{target}:{','.join(map(str, given))}",
        )


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _results(a: int, b: int) -> Iterator[tuple[str, int]]:
    """What two numbers give in this order; no negative numbers and no fractions."""
    yield "+", a + b
    if a >= b:
        yield "-", a - b
    yield "*", a * b
    if b and a % b == 0:
        yield "/", a // b


@lru_cache(maxsize=65_536)
def countdown_way(numbers: tuple[int, ...], target: int) -> tuple[str, ...] | None:
    """Steps from numbers to the target by whole numbers, tried in a fixed order; None if none.

    Args:
        numbers: Sorted.
        target: What the last step has to give.
    """
    if len(numbers) == 1:
        return () if numbers[0] == target else None
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i == j:
                continue
            rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
            for sign, result in _results(a, b):
                way = countdown_way(tuple(sorted((*rest, result))), target)
                if way is not None:
                    return (f"{a} {sign} {b} = {result}", *way)
    return None
