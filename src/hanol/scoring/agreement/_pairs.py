"""Pairs of outputs of the same source: does a metric order them as people do?

Scores of judges tie often (seven values from 0 to 6), which a plain rank correlation punishes or
rewards by accident. `acc_eq` counts a predicted tie as right where people tie too, and lets every
metric choose how near two scores must be to count as tied.

Sources: arXiv 2305.14324 (`acc_eq` and its calibration), arXiv 2409.09598
(`soft_pairwise_accuracy`).

Shape suffixes: N pairs, S systems, G groups, R random sign patterns.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hanol.errors import DataError
from hanol.scoring._intervals import Floats, Interval, cluster_numbers, quantiles
from hanol.scoring.agreement._undefined import UndefinedError, columns, none_where_undefined

Groups = Sequence[Hashable]


class TieAccuracy(float):
    """A share of pairs, with the margin up to which scores counted as tied.

    Attributes:
        eps: Largest difference of two scores of the metric that counts as a tie.
    """

    eps: float

    def __new__(cls, value: float, eps: float = 0.0) -> "TieAccuracy":
        made = super().__new__(cls, value)
        made.eps = eps
        return made


@none_where_undefined
def pairwise_accuracy(human: ArrayLike, metric: ArrayLike, groups: Groups | None = None) -> float:
    """Share of the pairs that people order which the metric orders alike; its ties count half.

    It is a mean over groups, as that of `acc_eq`.

    Args:
        human: What people gave each item.
        metric: What the metric or judge gave each item; higher is better.
        groups: What each item is an output of, such as its source; pairs are made inside of a
            group. None puts all items in one.

    Returns:
        A share, 0.5 for a metric without information; None, with the reason in the log, where
        people order no pair.

    Raises:
        DataError: The lengths differ.
    """
    human_N, metric_N, group_N = _differences(human, metric, groups)
    ordered_N = human_N != 0
    if not ordered_N.any():
        raise UndefinedError("people order no two outputs of a group")
    agree_N = np.sign(human_N[ordered_N]) * np.sign(metric_N[ordered_N])
    return float(((agree_N + 1) / 2) @ _weights(group_N[ordered_N]))


@none_where_undefined
def acc_eq(
    human: ArrayLike,
    metric: ArrayLike,
    groups: Groups | None = None,
    *,
    eps: float | None = None,
) -> TieAccuracy:
    """Share of pairs with the same relation (better, worse, tied), as a mean over groups.

    Args:
        human: What people gave each item.
        metric: What the metric or judge gave each item; higher is better.
        groups: What each item is an output of; pairs are made inside of a group.
        eps: Largest difference of the metric that counts as a tie; None takes, of 0 and all
            differences that occur, the one with the highest share (tie calibration).

    Returns:
        The share, as a number with the attribute `eps`; None, with the reason in the log, where no
        group has two items.

    Raises:
        DataError: The lengths differ, or `eps` is below 0.
    """
    if eps is not None and not eps >= 0:
        raise DataError(f"`eps` is {eps}, but a margin is at least 0.")
    human_N, metric_N, group_N = _differences(human, metric, groups)
    if not len(human_N):
        raise UndefinedError("no group has two items")
    weight_N = _weights(group_N)
    far_N = np.abs(metric_N)
    # A tied pair is right from its own difference on, an ordered one up to it.
    gained_N = np.where(human_N == 0, weight_N, 0) - np.where(
        (human_N != 0) & (np.sign(human_N) == np.sign(metric_N)), weight_N, 0
    )
    start = -gained_N[gained_N < 0].sum()
    if eps is not None:
        return TieAccuracy(start + gained_N[far_N <= eps].sum(), float(eps))
    known, at_N = np.unique(np.append(far_N, 0.0), return_inverse=True)
    gain = np.bincount(at_N[:-1], weights=gained_N, minlength=len(known)).cumsum()
    best = int(gain.argmax())
    return TieAccuracy(start + gain[best], float(known[best]))


@none_where_undefined
def soft_pairwise_accuracy(
    human: ArrayLike,
    metric: ArrayLike,
    systems: Sequence[Hashable],
    groups: Groups,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> float:
    """How alike people and a metric are sure which of two systems is better.

    1 minus the mean, over pairs of systems, of the difference of the one-sided p-values of a paired
    permutation test over the sources that both translated. People and metric see the same
    permutations.

    Args:
        human: What people gave each item.
        metric: What the metric or judge gave each item.
        systems: Which system made each item.
        groups: The source of each item; a system has at most one item per source.
        resamples: Permutations.
        seed: Seed of the permutations.

    Returns:
        A value in [0, 1]; None, with the reason in the log, where no two systems share a source.

    Raises:
        DataError: The lengths differ, or a system has two items of one source.
    """
    human_P, metric_P = columns(human, metric)
    _check_length(len(human_P), systems=systems, groups=groups)
    at: dict[Hashable, dict[Hashable, int]] = defaultdict(dict)
    for place, (system, group) in enumerate(zip(systems, groups, strict=True)):
        if group in at[system]:
            raise DataError(f"The system {system!r} has two items of the source {group!r}.")
        at[system][group] = place
    number = {group: n for n, group in enumerate(dict.fromkeys(groups))}
    sign_RG = np.random.default_rng(seed).choice([-1.0, 1.0], (resamples, len(number)))
    gaps = []
    for a, b in combinations(at.values(), 2):
        if shared := [group for group in a if group in b]:
            sign_RN = sign_RG[:, [number[group] for group in shared]]
            first, second = ([one[group] for group in shared] for one in (a, b))
            p = [
                ((sign_RN @ (x[first] - x[second])) >= (x[first] - x[second]).sum() - 1e-12).mean()
                for x in (human_P, metric_P)
            ]
            gaps.append(abs(p[0] - p[1]))
    if not gaps:
        raise UndefinedError("no two systems share a source")
    return float(1 - np.mean(gaps))


def chance_level(
    statistic: Callable[..., float | None],
    human: ArrayLike,
    metric: ArrayLike,
    groups: Groups | None = None,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Interval | None:
    """What a statistic gives when the metric's scores are shuffled inside of each group.

    For `acc_eq` chance is far from 0.5: it depends on how often people and metric tie.

    Args:
        statistic: Such as `acc_eq`, called as `statistic(human, metric, groups)`, and without
            groups where there are none.
        human: What people gave each item.
        metric: What the metric or judge gave each item.
        groups: What each item is an output of; None puts all items in one.
        resamples: Shuffles.
        seed: Seed of the shuffles.

    Returns:
        The mean over shuffles and the range that holds 95 % of them; None where the statistic is
        undefined for every shuffle.
    """
    metric_P = np.asarray(metric, float)
    of_P = _group_numbers(groups, len(metric_P))
    grouped = () if groups is None else (groups,)
    rng = np.random.default_rng(seed)
    found = []
    order_P = np.argsort(of_P, kind="stable")
    for _ in range(resamples):
        mixed_P = np.empty_like(metric_P)
        mixed_P[order_P] = metric_P[np.lexsort((rng.random(len(metric_P)), of_P))]
        if (value := statistic(human, mixed_P, *grouped)) is not None:
            found.append(float(value))
    if not found:
        return None
    low, high = quantiles(np.array(found))
    return Interval(value=float(np.mean(found)), low=low, high=high)


def _differences(
    human: ArrayLike, metric: ArrayLike, groups: Groups | None
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Differences of people and metric, and the group, of every pair inside of a group."""
    human_P, metric_P = columns(human, metric)
    of_P = _group_numbers(groups, len(human_P))
    first, second, group = [], [], []
    for number in range(of_P.max(initial=-1) + 1):
        members = np.flatnonzero(of_P == number)
        i, j = np.triu_indices(len(members), 1)
        first.append(members[i])
        second.append(members[j])
        group.append(np.full(len(i), number))
    if not first:
        return np.empty(0), np.empty(0), np.empty(0, np.int64)
    i_N, j_N = np.concatenate(first), np.concatenate(second)
    return human_P[i_N] - human_P[j_N], metric_P[i_N] - metric_P[j_N], np.concatenate(group)


def _weights(group_N: NDArray[np.int64]) -> Floats:
    """The share of each pair in a mean over groups."""
    sizes_G = np.bincount(group_N)
    return np.asarray(1 / (sizes_G[group_N] * np.count_nonzero(sizes_G)))


def _group_numbers(groups: Groups | None, count: int) -> NDArray[np.int64]:
    """Groups as numbers from 0; without any, all items are in one."""
    return cluster_numbers([0] * count if groups is None else groups, count)


def _check_length(count: int, **given: Sequence[Hashable]) -> None:
    for name, values in given.items():
        if len(values) != count:
            raise DataError(f"`{name}` has {len(values)} entries, but there are {count} items.")
