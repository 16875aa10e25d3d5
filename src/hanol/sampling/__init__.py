"""Sampling: which token comes next, given logits.

Temperature, exact and soft top-p, penalties, and the draw itself. Every engine and every trainer
that samples uses these. Importing this room loads no torch: what works on tensors is imported when
it is used.
"""

import importlib as _importlib
import typing as _typing

from hanol.sampling._settings import Sampling

if _typing.TYPE_CHECKING:
    from hanol.sampling._constraint import ConstraintCompiler as ConstraintCompiler
    from hanol.sampling._constraint import TokenConstraint as TokenConstraint
    from hanol.sampling._draw import draw as draw
    from hanol.sampling._penalties import Penalties as Penalties
    from hanol.sampling._soft_top_p import STEEPNESS as STEEPNESS
    from hanol.sampling._soft_top_p import Cumsum as Cumsum
    from hanol.sampling._soft_top_p import excess as excess
    from hanol.sampling._soft_top_p import in_work as in_work
    from hanol.sampling._soft_top_p import soft_top_p as soft_top_p
    from hanol.sampling._soft_top_p import soft_top_p_nll_of_rows as soft_top_p_nll_of_rows
    from hanol.sampling._soft_top_p import temperature_nll_of_rows as temperature_nll_of_rows
    from hanol.sampling._soft_top_p import tempered as tempered
    from hanol.sampling._top_p import top_p_keep as top_p_keep

_HOMES = {
    "ConstraintCompiler": "_constraint",
    "TokenConstraint": "_constraint",
    "draw": "_draw",
    "Penalties": "_penalties",
    "top_p_keep": "_top_p",
    **dict.fromkeys(
        ("STEEPNESS", "Cumsum", "excess", "in_work", "soft_top_p", "soft_top_p_nll_of_rows",
         "temperature_nll_of_rows", "tempered"),
        "_soft_top_p",
    ),
}  # fmt: skip


def __getattr__(name: str) -> _typing.Any:
    if name in _HOMES:
        return getattr(_importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "STEEPNESS",
    "ConstraintCompiler",
    "Cumsum",
    "Penalties",
    "Sampling",
    "TokenConstraint",
    "draw",
    "excess",
    "in_work",
    "soft_top_p",
    "soft_top_p_nll_of_rows",
    "temperature_nll_of_rows",
    "tempered",
    "top_p_keep",
]
