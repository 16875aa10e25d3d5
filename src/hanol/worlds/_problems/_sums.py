"""Chains of sums with few digits, which a small chat model can do sometimes."""

import random
from dataclasses import dataclass

from hanol.worlds._problems._problem import DraftProblem, check_range


@dataclass(frozen=True)
class Sums:
    """Options of sums.

    Args:
        terms: Number of terms, fewest and most.
        digits: Digits of each, fewest and most.
    """

    terms: tuple[int, int] = (2, 4)
    digits: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        check_range("terms", self.terms, 2, 32)
        check_range("digits", self.digits, 1, 6)

    def draw(self, rng: random.Random) -> DraftProblem:
        """A chain of sums and differences that never falls below zero."""
        level, digits = rng.randint(*self.terms), rng.randint(*self.digits)
        least, most = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits - 1
        value = rng.randint(least, most)
        asked, steps = [str(value)], []
        for _ in range(level - 1):
            term = rng.randint(least, most)
            sign = rng.choice("+-") if value >= term else "+"
            result = value + term if sign == "+" else value - term
            asked += [sign, str(term)]
            steps.append(f"{value} {sign} {term} = {result}")
            value = result
        text = f"What is {' '.join(asked)}?"
        return DraftProblem(
            f"sum {text}", text, str(value), level, (*steps, f"The answer is {value}.")
        )
