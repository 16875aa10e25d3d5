"""Bins, multipliers and chains: what needs no model."""

import math

import numpy as np
import pytest

from hanol.errors import ConfigError, DataError
from hanol.test_time import (
    best_of_k,
    budget_ratio,
    difficulty_bins,
    flops_multiplier,
    forcing_metrics,
    hierarchical_selection,
)


def test_bins_are_the_paper_s_quantiles() -> None:
    values = np.random.default_rng(0).permutation(np.linspace(0, 1, 53))
    found = difficulty_bins(values)
    assert found == difficulty_bins(values, strict=True)
    low, high = np.quantile(values, [0.2, 0.8])
    assert [b == 1 for b in found] == (values >= high).tolist()
    assert [b == 5 for b in found] == (values < low).tolist()


@pytest.mark.parametrize("n", [5, 7, 12, 100, 101])
def test_ties_share_bins_evenly(n: int) -> None:
    values = [0.0] * (n - n // 4) + [1.0] * (n // 4)
    counts = np.bincount(difficulty_bins(values), minlength=6)[1:]
    assert all(abs(count - n / 5) <= 1 for count in counts)
    assert max(np.bincount(difficulty_bins(values, strict=True))) > n / 2


def test_bins_refuse_what_is_no_value() -> None:
    with pytest.raises(DataError, match="no values"):
        difficulty_bins([])
    with pytest.raises(DataError, match="Value 1"):
        difficulty_bins([0.5, math.nan])
    with pytest.raises(ConfigError, match="`bins` is 0"):
        difficulty_bins([0.5], bins=0)


@pytest.mark.parametrize(("ratio", "m"), [(0.16, 257.75), (0.79, 63.367089), (22, 15.772727)])
def test_multipliers_of_the_paper(ratio: float, m: float) -> None:
    assert flops_multiplier(14, ratio) == pytest.approx(m, abs=1e-6)
    # Training and inference together cost the same: small model with more inference, large one.
    params, trained = 1e6, 2e9
    small = 6 * params * trained + 2 * params * trained * ratio * flops_multiplier(14, ratio)
    large = 14 * (6 * params * trained + 2 * params * trained * ratio)
    assert small == pytest.approx(large, rel=1e-9)


def test_multiplier_refuses_values_out_of_range() -> None:
    with pytest.raises(ConfigError, match="`scale` is 0.5"):
        flops_multiplier(0.5, 1)
    with pytest.raises(ConfigError, match="`ratio` is 0"):
        flops_multiplier(14, 0)


def test_a_single_answer_is_its_own_selection() -> None:
    found = hierarchical_selection([[("7", 0.2)]])
    assert found.answer == "7"
    assert [pick.index for pick in found.chain_picks] == [0]


def test_chains_choose_first_within_then_across() -> None:
    chains = [
        [("1", 0.4), ("1", 0.4), ("2", 0.7)],  # "1" by weight, its best has 0.4
        [("2", 0.5), (None, 0.9)],
        [("2", 0.3), ("3", 0.2)],
    ]
    found = hierarchical_selection(chains)
    assert [pick.answer for pick in found.chain_picks] == ["1", "2", "2"]
    assert found.answer == "2"
    # Majority counts all answers, whatever their chain.
    flat = [[pair] for chain in chains for pair in chain]
    assert hierarchical_selection(chains, "majority").answer == "2"
    assert hierarchical_selection(flat, "majority").answer == "2"
    assert hierarchical_selection([[("1", 1.0)] * 5, [("2", 1.0)], [("2", 1.0)]]).answer == "2"
    assert (
        hierarchical_selection([[("1", 1.0)] * 5, [("2", 1.0)], [("2", 1.0)]], "majority").answer
        == "1"
    )


def test_chains_without_answers() -> None:
    assert hierarchical_selection([[(None, 0.5)], [("", 0.5)]]).answer is None
    with pytest.raises(DataError, match="no chains"):
        hierarchical_selection([])
    with pytest.raises(DataError, match="Chain 1 is empty"):
        hierarchical_selection([[("1", 0.5)], []])
    with pytest.raises(DataError, match="nan"):
        hierarchical_selection([[("1", math.nan)]])


def test_the_best_of_k_is_a_mean_over_subsets() -> None:
    answers, right = ["1"] * 8 + ["2"] * 8, [True] * 8 + [False] * 8
    assert best_of_k(answers, None, right, 1, method="majority", subsets=2000) == pytest.approx(
        0.5, abs=0.03
    )
    assert best_of_k(answers, [0.9] * 8 + [0.1] * 8, right, 16) == 1.0
    with pytest.raises(ConfigError, match="`k` is 17"):
        best_of_k(answers, None, right, 17, method="majority")
    with pytest.raises(DataError, match="16 answers"):
        best_of_k(answers, [0.5], right, 2)


def test_longer_thoughts_may_lose() -> None:
    found = forcing_metrics([100, 200, 400], [0.5, 0.6, 0.4], [(0, 150), (0, 150), (300, 500)])
    assert found.control == pytest.approx(2 / 3)
    assert found.scaling == pytest.approx((0.001 - 0.1 / 300 - 0.001) / 3)
    assert found.scaling < 0
    assert found.performance == 0.6
    with pytest.raises(DataError, match="at least two"):
        forcing_metrics([1], [0.5], [(0, 1)])


def test_budgets_are_compared_at_equal_accuracy() -> None:
    slow, fast = [(1, 0.2), (4, 0.4), (16, 0.6), (64, 0.8)], [(1, 0.2), (4, 0.6), (16, 0.8)]
    assert budget_ratio(slow, fast, 0.8) == pytest.approx(4)
    assert budget_ratio(slow, fast, 0.5) == pytest.approx(8 / 2**1.5)
    assert budget_ratio(slow, fast, 0.9) is None
