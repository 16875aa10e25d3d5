"""Estimates with 95 % confidence intervals, and the paired test.

Every value is a share in [0, 1] (differences lie in [-1, 1]); only text for people is in percent.
The formulas are our own because they are a few lines each, while `scipy.stats` takes 0.6 s to
import and is not part of the core install; the tests compare them with scipy.

Shape suffixes: P problems, R resamples, M figures.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from hanol.errors import DataError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95  # of all intervals
_RESAMPLES = 5000
_AT_ONCE = 1_000_000  # numbers of resamples that are computed together


class Interval(BaseModel, frozen=True):
    """An estimate with its confidence interval, as shares.

    Example:
        >>> print(Interval(value=0.5, low=0.4, high=0.6))
        50.0 % [40.0, 60.0]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def __neg__(self) -> "Interval":
        return Interval(value=-self.value, low=-self.high, high=-self.low)

    def rounded(self) -> dict[str, float]:
        """Plain values with four decimals, for JSON."""
        return {name: round(getattr(self, name), 4) for name in Interval.model_fields}


def wilson(right: int, of: int) -> Interval:
    """A share with its interval by Wilson's score (1927).

    Unlike an interval from resampling, it has a width where all or none are right.

    Args:
        of: Number of trials, at least one.

    Raises:
        DataError: There is no trial, or `right` is not from 0 to `of`.
    """
    if of < 1 or not 0 <= right <= of:
        raise DataError(f"{right} right of {of} trials is not a share: 0 <= right <= of, of >= 1.")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    value = right / of
    middle = (right + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * math.sqrt(right * (of - right) / of + z * z / 4)
    # Rounding must not leave the value outside, at 0 and at 1.
    low, high = min(value, middle - half), max(value, middle + half)
    return Interval(value=value, low=max(0.0, low), high=min(1.0, high))


@overload
def bootstrap(
    figures_PM: ArrayLike,
    *more_P: ArrayLike,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> list[Interval]: ...
@overload
def bootstrap(
    figures_PM: ArrayLike,
    *more_P: ArrayLike,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
    statistic: Callable[..., float | None],
) -> Interval | None: ...
def bootstrap(
    figures_PM: ArrayLike,
    *more_P: ArrayLike,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
    statistic: Callable[..., float | None] | None = None,
) -> list[Interval] | Interval | None:
    """Means over problems, with percentile intervals from resampling the problems.

    All columns see the same resamples: the interval of a column of differences is a paired one.

    Args:
        figures_PM: One row per problem, one column per figure; or a single column.
        more_P: Further columns.
        seed: Seed of the resamples.
        clusters: What each problem belongs to, such as the text that it was made from: whole
            clusters are resampled, as problems of one are alike. None resamples single problems.
        statistic: Such as `spearman`: called with the columns, in place of a mean of each.

    Returns:
        One interval for each column; with a statistic its own, or None where it is undefined, or
        there are fewer than two clusters. Resamples in which it is undefined are left out.

    Raises:
        DataError: There is no problem, or columns or clusters are not as long as the problems.
    """
    figures_PM = np.asarray(figures_PM, float)
    if more_P or figures_PM.ndim == 1:
        try:
            figures_PM = np.column_stack([figures_PM, *more_P]).astype(float)
        except ValueError as err:
            raise DataError(f"Columns of figures differ in length: {err}.") from err
    if not len(figures_PM):
        raise DataError("There are no problems to average over.")
    weight_RP = resample_weights(len(figures_PM), seed)
    if clusters is not None:
        cluster_P = cluster_numbers(clusters, len(figures_PM))
        weight_RP = resample_weights(int(cluster_P.max()) + 1, seed)[:, cluster_P]
    if statistic is not None:
        if clusters is not None and not cluster_P.any():
            return None
        return _bootstrap_statistic(statistic, figures_PM, weight_RP)
    low_M, high_M = quantiles(weight_RP / weight_RP.sum(1, keepdims=True) @ figures_PM)
    return [
        Interval(value=value, low=low, high=high)
        for value, low, high in zip(figures_PM.mean(0), low_M, high_M, strict=True)
    ]


def _bootstrap_statistic(
    statistic: Callable[..., float | None], figures_PM: Floats, weight_RP: NDArray[np.int64]
) -> Interval | None:
    from hanol.scoring.agreement import _correlation as of  # it imports this module

    if (value := statistic(*figures_PM.T)) is None:
        return None
    if statistic in (of.spearman, of.pearson):  # all resamples at once
        is_ranked = statistic is of.spearman
        found = []
        for block_RP in np.array_split(weight_RP, 1 + weight_RP.size // _AT_ONCE):
            x_RP, y_RP = (
                of.weighted_ranks(one_P, block_RP) if is_ranked else one_P[None]
                for one_P in figures_PM.T
            )
            found.append(of.weighted_pearson(x_RP, y_RP, block_RP))
        found_R = np.concatenate(found)
    else:
        plain = getattr(statistic, "__wrapped__", statistic)
        found_R = np.array([_or_nan(plain, figures_PM, weight_P) for weight_P in weight_RP])
    if np.isnan(found_R).all():
        return None
    low, high = quantiles(found_R)
    return Interval(value=value, low=low, high=high)


def _or_nan(
    statistic: Callable[..., float | None], figures_PM: Floats, weight_P: NDArray[np.int64]
) -> float:
    from hanol.scoring.agreement._undefined import UndefinedError  # it imports this module

    try:
        found = statistic(*figures_PM.repeat(weight_P, 0).T)
    except UndefinedError:
        return math.nan
    return math.nan if found is None else float(found)


def cluster_numbers(clusters: Sequence[Hashable] | None, count: int) -> NDArray[np.int64]:
    """Clusters of problems as numbers from 0; without any, each problem is one.

    Raises:
        DataError: They are not as many as the problems.
    """
    if clusters is None:
        return np.arange(count)
    if len(clusters) != count:
        raise DataError(f"There are {len(clusters)} clusters for {count} problems: give one each.")
    known = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    return np.array([known[cluster] for cluster in clusters], np.int64)


def bootstrap_ratio(parts_P: ArrayLike, wholes_P: ArrayLike, *, seed: int = 0) -> Interval:
    """The sum of parts over the sum of wholes, with an interval from resampling the pairs.

    Resamples whose wholes sum to zero are left out.

    Args:
        parts_P: One numerator per problem.
        wholes_P: One denominator per problem; their sum is above zero.
    """
    parts_P, wholes_P = np.asarray(parts_P, float), np.asarray(wholes_P, float)
    weight_RP = resample_weights(len(parts_P), seed)
    with np.errstate(invalid="ignore"):
        ratio_R = (weight_RP @ parts_P) / (weight_RP @ wholes_P)
    low, high = quantiles(ratio_R)
    return Interval(value=parts_P.sum() / wholes_P.sum(), low=low, high=high)


def resample_weights(num_problems: int, seed: int) -> NDArray[np.int64]:
    """How often each problem occurs in each bootstrap resample, [R, P]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_problems, np.full(num_problems, 1 / num_problems), _RESAMPLES)


def quantiles(resampled_R: Floats) -> Floats:
    """The ends of the percentile interval along the first axis; NaN entries are left out."""
    tail = (1 - CONFIDENCE) / 2
    # `quantile` is much faster than `nanquantile` on many columns.
    quantile = np.nanquantile if np.isnan(resampled_R).any() else np.quantile
    return np.asarray(quantile(resampled_R, [tail, 1 - tail], axis=0))


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Exact two-sided p-value of McNemar's test: are two systems equally often right?

    Only problems that exactly one of the systems solved count.

    Args:
        a: Whether the first system was right, by problem.
        b: Whether the second system was right on the same problems.

    Raises:
        DataError: The two do not have the same length.
    """
    if len(a) != len(b):
        raise DataError(f"A paired test needs outcomes on the same problems: {len(a)}, {len(b)}.")
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    n, fewer = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n)
