"""Figures that may be undefined, and how they are shown."""

from collections.abc import Callable
from typing import Any

from hanol import scoring

Figure = float | None


def defined(
    statistic: Callable[..., Any], *args: Any, why: dict[str, str] | None = None, **kwargs: Any
) -> Any:
    """A statistic of `scoring`, or None without a line in the log.

    Args:
        statistic: The function.
        args: What it is called with.
        why: Gets the reason, by the name of the statistic.
        kwargs: What it is called with, by name.
    """
    reason = scoring.explain_undefined(statistic, *args, **kwargs)
    if reason is None:
        return statistic(*args, **kwargs)
    if why is not None:
        why[statistic.__name__] = reason
    return None


def shown(value: Figure) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def shown_p(value: Figure) -> str:
    """A p-value behind "p "."""
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
