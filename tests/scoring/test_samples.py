"""Figures of several completions: binomials, and n-grams by hand."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.errors import ConfigError, DataError
from hanol.scoring import Summary, distinct_n, pass_at_k, repetition


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_pass_at_k_is_the_ratio_of_binomials(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 300))
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    expected = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(expected), rel=1e-9, abs=1e-12)


def test_pass_at_k_by_problem_and_its_limits() -> None:
    assert pass_at_k(4, [0, 1, 4], 1).tolist() == [0.0, 0.25, 1.0]
    assert pass_at_k(4, [[1, 3]], 2).shape == (1, 2)
    assert pass_at_k(10_000, [9_000], 10_000).tolist() == [1.0]
    with pytest.raises(ConfigError, match="`k` is 5, but must be a number from 1 to the 4"):
        pass_at_k(4, [1], 5)
    with pytest.raises(ConfigError, match=r"`k` is 1\.5"):
        pass_at_k(4, [1], 1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="from -1 to 2"):
        pass_at_k(4, [-1, 2], 1)


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=5))
def test_pass_at_k_is_the_mean_over_all_subsets(table) -> None:
    n, c = [len(row) for row in table], [sum(row) for row in table]
    for k in range(1, min(n) + 1):
        subsets = [[any(s) for s in combinations(row, k)] for row in table]
        assert pass_at_k(n, c, k) == pytest.approx([np.mean(row) for row in subsets])


def test_ngrams_by_hand() -> None:
    assert distinct_n([[1, 2, 1, 2], [1, 2]], 2) == 2 / 4
    assert distinct_n([[1, 2, 1, 2], [1, 2]], 1) == 2 / 6
    assert distinct_n([[1]], 2) == 0
    assert repetition([1, 1, 1, 1], 2) == pytest.approx(2 / 3)
    assert repetition([1, 2, 3], 2) == 0
    assert repetition([1], 4) == 0
    with pytest.raises(ConfigError, match="`n` is 0"):
        distinct_n([[1]], 0)


def test_a_summary_has_the_mean_and_five_percentiles() -> None:
    found = Summary.of(range(101))
    assert found.mean == 50
    assert found.percentiles == {5: 5, 25: 25, 50: 50, 75: 75, 95: 95}
    with pytest.raises(DataError, match="no values"):
        Summary.of([])
