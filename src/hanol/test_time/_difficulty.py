"""Bins of difficulty: questions by how often, or how confidently, a model solves them.

Source: arXiv 2408.03314, section 3.2.
"""

import numpy as np
from numpy.typing import ArrayLike

from hanol.errors import ConfigError, DataError


def difficulty_bins(values: ArrayLike, bins: int = 5, strict: bool = False) -> list[int]:
    """The bin of each question, from 1 (easiest) to `bins`.

    Edges are quantiles of the values; a value on an edge is in the easier bin.

    Args:
        values: pass@1 of each question, or the mean score of its answers: more is easier.
        bins: Number of bins, at least 1.
        strict: Compare the values themselves, as the paper does: many equal values can leave a bin
            empty. Otherwise the earlier one of equal values counts as easier, and bins differ by
            one question at most from an equal share.

    Raises:
        ConfigError: `bins` is below 1.
        DataError: There are no values, or one is not a number.

    Example:
        >>> difficulty_bins([0.0, 0.0, 1.0, 0.5, 0.0])
        [3, 4, 1, 2, 5]
    """
    found = np.asarray(values, float).reshape(-1)
    if bins < 1:
        raise ConfigError(f"`bins` is {bins}, but must be at least 1.")
    if not found.size:
        raise DataError("There are no values to sort into bins of difficulty.")
    if np.isnan(found).any():
        raise DataError(f"Value {int(np.isnan(found).argmax())} is not a number.")
    if not strict:
        order = np.argsort(-found, kind="stable")
        found[order] = np.arange(len(found))[::-1]
    edges = np.quantile(found, np.arange(1, bins) / bins)
    return [bins - int((value >= edges).sum()) for value in found]
