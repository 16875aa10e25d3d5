"""Worlds by what a command calls them."""

import re
from pathlib import Path
from typing import Any

from hanol.errors import ConfigError, DataError
from hanol.worlds._encyclopedia._world import Encyclopedia
from hanol.worlds._factbook._world import Factbook
from hanol.worlds._world import AnyPage, World

_ENCYCLOPEDIA = re.compile(r"encyclopedia:(\d+)")
_OWN_LEADS = re.compile(r"factbook:(.+\.json)")
_LEADS = {"factbook": None, "factbook:leads": True, "factbook:bare": False}


def is_world(source: str) -> bool:
    """Whether a source names a world; a folder of such a name is written as "./factbook"."""
    patterns = (_ENCYCLOPEDIA, _OWN_LEADS)
    return source in _LEADS or any(pattern.fullmatch(source) for pattern in patterns)


def open_world(source: str, **options: Any) -> World[AnyPage]:
    """The world that a source names.

    Args:
        source: "encyclopedia:SEED"; "factbook", which has Wikipedia's leads where these are
            installed; "factbook:leads", which has to have them; "factbook:bare", which has not; or
            "factbook:FILE.json", which has those of a file.
        options: Options of the world's class.

    Raises:
        DataError: It names no world, or the file of its leads cannot be read.
        ConfigError: The world has no such option, or a value is out of range.
        MissingExtraError: Leads have to be there, and are not installed.
    """
    if (found := _ENCYCLOPEDIA.fullmatch(source)) is not None:
        return Encyclopedia(int(found[1]), **options)
    own = _OWN_LEADS.fullmatch(source)
    if own is None and source not in _LEADS:
        raise DataError(f"{source!r} is no world. Write encyclopedia:SEED or factbook.")
    if unknown := options.keys() - {"split"}:
        raise ConfigError(f"The factbook has no option {sorted(unknown)}: its pages are given.")
    return Factbook(leads=Path(own[1]) if own else _LEADS[source], **options)
