"""Fixtures of the attention tests."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from hanol.attention.kda._backend import numba_kernels, without_numba


@pytest.fixture(params=["numba", "torch"])
def backend(request) -> Iterator[str]:
    """Run the test with the compiled kernels and without them."""
    if request.param == "numba" and numba_kernels() is None:
        pytest.skip("Numba is not installed, or HANOL_NUMBA=0 turns it off")
    with without_numba() if request.param == "torch" else nullcontext():
        assert (numba_kernels() is None) == (request.param == "torch")
        yield request.param
