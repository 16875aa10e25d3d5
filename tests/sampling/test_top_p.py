"""Exact top-p against transformers' warper and the definition in float64, by every method."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import TopPLogitsWarper

from hanol.errors import ConfigError, DataError, ShapeError
from hanol.sampling import _top_p, top_p_keep  # private: the threshold alone, at every size

METHODS = ["auto", "sort", "prefilter", "histogram"]
V_LARGE = 151_936


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Any:
    return request.param


def warper_keep(logits_NV: Tensor, top_p_N: Tensor) -> Tensor:
    rows = [
        TopPLogitsWarper(P.item())(None, l_V[None])
        for l_V, P in zip(logits_NV, top_p_N, strict=True)
    ]
    return torch.cat(rows) > -math.inf


def before(logits_NV: Tensor) -> Tensor:
    """Mass of the strictly more likely tokens, of each token, in float64."""
    p_NV = logits_NV.double().softmax(-1)
    sorted_NV, order_NV = logits_NV.double().sort(dim=-1, descending=True, stable=True)
    exclusive_NV = p_NV.gather(1, order_NV).cumsum(-1) - p_NV.gather(1, order_NV)
    first_NV = torch.searchsorted(-sorted_NV, -sorted_NV)  # of a tie
    return torch.zeros_like(p_NV).scatter(1, order_NV, exclusive_NV.gather(1, first_NV))


def definition_keep(logits_NV: Tensor, top_p_N: Tensor) -> Tensor:
    """Ties inclusive; P <= 0 keeps the first of the most likely, P >= 1 everything."""
    keep_NV = before(logits_NV) < top_p_N.double()[:, None]
    for row, P in enumerate(top_p_N.tolist()):
        if P >= 1:
            keep_NV[row] = True
        if P <= 0:
            keep_NV[row] = False
            keep_NV[row, logits_NV[row].argmax()] = True
    return keep_NV


def assert_same(ours_NV: Tensor, theirs_NV: Tensor, logits_NV: Tensor, top_p_N: Tensor) -> None:
    """Equal, but for tokens at which the sum itself is a matter of rounding: at most 3 a row."""
    apart_NV = ours_NV != theirs_NV
    distance_NV = (before(logits_NV) - top_p_N.double()[:, None]).abs()
    assert (distance_NV[apart_NV] < 1e-6).all()
    assert apart_NV.sum(-1).max() <= 3


def zipf(kind: str, N: int, V: int = V_LARGE, seed: int = 0) -> Tensor:
    """Logits over a permuted vocabulary: at P = 0.95 the nucleus is small, medium or nearly all."""
    generator = torch.Generator().manual_seed(seed)
    exponent = {"peaked": 3.0, "medium": 1.25, "flat": 0.4}[kind]
    rows = []
    for _ in range(N):
        ranked_V = -exponent * torch.arange(1, V + 1).log()
        ranked_V += 0.05 * torch.randn(V, generator=generator)
        rows.append(ranked_V[torch.randperm(V, generator=generator)])
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("kind", "smallest", "largest"),
    [("peaked", 1, 30), ("medium", 100, 20_000), ("flat", 50_000, 140_000)],
)
def test_keeps_what_transformers_keeps_at_a_large_vocabulary(
    method: Any, kind: str, smallest: int, largest: int
) -> None:
    logits = zipf(kind, 3)
    top_p = torch.tensor([0.95, 0.9, 0.6])
    keep = top_p_keep(logits, top_p, method)
    theirs = warper_keep(logits, top_p)
    assert smallest <= keep[0].sum() <= largest
    if kind == "flat":
        assert_same(keep, theirs, logits, top_p)
    else:
        assert torch.equal(keep, theirs)
    # In float64 nothing is left to rounding.
    exact = top_p_keep(logits.double(), top_p, method)
    assert torch.equal(exact, definition_keep(logits, top_p))


@pytest.mark.parametrize("V", [1, 2, 5, 33, 2047, 2049, 5000])
def test_keeps_what_transformers_keeps(method: Any, V: int) -> None:
    generator = torch.Generator().manual_seed(V)
    N = 60
    logits = torch.randn(N, V, generator=generator) * torch.linspace(0.05, 12, N)[:, None]
    top_p = torch.rand(N, generator=generator)
    top_p[:3] = torch.tensor([0.0, 1.0, 1e-6])
    keep = top_p_keep(logits, top_p, method)
    assert_same(keep, warper_keep(logits, top_p), logits, top_p)
    assert keep[0].sum() == 1
    assert keep[1].all()
    assert keep[2].sum() == 1


@pytest.mark.parametrize("V", [50, 3000])
def test_a_top_p_beyond_its_range_counts_as_its_bound(method: Any, V: int) -> None:
    logits = zipf("medium", 2, V=V).double()
    top_p = torch.tensor([1.5, -0.5])
    assert top_p_keep(logits, top_p, method).sum(-1).tolist() == [V, 1]
    nearly = torch.tensor([1 - 1e-16, 1e-300], dtype=torch.float64)
    assert top_p_keep(logits, nearly, method).sum(-1).tolist() == [V, 1]


@pytest.mark.parametrize("P", [0.0, 1e-6, 0.3, 0.95, 1 - 1e-6, 1.0])
def test_one_hot_rows(method: Any, P: float) -> None:
    logits = torch.full((2, 3000), -1e4)
    logits[0, 2999] = logits[1, 5] = 3.0
    keep = top_p_keep(logits, torch.full((2,), P), method)
    if P == 1:
        assert keep.all()
    else:
        assert keep.nonzero().tolist() == [[0, 2999], [1, 5]]
        assert torch.equal(keep, warper_keep(logits, torch.full((2,), P)))


@pytest.mark.parametrize("V", [4, 3000])
def test_uniform_rows_are_one_tie(method: Any, V: int) -> None:
    logits = torch.full((5, V), 0.7)
    top_p = torch.tensor([0.0, 1e-6, 0.5, 0.999, 1.0])
    keep = top_p_keep(logits, top_p, method)
    assert keep[0].tolist() == [True] + [False] * (V - 1)
    assert keep[1:].all()


def test_a_tie_at_the_boundary_is_kept_whole(method: Any) -> None:
    # 0.4, three times 0.15, 0.1, 0.05: at P = 0.5 a sort would keep one of the three.
    logits = torch.tensor([0.15, 0.05, 0.4, 0.15, 0.1, 0.15]).log()[None]
    one_at_half = torch.tensor([0.5])
    keep = top_p_keep(logits, one_at_half, method)
    assert keep.tolist() == [[True, False, True, True, False, True]]
    theirs = warper_keep(logits, one_at_half)
    assert theirs.sum() == 2
    assert (keep | ~theirs).all()
    # And one that lies within the nucleus or beyond it is no matter.
    for P in (0.3, 0.9, 0.99):
        top_p = torch.tensor([P])
        assert torch.equal(top_p_keep(logits, top_p, method), warper_keep(logits, top_p))


def test_large_ties_at_a_large_vocabulary(method: Any) -> None:
    """Logits of few distinct values, as from bfloat16 models."""
    logits = zipf("medium", 2).bfloat16()
    top_p = torch.tensor([0.95, 0.5])
    keep = top_p_keep(logits, top_p, method)
    assert torch.equal(keep, definition_keep(logits.float(), top_p))
    theirs = warper_keep(logits.float(), top_p)
    assert (keep | ~theirs).all()
    least = logits.float().masked_fill(~theirs, math.inf).amin(-1, keepdim=True)
    assert (logits.float() == least)[keep & ~theirs].any()
    assert (keep & ~theirs & (logits.float() != least)).sum() == 0


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=80)
@given(
    logits=st.lists(
        st.lists(
            st.one_of(st.floats(-30, 30, width=16), st.sampled_from([-math.inf, 0.0, 1.0])),
            min_size=12, max_size=12,
        ).filter(lambda row: max(row) > -math.inf),
        min_size=1, max_size=4,
    ),
    P=st.one_of(st.floats(-0.5, 1.5), st.sampled_from([0.0, 1e-30, 1e-6, 1.0])),
)  # fmt: skip
def test_hostile_rows_follow_the_definition(method: Any, logits: Any, P: float) -> None:
    logits_NV = torch.tensor(logits, dtype=torch.float64)
    top_p_N = torch.full((len(logits),), P, dtype=torch.float64)
    keep = top_p_keep(logits_NV, top_p_N, method)
    expected = definition_keep(logits_NV, top_p_N)
    apart = keep != expected
    assert ((before(logits_NV) - P).abs()[apart] < 1e-9).all()
    assert keep.any(-1).all()
    # The most likely is always in, whatever is not kept is less likely than whatever is.
    assert keep.gather(1, logits_NV.argmax(-1, keepdim=True)).all()
    least_kept = logits_NV.masked_fill(~keep, math.inf).amin(-1)
    most_dropped = logits_NV.masked_fill(keep, -math.inf).amax(-1)
    if P > 0:
        assert ((most_dropped < least_kept) | keep.all(-1)).all()


def test_more_mass_keeps_more(method: Any) -> None:
    logits = zipf("medium", 1, V=4000).expand(50, -1)
    top_p = torch.linspace(0, 1, 50)
    sizes = top_p_keep(logits, top_p, method).sum(-1)
    assert (sizes.diff() >= 0).all()
    assert sizes[0] == 1
    assert sizes[-1] == 4000
    assert len(sizes.unique()) > 30


def test_columns_of_minus_infinity_change_nothing(method: Any) -> None:
    logits = zipf("medium", 4, V=3000)
    top_p = torch.tensor([0.1, 0.5, 0.9, 0.999])
    padded = torch.nn.functional.pad(logits, (100, 200), value=-math.inf)
    keep = top_p_keep(padded, top_p, method)
    assert torch.equal(keep[:, 100:-200], top_p_keep(logits, top_p, method))
    assert not keep[:, :100].any()
    assert not keep[:, -200:].any()


def test_neighbours_and_a_shift_do_not_matter(method: Any) -> None:
    logits = torch.cat([zipf(kind, 2, V=5000) for kind in ("peaked", "medium", "flat")])
    top_p = torch.tensor([0.3, 0.9, 0.3, 0.9, 0.3, 0.9])
    keep = top_p_keep(logits, top_p, method)
    for row in range(6):
        alone = top_p_keep(logits[row : row + 1], top_p[row : row + 1], method)
        assert torch.equal(alone[0], keep[row])
    assert torch.equal(top_p_keep(logits.double() + 1e3, top_p, method), keep)
    # Slices and transposes of other tensors are rows too, and stay as they are.
    strided = logits.T.contiguous().T
    assert torch.equal(top_p_keep(strided, top_p, method), keep)
    assert torch.equal(strided, logits)


def test_more_rows_than_are_searched_at_a_time(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, top_p = zipf("medium", 7, V=3000), torch.linspace(0.2, 0.99, 7)
    whole = top_p_keep(logits, top_p, method)
    monkeypatch.setattr(_top_p, "_BLOCK", 6001)
    assert torch.equal(top_p_keep(logits, top_p, method), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(method: Any, dtype: torch.dtype) -> None:
    logits = zipf("medium", 2, V=4000).to(dtype)
    top_p = torch.tensor([0.9, 0.5], dtype=dtype)
    expected = top_p_keep(logits.float(), top_p.float(), method)
    assert torch.equal(top_p_keep(logits, top_p, method), expected)


@pytest.mark.parametrize("kind", ["peaked", "medium", "flat"])
def test_the_search_for_accelerators_finds_the_same_cut(kind: str) -> None:
    """It looks at the 1,024 most likely tokens, and sorts the rows for which they are too few."""
    logits = torch.cat([zipf(kind, 3, V=20_000), torch.zeros(1, 20_000)])
    share = torch.tensor([0.2, 0.9, 0.99, 0.5], dtype=torch.float64)
    cut = _top_p._window(logits, logits.amax(-1), share)
    assert torch.equal(logits >= cut[:, None], definition_keep(logits, share))


def test_no_rows(method: Any) -> None:
    assert top_p_keep(torch.zeros(0, 3000), torch.zeros(0), method).shape == (0, 3000)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_named(method: Any, bad: float) -> None:
    logits = torch.zeros(3, 9)
    logits[1, 4] = bad
    with pytest.raises(DataError, match=f"Row 1 of `logits_NV` has the maximum {bad}"):
        top_p_keep(logits, torch.full((3,), 0.9), method)
    with pytest.raises(DataError, match="Row 2 .* the maximum -inf"):
        top_p_keep(
            torch.zeros(3, 9).index_fill(0, torch.tensor([2]), -math.inf), torch.ones(3), method
        )
    with pytest.raises(DataError, match="Row 0 .* the top-p nan"):
        top_p_keep(torch.zeros(3, 9), torch.full((3,), math.nan), method)


def test_wrong_shapes_are_named(method: Any) -> None:
    with pytest.raises(ShapeError, match=r"`top_p_N` \(3,\)"):
        top_p_keep(torch.zeros(2, 5), torch.ones(3), method)
    with pytest.raises(ShapeError, match=r"\(2, 5, 4\)"):
        top_p_keep(torch.zeros(2, 5, 4), torch.ones(2), method)
    with pytest.raises(ShapeError, match=r"\(2, 0\)"):
        top_p_keep(torch.zeros(2, 0), torch.ones(2), method)
    with pytest.raises(ConfigError, match="`method` is 'quick'"):
        top_p_keep(torch.zeros(2, 5), torch.ones(2), "quick")


@pytest.mark.parametrize("method", METHODS)
def test_a_negative_top_p_on_a_flat_row_keeps_one_token(method: Any) -> None:
    logits_NV = 0.1 * torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    keep_NV = top_p_keep(logits_NV, torch.tensor([-0.1, 0.0]), method)
    assert torch.equal(keep_NV.nonzero()[:, 1], logits_NV.argmax(-1))
