"""Figures of completions: how often they are right, and how much they differ and repeat.

Shape suffixes: P problems, N completions of a problem, R resamples, M figures.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, Field

from hanol.autodeco._sample import Completion, Task
from hanol.errors import ConfigError

Floats = NDArray[np.float64]

_RESAMPLES = 5000


class Interval(BaseModel):
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float


class Spread(BaseModel):
    """Mean and percentiles of many values."""

    mean: float
    percentiles: dict[int, float] = Field(description="The 5th, 25th, 50th, 75th and 95th.")


def pass_at_k(n: int, c: ArrayLike, k: int) -> Floats:
    """Chance that one of `k` completions, drawn from `n` without putting back, is right.

    1 - C(n - c, k) / C(n, k), as a product of factors from 0 to 1: no factorials, no overflow.

    Args:
        n: Completions of a problem.
        c: How many of them are right, any shape.
        k: At most `n`.

    Returns:
        Unbiased estimates of the chance that one of k new completions is right, shape of `c`.

    Raises:
        ConfigError: `k` is not from 1 to `n`, or a count not from 0 to `n`.
    """
    counts = np.asarray(c)
    if not 1 <= k <= n:
        raise ConfigError(f"`k` is {k}, but must be from 1 to the {n} completions of a problem.")
    if ((counts < 0) | (counts > n)).any():
        raise ConfigError(f"`c` has counts from {counts.min()} to {counts.max()} of {n}.")
    i = np.arange(k)
    return 1 - ((n - counts[..., None] - i).clip(0) / (n - i)).prod(-1)


def verified(task: Task, completions_PN: Sequence[Sequence[Completion]]) -> NDArray[np.bool_]:
    """Ask the task's verifier about every completion, [P, N]."""
    return np.array(
        [
            [
                bool(task.verify(prompt, done.text if isinstance(prompt, str) else done.token_ids))
                for done in completions_N
            ]
            for prompt, completions_N in zip(task.prompts, completions_PN, strict=True)
        ]
    )


def distinct(completions_N: Sequence[Completion], n: int) -> float:
    """Different n-grams over all n-grams of the completions of a problem; 0 when there are none."""
    grams = [gram for done in completions_N for gram in _ngrams(done.token_ids, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(completion: Completion, n: int) -> float:
    """Share of the n-grams of a completion that stood in it before; 0 when there are none."""
    grams = _ngrams(completion.token_ids, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def spread(values: NDArray[Any] | list[int]) -> Spread:
    """Mean and percentiles."""
    ranks = (5, 25, 50, 75, 95)
    found = np.percentile(values, ranks).tolist()
    return Spread(mean=float(np.mean(values)), percentiles=dict(zip(ranks, found, strict=True)))


def bootstrap(figures_PM: Floats, confidence: float, seed: int) -> list[Interval]:
    """Means over problems, with percentile intervals from resampling the problems.

    All columns see the same resamples: the interval of a column of differences is a paired one.

    Args:
        figures_PM: One row a problem.
        confidence: Share of the resampled means inside the interval, in (0, 1).
        seed: Of the resamples.
    """
    problems = len(figures_PM)
    rng = np.random.default_rng(seed)
    weight_RP = rng.multinomial(problems, np.full(problems, 1 / problems), _RESAMPLES) / problems
    tail = (1 - confidence) / 2
    low_M, high_M = np.quantile(weight_RP @ figures_PM, [tail, 1 - tail], axis=0)
    return [
        Interval(value=value, low=low, high=high)
        for value, low, high in zip(figures_PM.mean(0), low_M, high_M, strict=True)
    ]


def _ngrams(tokens: list[int], n: int) -> list[tuple[int, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
