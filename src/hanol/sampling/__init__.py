"""Sampling: which token comes next, given logits.

Temperature, exact and soft top-p, penalties, the draw itself, and the text that tokens make as they
come. Importing this room loads no torch: what works on tensors is imported when it is used.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.sampling._constraint import ConstraintCompiler, TokenConstraint
    from hanol.sampling._draw import draw
    from hanol.sampling._penalties import Penalties
    from hanol.sampling._settings import Sampling
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
    from hanol.sampling._text import StopStrings, TextStream, token_texts
    from hanol.sampling._top_p import top_p_keep

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "STEEPNESS",
    "ConstraintCompiler",
    "Cumsum",
    "Penalties",
    "Sampling",
    "StopStrings",
    "TextStream",
    "TokenConstraint",
    "draw",
    "excess",
    "in_work",
    "soft_top_p",
    "soft_top_p_nll_of_rows",
    "temperature_nll_of_rows",
    "tempered",
    "token_texts",
    "top_p_keep",
]
