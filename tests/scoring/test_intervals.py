"""Intervals and the paired test against scipy and the standard error."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from hanol.errors import DataError
from hanol.scoring import Interval, bootstrap, bootstrap_ratio, mcnemar, wilson


@given(st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
@example((0, 200))  # where rounding once left the value outside
def test_wilsons_interval_is_that_of_scipy(counts: tuple[int, int]) -> None:
    right, of = counts
    found = wilson(right, of)
    exact = binomtest(right, of).proportion_ci(method="wilson")
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(right / of)
    assert found.low == pytest.approx(exact.low, abs=1e-9)
    assert found.high == pytest.approx(exact.high, abs=1e-9)


def test_intervals_have_the_width_of_the_standard_error_and_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=500)
    b = a + 0.1 * rng.normal(size=500)
    first, second, same, gain = bootstrap(np.stack([a, b, a - a, b - a], 1), seed=1)
    for interval, column in ((first, a), (second, b), (gain, b - a)):
        error = column.std() / math.sqrt(500)
        assert interval.value == pytest.approx(column.mean())
        assert interval.low == pytest.approx(column.mean() - 1.96 * error, abs=0.15 * error)
        assert interval.high == pytest.approx(column.mean() + 1.96 * error, abs=0.15 * error)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert gain.high - gain.low < 0.2 * (first.high - first.low)


def test_a_ratio_with_equal_wholes_is_the_mean() -> None:
    parts = np.random.default_rng(0).integers(0, 4, 200)
    [mean] = bootstrap(parts[:, None] / 4, seed=3)
    ratio = bootstrap_ratio(parts, np.full(200, 4), seed=3)
    assert ratio.model_dump() == pytest.approx(mean.model_dump())


@pytest.mark.parametrize(("right", "of"), [(0, 0), (5, 3), (-1, 3)])
def test_an_interval_of_nothing_is_refused(right: int, of: int) -> None:
    with pytest.raises(DataError, match=f"{right} right of {of} trials"):
        wilson(right, of)
    with pytest.raises(DataError, match="no problems"):
        bootstrap([])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_the_binomial_test_of_the_problems_that_differ(pairs) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    only_a = sum(x and not y for x, y in pairs)
    n = sum(x != y for x, y in pairs)
    assert mcnemar(a, b) == pytest.approx(binomtest(only_a, n).pvalue if n else 1.0)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_a_paired_test_needs_pairs() -> None:
    with pytest.raises(DataError, match="same problems: 1, 2"):
        mcnemar([True], [True, False])


def test_an_interval_as_text_and_as_plain_values() -> None:
    found = Interval(value=1 / 3, low=0.25, high=0.5)
    assert str(found) == "33.3 % [25.0, 50.0]"
    assert found.rounded() == {"value": 0.3333, "low": 0.25, "high": 0.5}
    assert -found == Interval(value=-1 / 3, low=-0.5, high=-0.25)
