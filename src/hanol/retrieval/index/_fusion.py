"""Reciprocal rank fusion: one ranking from several whose scores cannot be compared.

Source: Cormack, Clarke and Büttcher, SIGIR 2009.
"""

from collections.abc import Sequence

# The paper uses 60, for many rankings of equal quality. With two rankings, one of which may know
# only one language, the first ranks must count for more: 5 was chosen on half of the benchmark's
# questions, together with the weights in `_index.py`.
_RANK_OFFSET = 5


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[int]], weights: Sequence[float] | None = None
) -> list[tuple[int, float]]:
    """Fuse rankings of ids: the score of an id is the sum of weight / (5 + rank).

    Ranks start at 1; an id missing from a ranking gets nothing from it. Ties keep the order of
    first appearance.

    Args:
        rankings: Ids, best first.
        weights: Weight of each ranking; all 1 by default.

    Example:
        >>> [i for i, _ in reciprocal_rank_fusion([[7, 8], [8, 9]])]
        [8, 7, 9]
    """
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + weight / (_RANK_OFFSET + rank)
    return sorted(scores.items(), key=lambda entry: -entry[1])
