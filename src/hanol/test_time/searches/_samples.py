"""Strategies of whole answers: one, the best of many, votes, and votes that stop early.

Sources: arXiv 2203.11171 (majority), 2408.03314 (best of N), 2305.11860 (adaptive consistency).
"""

import math
from typing import Literal, Unpack

from hanol.errors import ConfigError
from hanol.test_time.searches._search import Search, SearchOptions

StopRule = Literal["exact", "beta"]


class Greedy(Search):
    """The one answer of the likeliest tokens."""

    name = "greedy"
    spends = "one answer, whatever the budget"
    is_greedy = True

    def __init__(self, budget: int = 1, **options: Unpack[SearchOptions]) -> None:
        super().__init__(budget, **options)

    def _advance(self) -> None:
        if self._rounds == 1:
            self._want(0, greedy=True)
        elif not self._extend(greedy=True):
            self._finish()


class BestOfN(Search):
    """Independent answers, of which a verifier chooses.

    Args:
        budget: Answers.
        options: See `Search`; `method` "best_of_n" takes the highest score alone.
    """

    name = "best-of-n"
    spends = "N independent answers"
    needs_scores = True

    def __init__(self, budget: int, **options: Unpack[SearchOptions]) -> None:
        super().__init__(budget, **options)

    def _advance(self) -> None:
        if self._rounds == 1:
            self._want(0, self.budget)
        elif not self._extend():
            self._finish()


class Majority(BestOfN):
    """Independent answers, of which the most frequent one wins; it needs no verifier."""

    name = "majority"
    needs_scores = False

    def __init__(self, budget: int, **options: Unpack[SearchOptions]) -> None:
        options["method"] = "majority"
        super().__init__(budget, **options)


class AdaptiveVote(Search):
    """A majority vote that stops once its winner is certain.

    By the "exact" rule it stops when the answers still to come cannot change the winner: it gives
    the answer of `Majority` with the same samples. By the "beta" rule it stops when, with a uniform
    prior on the shares of the two leading answers, the first leads with probability `certainty`.
    Each time it asks for as many answers as it takes at least until the rule can hold, so that
    none is drawn in vain.

    Args:
        budget: Answers at most.
        rule: "exact" or "beta".
        certainty: Of the "beta" rule.
        options: See `Search`.

    Raises:
        ConfigError: The rule is unknown, or `certainty` is not from 0.5 to 1.
    """

    name = "adaptive"
    spends = "up to N independent answers; it stops when the vote is decided"

    def __init__(
        self,
        budget: int,
        rule: StopRule = "exact",
        certainty: float = 0.95,
        **options: Unpack[SearchOptions],
    ) -> None:
        if rule not in ("exact", "beta"):
            raise ConfigError(f'`rule` is {rule!r}, but must be "exact" or "beta".')
        if not 0.5 <= certainty < 1:
            raise ConfigError(f"`certainty` is {certainty}, but must be from 0.5 to below 1.")
        own = {"rule": rule, "certainty": certainty}
        options["method"] = "majority"
        super().__init__(budget, own, **options)
        self._rule, self._certainty = rule, certainty

    def _advance(self) -> None:
        if self._rounds > 1 and self._extend():
            return
        drawn = self.nodes[0].drawn
        wanted = self._wanted(self.budget - drawn)
        if wanted:
            self._want(0, wanted)
        else:
            self._finish()

    def _wanted(self, left: int) -> int:
        """Further answers before which the rule cannot hold; 0 once it does, or none are left."""
        answers = [node.answer for node in self._finals()]
        votes = list(self._select(answers, [0.0] * len(answers)).votes.values())
        # In the order of first occurrence, which decides between equals.
        places = sorted(range(len(votes)), key=lambda i: (-votes[i], i))
        first = int(votes[places[0]]) if votes else 0
        second = int(votes[places[1]]) if len(votes) > 1 else 0
        if self._rule == "beta":
            enough = (m for m in range(left) if leads(first + m, second) >= self._certainty)
            return next(enough, left)
        # The runner-up wins with as many votes as the winner, if it came first.
        earlier = [i for i in places[1:] if i < places[0]] if votes else []
        for m in range(left):
            rest = left - m
            if first + m > second + rest or (
                first + m >= second + rest
                and not any(votes[i] + rest >= first + m for i in earlier)
                and first + m > 0
            ):
                return m
        return left


def leads(first: int, second: int) -> float:
    """Probability that the first of two answers has the larger share, after so many votes.

    The shares have a uniform prior: it is 1 - I_0.5(first + 1, second + 1), by its finite sum.
    """
    n = first + second + 1
    return sum(math.comb(n, j) for j in range(first + 1)) / 2**n
