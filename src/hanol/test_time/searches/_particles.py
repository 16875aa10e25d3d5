"""Particle filtering: prefixes are drawn anew after each step, in proportion to their odds.

Source: Puri et al., "Rollout roulette", arXiv 2502.01618: a softmax over the logits of a process
reward model, so that a prefix of probability p weighs p / (1 - p).
"""

import random
from typing import Unpack

from hanol.errors import ConfigError, DataError
from hanol.test_time.searches._search import Search, SearchOptions
from hanol.test_time.searches._tree import TreeNode

_EDGE = 1e-6  # scores of 0 and 1 have no odds


class ParticleFilter(Search):
    """N particles, each a prefix; after each step N are drawn by their scores (systematically).

    Unlike a beam it never trusts the verifier with certainty. A particle that was drawn twice and
    is finished has one vote.

    Args:
        budget: Particles.
        temperature: Above 1 the scores count less, below 1 more.
        options: See `Search`.

    Raises:
        ConfigError: The temperature is not above 0.
    """

    name = "particles"
    spends = "N particles, each step"
    needs_scores = needs_prefixes = True

    def __init__(
        self, budget: int, temperature: float = 1.0, **options: Unpack[SearchOptions]
    ) -> None:
        super().__init__(budget, {"temperature": temperature}, **options)
        if not temperature > 0:
            raise ConfigError(f"`temperature` is {temperature}, but must be above 0.")
        self._temperature = temperature
        self._held: list[int] = []  # finished particles, one entry for each
        self._last: list[int] = []

    def _advance(self) -> None:
        if self._rounds == 1:
            self._want(0, self.budget, max_steps=1)
            return
        particles = [*self._held, *self._fresh]
        self._last = particles
        unfinished = [n for n in particles if not self.nodes[n].ends]
        if not unfinished or self._rounds > self._max_rounds:
            self._finish()
            return
        counts: dict[int, int] = {}
        for number in self._drawn(particles):
            counts[number] = counts.get(number, 0) + 1
        self._held = []
        for number, count in counts.items():
            if self.nodes[number].ends:
                self._held += [number] * count
            else:
                self._want(number, count, max_steps=1)
        self._last = [*counts]
        if not self._pending:
            self._finish()

    def _drawn(self, particles: list[int]) -> list[int]:
        """As many particles as the budget, in proportion to their weights."""
        weights = []
        for number in particles:
            score = self.nodes[number].score
            if not 0 <= score <= 1:
                raise DataError(f"A score is {score}, but particles are weighed by scores from 0 "
                                "to 1.")  # fmt: skip
            score = min(max(score, _EDGE), 1 - _EDGE)
            weights.append((score / (1 - score)) ** (1 / self._temperature))
        spacing = sum(weights) / self.budget
        # Not of `hash`, which differs from process to process.
        at = random.Random(f"{self.seed}:{self._rounds}").random() * spacing  # noqa: S311
        drawn: list[int] = []
        upto = 0.0
        for number, weight in zip(particles, weights, strict=True):
            upto += weight
            while at < upto and len(drawn) < self.budget:
                drawn.append(number)
                at += spacing
        return drawn + particles[-1:] * (self.budget - len(drawn))  # of rounding

    def _finals(self) -> list[TreeNode]:
        return [self.nodes[n] for n in dict.fromkeys(self._last)]
