"""Worlds by what a command calls them."""

import re
from typing import Any

from hanol.errors import ConfigError, DataError
from hanol.worlds._encyclopedia._world import Encyclopedia
from hanol.worlds._factbook._world import Factbook
from hanol.worlds._world import AnyPage, World

_ENCYCLOPEDIA = re.compile(r"encyclopedia:(\d+)")
_LEADS = {"factbook": None, "factbook:leads": True, "factbook:bare": False}


def is_world(source: str) -> bool:
    """Whether a source names a world; a folder of such a name is written as "./factbook"."""
    return source in _LEADS or _ENCYCLOPEDIA.fullmatch(source) is not None


def open_world(source: str, **options: Any) -> World[AnyPage]:
    """The world that a source names.

    Args:
        source: "encyclopedia:SEED"; "factbook", which has Wikipedia's leads where these are
            installed; "factbook:leads", which has to have them; or "factbook:bare", which has not.
        options: Options of the world's class.

    Raises:
        DataError: It names no world.
        ConfigError: The world has no such option, or a value is out of range.
        MissingExtraError: Leads have to be there, and are not installed.
    """
    if (found := _ENCYCLOPEDIA.fullmatch(source)) is not None:
        return Encyclopedia(int(found[1]), **options)
    if source not in _LEADS:
        raise DataError(f"{source!r} is no world. Write encyclopedia:SEED or factbook.")
    if unknown := options.keys() - {"split"}:
        raise ConfigError(f"The factbook has no option {sorted(unknown)}: its pages are given.")
    return Factbook(leads=_LEADS[source], **options)
