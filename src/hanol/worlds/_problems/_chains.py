"""Chains of operations modulo a prime: their answers are unknown beforehand, so voting has a point.

The operation @ is a fixed random table, the same in every problem and never shown: a model has to
have learned it, so the share of @ sets how much memory a chain takes, its length how much work.
"""

import random
from dataclasses import dataclass
from functools import lru_cache

from hanol.errors import ConfigError
from hanol.worlds._problems._problem import DraftProblem, check_range

_MOST_STEPS = 64
_SIGNS = "+-*"


@dataclass(frozen=True)
class Chains:
    """Options of chains.

    Args:
        level: Number of operations, fewest and most.
        modulus: A prime: results are from 0 to one less.
        table: Share of the operations that are @.
    """

    level: tuple[int, int] = (1, 8)
    modulus: int = 11
    table: float = 0.25

    def __post_init__(self) -> None:
        check_range("level", self.level, 1, _MOST_STEPS)
        prime = all(self.modulus % n for n in range(2, int(self.modulus**0.5) + 1))
        if not 5 <= self.modulus <= 997 or not prime:
            raise ConfigError(f"`modulus` is {self.modulus}, but is a prime from 5 to 997.")
        if not 0 <= self.table <= 1:
            raise ConfigError(f"`table` is {self.table}, but is a share from 0 to 1.")

    def draw(self, rng: random.Random) -> DraftProblem:
        """A chain and its lines."""
        level, value = rng.randint(*self.level), rng.randrange(self.modulus)
        asked, steps = [str(value)], []
        for _ in range(level):
            sign = "@" if rng.random() < self.table else rng.choice(_SIGNS)
            # 0 and 1 would leave the value as it is, or end the memory of what was before.
            operand = rng.randrange(2, self.modulus)
            result = chain_value(value, sign, operand, self.modulus)
            asked += [sign, str(operand)]
            steps.append(f"{value} {sign} {operand} = {result}")
            value = result
        chain = " ".join(asked)
        text = f"Calculate modulo {self.modulus}, from left to right: {chain}"
        answer = f"The answer is {value}."
        return DraftProblem(f"chain {text}", text, str(value), level, (*steps, answer))


def chain_value(value: int, sign: str, operand: int, modulus: int) -> int:
    """Result of one operation of a chain."""
    if sign == "@":
        return _table(modulus)[value % modulus][operand % modulus]
    if sign == "*":
        return value * operand % modulus
    return (value + (operand if sign == "+" else -operand)) % modulus


@lru_cache(maxsize=16)
def _table(modulus: int) -> tuple[tuple[int, ...], ...]:
    rng = random.Random(f"the table of @ modulo {modulus}")  # noqa: S311
    return tuple(tuple(rng.randrange(modulus) for _ in range(modulus)) for _ in range(modulus))
