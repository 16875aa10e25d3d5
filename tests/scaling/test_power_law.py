"""Power laws: recovered from exact data, intervals that cover, the paper's own figures."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hanol.scaling._power_law as module
from hanol.errors import DataError
from hanol.scaling import PowerLaw, compute_advantage, fit_power_law


@given(st.floats(0.5, 5), st.floats(0.02, 0.5))
@settings(max_examples=30, deadline=None)
def test_exact_law_is_recovered(a: float, b: float) -> None:
    law = fit_power_law([1, 3, 10, 40], [a * c**-b for c in (1, 3, 10, 40)], resamples=20)
    assert law.coefficient == pytest.approx(a)
    assert law.exponent == pytest.approx(b)
    assert law.compute(law.loss(7.0)) == pytest.approx(7.0)


def test_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    compute = np.geomspace(1, 100, 12)
    covered = 0
    for seed in range(40):
        loss = 3 * compute**-0.1 * np.exp(rng.normal(0, 0.01, 12))
        law = fit_power_law(compute, loss, resamples=200, seed=seed)
        covered += law.exponent_low <= 0.1 <= law.exponent_high
    assert covered >= 32


def test_advantage_of_the_printed_fits() -> None:
    assert doctest.testmod(module).failed == 0
    mla = PowerLaw(coefficient=2.3092, exponent=0.0536)
    kimi_linear = PowerLaw(coefficient=2.2879, exponent=0.0527)
    assert compute_advantage(kimi_linear, mla, 10.0) == pytest.approx(1.144, abs=5e-4)


@pytest.mark.parametrize(
    ("compute", "loss", "text"),
    [
        ([1, 2], [1], "do not pair up"),
        ([1, 0], [1, 1], "above 0"),
        ([1, 2], [1, float("nan")], "finite"),
        ([2, 2], [1, 2], "two different computes"),
    ],
)
def test_data_that_gives_no_law(compute: list, loss: list, text: str) -> None:
    with pytest.raises(DataError, match=text):
        fit_power_law(compute, loss)
