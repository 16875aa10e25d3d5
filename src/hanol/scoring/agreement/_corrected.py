"""A mean of judge scores, corrected by a few labels of people.

A judge is biased; its mean over unlabelled outputs is precise and wrong. People's labels of some of
the outputs say by how much, and prediction-powered inference adds the two up into an interval that
holds whatever the judge is like; a good judge only makes it narrower.

Sources: arXiv 2301.09633 and 2311.01453 (prediction-powered inference and its tuned weight),
Cochran 1977, chapter 7 (all outputs as a finite population), Rogan and Gladen 1978 with the
interval of Lang and Reiczigel 2014.

Shape suffixes: N labelled outputs, M unlabelled ones.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from hanol.errors import DataError
from hanol.scoring._intervals import CONFIDENCE, Floats, Interval
from hanol.scoring.agreement._undefined import UndefinedError, columns, none_where_undefined

_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class CorrectedMean(Interval, frozen=True):
    """A corrected mean with its interval."""

    weight: float = Field(description="How much the judge counts; 0 uses the labels alone.")


@none_where_undefined
def prediction_powered_mean(
    labels: ArrayLike,
    predictions: ArrayLike,
    unlabelled: ArrayLike,
    *,
    weight: float | None = None,
    finite: bool = False,
) -> CorrectedMean:
    """The mean that people would give, from few labels and many scores of a judge.

    The labelled outputs must be a random sample: labels of the hard ones correct nothing.

    Args:
        labels: What people gave the labelled outputs, [N].
        predictions: What the judge gave the same outputs, [N].
        unlabelled: What the judge gave the other outputs, [M].
        weight: How much the judge counts; None takes the weight with the narrowest interval (0 to
            1, or the slope of the labels over the judge where `finite`).
        finite: Whether the mean of exactly these N + M outputs is wanted, not that of all outputs
            that the system could write: narrower, as the scores of all of them are known.

    Returns:
        The mean and its 95 % interval; None, with the reason in the log, where it is undefined:
        fewer than three labels (five where `finite`), or no unlabelled output.

    Raises:
        DataError: Labels and predictions differ in number.

    Example:
        >>> prediction_powered_mean([1, 2, 3], [2, 3, 4], [4, 4], weight=1.0).value
        3.0
    """
    y_N, p_N = columns(labels, predictions, least=5 if finite else 3)
    (p_M,) = columns(unlabelled, least=0)
    if not len(p_M):
        raise UndefinedError("there is no unlabelled output")
    return (_of_these if finite else _of_all)(y_N, p_N, p_M, weight)


def _of_all(y_N: Floats, p_N: Floats, p_M: Floats, weight: float | None) -> CorrectedMean:
    """The mean over everything that the outputs are a sample of: PPI++."""
    n, m = len(y_N), len(p_M)
    if weight is None:
        spread = np.concatenate([p_N, p_M]).var(ddof=1)
        covariance = ((y_N - y_N.mean()) * (p_N - p_N.mean())).mean()
        weight = float(np.clip(covariance / ((1 + n / m) * spread), 0, 1)) if spread else 0.0
    value = weight * p_M.mean() + (y_N - weight * p_N).mean()
    half = _Z * math.sqrt((weight * p_M).var() / m + (y_N - weight * p_N).var() / n)
    return CorrectedMean(value=value, low=value - half, high=value + half, weight=weight)


def _of_these(y_N: Floats, p_N: Floats, p_M: Floats, weight: float | None) -> CorrectedMean:
    """The mean over exactly these outputs: the regression estimator of survey sampling."""
    n, of = len(y_N), len(y_N) + len(p_M)
    around_N = p_N - p_N.mean()
    squares = float(around_N @ around_N)
    fitted = weight is None
    if weight is None:
        weight = max(0.0, float(around_N @ y_N) / squares) if squares else 0.0
    shift = np.concatenate([p_N, p_M]).mean() - p_N.mean()
    value = y_N.mean() + weight * shift
    rest_N = y_N - weight * p_N
    freedom = n - 1 - fitted
    variance = (1 - n / of) * ((rest_N - rest_N.mean()) ** 2).sum() / freedom / n
    if fitted and squares:  # the slope is an estimate, too
        variance *= 1 + n * shift**2 / squares
    half = t_quantile(freedom) * math.sqrt(variance)
    return CorrectedMean(value=value, low=value - half, high=value + half, weight=weight)


@none_where_undefined
def rogan_gladen(labels: ArrayLike, predictions: ArrayLike, unlabelled: ArrayLike) -> Interval:
    """The share that people would pass, from the share that a judge passes.

    Corrects by how often the judge passes what people pass, and fails what they fail. Unlike
    `prediction_powered_mean` it only needs labels of both kinds, not a random sample: the labels
    may be enriched with failures.

    Args:
        labels: Whether people passed the labelled outputs, 0 or 1.
        predictions: Whether the judge passed the same outputs.
        unlabelled: Whether the judge passed the other outputs.

    Returns:
        The share with its 95 % interval, within [0, 1]; None, with the reason in the log, where it
        is undefined: no unlabelled output, labels of one kind only, or a judge that is no better
        than chance.

    Raises:
        DataError: Labels and predictions differ in number, or a value is neither 0 nor 1.
    """
    y_N, p_N = columns(labels, predictions)
    (p_M,) = columns(unlabelled, least=0)
    for one in (y_N, p_N, p_M):
        if not np.isin(one, (0, 1)).all():
            raise DataError("Passes are 0 or 1: choose the score from which an output passes.")
    if not len(p_M):
        raise UndefinedError("there is no unlabelled output")
    kinds = [(p_N[y_N == 1], "passed"), (1 - p_N[y_N == 0], "failed")]
    for right_N, kind in kinds:
        if not len(right_N):
            raise UndefinedError(f"people {kind} none of the labelled outputs")
    (found, of_found), (spared, of_spared) = ((x.mean(), len(x)) for x, _ in kinds)
    if found + spared <= 1:
        raise UndefinedError("the judge passes what people fail as often as what they pass")
    value = float(np.clip((p_M.mean() + spared - 1) / (found + spared - 1), 0, 1))
    # Counts with what Lang and Reiczigel add to them, so that shares of 0 and 1 have a width.
    found, spared = (
        (found * of_found + 1) / (of_found + 2),
        (spared * of_spared + 1) / (of_spared + 2),
    )
    of = len(p_M) + _Z**2
    passed = (p_M.sum() + _Z**2 / 2) / of
    power = found + spared - 1
    if power <= 0:
        raise UndefinedError("there are too few labels to tell the judge from chance")
    middle = (passed + spared - 1) / power
    error_found = found * (1 - found) / (of_found + 2)
    error_spared = spared * (1 - spared) / (of_spared + 2)
    middle_squares = middle**2 * error_found + (1 - middle) ** 2 * error_spared
    half = _Z * math.sqrt(passed * (1 - passed) / of + middle_squares) / power
    middle += 2 * _Z**2 * (middle * error_found - (1 - middle) * error_spared)
    low, high = (float(np.clip(middle + side * half, 0, 1)) for side in (-1, 1))
    return Interval(value=value, low=min(low, value), high=max(high, value))


def t_quantile(freedom: int) -> float:
    """Quantile of Student's distribution that leaves 2.5 % above it.

    By Hill's expansion around the normal quantile: within 1 % from 3 degrees of freedom on.
    """
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
