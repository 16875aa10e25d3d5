"""Agreement of raters: kappas of two, Krippendorff's alpha and ICC(3,1) of several.

Raw agreement overstates: two raters who give "2" to nearly everything agree by chance. So simple
agreement is never printed without a figure that is corrected for chance. The formulas are our own
because scikit-learn is not part of the core install and `krippendorff` is under the GPL; the tests
compare them with both.

Shape suffixes: P items, Q raters, C categories.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hanol.errors import DataError, UnknownNameError
from hanol.scoring._intervals import Floats
from hanol.scoring.agreement._undefined import UndefinedError, columns, none_where_undefined

Weights = Literal["linear", "quadratic"]
Level = Literal["nominal", "ordinal", "interval"]


@none_where_undefined
def simple_agreement(a: ArrayLike, b: ArrayLike) -> float:
    """Share of items to which two raters gave the same; not corrected for chance.

    Args:
        a: One rating per item.
        b: The other rater's, of the same items.

    Returns:
        A share; None, with the reason in the log, without items.

    Raises:
        DataError: The two do not have the same length.
    """
    a_P, b_P = columns(a, b)
    return float((a_P == b_P).mean())


@none_where_undefined
def cohen_kappa(
    a: ArrayLike,
    b: ArrayLike,
    *,
    weights: Weights | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Cohen's kappa: agreement of two raters beyond what their habits give by chance.

    Args:
        a: One rating per item.
        b: The other rater's, of the same items.
        weights: How far apart two ratings are: None counts every disagreement alike, "linear" and
            "quadratic" by the distance of their places in `labels`.
        labels: Every rating of the scale in order; None takes those that occur, so that a rating
            that nobody gave is no step on the scale (as scikit-learn does).

    Returns:
        1 for full agreement, 0 for chance; None, with the reason in the log, where it is undefined:
        no items, or both raters gave one and the same rating throughout.

    Raises:
        DataError: The lengths differ, or a rating is not in `labels`.
        UnknownNameError: There are no such weights.

    Example:
        >>> cohen_kappa([0, 1, 2, 2], [0, 1, 2, 1]), cohen_kappa([2, 2], [2, 2])
        (0.6363636363636364, None)
    """
    if weights not in (None, "linear", "quadratic"):
        raise UnknownNameError("weighting of kappa", str(weights), ("linear", "quadratic"))
    a_P, b_P = columns(a, b)
    known_C = np.unique([a_P, b_P]) if labels is None else np.asarray(labels, float)
    if stranger := sorted({*a_P, *b_P} - {*known_C}):
        raise DataError(f"The rating {stranger[0]:g} is none of `labels` {known_C.tolist()}.")
    place = {value: number for number, value in enumerate(known_C)}
    seen_CC = np.zeros((len(known_C), len(known_C)))
    np.add.at(seen_CC, ([place[x] for x in a_P], [place[x] for x in b_P]), 1)
    chance_CC = np.outer(seen_CC.sum(1), seen_CC.sum(0)) / len(a_P)
    step_C = np.arange(len(known_C))
    far_CC = np.abs(step_C[:, None] - step_C) ** (2 if weights == "quadratic" else 1)
    if weights is None:
        far_CC = np.minimum(far_CC, 1)
    if not (expected := (far_CC * chance_CC).sum()):
        raise UndefinedError("both raters gave one and the same rating to every item")
    return float(1 - (far_CC * seen_CC).sum() / expected)


@none_where_undefined
def krippendorff_alpha(*ratings_QP: ArrayLike, level: Level = "ordinal") -> float:
    """Krippendorff's alpha: agreement of any number of raters, with gaps.

    Args:
        ratings_QP: One row per rater, one column per item, as one table or as one argument per
            rater; None or NaN where a rater gave none.
        level: How far apart two ratings are: "nominal" (same or not), "ordinal" (by how many
            ratings lie between), "interval" (by the square of their difference).

    Returns:
        1 for full agreement, 0 for chance; None, with the reason in the log, where it is undefined:
        no item with two ratings, or one rating throughout.

    Raises:
        DataError: The rows are no table.
        UnknownNameError: There is no such level.
    """
    if level not in ("nominal", "ordinal", "interval"):
        raise UnknownNameError("level of measurement", level, ("nominal", "ordinal", "interval"))
    table_QP = _table(ratings_QP)
    known_C = np.unique(table_QP[~np.isnan(table_QP)])
    counts_PC = (table_QP.T[:, :, None] == known_C).sum(1)
    counts_PC = counts_PC[counts_PC.sum(1) >= 2]
    if not len(counts_PC):
        raise UndefinedError("no item has ratings of two raters")
    pairs_P = counts_PC.sum(1) - 1
    seen_CC = (counts_PC / pairs_P[:, None]).T @ counts_PC - np.diag(
        (counts_PC / pairs_P[:, None]).sum(0)
    )
    total_C = counts_PC.sum(0).astype(float)
    chance_CC = (np.outer(total_C, total_C) - np.diag(total_C)) / (total_C.sum() - 1)
    if level == "interval":
        far_CC = (known_C[:, None] - known_C) ** 2
    elif level == "ordinal":
        # Ratings between two values, each end counted half.
        middle_C = total_C.cumsum() - total_C / 2
        far_CC = (middle_C[:, None] - middle_C) ** 2
    else:
        far_CC = 1 - np.eye(len(known_C))
    if not (expected := (far_CC * chance_CC).sum()):
        raise UndefinedError("every rating is the same")
    return float(1 - (far_CC * seen_CC).sum() / expected)


@none_where_undefined
def icc31(*ratings_QP: ArrayLike) -> float:
    """ICC(3,1): consistency of single ratings by fixed raters who all rated every item.

    (MSR - MSE) / (MSR + (k - 1) MSE) of the two-way analysis of variance with k raters. It ignores
    that one rater is stricter than another.

    Args:
        ratings_QP: One row per rater, one column per item, as one table or as one argument per
            rater. Items that a rater left out are dropped.

    Returns:
        At most 1; None, with the reason in the log, where it is undefined: fewer than two raters,
        fewer than three items that all rated, no variance.

    Raises:
        DataError: The rows are no table.
    """
    table_QP = _table(ratings_QP)
    if len(table_QP) < 2:
        raise UndefinedError("it takes two raters")
    table_QP = table_QP[:, ~np.isnan(table_QP).any(0)]
    k, n = table_QP.shape
    if n < 3:
        raise UndefinedError(f"{n} items that all raters rated are fewer than 3")
    middle_P, middle_Q = table_QP.mean(0), table_QP.mean(1)
    rest_QP = table_QP - middle_P - middle_Q[:, None] + table_QP.mean()
    between = k * ((middle_P - middle_P.mean()) ** 2).sum() / (n - 1)
    within = (rest_QP**2).sum() / ((n - 1) * (k - 1))
    if between + (k - 1) * within <= 1e-12:
        raise UndefinedError("the ratings have no variance")
    return float((between - within) / (between + (k - 1) * within))


def _table(ratings: Sequence[ArrayLike]) -> Floats:
    given = ratings[0] if len(ratings) == 1 else ratings
    try:
        found = np.asarray(given, float)
    except ValueError as err:
        raise DataError("Ratings are a table: one row per rater, equally long.") from err
    if found.ndim != 2:
        raise DataError(f"Ratings are a table, one row per rater, but have shape {found.shape}.")
    return found
