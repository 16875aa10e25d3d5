"""Chooses the compiled kernels of `_numba` where Numba is installed and they are not disabled.

Set the environment variable `HANOL_NUMBA=0` before the first use to keep to PyTorch.
"""

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def numba_kernels_exist() -> bool:
    """Whether `numba_kernels` gives some; loads nothing."""
    return os.environ.get("HANOL_NUMBA") != "0" and find_spec("numba") is not None


@cache
def numba_kernels() -> ModuleType | None:
    """The module of compiled kernels, or None for PyTorch."""
    if not numba_kernels_exist():
        return None
    # Compiles for a few seconds the first time on a machine, then loads from Numba's cache:
    # hence at the first use and not at import.
    return import_module("hanol.attention.kda._numba")
