"""One answer out of many: votes, weighted votes, best of N, and the score of a chain of steps.

Source: arXiv 2408.03314, section 5.1: scores of equal answers add up ("best-of-N weighted").
"""

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike

from hanol.errors import ConfigError, DataError
from hanol.scoring._formulas import normalised

# Lengths are bounded: answers are text of a model, and numbers of many digits take long.
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,100})(?:\.\d{1,100})?")
_QUOTIENT = re.compile(r"\\frac\{(-?\d{1,100})\}\{(\d{1,100})\}")
SelectMethod = Literal["weighted", "majority", "best_of_n"]
StepAggregation = Literal["last", "min", "prod", "mean"]


class StepScorer(Protocol):
    """What scores the steps of a solution: a process reward model, or a function of the user's.

    One that also has `score_batch(pairs)`, a list of such lists, is asked for many at once; one
    that has `tokens_scored` and `parameters` (numbers) is accounted for in a ledger.
    """

    def score(self, problem: str, steps: Sequence[str]) -> list[float]:
        """One value in [0, 1] a step: how likely the solution so far ends right."""


@dataclass(frozen=True)
class Selection:
    """The answer that was chosen out of many.

    Attributes:
        answer: As its best representative has it; None when no answer could be read.
        index: Place of that representative, the one with the highest score; None likewise.
        votes: Weight of each answer, by its first form, in the order in which they came. Answers
            that could not be read are not among them.
    """

    answer: Any
    index: int | None
    votes: dict[Any, float]


def select(
    answers: Sequence[Any],
    scores: ArrayLike | None = None,
    method: SelectMethod = "weighted",
    equal: Callable[[Any, Any], bool] | None = None,
) -> Selection:
    r"""Choose one of many answers to a problem.

    "weighted" adds up the scores of equal answers, "majority" counts them, "best_of_n" takes the
    highest single score. Of equal weights the more frequent answer wins, then the one that came
    first. An answer that is None or blank could not be read and has no vote.

    Args:
        answers: At least one.
        scores: One for each answer; "majority" needs none.
        method: How votes are weighed.
        equal: Whether two answers are the same. None compares texts as LaTeX without what does not
            change its value, and numbers by value; other objects by equality.

    Raises:
        ConfigError: The method is unknown.
        DataError: There are no answers, scores are missing, of another number or not finite.

    Example:
        >>> select(["7", "8", "7.0"], [0.5, 0.8, 0.4]).answer
        '7'
    """
    if method not in get_args(SelectMethod):
        raise ConfigError(
            f"`method` is {method!r}, but must be one of {', '.join(get_args(SelectMethod))}."
        )
    if not len(answers):
        raise DataError("There are no answers to select from: the pool is empty.")
    if scores is None and method != "majority":
        raise DataError(f'`scores` is missing: {method!r} needs one for each answer ("majority" '
                        "needs none).")  # fmt: skip
    weights = _finite([0.0] * len(answers) if scores is None else scores)
    if len(weights) != len(answers):
        raise DataError(f"There are {len(answers)} answers but {len(weights)} scores.")
    groups: list[list[int]] = []
    places: dict[Hashable, list[int]] = {}
    for i, answer in enumerate(answers):
        if answer is None or (isinstance(answer, str) and not answer.strip()):
            continue
        if equal is None:
            group = places.get(key := _canonical(answer))
        else:
            group = next((g for g in groups if equal(answers[g[0]], answer)), None)
        if group is None:
            groups.append(group := [])
            if equal is None:
                places[key] = group
        group.append(i)
    if not groups:
        return Selection(None, None, {})
    weigh: Callable[[list[int]], float] = {
        "weighted": lambda group: math.fsum(weights[i] for i in group),
        "majority": lambda group: float(len(group)),
        "best_of_n": lambda group: max(weights[i] for i in group),
    }[method]
    best = max(groups, key=lambda group: (weigh(group), len(group), -group[0]))
    index = max(best, key=lambda i: (weights[i], -i))
    return Selection(answers[index], index, {answers[g[0]]: weigh(g) for g in groups})


def step_score(scores: ArrayLike, how: StepAggregation = "last") -> float:
    """The score of a solution from those of its steps.

    Args:
        scores: One a step, at least one.
        how: The last one, the lowest, their product or their mean.

    Raises:
        ConfigError: `how` is unknown.
        DataError: There are no scores, or one is not finite.
    """
    if how not in get_args(StepAggregation):
        raise ConfigError(
            f"`how` is {how!r}, but must be one of {', '.join(get_args(StepAggregation))}."
        )
    values = _finite(scores)
    if not values:
        raise DataError("There are no steps to score: give at least one score.")
    match how:
        case "last":
            return values[-1]
        case "min":
            return min(values)
        case "prod":
            return math.prod(values)
    return math.fsum(values) / len(values)


def _finite(scores: ArrayLike) -> list[float]:
    values = np.asarray(scores, float).reshape(-1).tolist()
    for i, value in enumerate(values):
        if not math.isfinite(value):
            raise DataError(f"Score {i} is {value}, but scores must be finite numbers.")
    return list(values)


def _canonical(answer: Any) -> Hashable:
    """What equal answers have in common: a number's value, or else the text without decoration."""
    if not isinstance(answer, str):
        return answer
    text = normalised(answer)
    if found := _NUMBER.fullmatch(text):
        return Fraction(found[0].replace(",", ""))
    if (found := _QUOTIENT.fullmatch(text)) and int(found[2]):
        return Fraction(int(found[1]), int(found[2]))
    return text
