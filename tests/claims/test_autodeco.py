"""AutoDeco's claims: their figures against independent computations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from claims.autodeco.overhead import (
    TEMPERATURE,
    TOP_P,
    excess,
    step_seconds,
    usual_steps,
    with_heads,
)
from claims.autodeco.training_fixed_points import found, masked_root
from claims.autodeco.world import auc
from hanol import models
from hanol.attention import CACHE_NAME
from hanol.claims import find_claim, find_claims, run_claim

NAMES = [
    "beats-default", "matches-oracle", "overhead", "pass-at-k", "single-heads",
    "smollm2-beats-default", "smollm2-matches-oracle", "smollm2-overhead", "steering",
    "token-adaptive", "training-fixed-points",
]  # fmt: skip


def test_all_of_them_are_there() -> None:
    assert [claim.id for claim in find_claims("autodeco")] == [f"autodeco.{n}" for n in NAMES]


@pytest.mark.parametrize(
    "name",
    # Steering trains twice for each seed; tests/cli/test_autodeco.py runs its recipe.
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "steering")) for n in NAMES],
)
def test_figures_are_finite_and_have_a_spread_over_seeds(name: str) -> None:
    result = run_claim(find_claim(f"autodeco.{name}"), (0, 1), quick=True).measurement
    assert all(np.isfinite(value) for value in result.figures.values())
    assert result.verdict in ("shown", "not shown")
    assert result.summary.endswith(".")
    if name != "overhead":
        assert result.spread
        assert result.spread.keys() <= result.figures.keys()


def test_what_claims_of_one_world_share_is_the_same() -> None:
    figures = {
        name: run_claim(find_claim(f"autodeco.{name}"), (0,), quick=True).measurement.figures
        for name in ("beats-default", "matches-oracle", "single-heads", "pass-at-k")
    }
    assert len({values["AutoDeco pass@1"] for values in figures.values()}) == 1
    default = figures["beats-default"]["default pass@1"]
    assert figures["single-heads"]["default pass@1"] == default
    gain = figures["beats-default"]["AutoDeco pass@1"] - default
    assert figures["beats-default"]["gain over default"] == pytest.approx(gain)


# -- the area under the curve

few = st.lists(st.integers(0, 5), min_size=1, max_size=30)


@given(high=few, low=few)
@settings(deadline=None)
def test_auc_counts_pairs(high: list[int], low: list[int]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in high for b in low]
    got = auc(np.array(high, dtype=float), np.array(low, dtype=float))
    assert got == pytest.approx(sum(pairs) / len(pairs))


def test_auc_by_hand() -> None:
    one, two = np.array([1.0, 2.0]), np.array([3.0])
    assert (auc(two, one), auc(one, two), auc(one, one)) == (1, 0, 0.5)


# -- where the losses lead


def world(k: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    q = np.random.default_rng(seed).dirichlet(np.full(20, 0.7)) + 1e-3
    q_V = torch.from_numpy(q / q.sum())
    return k * q_V.log(), q_V


def least(logits_V: Tensor, weight_V: Tensor) -> float:
    """The temperature at which a weighted cross-entropy is least, of those in steps of 0.0002."""
    T_G = torch.arange(0.02, 4.9, 0.0002, dtype=torch.float64)
    loss_G = -((logits_V / T_G[:, None]).log_softmax(-1) * weight_V).sum(-1)
    return float(T_G[loss_G.argmin()])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("k", [0.5, 1.0, 1.5])
def test_masked_root_is_where_the_masked_loss_is_least(k: float, seed: int) -> None:
    logits_V, q_V = world(k, seed)
    keep_V = torch.ones_like(q_V)
    keep_V[q_V.argmax()] = 0.4
    expected = least(logits_V, q_V * logits_V.softmax(-1) * keep_V)
    assert 0.1 < expected < 4.5
    assert masked_root(logits_V, q_V) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("k", [0.5, 1.0, 1.5])
def test_what_is_found_is_where_the_loss_is_least(k: float) -> None:
    logits_V, q_V = world(k)
    counts_V = (2000 * q_V).round().long()
    labels_N = torch.arange(20).repeat_interleave(counts_V)
    q_V = counts_V.double() / counts_V.sum()
    logits_V = k * q_V.log()
    plain = found(logits_V, labels_N, 0, 150, dft=False, easy_token_drop=0.0)
    assert plain == pytest.approx(k, abs=0.02)
    assert plain == pytest.approx(least(logits_V, q_V), abs=0.02)
    weighted = found(logits_V, labels_N, 0, 150, easy_token_drop=0.0)
    assert weighted == pytest.approx(k / (1 + k), abs=0.02)
    masked = found(logits_V, labels_N, 0, 150, easy_token_drop=0.6)
    assert masked == pytest.approx(masked_root(logits_V, q_V), abs=0.03)


# -- the overhead


def test_excess_is_the_median_of_ratios_with_a_percentile_interval() -> None:
    rng = np.random.default_rng(0)
    others = rng.uniform(1, 2, 200)
    ratio = 1.05 + 0.1 * rng.normal(size=200)
    share, low, high = excess((others * ratio).tolist(), others.tolist())
    assert share == pytest.approx(np.median(ratio) - 1)
    # The interval of a median by order statistics: ranks n / 2 +- 1.96 sqrt(n) / 2.
    ordered = np.sort(ratio) - 1
    assert low == pytest.approx(ordered[86], abs=0.004)
    assert high == pytest.approx(ordered[113], abs=0.004)
    assert low < share < high


def test_excess_of_the_same_is_nothing() -> None:
    assert excess([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == (0.0, 0.0, 0.0)
    share, low, high = excess([2.0] * 5, [1.0] * 5)
    assert (share, low, high) == (1.0, 1.0, 1.0)


def test_peers_truncate_alike_and_take_turns() -> None:
    base = models.load_model("tiny")
    model = with_heads(base)
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, base.config.hidden_size, generator=rng)
    logits = 3 * torch.randn(5, base.config.vocab_size, generator=rng)
    with torch.inference_mode():
        T, P = model.predict(hidden, logits)
        torch.testing.assert_close(T, torch.full((5,), TEMPERATURE))
        torch.testing.assert_close(P, torch.full((5,), TOP_P))
        steps = usual_steps(model)
        first = base(input_ids=torch.ones(1, 4, dtype=torch.long), use_cache=True)
        ids = torch.full((1, 1), 7)
        probs = {}
        for name in ("static", "AutoDeco"):
            cache = base(input_ids=torch.ones(1, 4, dtype=torch.long), use_cache=True)
            probs[name] = steps[name](ids, cache[CACHE_NAME]).softmax(-1)
        plain = steps["T = 1, P = 1"](ids, first[CACHE_NAME]).softmax(-1)
    assert (probs["static"] == 0).any()
    torch.testing.assert_close(probs["static"], probs["AutoDeco"])
    assert (plain > 0).all()

    clock = iter(range(1000))
    seconds = step_seconds(
        steps, base, batch=2, prompt=4, rounds=3, clock=lambda: float(next(clock))
    )
    assert seconds == {name: [1.0] * 3 for name in steps}
