"""Statistics that are undefined for some inputs: they return None there, never 0."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from hanol.errors import DataError
from hanol.scoring._intervals import Floats

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)


class UndefinedError(Exception):
    """A statistic has no value for this input; the text says why."""


def none_where_undefined(function: Callable[P, T]) -> Callable[P, T | None]:
    """Make a function that raises `UndefinedError` return None there, and log the reason."""

    @wraps(function)
    def found(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except UndefinedError as err:
            _log.warning("`%s` is undefined: %s", function.__name__, err)
            return None

    return found


def explain_undefined(statistic: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
    """Why a statistic of this room is undefined for its arguments; None where it is defined.

    Args:
        statistic: Such as `spearman`; a function of another room is called, and has no reason.
        args: What it is called with.
        kwargs: What it is called with, by name.

    Example:
        >>> explain_undefined(spearman, [1, 1, 1], [1, 2, 3])
        'all values of the first are equal'
    """
    try:
        getattr(statistic, "__wrapped__", statistic)(*args, **kwargs)
    except UndefinedError as err:
        return str(err)
    return None


def columns(*given: ArrayLike, least: int = 1) -> list[Floats]:
    """Columns of equal length as floats; what is missing is NaN.

    Raises:
        DataError: They have other shapes than one row of equal lengths.
        UndefinedError: They are shorter than `least`, or a value is missing or infinite.
    """
    found = [np.asarray(one, float) for one in given]
    if any(one.ndim != 1 or len(one) != len(found[0]) for one in found):
        shapes = ", ".join(str(one.shape) for one in found)
        raise DataError(f"Values in pairs need columns of equal length, but these have {shapes}.")
    if len(found[0]) < least:
        raise UndefinedError(f"{len(found[0])} pairs are fewer than {least}")
    for one in found:
        if not np.isfinite(one).all():
            at = int(np.flatnonzero(~np.isfinite(one))[0])
            raise UndefinedError(f"value {at + 1} is missing or infinite; leave the pair out")
    return found
