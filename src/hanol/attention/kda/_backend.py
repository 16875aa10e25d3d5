"""Chooses the compiled kernels of `_numba` where Numba is installed and they are not disabled.

Set the environment variable `HANOL_NUMBA=0` before the first use to keep to PyTorch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_disabled = False


@cache
def _kernels() -> ModuleType | None:
    if os.environ.get("HANOL_NUMBA") == "0" or find_spec("numba") is None:
        return None
    # Compiles for a few seconds the first time on a machine, then loads from Numba's cache:
    # hence at the first use and not at import.
    return import_module("hanol.attention.kda._numba")


def numba_kernels() -> ModuleType | None:
    """The module of compiled kernels, or None for PyTorch."""
    return None if _disabled else _kernels()


@contextmanager
def without_numba() -> Iterator[None]:
    """Use PyTorch inside the block, to compare the two."""
    global _disabled
    before, _disabled = _disabled, True
    try:
        yield
    finally:
        _disabled = before
