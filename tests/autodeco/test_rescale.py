"""What is chosen for rows of logits, and that sampling from the rescaled ones is exact."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from hanol.autodeco import TemperatureHead, TopPHead, statistics
from hanol.autodeco._heads import (
    predict,
    rescale,
)  # private: matrices in float64, against an independent computation
from hanol.errors import DataError
from hanol.sampling import soft_top_p

V = 60
APPLY = ["hard", "soft"]


def some(N: int = 30, seed: int = 0, V: int = V) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.linspace(0.5, 6, N)[:, None] * torch.randn(N, V, generator=generator)
    T = 0.1 + 1.8 * torch.rand(N, generator=generator)
    return logits, T, torch.rand(N, generator=generator)


def exact(logits_V: Tensor, T: float, P: float) -> Tensor:
    """Hard top-p of one row in float64, by sorting."""
    p = (logits_V.double() / T).softmax(0)
    order = p.argsort(descending=True)
    before = p[order].cumsum(0) - p[order]
    kept = torch.zeros_like(p).index_put((order,), p[order] * (before < P))
    kept[order[0]] = p[order[0]]
    return kept / kept.sum()


def test_hard_is_the_distribution_of_transformers_warpers() -> None:
    logits, T, P = some()
    ours = rescale(logits, T, P, "hard")
    assert ours.dtype == torch.float32
    assert ours.isfinite().all()
    for row, l_V in enumerate(logits):
        tempered = TemperatureLogitsWarper(T[row].item())(None, l_V[None])
        theirs = TopPLogitsWarper(P[row].item())(None, tempered).softmax(-1)[0]
        probs = ours[row].softmax(0)
        assert torch.equal(probs > 0, theirs > 0)  # an excluded token has exactly 0
        torch.testing.assert_close(probs, theirs, rtol=0, atol=1e-6)
        torch.testing.assert_close(
            probs.double(), exact(l_V, T[row].item(), P[row].item()), rtol=0, atol=1e-6
        )


def test_soft_is_the_distribution_that_was_trained_through() -> None:
    logits, T, P = some()
    probs = rescale(logits, T, P, "soft").double().softmax(-1)
    trained = soft_top_p(logits.double(), T, P)
    clean = trained / trained.sum(-1, keepdim=True)  # the official epsilon takes part of the mass
    torch.testing.assert_close(probs, clean, rtol=0, atol=2e-6)


@pytest.mark.parametrize("apply", APPLY)
def test_sampled_frequencies_are_those_of_the_distribution(apply: Any) -> None:
    """2e5 draws as any engine makes them, against probabilities that were computed otherwise."""
    draws, generator = 200_000, torch.Generator().manual_seed(0)
    logits, T, P = some(N=6)
    P = P.clamp(0.3, 0.97)
    probs = rescale(logits, T, P, apply).softmax(-1)
    sampled = torch.multinomial(probs, draws, replacement=True, generator=generator)
    several = 0
    for row in range(6):
        if apply == "hard":
            expected = exact(logits[row], T[row].item(), P[row].item()) * draws
        else:
            expected = soft_top_p(
                logits[row : row + 1].double(), T[row : row + 1], P[row : row + 1]
            )
            expected = expected[0] / expected.sum() * draws
        counts = torch.bincount(sampled[row], minlength=V).double()
        assert not counts[expected == 0].any()
        large = expected >= 5  # the usual rule; the rest is one cell
        cells = torch.cat([expected[large], expected[~large].sum()[None]])
        seen = torch.cat([counts[large], counts[~large].sum()[None]])
        cells, seen = cells[cells > 0], seen[cells > 0]
        if len(cells) < 2:
            continue
        several += 1
        chi_square = ((seen - cells) ** 2 / cells).sum()
        degrees = torch.tensor((len(cells) - 1) / 2, dtype=torch.float64)
        assert torch.special.gammaincc(degrees, chi_square / 2) > 1e-3
    assert several >= 4


@pytest.mark.parametrize("apply", APPLY)
def test_a_grammar_may_ban_the_whole_nucleus(apply: Any) -> None:
    logits, T, P = some()
    logits[0, 7] = 200.0  # so confident that all other tokens have probability 0
    out = rescale(logits, T, P, apply)
    if apply == "hard":
        banned = out.softmax(-1) > 0
        weights = logits.double() / T.double()[:, None]
    else:
        banned = soft_top_p(logits, T, P) > 1e-3
        faded = soft_top_p(logits.double(), T, P)
        weights = faded.log()
        weights[0] = logits[0].double() / T[0].double()  # these all fade by the same 1 - P
    assert banned.any(-1).all()
    for row in (~banned).any(-1).nonzero().squeeze(-1).tolist():
        allowed = ~banned[row]
        constrained = out[row].masked_fill(banned[row], -math.inf).softmax(0)
        assert constrained.isfinite().all()
        expected = weights[row].masked_fill(banned[row], -math.inf).softmax(0)
        # float32 steps at -1000 are 6e-5.
        torch.testing.assert_close(
            constrained[allowed].double(), expected[allowed], rtol=5e-4, atol=1e-7
        )
    assert (~banned).any(-1).sum() > 20


@pytest.mark.parametrize("apply", APPLY)
def test_neighbours_do_not_matter(apply: Any) -> None:
    logits, T, P = some(N=12)
    together = rescale(logits.view(3, 4, V), T.view(3, 4), P.view(3, 4), apply).view(12, V)
    for row in range(12):
        one = slice(row, row + 1)
        alone = rescale(logits[one], T[one], P[one], apply)
        torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-5)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    again = rescale(logits[shuffled], T[shuffled], P[shuffled], apply)
    torch.testing.assert_close(again, together[shuffled], rtol=0, atol=1e-5)


def test_one_and_one_changes_nothing() -> None:
    logits, _, _ = some()
    logits[:, -1] = -math.inf
    ones = torch.ones(len(logits))
    for apply in APPLY:
        assert torch.equal(rescale(logits, ones, ones, apply), logits)
        assert torch.equal(rescale(logits, ones, None, apply), logits)


@pytest.mark.parametrize("apply", APPLY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_greedy_decoding_stays(apply: Any, dtype: torch.dtype) -> None:
    logits, T, P = some(N=300)
    logits = logits.to(dtype)
    logits[::7, 40] = logits[::7].amax(-1)  # a tie: the first of it is greedy
    T[::3] = 0.01
    P[::5], P[1::5] = 0.0, 1.0
    greedy = logits.argmax(-1)
    assert torch.equal(rescale(logits, T, P, apply).argmax(-1), greedy)
    assert torch.equal(rescale(logits, T, None, apply).argmax(-1), greedy)


@pytest.mark.parametrize("apply", APPLY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(apply: Any, dtype: torch.dtype) -> None:
    logits, T, P = some()
    half = rescale(logits.to(dtype), T, P, apply)
    assert half.dtype == torch.float32
    assert torch.equal(half, rescale(logits.to(dtype).float(), T, P, apply))


def test_a_repetition_penalty_commutes_with_the_temperature() -> None:
    logits, T, _ = some()
    ids = torch.randint(V, (len(logits), 9), generator=torch.Generator().manual_seed(0))
    penalty = RepetitionPenaltyLogitsProcessor(1.3)
    after = penalty(ids, rescale(logits, T, None, "hard"))
    before = rescale(penalty(ids, logits.clone()), T, None, "hard")
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("apply", APPLY)
def test_gradients_are_finite_where_columns_are_minus_infinity(apply: Any) -> None:
    logits, T, P = some()
    padded = torch.nn.functional.pad(logits, (0, 4), value=-math.inf)
    labels = rescale(logits, T, P, apply).argmax(-1, keepdim=True)
    grads = []
    for l_NV in (logits, padded):
        T_N, P_N = T.clone().requires_grad_(), P.clone().requires_grad_()
        out = rescale(l_NV, T_N, P_N, apply)
        assert torch.equal(out.isneginf(), l_NV.isneginf())
        out.log_softmax(-1).gather(1, labels).sum().backward()
        grads.append((T_N.grad, P_N.grad))
    torch.testing.assert_close(grads[0][0], grads[1][0], rtol=1e-5, atol=1e-5)
    assert grads[1][0].abs().max() > 1e-2
    if apply == "soft":  # a hard cut gives top-p no gradient
        torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-5, atol=1e-5)
        assert grads[1][1].abs().max() > 1e-2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_named(bad: float) -> None:
    logits, T, P = some(N=4)
    logits[2, 5] = bad
    with pytest.raises(DataError, match="Row 2 of `logits_NV`"):
        rescale(logits.view(2, 2, V), T.view(2, 2), P.view(2, 2), "hard")


def test_predict_runs_the_heads_that_there_are() -> None:
    logits, _, _ = some(N=6)
    hidden = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    logits = logits.view(2, 3, V)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        temp_head, enhanced, plain = TemperatureHead(8), TopPHead(8), TopPHead(8, enhanced=False)
    ones = torch.ones(2, 3)
    T, P = predict(hidden, logits, temp_head, enhanced)
    assert torch.equal(T, temp_head(hidden))
    assert torch.equal(P, enhanced(hidden, T, statistics(logits, T)))
    assert all(torch.equal(x, ones) for x in predict(hidden, logits, None, None))
    T_alone, no_cut = predict(hidden, logits, temp_head, None)
    assert torch.equal(T_alone, T)
    assert torch.equal(no_cut, ones)
    no_T, P_alone = predict(hidden, logits, None, plain)
    assert torch.equal(no_T, ones)
    assert torch.equal(P_alone, plain(hidden, ones))
    # The temperature that the top-p head reads is an input, not a way back into its head.
    P.sum().backward()
    assert all(p.grad is None for p in temp_head.parameters())
