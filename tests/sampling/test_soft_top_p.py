"""Soft top-p against the formulas in float64, and its closed-form gradients and memory."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.autograd.graph import saved_tensors_hooks

from hanol.errors import ConfigError, ShapeError
from hanol.sampling import (
    soft_top_p,
    soft_top_p_nll_of_rows,
    temperature_nll_of_rows,
    top_p_keep,
)

CUMSUMS = ["inclusive", "exclusive"]


def as_parameter(value_N: Tensor, logits_NV: Tensor) -> Tensor:
    return value_N.double() if logits_NV.dtype == torch.float64 else value_N.float()


def soft_top_p_nll(
    logits_NV: Tensor, T_N: Tensor, P_N: Tensor, labels_N: Tensor, **options: Any
) -> Tensor:
    """Of all rows."""
    T_N, P_N = as_parameter(T_N, logits_NV), as_parameter(P_N, logits_NV)
    rows = torch.arange(len(labels_N))
    return soft_top_p_nll_of_rows(logits_NV, rows, T_N, P_N, labels_N, **options)


def temperature_nll(
    logits_NV: Tensor,
    T_N: Tensor,
    labels_N: Tensor,
    min_temperature: float = 1e-2,
    chunk: int = 256,
) -> Tensor:
    rows = torch.arange(len(labels_N))
    T_N = as_parameter(T_N, logits_NV)
    return temperature_nll_of_rows(logits_NV, rows, T_N, labels_N, min_temperature, chunk)


def by_definition(
    logits_NV: Tensor,
    T_N: Tensor,
    P_N: Tensor,
    *,
    steepness: float = 30.0,
    cumsum: str = "inclusive",
) -> tuple[Tensor, Tensor, Tensor]:
    """p, m and pt of each row, equations 1 to 3 in float64. Columns of -inf are left out of it."""
    p_rows, m_rows, pt_rows = [], [], []
    for l_V, T, P in zip(logits_NV.double(), T_N.double(), P_N.double(), strict=True):
        inside_V = l_V > -math.inf
        p_V = (l_V[inside_V] / T.clamp(min=1e-8)).softmax(0)
        order_V = sorted(range(len(p_V)), key=lambda i: -p_V[i].item())
        c, m = torch.zeros((), dtype=torch.float64), [torch.zeros(())] * len(p_V)
        for token in order_V:
            upto = c + p_V[token]
            m[token] = torch.exp(-steepness * ((upto if cumsum == "inclusive" else c) - P).relu())
            c = upto
        m_V = torch.stack(m)
        pt_V = p_V * m_V / ((p_V * m_V).sum() + 1e-9)
        zeros_V = torch.zeros(len(l_V), dtype=torch.float64)
        for rows, value in ((p_rows, p_V), (m_rows, m_V), (pt_rows, pt_V)):
            rows.append(zeros_V.masked_scatter(inside_V, value))
    return torch.stack(p_rows), torch.stack(m_rows), torch.stack(pt_rows)


def nll_by_definition(
    logits_NV: Tensor, T_N: Tensor, P_N: Tensor, labels_N: Tensor, **options: Any
) -> Tensor:
    pt_NV = by_definition(logits_NV, T_N, P_N, **options)[2]
    return -(pt_NV.gather(1, labels_N[:, None]).squeeze(1) + 1e-9).log()


def some(N: int = 40, V: int = 57, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows from nearly flat to nearly one-hot, T over (0, 2), P over (0, 1), labels of any rank."""
    generator = torch.Generator().manual_seed(seed)
    scale_N1 = torch.linspace(0.1, 5.0, N)[:, None]
    logits_NV = scale_N1 * torch.randn(N, V, generator=generator)
    T_N = torch.rand(N, generator=generator) * 1.9 + 0.05
    P_N = torch.rand(N, generator=generator) * 0.98 + 0.01
    probs_NV = (logits_NV / T_N[:, None]).softmax(-1)
    drawn_N = torch.multinomial(probs_NV, 1, generator=generator).squeeze(1)
    anywhere_N = torch.randint(V, (N,), generator=generator)
    return logits_NV, T_N, P_N, torch.where(torch.arange(N) % 3 == 0, anywhere_N, drawn_N)


def with_gradients(loss: Any, T_N: Tensor, P_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    T_N, P_N = T_N.clone().requires_grad_(), P_N.clone().requires_grad_()
    nll_N = loss(T_N, P_N)
    # Weights that differ from row to row, so that no row can stand in for another.
    nll_N.mul(torch.linspace(0.5, 1.5, len(nll_N))).sum().backward()
    return nll_N.detach(), T_N.grad, P_N.grad


def close(ours: Tensor, theirs: Tensor, relative: float, absolute: float) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=relative, atol=absolute)


# -- the definition


@pytest.mark.parametrize("cumsum", CUMSUMS)
@pytest.mark.parametrize("steepness", [0.0, 5.0, 30.0, 300.0])
def test_probabilities_are_those_of_the_formulas(cumsum: Any, steepness: float) -> None:
    logits, T, P, _ = some()
    p, m, pt = by_definition(logits, T, P, steepness=steepness, cumsum=cumsum)
    ours = soft_top_p(logits, T, P, steepness=steepness, cumsum=cumsum)
    assert ours.dtype == torch.float32
    if steepness <= 30:  # it multiplies the rounding of float32
        close(ours, pt, 0, 1e-6)
    # m is seen through the ratio of the probabilities with and without fading.
    if steepness:
        assert m.min() < 0.9
    exact = soft_top_p(logits.double(), T, P, steepness=steepness, cumsum=cumsum)
    assert exact.dtype == torch.float64
    shares = exact * (p * m).sum(-1, keepdim=True).add(1e-9)
    close(shares, p * m, 1e-9, 1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits, T, P, labels = some()
    logits = logits.to(dtype)
    assert soft_top_p(logits, T, P).dtype == torch.float32
    assert torch.equal(soft_top_p(logits, T, P), soft_top_p(logits.float(), T, P))
    ours = with_gradients(lambda T, P: soft_top_p_nll(logits, T, P, labels), T, P)
    theirs = with_gradients(lambda T, P: soft_top_p_nll(logits.float(), T, P, labels), T, P)
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, expected)


def test_any_leading_dimensions() -> None:
    logits, T, P, _ = some(N=12)
    flat = soft_top_p(logits, T, P)
    assert torch.equal(
        soft_top_p(logits.view(3, 4, -1), T.view(3, 4), P.view(3, 4)).flatten(0, 1), flat
    )


@pytest.mark.parametrize("cumsum", CUMSUMS)
def test_columns_of_minus_infinity_change_nothing(cumsum: Any) -> None:
    logits, T, P, labels = some()
    padded = torch.nn.functional.pad(logits, (2, 5), value=-math.inf)
    close(
        soft_top_p(padded, T, P, cumsum=cumsum)[:, 2:-5],
        soft_top_p(logits, T, P, cumsum=cumsum), 0, 1e-6,
    )  # fmt: skip
    assert not soft_top_p(padded, T, P)[:, :2].any()
    plain = with_gradients(
        lambda T, P: nll_by_definition(logits, T, P, labels, cumsum=cumsum), T, P
    )
    for ours in (
        with_gradients(lambda T, P: soft_top_p_nll(padded, T, P, labels + 2, cumsum=cumsum), T, P),
        with_gradients(
            lambda T, P: (
                soft_top_p(padded.double(), T, P, cumsum=cumsum)
                .gather(1, labels[:, None] + 2).squeeze(1).add(1e-9).log().neg()
            ), T, P,
        ),
    ):  # fmt: skip
        for mine, expected in zip(ours, plain, strict=True):
            close(mine, expected, 1e-4, 1e-5)


def test_the_token_that_crosses_fades_only_when_it_is_counted() -> None:
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    one, P = torch.ones(1), torch.tensor([0.7])
    inclusive = torch.tensor([[0.6, 0.3 * math.exp(-30 * 0.2), 0.1 * math.exp(-30 * 0.3)]])
    close(soft_top_p(logits, one, P), inclusive / inclusive.sum(), 0, 1e-7)
    exclusive = torch.tensor([[0.6, 0.3, 0.1 * math.exp(-30 * 0.2)]])
    close(soft_top_p(logits, one, P, cumsum="exclusive"), exclusive / exclusive.sum(), 0, 1e-7)


def test_exclusive_becomes_hard_top_p_as_it_steepens() -> None:
    logits, T, P, _ = some(N=200)
    tempered = logits.double() / T[:, None]
    keep = top_p_keep(tempered, P)
    hard = (tempered.softmax(-1) * keep) / (tempered.softmax(-1) * keep).sum(-1, keepdim=True)
    gaps = []
    for steepness in (1e2, 1e4, 1e8):
        soft = soft_top_p(logits.double(), T, P, steepness=steepness, cumsum="exclusive")
        gaps.append((soft - hard).abs().max().item())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-7  # what is left is the 1e-9 in the sum
    # The paper's inclusive sum has another limit: without the token that crosses.
    inclusive = soft_top_p(logits.double(), T, P, steepness=1e8)
    assert ((inclusive > 1e-6).sum(-1) <= keep.sum(-1)).all()
    assert (inclusive - hard).abs().max() > 0.1


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    T=st.floats(0.01, 2),
    P=st.floats(0, 1),
    steepness=st.floats(0, 1000),
    cumsum=st.sampled_from(CUMSUMS),
)
def test_it_is_a_distribution_in_the_order_of_the_logits(
    seed: int, T: float, P: float, steepness: float, cumsum: Any
) -> None:
    logits = some(N=3, seed=seed)[0].double()
    T_N, P_N = torch.full((3,), T), torch.full((3,), P)
    probs = soft_top_p(logits, T_N, P_N, steepness=steepness, cumsum=cumsum)
    assert (probs >= 0).all()
    total = probs.sum(-1)
    assert (total <= 1 + 1e-9).all()
    if cumsum == "exclusive":
        assert (total > 1 - 1e-6).all()  # the most likely token never fades
    # A token that is more likely stays at least as likely; its neighbours do not matter.
    by_logit = probs.gather(1, logits.argsort(-1, descending=True))
    assert (by_logit.diff(dim=-1) <= 0).all()
    alone = soft_top_p(logits[1:2], T_N[:1], P_N[:1], steepness=steepness, cumsum=cumsum)
    assert torch.allclose(alone, probs[1:2], atol=1e-12)


# -- the likelihood of labels, in closed form


@pytest.mark.parametrize("cumsum", CUMSUMS)
def test_loss_and_gradients_are_those_of_the_formulas(cumsum: Any) -> None:
    logits, T, P, labels = some(N=120)
    theirs = with_gradients(
        lambda T, P: nll_by_definition(logits, T, P, labels, cumsum=cumsum), T, P
    )
    ours = with_gradients(lambda T, P: soft_top_p_nll(logits, T, P, labels, cumsum=cumsum), T, P)
    close(ours[0], theirs[0], 1e-5, 1e-5)
    for mine, expected in zip(ours[1:], theirs[1:], strict=True):
        assert (expected.abs() > 1e-2).float().mean() > 0.3
        close(mine, expected, 1e-4, 1e-4)
    exact = with_gradients(
        lambda T, P: soft_top_p_nll(logits.double(), T, P, labels, cumsum=cumsum),
        T.double(), P.double(),
    )  # fmt: skip
    for mine, expected in zip(exact, theirs, strict=True):
        close(mine, expected, 2e-7, 2e-7)  # the leaves of `theirs` are float32


@pytest.mark.parametrize("cumsum", CUMSUMS)
@pytest.mark.parametrize("steepness", [30.0, 3.0])
def test_gradcheck(cumsum: Any, steepness: float) -> None:
    logits, T, P, labels = some(N=24, V=13)
    logits, T, P = logits.double(), T.double(), P.double()
    c = (logits / T[:, None]).softmax(-1).sort(descending=True).values.cumsum(-1)
    smooth = (c - P[:, None]).abs().amin(-1) > 1e-4  # at c = P there is a kink
    smooth &= (c[:, :1] - P[:, None]).abs().squeeze(1) > 1e-4
    assert smooth.sum() > 18
    logits, labels = logits[smooth], labels[smooth]
    arguments = (T[smooth].requires_grad_(), P[smooth].requires_grad_())

    def loss(T: Tensor, P: Tensor) -> Tensor:
        return soft_top_p_nll(logits, T, P, labels, steepness=steepness, cumsum=cumsum, chunk=7)

    assert gradcheck(loss, arguments)
    assert gradcheck(lambda T: temperature_nll(logits, T, labels, chunk=5), arguments[:1])


def test_rows_with_ties_follow_the_order_of_the_vocabulary() -> None:
    logits = torch.tensor([[1.0, 3, 3, 1, 1, 3, -2], [0.0] * 7])
    T, P = torch.tensor([0.8, 1.3]), torch.tensor([0.61, 0.4])
    for label in range(7):
        labels = torch.tensor([label, label])
        theirs = with_gradients(
            lambda T, P, labels=labels: nll_by_definition(logits, T, P, labels), T, P
        )
        ours = with_gradients(
            lambda T, P, labels=labels: soft_top_p_nll(logits, T, P, labels), T, P
        )
        for mine, expected in zip(ours, theirs, strict=True):
            close(mine, expected, 1e-4, 1e-5)


@pytest.mark.parametrize(("P", "nll"), [(0.0, 9.28), (0.3, 0.841), (0.5, 0.0033)])
def test_the_epsilons_push_p_up_on_confident_tokens(P: float, nll: float) -> None:
    logits = torch.full((1, 50), -1e4)
    logits[0, 7] = 0.0
    label = torch.tensor([7])
    loss, dT, dP = with_gradients(
        lambda T, P: soft_top_p_nll(logits, T, P, label), torch.ones(1), torch.tensor([P])
    )
    assert loss.item() == pytest.approx(nll, rel=1e-3, abs=5e-5)
    assert dT.item() == 0
    # nll = -log(m / (m + e) + e) with m = exp(-30 (1 - P)); 0.5 is the only row's weight.
    m = math.exp(-30 * (1 - P))
    share = m / (m + 1e-9)
    expected = -30 * share / (share + 1e-9) * 1e-9 / (m + 1e-9)
    assert dP.item() == pytest.approx(0.5 * expected, rel=1e-4)
    if P == 0:
        assert dP.item() == pytest.approx(0.5 * -30, rel=1e-3)


def test_temperature_loss_is_the_cross_entropy_of_the_formula() -> None:
    logits, T, P, labels = some(N=120)

    def formula(T: Tensor, _: Tensor) -> Tensor:
        z_NV = logits.double() / T.double().clamp(min=1e-2)[:, None]
        return z_NV.logsumexp(-1) - z_NV.gather(1, labels[:, None]).squeeze(1)

    theirs = with_gradients(lambda T, P: formula(T, P) + 0 * P, T, P)
    ours = with_gradients(lambda T, P: temperature_nll(logits, T, labels) + 0 * P, T, P)
    close(ours[0], theirs[0], 1e-5, 1e-5)
    close(ours[1], theirs[1], 1e-4, 1e-4)


def test_a_temperature_below_its_bound_counts_as_the_bound_and_gets_no_gradient() -> None:
    logits, _, _, labels = some(N=6, V=9)
    low = torch.tensor([0.0, -1.0, 1e-3, 9e-3, 1e-2, 2e-2])
    bound = low.clamp(min=1e-2)

    def loss(T: Tensor, P: Tensor) -> Tensor:
        return temperature_nll(logits, T, labels) + 0 * P

    nll, dT, _ = with_gradients(loss, low, low)
    expected = with_gradients(loss, bound, bound)
    assert torch.equal(nll, expected[0])
    assert torch.equal(dT[:4], torch.zeros(4))
    assert torch.equal(dT[4:], expected[1][4:])


@pytest.mark.parametrize("cumsum", CUMSUMS)
@pytest.mark.parametrize("T", [0.0, 1e-9, 1e-8, 1e-4, 1e-2])
@pytest.mark.parametrize("P", [0.0, 1e-6, 1.0, 1.5])
def test_extremes_stay_finite(T: float, P: float, cumsum: Any) -> None:
    logits = torch.tensor(
        [[0.0, 30.0, -4.0, -math.inf], [0.0, 0.0, 0.0, 0.0], [6e4, -6e4, 0.0, 1.0]]
    )
    T_N, P_N = torch.full((3,), T), torch.full((3,), P)
    for label in range(3):
        labels = torch.full((3,), label)
        for loss in (
            lambda T, P, y=labels: soft_top_p_nll(logits, T, P, y, cumsum=cumsum),
            lambda T, P, y=labels: temperature_nll(logits, T, y) + 0 * P,
        ):
            for result in with_gradients(loss, T_N, P_N):
                assert result.isfinite().all()
    nll = soft_top_p_nll(logits, T_N, P_N, torch.ones(3, dtype=torch.long), cumsum=cumsum)
    theirs = nll_by_definition(logits, T_N, P_N, torch.ones(3, dtype=torch.long), cumsum=cumsum)
    close(nll, theirs, 1e-4, 1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 40, 1000])
def test_chunks_change_nothing(chunk: int) -> None:
    logits, T, P, labels = some()
    whole = with_gradients(lambda T, P: soft_top_p_nll(logits, T, P, labels, chunk=80), T, P)
    parts = with_gradients(lambda T, P: soft_top_p_nll(logits, T, P, labels, chunk=chunk), T, P)
    for one, other in zip(whole, parts, strict=True):
        close(one, other, 1e-6, 1e-7)
    nll = temperature_nll(logits, T, labels, chunk=80)
    close(temperature_nll(logits, T, labels, chunk=chunk), nll, 1e-6, 1e-7)


def test_nothing_as_wide_as_the_vocabulary_is_saved() -> None:
    logits, T, P, labels = some(N=6, V=5000)
    logits.requires_grad_()
    saved: list[int] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x.numel())
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        with_gradients(lambda T, P: soft_top_p_nll(logits, T, P, labels), T, P)
        with_gradients(lambda T, P: temperature_nll(logits, T, labels) + 0 * P, T, P)
    assert saved
    assert max(saved) <= 6  # numbers a row
    assert logits.grad is None
    with saved_tensors_hooks(keep, lambda x: x):  # the definition does save them: the check sees it
        soft_top_p(logits, T, P)
    assert max(saved) >= 6 * 5000


def test_arguments_are_not_written_to() -> None:
    logits, T, P, labels = some()
    before = [x.clone() for x in (logits, T, P, labels)]
    with_gradients(lambda T, P: soft_top_p_nll(logits, T, P, labels), T, P)
    temperature_nll(logits, T, labels)
    soft_top_p(logits, T, P)
    assert all(torch.equal(x, y) for x, y in zip((logits, T, P, labels), before, strict=True))


def test_no_rows() -> None:
    none = torch.zeros(0, requires_grad=True)
    nll = soft_top_p_nll(torch.zeros(0, 5), none, none, torch.zeros(0, dtype=torch.long))
    nll.sum().backward()
    assert nll.shape == none.grad.shape == (0,)
    assert soft_top_p(torch.zeros(0, 5), none, none).shape == (0, 5)


def test_wrong_arguments_are_named() -> None:
    logits, T, P, labels = some(N=4, V=5)
    with pytest.raises(ShapeError, match=r"`top_p_N` has shape \(3,\), but `logits_NV` \(4, 5\)"):
        soft_top_p(logits, T, P[:3])
    with pytest.raises(ShapeError, match="Flatten the rows first"):
        soft_top_p_nll(logits[None], T, P, labels)
    with pytest.raises(ShapeError, match="`chunk` is 0, but must be at least 1"):
        temperature_nll(logits, T, labels, chunk=0)
    with pytest.raises(ConfigError, match="`steepness` is -1"):
        soft_top_p(logits, T, P, steepness=-1)
    with pytest.raises(ConfigError, match="`steepness` is nan"):
        soft_top_p(logits, T, P, steepness=math.nan)
    with pytest.raises(ConfigError, match="`cumsum` is 'both'"):
        soft_top_p(logits, T, P, cumsum="both")
    with pytest.raises(ConfigError, match="`min_temperature` is 0"):
        temperature_nll(logits, T, labels, 0.0)
