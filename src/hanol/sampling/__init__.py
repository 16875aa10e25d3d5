"""Sampling: which token comes next, given logits.

Temperature, exact and soft top-p, penalties, the draw itself, and the text that tokens make as they
come. Importing this room loads no torch: what works on tensors is imported when it is used.
"""

import importlib as _importlib
import typing as _typing

from hanol.sampling._settings import Sampling
from hanol.sampling._text import StopStrings, TextStream, token_texts

if _typing.TYPE_CHECKING:
    from hanol.sampling._constraint import ConstraintCompiler, TokenConstraint
    from hanol.sampling._draw import draw
    from hanol.sampling._penalties import Penalties
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


def __getattr__(name: str) -> _typing.Any:
    if name in __all__:
        for home in ("_constraint", "_draw", "_penalties", "_soft_top_p", "_top_p"):
            module = _importlib.import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


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
