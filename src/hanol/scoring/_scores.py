"""Scores of several runs over the same questions, as in Tongyi DeepResearch (arXiv 2510.24701, 5).

A table of outcomes has one row a question, by id, and one entry a run: True (right), False (wrong
or unanswered), None (the judge gave no verdict). Questions with the same text keep rows of their
own. Outcomes without verdict are left out of every mean; `Evaluation` reports them apart.

All scores are percentages. Shape suffixes: Q questions, K runs, R resamples.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from hanol.errors import DataError

Outcomes = Mapping[str, Sequence[bool | None]]
Floats = NDArray[np.float64]

_RESAMPLES = 5000


class Interval(BaseModel, frozen=True):
    """An estimate with its confidence interval, in percent."""

    value: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        """Plain values with two decimals."""
        return {name: round(value, 2) for name, value in self.model_dump().items()}


def run_scores(outcomes: Outcomes) -> list[float]:
    """Accuracy of each run over the questions judged in it.

    Raises:
        DataError: There is no question, rows differ in length, or a run has no verdict at all.
    """
    return [float(score) for score in 100 * _run_means(*_weighted(outcomes))[0]]


def avg_at_k(outcomes: Outcomes) -> float:
    """Avg@k: the mean accuracy of the k runs."""
    return math.fsum(scores := run_scores(outcomes)) / len(scores)


def best_pass_at_1(outcomes: Outcomes) -> float:
    """The accuracy of the best run."""
    return max(run_scores(outcomes))


def any_of_k(outcomes: Outcomes) -> float:
    """The paper's Pass@k: share of the questions that at least one of the k runs got right.

    A question with no right run and at least one without verdict is undecided and left out.
    """
    right_QK, judged_QK = _table(outcomes)
    found_Q, decided_Q = _any_of(right_QK, judged_QK)
    if not decided_Q.any():
        raise DataError("No question is decided: the judge gave no verdict on any of them.")
    return 100 * float(found_Q.sum() / decided_Q.sum())


def pass_at_k(outcomes: Outcomes, k: int) -> float:
    """Chance that at least one of k runs, drawn from all runs without putting back, is right.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374) with the n runs judged of a
    question and c of them right, averaged over questions. With k = n it is `any_of_k`.

    Raises:
        DataError: A question has fewer than k verdicts, or k is below 1.
    """
    right_QK, judged_QK = _table(outcomes)
    n_Q, c_Q = judged_QK.sum(1).astype(int), right_QK.sum(1).astype(int)
    if not 1 <= k <= n_Q.min():
        raise DataError(
            f"`k` is {k}, but must be from 1 to {n_Q.min()}, the fewest verdicts of a question "
            f"({list(outcomes)[int(n_Q.argmin())]!r})."
        )
    failing = [
        math.comb(int(n - c), k) / math.comb(int(n), k) for n, c in zip(n_Q, c_Q, strict=True)
    ]
    return 100 * (1 - math.fsum(failing) / len(failing))


def wilson(right: int, of: int) -> Interval:
    """A share with its 95 % interval by Wilson's score (1927).

    Unlike an interval from resampling, it has a width where all or none are right.

    Args:
        right: Questions answered rightly.
        of: Questions, at least one.
    """
    z = NormalDist().inv_cdf(0.975)
    value = 100 * right / of
    middle = (right + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * math.sqrt(right * (of - right) / of + z * z / 4)
    # Rounding must not leave the value outside, at 0 and at 100.
    low, high = min(value, 100 * (middle - half)), max(value, 100 * (middle + half))
    return Interval(value=value, low=max(0.0, low), high=min(100.0, high))


def intervals(
    outcomes: Outcomes, *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """`avg_at_k`, `any_of_k` and `best_pass_at_1` with percentile intervals by name.

    The questions are resampled with replacement, all runs of a question together: the interval
    says how far the score would move with other questions of the same kind.

    Args:
        outcomes: The table.
        confidence: Share of the resampled scores inside the interval, in (0, 1).
        seed: Of the resamples.
    """
    right_QK, judged_QK = _table(outcomes)
    weight_RQ = resample_weights(len(right_QK), seed)
    found_Q, decided_Q = _any_of(right_QK, judged_QK)
    # A resample may hold no verdict of a run: it says nothing about it.
    with np.errstate(invalid="ignore"):
        means_RK = _run_means(right_QK, judged_QK, weight_RQ)
        any_R = (weight_RQ @ found_Q) / (weight_RQ @ decided_Q)
    samples = {
        "avg_at_k": (avg_at_k(outcomes), means_RK.mean(1)),
        "any_of_k": (any_of_k(outcomes), any_R),
        "best_pass_at_1": (best_pass_at_1(outcomes), means_RK.max(1)),
    }
    tail = (1 - confidence) / 2
    found = {}
    for name, (value, sample_R) in samples.items():
        low, high = 100 * np.nanquantile(sample_R, [tail, 1 - tail])
        found[name] = Interval(value=value, low=float(low), high=float(high))
    return found


def resample_weights(num_items: int, seed: int) -> NDArray[np.int64]:
    """How often each item occurs in each bootstrap resample, [R, items]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_items, np.full(num_items, 1 / num_items), _RESAMPLES)


def _table(outcomes: Outcomes) -> tuple[Floats, Floats]:
    """`right_QK` and `judged_QK` of zeros and ones."""
    if not outcomes:
        raise DataError("There are no questions to score.")
    lengths = {len(row) for row in outcomes.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"The questions have {sorted(lengths)} runs, but need the same number > 0.")
    right_QK = np.array([[outcome is True for outcome in row] for row in outcomes.values()], float)
    judged_QK = np.array(
        [[outcome is not None for outcome in row] for row in outcomes.values()], float
    )
    return right_QK, judged_QK


def _weighted(outcomes: Outcomes) -> tuple[Floats, Floats, NDArray[np.int64]]:
    right_QK, judged_QK = _table(outcomes)
    if not judged_QK.any(0).all():
        run = int(judged_QK.any(0).argmin()) + 1
        raise DataError(f"Run {run} has no verdict at all: look at the judge's errors.")
    return right_QK, judged_QK, np.ones((1, len(right_QK)), np.int64)


def _run_means(right_QK: Floats, judged_QK: Floats, weight_RQ: NDArray[np.int64]) -> Floats:
    return (weight_RQ @ right_QK) / (weight_RQ @ judged_QK)


def _any_of(right_QK: Floats, judged_QK: Floats) -> tuple[Floats, Floats]:
    """Questions that a run got right, and those whose outcome is decided."""
    found_Q = right_QK.max(1)
    return found_Q, np.maximum(found_Q, judged_QK.min(1))
