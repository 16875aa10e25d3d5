"""Figures of an experiment: a value a seed, then means and spreads."""

from collections.abc import Sequence
from statistics import mean, stdev

import numpy as np
from numpy.typing import ArrayLike

from hanol.claims import Measurement, Verdict
from hanol.scoring import Interval, bootstrap


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for a single value."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def gain(before: ArrayLike, after: ArrayLike) -> Interval:
    """Mean difference of paired shares, with a 95 % interval over questions."""
    [found] = bootstrap((np.asarray(after, float) - np.asarray(before, float))[:, None])
    return found


class Figures:
    """Values by name, one a seed."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Note the value of one more seed."""
        self.values.setdefault(name, []).append(float(value))

    def add_gain(self, name: str, found: Interval) -> None:
        """Note a difference of shares with its interval, in points."""
        for suffix, value in (("", found.value), (", low", found.low), (", high", found.high)):
            self.add(name + suffix, 100 * value)

    @property
    def means(self) -> dict[str, float]:
        """Means over seeds, by name."""
        return {name: mean(values) for name, values in self.values.items()}

    def __getitem__(self, name: str) -> float:
        """Mean over seeds."""
        return mean(self.values[name])

    def measurement(self, verdict: bool | Verdict, summary: str) -> Measurement:
        """With means and spreads over seeds."""
        if isinstance(verdict, bool):
            verdict = "shown" if verdict else "not shown"
        pairs = {name: mean_and_spread(values) for name, values in self.values.items()}
        return Measurement(
            verdict=verdict,
            summary=summary,
            figures={name: pair[0] for name, pair in pairs.items()},
            spread={name: pair[1] for name, pair in pairs.items()},
        )

    def only_run(self) -> Measurement:
        """Of sizes that show no more than that the experiment runs."""
        return self.measurement("cannot be shown at this scale", "Only checked that it runs.")
