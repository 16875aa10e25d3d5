"""The decode step: in place, with and without Numba, against the definition."""

import pytest
import torch
from torch import Tensor

from hanol.attention import recurrent_kda, reference_kda
from hanol.attention.kda._backend import numba_kernels  # private: which kernels run here
from hanol.attention.kda._step import (
    step_,  # private: the decode kernel alone, against the reference
)

TOLERANCE = 2e-6


def inputs(T: int, B: int, H: int, HV: int, K: int, V: int, gate: float) -> list[Tensor]:
    rng = torch.Generator().manual_seed(T + K)
    q, k = (torch.randn(B, T, H, K, generator=rng) for _ in range(2))
    v = torch.randn(B, T, HV, V, generator=rng)
    g = -gate * torch.rand(B, T, HV, K, generator=rng)
    g *= torch.rand(B, T, HV, K, generator=rng) > 0.3
    beta = torch.rand(B, T, HV, generator=rng).mul(1.4).sub(0.2).clamp(0, 1)
    return [q, k, v, g, beta]


@pytest.mark.parametrize("gate", [1.0, 80.0, 1000.0], ids="g={}".format)
@pytest.mark.parametrize(("H", "HV", "K", "V"), [(1, 1, 1, 1), (2, 6, 20, 12), (3, 3, 64, 64)])
def test_steps_are_the_definition(
    backend: str, H: int, HV: int, K: int, V: int, gate: float
) -> None:
    q, k, v, g, beta = tensors = inputs(5, 2, H, HV, K, V, gate)
    carried = torch.randn(2, HV, K, V, generator=torch.Generator().manual_seed(1))
    expected, final = reference_kda(
        *tensors, initial_state_BHKV=carried, output_final_state=True, use_qk_l2norm=True
    )
    address = carried.data_ptr()
    for t in range(5):
        o, same = step_(
            q[:, t], k[:, t], v[:, t], g[:, t], beta[:, t], carried,
            scale=K**-0.5, use_qk_l2norm=True,
        )  # fmt: skip
        assert same is carried
        torch.testing.assert_close(o.double(), expected[:, t], rtol=0, atol=TOLERANCE)
    assert carried.data_ptr() == address
    torch.testing.assert_close(carried.double(), final, rtol=0, atol=TOLERANCE)


def test_step_in_float64_does_not_lose_digits(backend: str) -> None:
    tensors = [x.double() for x in inputs(4, 1, 2, 2, 16, 8, 3.0)]
    o, _ = recurrent_kda(*tensors)
    torch.testing.assert_close(o, reference_kda(*tensors)[0], rtol=0, atol=1e-13)


def test_initial_state_of_the_caller_is_left_alone(backend: str) -> None:
    tensors = inputs(3, 2, 2, 2, 8, 8, 1.0)
    initial = torch.ones(2, 2, 8, 8)
    with torch.no_grad():
        recurrent_kda(*tensors, initial_state_BHKV=initial)
    assert torch.equal(initial, torch.ones(2, 2, 8, 8))


def test_environment_variable_turns_numba_off(monkeypatch) -> None:
    monkeypatch.setenv("HANOL_NUMBA", "0")
    numba_kernels.cache_clear()
    try:
        assert numba_kernels() is None
    finally:
        numba_kernels.cache_clear()
