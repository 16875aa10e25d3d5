"""Scoring: whether answers are right, and how sure a score is.

Equality of answers, pass@k, intervals. No model is needed.
"""

from hanol.scoring._metrics import Metric, exact_match, normalise, numeric_match, set_match
from hanol.scoring._scores import (
    Interval,
    any_of_k,
    avg_at_k,
    best_pass_at_1,
    intervals,
    pass_at_k,
    resample_weights,
    run_scores,
    wilson,
)

__all__ = [
    "Interval",
    "Metric",
    "any_of_k",
    "avg_at_k",
    "best_pass_at_1",
    "exact_match",
    "intervals",
    "normalise",
    "numeric_match",
    "pass_at_k",
    "resample_weights",
    "run_scores",
    "set_match",
    "wilson",
]
