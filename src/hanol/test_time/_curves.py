"""Curves from one pool of samples, and what they say.

Sources: arXiv 2408.03314 (efficiency), 2501.19393, section 3.2 (control, scaling, performance).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from hanol.errors import ConfigError, DataError
from hanol.scoring import SelectMethod, select


def best_of_k(
    answers: Sequence[Any],
    scores: Sequence[float] | None,
    right: Sequence[bool],
    k: int,
    *,
    method: SelectMethod = "weighted",
    equal: Callable[[Any, Any], bool] | None = None,
    subsets: int = 200,
    seed: int = 0,
) -> float:
    """How often the choice among `k` samples is right, over random subsets of a pool.

    The first k alone would be one draw.

    Args:
        answers: Of each sample of the pool.
        scores: Likewise; "majority" needs none.
        right: Whether each is right.
        k: From 1 to the size of the pool.
        method: As in `hanol.scoring.select`.
        equal: Likewise.
        subsets: That are drawn; of the whole pool there is but one.
        seed: Of the subsets.

    Raises:
        ConfigError: `k` is out of range.
        DataError: Numbers of answers, scores and verdicts differ.
    """
    n = len(answers)
    if len(right) != n or (scores is not None and len(scores) != n):
        raise DataError(f"There are {n} answers, but other numbers of scores or verdicts.")
    if not 1 <= k <= n:
        raise ConfigError(f"`k` is {k}, but must be from 1 to the {n} samples of the pool.")
    rng = np.random.default_rng(seed)
    chosen = 0
    count = 1 if k == n else subsets
    for _ in range(count):
        places = sorted(rng.choice(n, k, replace=False).tolist())
        of = None if scores is None else [scores[i] for i in places]
        index = select([answers[i] for i in places], of, method, equal).index
        chosen += index is not None and bool(right[places[index]])
    return chosen / count


@dataclass(frozen=True)
class ForcingMetrics:
    """What longer thoughts give.

    Attributes:
        control: Share of the runs whose thinking tokens are within what was asked for.
        scaling: Mean slope of accuracy over thinking tokens, over all pairs of runs; may be
            negative.
        performance: Highest accuracy.
    """

    control: float
    scaling: float
    performance: float


def forcing_metrics(
    tokens: Sequence[float], accuracies: Sequence[float], limits: Sequence[tuple[float, float]]
) -> ForcingMetrics:
    """Control, scaling and performance of budget forcing.

    Args:
        tokens: Mean thinking tokens of each run.
        accuracies: Its accuracy.
        limits: Fewest and most tokens that were asked for.

    Raises:
        DataError: There are fewer than two runs, or numbers differ.
    """
    if not len(tokens) == len(accuracies) == len(limits) >= 2:
        raise DataError(
            f"There are {len(tokens)} runs, {len(accuracies)} accuracies and {len(limits)} limits: "
            "give the same number of each, at least two."
        )
    held = [low <= used <= high for used, (low, high) in zip(tokens, limits, strict=True)]
    slopes = [
        (accuracies[j] - accuracies[i]) / (tokens[j] - tokens[i])
        for i, j in combinations(sorted(range(len(tokens)), key=lambda i: tokens[i]), 2)
        if tokens[j] > tokens[i]
    ]
    scaling = math.fsum(slopes) / len(slopes) if slopes else 0.0
    return ForcingMetrics(sum(held) / len(held), scaling, max(accuracies))


def budget_ratio(
    base: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]], accuracy: float
) -> float | None:
    """How many times the budget the base needs for an accuracy that the other reaches too.

    Args:
        base: Budget and accuracy of each point.
        other: Likewise.
        accuracy: To be reached; interpolated in the logarithm of the budget.

    Returns:
        None where one of the two does not reach it.
    """
    needed = [_needed(sorted(curve), accuracy) for curve in (base, other)]
    if needed[0] is None or needed[1] is None:
        return None
    return needed[0] / needed[1]


def _needed(curve: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """The budget at which a curve first reaches an accuracy."""
    before: tuple[float, float] | None = None
    for budget, reached in curve:
        if reached >= accuracy:
            if before is None or reached == before[1]:
                return budget
            share = (accuracy - before[1]) / (reached - before[1])
            return math.exp(math.log(before[0]) + share * (math.log(budget) - math.log(before[0])))
        before = (budget, reached)
    return None
