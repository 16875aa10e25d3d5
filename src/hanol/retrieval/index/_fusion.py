"""Reciprocal rank fusion: one ranking out of several whose scores cannot be compared.

Source: Cormack, Clarke and Büttcher, SIGIR 2009.
"""

from collections.abc import Sequence

# The paper's constant is 60, for many rankings of equal worth. Of two, where the second may know
# only one language, the first places must count for more: 5 was chosen on half of the questions of
# the benchmark, together with the weights that the index gives.
_RANK_OFFSET = 5


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[int]], weights: Sequence[float] | None = None
) -> list[tuple[int, float]]:
    """Fuse rankings of ids, best first: an id scores the sum of weight / (5 + its rank).

    Ranks count from 1; an id that a ranking lacks gets nothing from it. Ties keep the order in
    which ids were first met.

    Args:
        rankings: Ids, best first.
        weights: One for each ranking; None counts all alike.

    Example:
        >>> [i for i, _ in reciprocal_rank_fusion([[7, 8], [8, 9]])]
        [8, 7, 9]
    """
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + weight / (_RANK_OFFSET + rank)
    return sorted(scores.items(), key=lambda entry: -entry[1])
