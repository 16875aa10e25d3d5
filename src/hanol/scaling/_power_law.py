"""Power laws of loss against compute.

Source: arXiv 2510.26692, section 5.4: L = a * C^-b with C in PFLOP/s-days.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, Field

from hanol.errors import DataError


class PowerLaw(BaseModel):
    """loss = coefficient * compute ** -exponent."""

    coefficient: float
    exponent: float
    exponent_low: float | None = Field(None, description="95 % bootstrap interval, lower end.")
    exponent_high: float | None = Field(None, description="95 % bootstrap interval, upper end.")

    def loss(self, compute: float) -> float:
        """Loss at a compute, in the units of the fit."""
        return float(self.coefficient * compute**-self.exponent)

    def compute(self, loss: float) -> float:
        """Compute that reaches a loss."""
        return float((self.coefficient / loss) ** (1 / self.exponent))


def fit_power_law(
    compute: Sequence[float], loss: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> PowerLaw:
    """Fit by least squares in log space, with a bootstrap interval of the exponent.

    Args:
        compute: Training compute of each run, any unit, at least two different values.
        loss: Final loss of each run.
        resamples: Bootstrap resamples; fewer than three runs get no interval.
        seed: Of the resampling.

    Raises:
        DataError: Lengths differ, a value is not positive, or all computes are equal.
    """
    C, L = np.asarray(compute, dtype=float), np.asarray(loss, dtype=float)
    if C.shape != L.shape or C.ndim != 1:
        raise DataError(f"{len(C)} computes and {len(L)} losses do not pair up.")
    if not (np.isfinite(C) & np.isfinite(L) & (C > 0) & (L > 0)).all():
        raise DataError("Every compute and loss must be finite and above 0.")
    if len(set(C.tolist())) < 2:
        raise DataError("A law needs runs at two different computes or more.")
    slope, offset = np.polyfit(np.log(C), np.log(L), 1)
    law = PowerLaw(coefficient=float(np.exp(offset)), exponent=float(-slope))
    if len(C) < 3:
        return law
    rng = np.random.default_rng(seed)
    slopes = []
    for _ in range(resamples):
        pick = rng.integers(0, len(C), len(C))
        if len(set(C[pick].tolist())) > 1:
            slopes.append(-np.polyfit(np.log(C[pick]), np.log(L[pick]), 1)[0])
    low, high = np.percentile(slopes, [2.5, 97.5])
    return law.model_copy(update={"exponent_low": float(low), "exponent_high": float(high)})


def compute_advantage(better: PowerLaw, other: PowerLaw, compute: float) -> float:
    """How many times more compute `other` needs for the loss that `better` has at `compute`.

    Example:
        >>> mla = PowerLaw(coefficient=2.3092, exponent=0.0536)
        >>> kimi_linear = PowerLaw(coefficient=2.2879, exponent=0.0527)
        >>> round(compute_advantage(kimi_linear, mla, 5.0), 3)
        1.157
    """
    return other.compute(better.loss(compute)) / compute
