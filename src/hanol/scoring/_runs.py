"""Scores of several runs over the same questions, as in Tongyi DeepResearch (arXiv 2510.24701, 5).

A table of outcomes has one row per question, by id, and one entry per run: True (right), False
(wrong or unanswered), None (the judge gave no verdict). Questions with the same text keep rows of
their own. Outcomes without a verdict are left out of every mean.

Shape suffixes: Q questions, K runs, R resamples.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from hanol.errors import DataError
from hanol.scoring._intervals import Floats, Interval, quantiles, resample_weights

Outcomes = Mapping[str, Sequence[bool | None]]


class RunScores(BaseModel, frozen=True):
    """Accuracy of k runs over the same questions, as shares."""

    runs: tuple[float, ...] = Field(description="Accuracy of each run.")
    avg_at_k: Interval = Field(description="Avg@k: mean accuracy of the runs.")
    any_of_k: Interval = Field(
        description="The paper's Pass@k: share of the questions that at least one run got right. A "
        "question with no right run and at least one without a verdict is left out."
    )
    best_pass_at_1: Interval = Field(description="Accuracy of the best run.")


def score_runs(outcomes: Outcomes, *, seed: int = 0) -> RunScores:
    """Score runs, with percentile intervals from resampling the questions.

    All runs of a question are resampled together: the interval says how far the score would move
    with other questions of the same kind.

    Args:
        outcomes: By question id, one entry per run.

    Raises:
        DataError: There is no question, rows differ in length, a run has no verdict at all, or no
            question is decided.
    """
    right_QK, judged_QK = _table(outcomes)
    found_Q = right_QK.max(1)
    decided_Q = np.maximum(found_Q, judged_QK.min(1))
    if not decided_Q.any():
        raise DataError("No question is decided: the judge gave no verdict on any of them.")

    def scores(weight_RQ: NDArray[np.int64]) -> tuple[Floats, Floats]:
        # A resample may hold no verdict of a run: it says nothing about it.
        with np.errstate(invalid="ignore"):
            means_RK = (weight_RQ @ right_QK) / (weight_RQ @ judged_QK)
            any_R = (weight_RQ @ found_Q) / (weight_RQ @ decided_Q)
        return means_RK, any_R

    (means_1K, any_1) = scores(np.ones((1, len(right_QK)), np.int64))
    (means_RK, any_R) = scores(resample_weights(len(right_QK), seed))

    def interval(value_1: Floats, sample_R: Floats) -> Interval:
        low, high = quantiles(sample_R)
        return Interval(value=float(value_1[0]), low=low, high=high)

    return RunScores(
        runs=tuple(means_1K[0].tolist()),
        avg_at_k=interval(means_1K.mean(1), means_RK.mean(1)),
        any_of_k=interval(any_1, any_R),
        best_pass_at_1=interval(means_1K.max(1), means_RK.max(1)),
    )


def _table(outcomes: Outcomes) -> tuple[Floats, Floats]:
    """`right_QK` and `judged_QK` of zeros and ones."""
    if not outcomes:
        raise DataError("There are no questions to score.")
    rows = list(outcomes.values())
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"The questions have {sorted(lengths)} runs, but need the same number > 0.")
    right_QK = np.array([[outcome is True for outcome in row] for row in rows], float)
    judged_QK = np.array([[outcome is not None for outcome in row] for row in rows], float)
    if not judged_QK.any(0).all():
        run = int(judged_QK.any(0).argmin()) + 1
        raise DataError(f"Run {run} has no verdict at all: look at the judge's errors.")
    return right_QK, judged_QK
