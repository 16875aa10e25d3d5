"""Sampling: which token comes next, given logits.

Temperature, exact and soft top-p, penalties, and the draw itself. Every engine and every trainer
that samples uses these.
"""

from hanol.sampling._draw import draw
from hanol.sampling._soft_top_p import (
    STEEPNESS,
    Cumsum,
    excess,
    in_work,
    soft_top_p,
    soft_top_p_nll_of_rows,
    temperature_nll_of_rows,
    tempered,
)
from hanol.sampling._top_p import top_p_keep

__all__ = [
    "STEEPNESS",
    "Cumsum",
    "draw",
    "excess",
    "in_work",
    "soft_top_p",
    "soft_top_p_nll_of_rows",
    "temperature_nll_of_rows",
    "tempered",
    "top_p_keep",
]
