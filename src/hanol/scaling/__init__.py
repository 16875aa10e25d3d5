"""Scaling laws: how loss falls with compute, and what a better architecture is worth.

Power laws L = a C^-b, fitted in log space, and the compute that one law saves over another.
"""

from hanol.scaling._power_law import PowerLaw, compute_advantage, fit_power_law

__all__ = ["PowerLaw", "compute_advantage", "fit_power_law"]
