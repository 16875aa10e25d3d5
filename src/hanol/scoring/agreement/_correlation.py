"""Correlations: Pearson's r, Spearman's rho with average ranks, Kendall's tau-b.

They are our own because `scipy.stats` is not part of the core install and takes 0.6 s to import,
and because a bootstrap needs thousands of them at once; the tests compare them with scipy.

Shape suffixes: P pairs, R resamples, U different values.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hanol.scoring._intervals import Floats
from hanol.scoring.agreement._undefined import UndefinedError, columns, none_where_undefined

_LEAST = 3  # pairs; with two every correlation is 1 or -1
_BLOCK = 1000  # rows of the matrix of pairs that are held at once


@none_where_undefined
def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's product-moment correlation.

    Args:
        x: One number per item.
        y: One number for each of the same items.

    Returns:
        A value in [-1, 1]; None, with the reason in the log, where it is undefined: fewer than
        three pairs, all values of one side equal, a value missing.

    Raises:
        DataError: The two do not have the same length.
    """
    return _pearson(*columns(x, y, least=_LEAST))


@none_where_undefined
def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation; ties get their average rank.

    Args:
        x: One number per item.
        y: One number for each of the same items.

    Returns:
        A value in [-1, 1]; None, with the reason in the log, where it is undefined: fewer than
        three pairs, all values of one side equal, a value missing.

    Raises:
        DataError: The two do not have the same length.

    Example:
        >>> spearman([1, 2, 3, 4], [1, 4, 9, 16]), spearman([1, 1, 1], [1, 2, 3])
        (1.0, None)
    """
    x_P, y_P = columns(x, y, least=_LEAST)
    return _pearson(ranks(x_P[None])[0], ranks(y_P[None])[0])


@none_where_undefined
def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b, which corrects for ties on either side.

    Takes time that grows with the square of the number of items (20,000 take seconds).

    Args:
        x: One number per item.
        y: One number for each of the same items.

    Returns:
        A value in [-1, 1]; None, with the reason in the log, where it is undefined: fewer than
        three pairs, all values of one side equal, a value missing.

    Raises:
        DataError: The two do not have the same length.
    """
    x_P, y_P = columns(x, y, least=_LEAST)
    _refuse_constant(x_P, y_P)
    concordant = 0
    for begin in range(0, len(x_P), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        signs = np.sign(x_P[rows, None] - x_P) * np.sign(y_P[rows, None] - y_P)
        concordant += int(signs.sum())
    pairs = len(x_P) * (len(x_P) - 1)
    untied_x, untied_y = (pairs - _tied(one) for one in (x_P, y_P))
    return float(concordant / np.sqrt(untied_x * untied_y))


def ranks(values_RP: Floats) -> Floats:
    """Average ranks from 1 in each row."""
    known_U, at_RP = np.unique(values_RP, return_inverse=True)
    at_RP = at_RP.reshape(values_RP.shape)
    rows = np.arange(len(values_RP))[:, None] * len(known_U)
    counts = np.bincount((rows + at_RP).ravel(), minlength=len(values_RP) * len(known_U))
    counts_RU = counts.reshape(len(values_RP), len(known_U))
    middle_RU = counts_RU.cumsum(1) - (counts_RU - 1) / 2
    return np.take_along_axis(middle_RU, at_RP, 1)


def weighted_ranks(values_P: Floats, weight_RP: NDArray[np.int64]) -> Floats:
    """Average ranks of the same values in many resamples, [R, P].

    Args:
        values_P: The values.
        weight_RP: How often each value occurs in each resample.
    """
    order_P = np.argsort(values_P, kind="stable")
    _, first_U, at_P = np.unique(values_P[order_P], return_index=True, return_inverse=True)
    counts_RU = np.add.reduceat(weight_RP[:, order_P], first_U, axis=1)
    middle_RU = counts_RU.cumsum(1) - (counts_RU - 1) / 2
    found_RP = np.empty(weight_RP.shape)
    found_RP[:, order_P] = middle_RU[:, at_P]
    return found_RP


def weighted_pearson(x_RP: Floats, y_RP: Floats, weight_RP: NDArray[np.int64]) -> Floats:
    """Pearson's correlation in each resample, [R]; NaN where it is undefined."""
    share_RP = weight_RP / weight_RP.sum(1, keepdims=True)
    x_RP = x_RP - (share_RP * x_RP).sum(1, keepdims=True)
    y_RP = y_RP - (share_RP * y_RP).sum(1, keepdims=True)
    x_R, y_R = ((share_RP * one * one).sum(1) for one in (x_RP, y_RP))
    # Rounding leaves a variance above zero where all values are equal.
    x_R, y_R = (np.where(one > 1e-20, one, np.nan) for one in (x_R, y_R))
    return np.asarray((share_RP * x_RP * y_RP).sum(1) / np.sqrt(x_R * y_R))


def _pearson(x_P: Floats, y_P: Floats) -> float:
    _refuse_constant(x_P, y_P)
    x_P, y_P = (one - one.mean() for one in (x_P, y_P))
    x_P, y_P = (one / np.sqrt((one * one).sum()) for one in (x_P, y_P))
    return float(np.clip(x_P @ y_P, -1, 1))


def _refuse_constant(x_P: Floats, y_P: Floats) -> None:
    for name, one in (("first", x_P), ("second", y_P)):
        if (one == one[0]).all():
            raise UndefinedError(f"all values of the {name} are equal")


def _tied(values_P: Floats) -> int:
    """Ordered pairs of different places with equal values."""
    _, counts = np.unique(values_P, return_counts=True)
    return int((counts * (counts - 1)).sum())
