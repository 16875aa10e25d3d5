"""Fixtures of the attention tests."""

import pytest

from hanol.attention.kda import _backend, _blocks, _step  # private: nothing public turns it off


def use_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute without the compiled kernels until the end of the test."""
    for module in (_blocks, _step):
        monkeypatch.setattr(module, "numba_kernels", lambda: None)


@pytest.fixture(params=["numba", "torch"])
def backend(request, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with the compiled kernels and without them."""
    if request.param == "torch":
        use_torch(monkeypatch)
    elif _backend.numba_kernels() is None:
        pytest.skip("Numba is not installed, or HANOL_NUMBA=0 turns it off")
    return request.param
