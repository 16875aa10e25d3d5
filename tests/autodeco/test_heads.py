"""The two heads and their statistics against the formulas in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from hanol.autodeco import TemperatureHead, TopPHead, statistics
from hanol.errors import ConfigError, ShapeError

H = 24


def array(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


def statistics_by_definition(logits_NV: Tensor, T_N: Tensor, entropy: str = "parity") -> np.ndarray:
    """s1 to s4 of each row, over the columns that are above -inf."""
    rows = []
    for l_V, T in zip(array(logits_NV), array(T_N), strict=True):
        z_V = l_V[l_V > -np.inf] / (T + 1e-8)
        q_V = np.exp(z_V - z_V.max())
        q_V /= q_V.sum()
        shift = 1e-8 if entropy == "parity" else 0.0
        logs_V = np.log(np.where(q_V + shift > 0, q_V + shift, 1.0))
        variance = q_V.var(ddof=1) if len(q_V) > 1 else 0.0
        rows.append([q_V.max(), -(q_V * logs_V).sum(), variance, np.sort(q_V)[-5:].sum()])
    return np.array(rows)


def head_by_definition(head: torch.nn.Module, features_NF: np.ndarray) -> np.ndarray:
    w = {name: array(tensor) for name, tensor in head.state_dict().items()}
    inner = np.maximum(features_NF @ w["mlp.0.weight"].T + w["mlp.0.bias"], 0)
    return 1 / (1 + np.exp(-(inner @ w["mlp.2.weight"].T + w["mlp.2.bias"])[:, 0]))


def some(N: int = 30, V: int = 500, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale_N1 = torch.linspace(0.02, 4, N)[:, None]
    logits_NV = scale_N1 * torch.randn(N, V, generator=generator) + 3
    return 2 * torch.randn(N, H, generator=generator), logits_NV


def heads(enhanced: bool = True, seed: int = 0) -> tuple[TemperatureHead, TopPHead]:
    """Heads whose outputs spread over most of their ranges."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pair = TemperatureHead(H), TopPHead(H, enhanced)
        for head in pair:
            for parameter in head.parameters():
                parameter.data += 0.15 * torch.randn_like(parameter)
    return pair


# -- heads


@pytest.mark.parametrize("enhanced", [True, False])
@pytest.mark.parametrize("entropy", ["parity", "logsumexp"])
def test_heads_are_those_of_the_formulas(enhanced: bool, entropy: Any) -> None:
    hidden, logits = some()
    temperature_head, top_p_head = heads(enhanced)
    T = 2 * head_by_definition(temperature_head, array(hidden))
    s = statistics_by_definition(logits, torch.from_numpy(T), entropy)
    features = [array(hidden), T[:, None], s] if enhanced else [array(hidden), T[:, None]]
    P = head_by_definition(top_p_head, np.concatenate(features, axis=1))
    assert T.std() > 0.2
    assert P.std() > 0.1

    ours_T = temperature_head(hidden)
    ours_s = statistics(logits, ours_T, entropy=entropy)
    ours_P = top_p_head(hidden, ours_T, ours_s if enhanced else None)
    for ours, theirs in ((ours_T, T), (ours_s, s), (ours_P, P)):
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(array(ours), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("entropy", ["parity", "logsumexp"])
def test_half_precision_is_only_how_inputs_and_weights_are_stored(entropy: Any) -> None:
    hidden, logits = (x.bfloat16() for x in some())
    temperature_head, top_p_head = (head.bfloat16() for head in heads())
    T = 2 * head_by_definition(temperature_head, array(hidden))
    s = statistics_by_definition(logits, torch.from_numpy(T), entropy)
    P = head_by_definition(top_p_head, np.concatenate([array(hidden), T[:, None], s], axis=1))
    ours_T = temperature_head(hidden)
    ours_s = statistics(logits, ours_T, entropy=entropy)
    ours_P = top_p_head(hidden, ours_T, ours_s)
    for ours, theirs in ((ours_T, T), (ours_s, s), (ours_P, P)):
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(array(ours), theirs, rtol=0, atol=1e-5)
    assert temperature_head.mlp[0].weight.dtype == torch.bfloat16


def test_autocast_does_not_make_them_coarse() -> None:
    hidden, logits = some()
    temperature_head, top_p_head = heads()
    T = temperature_head(hidden)
    P = top_p_head(hidden, T, statistics(logits, T))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(temperature_head(hidden), T)
        assert torch.equal(statistics(logits, T), statistics(logits.clone(), T.clone()))
        assert torch.equal(top_p_head(hidden, T, statistics(logits, T)), P)


def test_any_leading_dimensions_and_no_neighbours() -> None:
    hidden, logits = some(N=12)
    temperature_head, top_p_head = heads()
    T = temperature_head(hidden)
    s = statistics(logits, T)
    P = top_p_head(hidden, T, s)
    T_34 = temperature_head(hidden.view(3, 4, H))
    s_34 = statistics(logits.view(3, 4, -1), T_34)
    assert s_34.shape == (3, 4, 4)
    torch.testing.assert_close(top_p_head(hidden.view(3, 4, H), T_34, s_34).flatten(), P)
    for row in range(12):
        one = slice(row, row + 1)
        torch.testing.assert_close(temperature_head(hidden[one]), T[one], atol=1e-6, rtol=0)
        torch.testing.assert_close(statistics(logits[one], T[one]), s[one], atol=1e-6, rtol=0)
    none = temperature_head(torch.zeros(0, H))
    assert statistics(torch.zeros(0, 7), none).shape == (0, 4)


@pytest.mark.parametrize(
    ("width", "numbers"),
    [(3584, 1_837_314), (4096, 2_099_458), (2048, 1_050_882), (2880, 1_476_866)],
)
def test_sizes_are_those_of_the_official_heads(width: int, numbers: int) -> None:
    pair = TemperatureHead(width), TopPHead(width)
    assert sum(p.numel() for head in pair for p in head.parameters()) == numbers
    assert {k: tuple(v.shape) for k, v in pair[1].state_dict().items()} == {
        "mlp.0.weight": (256, width + 5), "mlp.0.bias": (256,),
        "mlp.2.weight": (1, 256), "mlp.2.bias": (1,),
    }  # fmt: skip
    assert TopPHead(width, enhanced=False).state_dict()["mlp.0.weight"].shape == (256, width + 1)


def test_init() -> None:
    hidden, logits = some(N=200)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        temperature_head = TemperatureHead(H).init("neutral")
        top_p_head = TopPHead(H).init("neutral")
        T = temperature_head(hidden)
        assert torch.equal(T, torch.ones(200))
        P = top_p_head(hidden, T, statistics(logits, T))
        assert torch.allclose(P, torch.full((200,), 0.95), rtol=0, atol=1e-7)
        assert temperature_head.mlp[0].weight.any()  # it can learn from there
        T = temperature_head.init("official")(hidden)
        P = top_p_head.init()(hidden, T, statistics(logits, T))
    assert abs(T.mean() - 1) < 0.25
    assert abs(P.mean() - 0.5) < 0.15
    assert T.std() > 0.01
    with pytest.raises(ConfigError, match="`init` is 'zero'"):
        temperature_head.init("zero")


def test_wrong_shapes_are_named() -> None:
    temperature_head, top_p_head = heads()
    with pytest.raises(ShapeError, match=rf"\(3, 8\), but this head was made for .* width of {H}"):
        temperature_head(torch.zeros(3, 8))
    hidden, T = torch.zeros(3, H), torch.ones(3)
    with pytest.raises(ShapeError, match=r"`temperature_N` has shape \(2,\)"):
        top_p_head(hidden, T[:2], torch.zeros(3, 4))
    with pytest.raises(ShapeError, match="enhanced: it reads four statistics"):
        top_p_head(hidden, T)
    with pytest.raises(ShapeError, match=r"`statistics_N4` has shape \(3, 5\)"):
        top_p_head(hidden, T, torch.zeros(3, 5))
    with pytest.raises(ShapeError, match=r"`temperature_N` has shape \(3, 1\)"):
        statistics(torch.zeros(3, 9), T[:, None])
    with pytest.raises(ConfigError, match="`entropy` is 'exact'"):
        statistics(torch.zeros(3, 9), T, entropy="exact")


# -- statistics


@pytest.mark.parametrize("V", [1, 2, 4, 5, 6, 300, 8191, 8192, 8192 + 77, 151_936])
@pytest.mark.parametrize("entropy", ["parity", "logsumexp"])
def test_statistics_at_any_vocabulary(V: int, entropy: Any) -> None:
    N = 9 if V < 100_000 else 3
    _, logits = some(N, V)
    T = torch.linspace(0.3, 1.9, N)
    theirs = statistics_by_definition(logits, T, entropy)
    ours = array(statistics(logits, T, entropy=entropy))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    # The variance is so small that a tolerance in units of 1 would not see it.
    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], rtol=1e-3, atol=1e-6 / V**2)
    exact = statistics(logits.double(), T.double(), entropy=entropy)
    assert exact.dtype == torch.float64
    np.testing.assert_allclose(
        array(exact), statistics_by_definition(logits, T.double(), entropy), rtol=0, atol=1e-12
    )


def test_the_two_entropies_differ_by_the_epsilon() -> None:
    _, logits = some(4, 151_936)
    T = torch.linspace(0.5, 1.9, 4)
    parity = statistics(logits.double(), T)[:, 1]
    exact = statistics(logits.double(), T, entropy="logsumexp")[:, 1]
    assert (exact > parity).all()
    assert (exact - parity < 151_936e-8).all()
    assert (exact - parity).max() > 1e-3


@pytest.mark.parametrize("V", [40, 9000])
def test_columns_of_minus_infinity_are_no_vocabulary(V: int) -> None:
    _, logits = some(5, V)
    T = torch.linspace(0.2, 1.8, 5)
    padded = torch.nn.functional.pad(logits, (3, 260), value=-math.inf)
    for entropy in ("parity", "logsumexp"):
        ours = statistics(padded.double(), T, entropy=entropy)
        expected = statistics(logits.double(), T, entropy=entropy)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-15)
    assert not torch.allclose(  # unlike columns that are merely unlikely
        statistics(padded.clamp_min(-1e3).double(), T)[:, 2] / expected[:, 2],
        torch.ones(5, dtype=torch.float64), atol=1e-3,
    )  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    places=st.lists(st.integers(0, 8192 + 76), min_size=5, max_size=9, unique=True),
    ties=st.booleans(),
)
def test_the_five_largest_are_found_wherever_they_are(places: list[int], ties: bool) -> None:
    logits = torch.zeros(1, 8192 + 77)
    logits[0, places] = 9.0 if ties else torch.arange(9.0, 9.0 + len(places))
    ours = statistics(logits.double(), torch.ones(1))
    theirs = statistics_by_definition(logits, torch.ones(1))
    np.testing.assert_allclose(array(ours), theirs, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("V", [13, 8200])
@pytest.mark.parametrize("entropy", ["parity", "logsumexp"])
def test_gradients_reach_the_temperature_only(V: int, entropy: Any) -> None:
    _, logits = some(6, V)
    logits = torch.nn.functional.pad(logits.double(), (1, 2), value=-math.inf).requires_grad_()
    T = torch.linspace(0.3, 1.9, 6).double().requires_grad_()
    assert gradcheck(lambda T: statistics(logits, T, entropy=entropy), (T,))
    statistics(logits, T, entropy=entropy).sum().backward()
    assert logits.grad is None
    assert T.grad.isfinite().all()


@pytest.mark.parametrize("entropy", ["parity", "logsumexp"])
@pytest.mark.parametrize("T", [0.0, 1e-6, 1e-2, 2.0])
def test_extremes_stay_finite(T: float, entropy: Any) -> None:
    logits = torch.tensor(
        [[0.0] * 6, [0.0] + [-1e4] * 5, [0.0] + [-math.inf] * 5, [6e4, -6e4, 1, 2, 3, 4]]
    )
    T_N = torch.full((4,), T, requires_grad=True)
    s = statistics(logits, T_N, entropy=entropy)
    s.sum().backward()
    assert s.isfinite().all()
    assert T_N.grad.isfinite().all()
    np.testing.assert_allclose(
        array(s), statistics_by_definition(logits, T_N.detach(), entropy), rtol=0, atol=1e-5
    )
    assert torch.equal(s, statistics(logits.half(), T_N, entropy=entropy))


def test_rows_computed_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, logits = some(9, 600)
    T = torch.linspace(0.3, 1.9, 9)
    whole = statistics(logits, T)
    monkeypatch.setattr("hanol.autodeco._heads._BLOCK", 1300)
    torch.testing.assert_close(statistics(logits, T), whole, rtol=0, atol=1e-6)
