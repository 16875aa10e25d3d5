"""One answer out of chains of revisions.

A revision may turn a right answer into a wrong one, so that the last one is not to be trusted: the
best of each chain is chosen first, then the best of the chains.
Source: arXiv 2408.03314, section 6.1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hanol.errors import DataError
from hanol.scoring import Selection, SelectMethod, select


@dataclass(frozen=True)
class HierarchicalSelection:
    """What was chosen within chains and across them.

    Attributes:
        chain_picks: The choice within each chain.
        answer: The choice across them; None when no answer could be read.
    """

    chain_picks: tuple[Selection, ...]
    answer: Any


def hierarchical_selection(
    chains: Sequence[Sequence[tuple[Any, float]]],
    method: SelectMethod = "weighted",
    equal: Callable[[Any, Any], bool] | None = None,
) -> HierarchicalSelection:
    """Choose within each chain, then among what was chosen.

    Within a chain the best member of the answer that wins `select` is taken, with its score. With
    "majority" all answers of all chains vote alike, whatever the chain.

    Args:
        chains: Pairs of an answer and its score, in each chain.
        method: As in `hanol.scoring.select`.
        equal: Likewise.

    Raises:
        DataError: There are no chains, one is empty, or a score is not finite.
    """
    if not chains:
        raise DataError("There are no chains to select from.")
    for number, chain in enumerate(chains):
        if not chain:
            raise DataError(f"Chain {number} is empty: it needs at least one answer.")
    picks = tuple(
        select([answer for answer, _ in chain], [score for _, score in chain], method, equal)
        for chain in chains
    )
    every = [pair for chain in chains for pair in chain]
    if method != "majority":
        every = [
            chain[pick.index]
            for chain, pick in zip(chains, picks, strict=True)
            if pick.index is not None
        ]
    if not every:
        return HierarchicalSelection(picks, None)
    best = select([answer for answer, _ in every], [score for _, score in every], method, equal)
    return HierarchicalSelection(picks, best.answer)
