"""Formulas against hand-made tables, brute force and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from hanol.errors import DataError
from hanol.scoring import score_runs

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
    found = score_runs(TABLE)
    assert found.runs == (0.5, 0.5, 0.25)
    assert found.avg_at_k.value == pytest.approx(5 / 12)
    assert found.best_pass_at_1.value == 0.5
    assert found.any_of_k.value == 0.75


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_any_number_of_runs(k: int) -> None:
    found = score_runs({"a": [True] * k, "b": [False] * k})
    assert found.avg_at_k.value == found.best_pass_at_1.value == found.any_of_k.value == 0.5


@settings(max_examples=20, deadline=None)
@given(tables)
def test_order_of_the_figures(table) -> None:
    slack = 1e-9
    found = score_runs(table)
    assert found.avg_at_k.value <= found.best_pass_at_1.value + slack
    assert found.best_pass_at_1.value <= found.any_of_k.value + slack


def test_no_verdict_is_neither_right_nor_wrong() -> None:
    found = score_runs(
        {"a": [True, None], "b": [False, True], "c": [None, False], "d": [False, False]}
    )
    assert found.runs == pytest.approx((1 / 3, 1 / 3))
    # "c" has a wrong run and an unknown one: undecided.
    assert found.any_of_k.value == pytest.approx(2 / 3)


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
        score_runs(table)


def test_undecided_everywhere() -> None:
    with pytest.raises(DataError, match="No question is decided"):
        score_runs({"a": [False, None], "b": [None, False]})


def test_intervals_agree_with_scipy() -> None:
    rng = np.random.default_rng(1)
    rows = rng.random((200, 3)) < rng.random((200, 1))
    table = {str(i): [bool(x) for x in row] for i, row in enumerate(rows)}
    found = score_runs(table).avg_at_k
    theirs = bootstrap(
        (rows.mean(1),), np.mean, method="percentile", n_resamples=20_000, random_state=rng
    ).confidence_interval
    assert found.value == pytest.approx(rows.mean())
    # Two sets of resamples: the ends move by about 2 % of the width of 0.09.
    assert found.low == pytest.approx(theirs.low, abs=0.004)
    assert found.high == pytest.approx(theirs.high, abs=0.004)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        rows = rng.random((60, 2)) < rng.beta(2, 2, (60, 1))  # mean 0.5
        table = {str(i): [bool(x) for x in row] for i, row in enumerate(rows)}
        found = score_runs(table, seed=trial).avg_at_k
        covered += found.low <= 0.5 <= found.high
    # Binomial(200, 0.95) leaves this range about once in 1,000 times; the seed is fixed.
    assert 178 <= covered <= 198


@settings(max_examples=20, deadline=None)
@given(tables)
def test_intervals_hold_the_estimate_and_repeat(table) -> None:
    found = score_runs(table)
    assert found == score_runs(table)
    for interval in (found.avg_at_k, found.any_of_k):
        assert interval.low - 1e-9 <= interval.value <= interval.high + 1e-9
    assert found.best_pass_at_1.value == max(found.runs)
