"""Word problems of several steps: a quantity, and what happens to it."""

import random
from dataclasses import dataclass

from hanol.errors import ConfigError
from hanol.worlds._problems._problem import DraftProblem, check_range

_NAMES = ("Ada", "Ben", "Carla", "Daniel", "Emma", "Hana", "Jun", "Lily", "Maria", "Omar", "Tom")
_THINGS = ("apples", "books", "coins", "cookies", "eggs", "marbles", "oranges", "pencils", "stamps")
_BOXES = ("bags", "boxes", "baskets", "jars")
_WORDINGS = {
    "+": ("{other} gives {who} {n} more.", "{who} buys {n} more.", "{who} finds {n} more."),
    "-": ("{who} gives {n} of them to {other}.", "{who} loses {n}.", "{who} sells {n}."),
    "*": ("{who} collects until there are {n} times as many.",),
    "/": ("{who} packs them into {n} equal {boxes} and keeps only one of these.",),
}
_ASIDE = "{other} has {n} {others}."
_MOST_STEPS = 20


@dataclass(frozen=True)
class Stories:
    """Options of stories.

    Args:
        steps: Number of calculations, fewest and most.
        largest: The largest number on the way.
        asides: Sentences about other people's things, which have no part in the answer.
    """

    steps: tuple[int, int] = (1, 6)
    largest: int = 99
    asides: int = 0

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1, _MOST_STEPS)
        if not 9 <= self.largest <= 9_999:
            raise ConfigError(f"`largest` is {self.largest}, but is a number from 9 to 9999.")
        if not 0 <= self.asides <= 9:
            raise ConfigError(f"`asides` is {self.asides}, but is a number from 0 to 9.")

    def draw(self, rng: random.Random) -> DraftProblem:
        """A story and its calculations."""
        level = rng.randint(*self.steps)
        who, other = rng.sample(_NAMES, 2)
        thing, aside = rng.sample(_THINGS, 2)
        value = rng.randint(2, 20)
        events, key, steps = [f"{who} has {value} {thing}."], [str(value)], []
        for _ in range(level):
            sign, n, result = self._event(rng, value)
            wording = rng.choice(_WORDINGS[sign])
            events.append(wording.format(who=who, other=other, n=n, boxes=rng.choice(_BOXES)))
            key.append(f"{sign}{n}")
            steps.append(f"{value} {sign} {n} = {result}")
            value = result
        for _ in range(self.asides):
            sentence = _ASIDE.format(other=other, n=rng.randint(2, 20), others=aside)
            events.insert(rng.randint(1, len(events)), sentence)
        asked = f"How many {thing} does {who} have now?"
        answer = f"The answer is {value}."
        # Another name or thing in the same calculation is no other problem.
        return DraftProblem(
            f"story {' '.join(key)}", f"{' '.join(events)} {asked}", str(value), level,
            (*steps, answer),
        )  # fmt: skip

    def _event(self, rng: random.Random, value: int) -> tuple[str, int, int]:
        """Something that can happen to a quantity: sign, number, result."""
        while True:
            sign = rng.choice("++--*/")
            n = rng.randint(2, 4) if sign in "*/" else rng.randint(1, 20)
            if sign == "/" and value % n:
                continue
            result = {"+": value + n, "-": value - n, "*": value * n, "/": value // n}[sign]
            if 1 <= result <= self.largest:
                return sign, n, result
