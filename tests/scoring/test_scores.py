"""Formulas against hand-made tables, brute force and scipy."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from hanol.errors import DataError
from hanol.scoring import (
    any_of_k,
    avg_at_k,
    best_pass_at_1,
    intervals,
    pass_at_k,
    run_scores,
    wilson,
)

TABLE = {
    "q1": [True, True, True],
    "q2": [True, False, False],
    "q3": [False, False, False],
    "q4": [False, True, False],
}
tables = st.integers(1, 5).flatmap(
    lambda k: st.dictionaries(
        st.text(max_size=3), st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=8
    )
)


def test_the_papers_figures_by_hand() -> None:
    assert run_scores(TABLE) == [50.0, 50.0, 25.0]
    assert avg_at_k(TABLE) == pytest.approx(125 / 3)
    assert best_pass_at_1(TABLE) == 50.0
    assert any_of_k(TABLE) == 75.0
    assert pass_at_k(TABLE, 1) == pytest.approx(125 / 3)
    assert pass_at_k(TABLE, 2) == pytest.approx(100 * (1 + 2 / 3 + 0 + 2 / 3) / 4)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_any_number_of_runs(k: int) -> None:
    table = {"a": [True] * k, "b": [False] * k}
    assert avg_at_k(table) == best_pass_at_1(table) == any_of_k(table) == 50.0


@settings(deadline=None)
@given(tables)
def test_pass_at_k_is_the_mean_over_all_subsets(table) -> None:
    runs = len(next(iter(table.values())))
    for k in range(1, runs + 1):
        subsets = [[any(s) for s in combinations(row, k)] for row in table.values()]
        expected = 100 * np.mean([np.mean(row) for row in subsets])
        assert pass_at_k(table, k) == pytest.approx(expected)
    assert pass_at_k(table, 1) == pytest.approx(avg_at_k(table))
    assert pass_at_k(table, runs) == pytest.approx(any_of_k(table))


@settings(deadline=None)
@given(tables)
def test_order_of_the_figures(table) -> None:
    slack = 1e-9
    assert avg_at_k(table) <= best_pass_at_1(table) + slack
    assert best_pass_at_1(table) <= any_of_k(table) + slack


def test_no_verdict_is_neither_right_nor_wrong() -> None:
    table = {"a": [True, None], "b": [False, True], "c": [None, False], "d": [False, False]}
    assert run_scores(table) == [pytest.approx(100 / 3)] * 2
    # "c" has a wrong run and an unknown one: undecided.
    assert any_of_k(table) == pytest.approx(200 / 3)
    assert pass_at_k(table, 1) == pytest.approx(100 * (1 + 0.5 + 0 + 0) / 4)
    with pytest.raises(DataError, match="`k` is 2, but must be from 1 to 1.*'a'"):
        pass_at_k(table, 2)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({}, "no questions"),
        ({"a": []}, "same number > 0"),
        ({"a": [True], "b": [True, False]}, r"\[1, 2\] runs"),
        ({"a": [True, None], "b": [False, None]}, "Run 2 has no verdict"),
    ],
)
def test_tables_that_cannot_be_scored(table, match: str) -> None:
    with pytest.raises(DataError, match=match):
        avg_at_k(table)


def test_undecided_everywhere() -> None:
    with pytest.raises(DataError, match="No question is decided"):
        any_of_k({"a": [False, None], "b": [None, False]})


def test_intervals_agree_with_scipy() -> None:
    rng = np.random.default_rng(1)
    rows = rng.random((200, 3)) < rng.random((200, 1))
    table = {str(i): [bool(x) for x in row] for i, row in enumerate(rows)}
    found = intervals(table)["avg_at_k"]
    theirs = bootstrap(
        (100 * rows.mean(1),), np.mean, method="percentile", n_resamples=20_000, random_state=rng
    ).confidence_interval
    assert found.value == pytest.approx(100 * rows.mean())
    # Two sets of resamples: the ends move by about 2 % of the width of 9.
    assert found.low == pytest.approx(theirs.low, abs=0.4)
    assert found.high == pytest.approx(theirs.high, abs=0.4)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        rows = rng.random((60, 2)) < rng.beta(2, 2, (60, 1))  # mean 50 %
        table = {str(i): [bool(x) for x in row] for i, row in enumerate(rows)}
        found = intervals(table, confidence=0.9, seed=trial)["avg_at_k"]
        covered += found.low <= 50 <= found.high
    # Binomial(200, 0.9) leaves this range about once in 1,000 times; the seed is fixed.
    assert 160 <= covered <= 195


@settings(max_examples=20, deadline=None)
@given(tables)
def test_intervals_hold_the_estimate_and_repeat(table) -> None:
    found = intervals(table)
    assert found == intervals(table)
    for name in ("avg_at_k", "any_of_k"):
        assert found[name].low - 1e-9 <= found[name].value <= found[name].high + 1e-9
    assert found["best_pass_at_1"].value == best_pass_at_1(table)


def test_percentages_have_two_decimals() -> None:
    found = intervals({"a": [True], "b": [False], "c": [False]})["avg_at_k"]
    assert found.rounded()["value"] == 33.33


@given(st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
@example((0, 200))  # where rounding once left the value outside
def test_wilsons_interval_is_that_of_scipy(counts: tuple[int, int]) -> None:
    right, of = counts
    found = wilson(right, of)
    exact = binomtest(right, of).proportion_ci(method="wilson")
    assert 0 <= found.low <= found.value <= found.high <= 100
    assert found.value == pytest.approx(100 * right / of)
    assert found.low == pytest.approx(100 * exact.low, abs=1e-9)
    assert found.high == pytest.approx(100 * exact.high, abs=1e-9)
