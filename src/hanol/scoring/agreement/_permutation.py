"""Paired permutation tests, and many of them at once.

Shape suffixes: P items, K clusters, R permutations.
"""

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hanol.errors import DataError, UnknownNameError
from hanol.scoring._intervals import Floats, cluster_numbers
from hanol.scoring.agreement._correlation import ranks, weighted_pearson
from hanol.scoring.agreement._undefined import UndefinedError, columns, none_where_undefined

Alternative = Literal["two-sided", "greater"]


@none_where_undefined
def paired_permutation(
    a: ArrayLike,
    b: ArrayLike,
    *,
    against: ArrayLike | None = None,
    alternative: Alternative = "two-sided",
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """P-value of a paired permutation test: is `a` better than `b` on the same items?

    Under the null hypothesis the two could be swapped on any item. All swaps are tried where there
    are at most `resamples` of them, else that many random ones.

    Args:
        a: One score per item.
        b: The other's, of the same items.
        against: What people gave the items. Then `a` and `b` are metrics, and what is compared is
            their Spearman correlation with people; both are replaced by their ranks, so that
            scores of different scales can be swapped. None compares means.
        alternative: "two-sided" (different) or "greater" (`a` above `b`).
        clusters: The source of each item: swaps are of whole clusters. None swaps single items.
        resamples: Largest number of swaps.
        seed: Seed of random swaps.

    Returns:
        The p-value; None, with the reason in the log, where it is undefined: no items, or with
        `against` fewer than three or all equal.

    Raises:
        DataError: The lengths differ.
        UnknownNameError: There is no such alternative.
    """
    if alternative not in ("two-sided", "greater"):
        raise UnknownNameError("alternative", alternative, ("two-sided", "greater"))
    a_P, b_P, *human = columns(a, b, *([] if against is None else [against]))
    if not len(a_P):
        raise UndefinedError("there are no items")
    cluster_P = cluster_numbers(clusters, len(a_P))
    swap_RP, is_exact = _swaps(int(cluster_P.max()) + 1, resamples, seed)
    swap_RP = swap_RP[:, cluster_P]
    if human:
        differences_R = _gains(human[0], a_P, b_P, swap_RP)
    else:
        differences_R = np.where(swap_RP, b_P - a_P, a_P - b_P).mean(1)
    observed, differences_R = differences_R[0], differences_R[not is_exact :]
    differences_R = differences_R[~np.isnan(differences_R)]
    if alternative == "two-sided":
        observed, differences_R = abs(observed), np.abs(differences_R)
    # Sums in another order differ in the last bits.
    as_large = int((differences_R >= observed - 1e-12).sum())
    # The data as observed is one of the random permutations, too.
    return (as_large + (not is_exact)) / (len(differences_R) + (not is_exact))


@none_where_undefined
def spearman_test(x: ArrayLike, y: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> float:
    """Two-sided p-value of a permutation test: is there any rank correlation?

    Args:
        x: One number per item.
        y: One number for each of the same items.
        resamples: Random orders of `y`.
        seed: Seed of the orders.

    Returns:
        The p-value; None, with the reason in the log, where the correlation is undefined.

    Raises:
        DataError: The two do not have the same length.
    """
    x_P, y_P = columns(x, y, least=3)
    _refuse_constant(first=x_P, second=y_P)
    x_P, y_P = (ranks(one[None])[0] for one in (x_P, y_P))
    x_P, y_P = (one - one.mean() for one in (x_P, y_P))
    rng = np.random.default_rng(seed)
    at_random = sum(abs(rng.permutation(y_P) @ x_P) >= abs(x_P @ y_P) - 1e-9
                    for _ in range(resamples))  # fmt: skip
    return (int(at_random) + 1) / (resamples + 1)


def benjamini_hochberg(p_values: ArrayLike) -> list[float]:
    """P-values adjusted for many tests: below 0.05 they hold the false discovery rate at 5 %.

    Args:
        p_values: One per test.

    Returns:
        Adjusted values (Benjamini and Hochberg 1995), in the same order.

    Raises:
        DataError: One is not from 0 to 1.

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03])
        [0.03, 0.04, 0.04]
    """
    p_P = np.asarray(p_values, float)
    if not ((p_P >= 0) & (p_P <= 1)).all():
        raise DataError(f"P-values lie from 0 to 1, but these are {p_P.tolist()!s:.80}.")
    order_P = np.argsort(p_P)[::-1]
    rank_P = np.arange(len(p_P), 0, -1)
    adjusted_P = np.minimum.accumulate(p_P[order_P] * len(p_P) / rank_P)
    found_P = np.empty_like(p_P)
    found_P[order_P] = np.minimum(adjusted_P, 1)
    return [float(p) for p in found_P]


def _swaps(num_clusters: int, resamples: int, seed: int) -> tuple[NDArray[np.bool_], bool]:
    """Which clusters are swapped, [R, K], nothing in the first row; and whether these are all."""
    if num_clusters < 63 and 2**num_clusters <= resamples:
        all_R = np.arange(2**num_clusters)
        return (all_R[:, None] >> np.arange(num_clusters)) & 1 == 1, True
    swap_RK = np.random.default_rng(seed).random((resamples + 1, num_clusters)) < 0.5
    swap_RK[0] = False
    return swap_RK, False


def _gains(human_P: Floats, a_P: Floats, b_P: Floats, swap_RP: NDArray[np.bool_]) -> Floats:
    """Spearman correlation with people of the first metric minus that of the second, [R]."""
    if len(human_P) < 3:
        raise UndefinedError(f"{len(human_P)} items are fewer than 3")
    _refuse_constant(people=human_P, first=a_P, second=b_P)
    human_1P, a_1P, b_1P = (ranks(one[None]) for one in (human_P, a_P, b_P))
    one_1P = np.ones((1, len(human_P)), np.int64)
    first_R, second_R = (
        weighted_pearson(ranks(np.where(swap_RP, x, y)), human_1P, one_1P)
        for x, y in ((b_1P, a_1P), (a_1P, b_1P))
    )
    return first_R - second_R


def _refuse_constant(**given: Floats) -> None:
    for name, one_P in given.items():
        if (one_P == one_P[0]).all():
            raise UndefinedError(f"all values of {name} are equal")
