"""Figures of several completions of one problem: pass@k, diversity, repetition."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, Field

from hanol.errors import ConfigError, DataError
from hanol.scoring._intervals import Floats


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> Floats:
    """Chance that one of `k` completions, drawn from `n` without replacement, is right.

    1 - C(n - c, k) / C(n, k), as a product of factors from 0 to 1: no factorials, no overflow.
    Source: arXiv 2107.03374.

    Args:
        n: Completions of a problem: one number, or one per problem.
        c: How many of them are right, any shape.
        k: At most the smallest `n`.

    Returns:
        Unbiased estimates of the chance that one of k new completions is right, shape of `c`.

    Raises:
        ConfigError: `k` is not from 1 to `n`, or a count not from 0 to `n`.

    Example:
        >>> pass_at_k(4, [0, 1, 4], k=2).tolist()
        [0.0, 0.5, 1.0]
    """
    total, counts = np.broadcast_arrays(np.asarray(n), np.asarray(c))
    fewest = int(total.min())
    if k % 1 or not 1 <= k <= fewest:
        raise ConfigError(
            f"`k` is {k}, but must be a number from 1 to the {fewest} completions of a problem."
        )
    if ((counts < 0) | (counts > total)).any():
        raise ConfigError(f"`c` has counts from {counts.min()} to {counts.max()} of {fewest}.")
    i = np.arange(k)
    failing = ((total - counts)[..., None] - i).clip(0) / (total[..., None] - i)
    return 1 - failing.prod(-1)


def distinct_n(completions: Sequence[Sequence[Hashable]], n: int) -> float:
    """Different n-grams over all n-grams of a problem's completions; 0 when there are none."""
    grams = [gram for tokens in completions for gram in _ngrams(tokens, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(tokens: Sequence[Hashable], n: int) -> float:
    """Share of a completion's n-grams that occurred in it before; 0 when there are none."""
    grams = _ngrams(tokens, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class Summary(BaseModel):
    """Mean and percentiles of many values."""

    mean: float
    percentiles: dict[int, float] = Field(description="The 5th, 25th, 50th, 75th and 95th.")

    @classmethod
    def of(cls, values: ArrayLike) -> "Summary":
        """Summarise values.

        Raises:
            DataError: There are none.
        """
        ranks = (5, 25, 50, 75, 95)
        array = np.asarray(values, float)
        if not array.size:
            raise DataError("There are no values to summarise.")
        found = np.percentile(array, ranks).tolist()
        return cls(mean=float(array.mean()), percentiles=dict(zip(ranks, found, strict=True)))


def _ngrams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    if n < 1:
        raise ConfigError(f"`n` is {n}, but n-grams have at least 1 token.")
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
