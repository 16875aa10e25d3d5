"""Kimi Delta Attention against its definition in float64: values, gradients, splits, packing."""

import math
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hanol.attention import chunk_kda, kda_gate, recurrent_kda, reference_kda
from hanol.attention.kda._backend import numba_kernels  # private: which kernels run here
from hanol.attention.kda._blocks import (
    inverse,  # private: one step of the chunked form, against its definition
)
from hanol.attention.kda._inputs import (
    l2norm,  # private: the norm of the reference, against its definition
)
from hanol.errors import MissingExtraError, ShapeError

from .conftest import use_torch

# Unit-length keys, values of unit variance: float32 sums of at most 200 terms stay below this.
TOLERANCE = 2e-6


def inputs(
    T: int, *, B: int = 1, H: int = 2, K: int = 16, V: int = 16, HV: int | None = None,
    gate: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float32, per_head: bool = False,
) -> list[Tensor]:  # fmt: skip
    """q, k, v, g, beta; a third of the gates are exactly 0 and betas 0 and 1 occur."""
    rng = torch.Generator().manual_seed(seed)
    HV = HV or H
    q, k = (torch.randn(B, T, H, K, generator=rng, dtype=dtype) for _ in range(2))
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    v = torch.randn(B, T, HV, V, generator=rng, dtype=dtype)
    g = -gate * torch.rand(B, T, HV, K, generator=rng, dtype=dtype)
    g = g * (torch.rand(B, T, HV, K, generator=rng) > 0.33)
    beta = torch.rand(B, T, HV, generator=rng, dtype=dtype).mul(1.4).sub(0.2).clamp(0, 1)
    return [q, k, v, g[..., 0].contiguous() if per_head else g, beta]


def state(B: int, H: int, K: int, V: int, seed: int = 1) -> Tensor:
    return torch.randn(B, H, K, V, generator=torch.Generator().manual_seed(seed))


def worst(a: Tensor | None, b: Tensor | None) -> float:
    assert a is not None
    assert b is not None
    assert a.isfinite().all()
    return (a.double() - b.double()).abs().max().item() if a.numel() else 0.0


FORMS = pytest.mark.parametrize("form", [chunk_kda, recurrent_kda], ids=["chunk", "recurrent"])
GATES = pytest.mark.parametrize("per_head", [False, True], ids=["channels", "heads"])


@GATES
@FORMS
@pytest.mark.parametrize("gate", [1.0, 10.0, 80.0, 1000.0], ids="g={}".format)
@pytest.mark.parametrize("T", [1, 2, 15, 16, 17, 63, 64, 65, 128, 130, 200], ids="T={}".format)
def test_matches_definition(backend: str, form, T: int, gate: float, per_head: bool) -> None:
    tensors = inputs(T, B=2, H=2, HV=4, K=24, V=16, gate=gate, seed=T, per_head=per_head)
    for initial in (None, state(2, 4, 24, 16)):
        options = {"initial_state_BHKV": initial, "output_final_state": True}
        o, final = form(*tensors, **options)
        o_ref, final_ref = reference_kda(*tensors, **options)
        assert final.dtype == torch.float32
        assert worst(o, o_ref) <= TOLERANCE
        assert worst(final, final_ref) <= TOLERANCE


@given(st.integers(1, 200), st.integers(0, 10_000), st.sampled_from([0.5, 30.0, 300.0]))
@settings(max_examples=25, deadline=None)
def test_matches_definition_at_any_length(T: int, seed: int, gate: float) -> None:
    tensors = inputs(T, gate=gate, seed=seed)
    assert worst(chunk_kda(*tensors)[0], reference_kda(*tensors)[0]) <= TOLERANCE


@GATES
@pytest.mark.parametrize("gate", [1.0, 80.0, 1000.0], ids="g={}".format)
@pytest.mark.parametrize("T", [1, 63, 100], ids="T={}".format)
def test_gradients_match_definition(backend: str, T: int, gate: float, per_head: bool) -> None:
    tensors = [
        *inputs(T, B=2, HV=4, K=12, V=20, gate=gate, seed=T, per_head=per_head),
        state(2, 4, 12, 20),
    ]

    def gradients(form, dtype: torch.dtype) -> tuple[Tensor, ...]:
        *leaves, initial = [x.to(dtype).requires_grad_() for x in tensors]
        o, final = form(
            *leaves, initial_state_BHKV=initial, output_final_state=True, use_qk_l2norm=True
        )
        rng = torch.Generator().manual_seed(9)
        loss = sum(
            (x * torch.randn(x.shape, generator=rng, dtype=torch.float64)).sum()
            for x in (o.double(), final.double())
        )
        return torch.autograd.grad(loss, [*leaves, initial])

    expected = gradients(reference_kda, torch.float64)
    for form in (chunk_kda, recurrent_kda):
        for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            for mine, theirs in zip(gradients(form, dtype), expected, strict=True):
                assert mine.isfinite().all()
                assert (mine - theirs).norm() <= bound * theirs.norm() + 1e-12


@GATES
def test_gradcheck(per_head: bool) -> None:
    leaves = [
        x.requires_grad_()
        for x in inputs(70, H=1, K=3, V=2, dtype=torch.float64, per_head=per_head)
    ]
    initial = state(1, 1, 3, 2).double().requires_grad_()

    def run(*x: Tensor) -> tuple[Tensor, ...]:
        return chunk_kda(*x[:5], initial_state_BHKV=x[5], output_final_state=True)

    # Gates of exactly 0 sit on the border of the domain: move them inside for finite differences.
    with torch.no_grad():
        leaves[3] -= 0.01
    assert torch.autograd.gradcheck(run, (*leaves, initial), fast_mode=True)


@pytest.mark.parametrize("share", [0.05, 1.0], ids="share={}".format)
def test_compiled_pairs_equal_torch(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    if numba_kernels() is None:
        pytest.skip("Numba is not installed, or HANOL_NUMBA=0 turns it off")
    q, k, v, g, beta = inputs(150, B=2, K=32, gate=60.0)
    g = g * (torch.rand(32, generator=torch.Generator().manual_seed(2)) < share)
    leaves = [x.requires_grad_() for x in (q, k, v, g, beta)]

    def run() -> tuple[Tensor, ...]:
        o, _ = chunk_kda(*leaves)
        return o, *torch.autograd.grad(o.square().sum(), leaves)

    compiled = run()
    use_torch(monkeypatch)
    plain = run()
    for mine, theirs in zip(compiled, plain, strict=True):
        assert (mine - theirs).norm() <= 1e-6 * theirs.norm()


@GATES
@pytest.mark.parametrize("segment", [1, 1 << 10, 1 << 20])
def test_segments_do_not_change_the_result(segment: int, monkeypatch, per_head: bool) -> None:
    tensors = [x.requires_grad_() for x in inputs(300, B=2, per_head=per_head)]
    expected = torch.autograd.grad(chunk_kda(*tensors)[0].square().sum(), tensors)
    monkeypatch.setattr("hanol.attention.kda._layout._SEGMENT_ELEMENTS", segment)
    found = torch.autograd.grad(chunk_kda(*tensors)[0].square().sum(), tensors)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@GATES
def test_fresh_memory_is_never_read(monkeypatch, per_head: bool) -> None:
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        tensors = [x.requires_grad_() for x in inputs(130, gate=100.0, per_head=per_head)]
        o, final = chunk_kda(*tensors, output_final_state=True)
        gradients = torch.autograd.grad(o.sum() + final.sum(), tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(x.isfinite().all() for x in (o, final, *gradients))


@GATES
@pytest.mark.parametrize("n", range(71))
def test_any_split_equals_one_pass(n: int, per_head: bool) -> None:
    tensors = inputs(75, B=2, gate=5.0, per_head=per_head)
    whole, final = chunk_kda(*tensors, output_final_state=True)
    pieces, carried = [], torch.zeros(2, 2, 16, 16)
    for form, part in (
        (chunk_kda, slice(0, n)),
        (chunk_kda, slice(n, 73)),
        (recurrent_kda, slice(73, 75)),
    ):
        o, carried = form(
            *(x[:, part] for x in tensors), initial_state_BHKV=carried, output_final_state=True
        )
        pieces.append(o)
    assert worst(torch.cat(pieces, dim=1), whole) <= 5e-6
    assert worst(carried, final) <= 5e-6


@GATES
@pytest.mark.parametrize("gate", [0.3, 50.0], ids="g={}".format)
@pytest.mark.parametrize("t", [1, 16, 40, 64, 100])
def test_no_output_depends_on_a_later_token(
    backend: str, t: int, gate: float, per_head: bool
) -> None:
    tensors = inputs(140, gate=gate, per_head=per_head)
    before = chunk_kda(*tensors)[0][:, :t]
    changed = [x.clone() for x in tensors]
    for x, other in zip(changed, inputs(140, gate=900.0, seed=5, per_head=per_head), strict=True):
        x[:, t:] = other[:, t:]
    assert torch.equal(chunk_kda(*changed)[0][:, :t], before)


def test_equal_gates_are_the_gated_delta_rule() -> None:
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    q, k, v, g, beta = inputs(100, B=2)
    g = g[..., :1].expand_as(g)
    theirs, their_state = torch_chunk_gated_delta_rule(
        q, k, v, g=g[..., 0], beta=beta, output_final_state=True, initial_state=None
    )
    mine, my_state = chunk_kda(q, k, v, g, beta, output_final_state=True)
    assert worst(mine, theirs) <= TOLERANCE
    assert worst(my_state, their_state) <= TOLERANCE


def test_without_gate_it_is_the_delta_rule_and_without_beta_a_decayed_read() -> None:
    q, k, v, g, beta = inputs(90)
    S = torch.zeros(16, 16, dtype=torch.float64)
    rows = []
    for t in range(90):
        key, value = k[0, t, 0].double(), v[0, t, 0].double()
        S = S - beta[0, t, 0].double() * torch.outer(key, key @ S - value)
        rows.append(q[0, t, 0].double() @ S / 4)
    delta = chunk_kda(q, k, v, torch.zeros_like(g), beta)[0][0, :, 0]
    assert worst(delta, torch.stack(rows)) <= TOLERANCE

    initial = state(1, 2, 16, 16)
    read, _ = chunk_kda(q, k, v, g, torch.zeros_like(beta), initial_state_BHKV=initial)
    decayed = q.double() * g.double().cumsum(1).exp() / 4
    assert worst(read, torch.einsum("bthk,bhkv->bthv", decayed, initial.double())) <= TOLERANCE


@GATES
def test_heads_and_rows_are_independent(per_head: bool) -> None:
    tensors = inputs(80, B=3, H=4, per_head=per_head)
    o = chunk_kda(*tensors)[0]
    heads, rows = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    torch.testing.assert_close(
        chunk_kda(*(x[rows][:, :, heads] for x in tensors))[0],
        o[rows][:, :, heads],
        rtol=0,
        atol=1e-6,
    )


def test_l2norm_has_its_epsilon_inside_the_root() -> None:
    q, k, v, g, beta = inputs(20)
    q, k = q * 1e-3, k * 7
    unit = [x.double() / (x.double().square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k)]
    expected = reference_kda(*unit, *(x.double() for x in (v, g, beta)))[0]
    for form in (chunk_kda, recurrent_kda, reference_kda):
        assert worst(form(q, k, v, g, beta, use_qk_l2norm=True)[0], expected) <= TOLERANCE


def test_gradient_of_the_norm() -> None:
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    x[1] *= 1e-4  # where the epsilon counts
    assert torch.autograd.gradcheck(l2norm, x.requires_grad_(), eps=1e-7)


@GATES
@FORMS
@pytest.mark.parametrize("lengths", [[5, 64, 1, 130], [200], [0, 70, 0, 3], [64, 64]], ids=str)
def test_packed_equals_separate(form, lengths: list[int], per_head: bool) -> None:
    tensors = [x.requires_grad_() for x in inputs(sum(lengths), gate=3.0, per_head=per_head)]
    initial = state(len(lengths), 2, 16, 16).requires_grad_()
    ends = torch.tensor([0, *lengths]).cumsum(0)
    o, final = form(*tensors, initial_state_BHKV=initial, output_final_state=True, cu_seqlens=ends)
    outputs, finals = [], []
    for i, (first, last) in enumerate(pairwise(ends)):
        alone = [x[:, first:last] for x in tensors]
        if last > first:
            one, end = form(*alone, initial_state_BHKV=initial[i : i + 1], output_final_state=True)
            outputs.append(one)
        else:
            end = initial[i : i + 1]
        finals.append(end)
    assert worst(o, torch.cat(outputs, 1)) <= 1e-6
    assert worst(final, torch.cat(finals)) <= 1e-6
    loss = o.square().sum() + final.square().sum()
    separate = torch.cat(outputs, 1).square().sum() + torch.cat(finals).square().sum()
    for a, b in zip(
        torch.autograd.grad(loss, [*tensors, initial]),
        torch.autograd.grad(separate, [*tensors, initial]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@GATES
@FORMS
def test_bfloat16_computes_in_float32(form, per_head: bool) -> None:
    tensors = [x.bfloat16() for x in inputs(100, per_head=per_head)]
    o, final = form(*tensors, output_final_state=True)
    assert o.dtype == torch.bfloat16
    assert final.dtype == torch.float32
    expected, expected_final = reference_kda(*tensors, output_final_state=True)
    assert worst(final, expected_final) <= TOLERANCE
    torch.testing.assert_close(o, expected.bfloat16(), rtol=8e-3, atol=1e-6)


def test_gate_is_the_softplus_form_and_its_gradient_is_finite() -> None:
    x = torch.linspace(-200, 200, 801).view(1, -1, 1, 1).requires_grad_()
    A_log = torch.tensor([math.log(16.0)]).requires_grad_()
    dt_bias = torch.tensor([0.5]).requires_grad_()
    g = kda_gate(x, A_log, dt_bias)
    exact = -16.0 * torch.logaddexp(x.double() + 0.5, torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(g.double(), exact, rtol=2e-6, atol=1e-30)
    gradients = torch.autograd.grad(g.sum(), [x, A_log, dt_bias])
    assert all(grad.isfinite().all() for grad in gradients)


# With pre-activations of +-200 nearly every channel is reset at every step: what is left of the
# gradient is 1e-3 of the terms it is the difference of, and float32 keeps three digits of its sum.
@pytest.mark.parametrize(("spread", "bound"), [(3.0, 1e-5), (60.0, 1e-3)])
def test_gradients_through_gate_and_operator_match_float64(spread: float, bound: float) -> None:
    q, k, v, _, beta = inputs(90)
    x = torch.randn(1, 90, 2, 16, generator=torch.Generator().manual_seed(3)) * spread

    def gradients(form, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [y.to(dtype).requires_grad_() for y in (x, torch.ones(2), torch.zeros(2, 16))]
        o, _ = form(*(y.to(dtype) for y in (q, k, v)), kda_gate(*leaves), beta.to(dtype))
        return torch.autograd.grad(o.square().sum(), leaves)

    for a, b in zip(
        gradients(chunk_kda, torch.float32), gradients(reference_kda, torch.float64), strict=True
    ):
        assert a.isfinite().all()
        assert (a - b).norm() <= bound * b.norm()


def test_bounded_gate_stays_above_its_bound() -> None:
    x = torch.randn(1, 50, 2, 8, generator=torch.Generator().manual_seed(0)) * 50
    g = kda_gate(x, torch.zeros(2), torch.zeros(2, 8), lower_bound=-5.0)
    torch.testing.assert_close(g, -5.0 * torch.sigmoid(x))
    with pytest.raises(ShapeError, match="`lower_bound` is 1"):
        kda_gate(x, torch.zeros(2), torch.zeros(2, 8), lower_bound=1.0)


@GATES
@FORMS
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_mixed_precision_stays_outside(backend: str, form, grad: bool, per_head: bool) -> None:
    tensors = [x.requires_grad_(grad) for x in inputs(70, per_head=per_head)]

    def run(mixed: bool) -> list[Tensor]:
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed)
        with autocast:
            o, final = form(*tensors, output_final_state=True, use_qk_l2norm=True)
        # Plain autograd replays what the recurrent form did, so its backward belongs outside.
        with autocast if form is chunk_kda else nullcontext():
            loss = o.square().sum() + final.sum()
            return [o, final, *(torch.autograd.grad(loss, tensors) if grad else ())]

    expected, found = run(False), run(True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@GATES
def test_a_second_derivative_is_refused(per_head: bool) -> None:
    tensors = [x.requires_grad_() for x in inputs(20, per_head=per_head)]
    (gradient,) = torch.autograd.grad(
        chunk_kda(*tensors)[0].square().sum(), tensors[:1], create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@GATES
@FORMS
def test_strides_do_not_matter(backend: str, form, per_head: bool) -> None:
    tensors = inputs(70, B=2, per_head=per_head)
    initial = state(2, 2, 16, 16)
    expected = form(*tensors, initial_state_BHKV=initial, output_final_state=True)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in tensors]
    found = form(*strided, initial_state_BHKV=initial.mT.contiguous().mT, output_final_state=True)
    for a, b in zip(found, expected, strict=True):
        assert worst(a, b) <= 1e-6


@FORMS
def test_errors_name_the_argument(form) -> None:
    q, k, v, g, beta = inputs(8, B=2)
    with pytest.raises(ShapeError, match="`g_BTHK` is a log decay.*at most 0"):
        form(q, k, v, -g + 0.1, beta)
    with pytest.raises(ShapeError, match="`v_BTHV` has shape.*multiple of 2 value heads"):
        form(q, k, v[:, :, :1].expand(2, 8, 3, 16), g, beta)
    with pytest.raises(ShapeError, match="`k_BTHK`"):
        form(q, k[..., :8], v, g, beta)
    with pytest.raises(
        ShapeError, match="`v_BTHV` is torch.bfloat16, but `q_BTHK` is torch.float32"
    ):
        form(q, k, v.bfloat16(), g, beta)
    with pytest.raises(ShapeError, match="`beta_BTH` has shape"):
        form(q, k, v, g, beta[:, :4])
    with pytest.raises(ShapeError, match="`g_BTHK` has shape"):
        form(q, k, v, g[..., :4], beta)
    with pytest.raises(ShapeError, match="`initial_state_BHKV` is torch.bfloat16"):
        form(q, k, v, g, beta, initial_state_BHKV=torch.zeros(2, 2, 16, 16).bfloat16())
    with pytest.raises(ShapeError, match="`initial_state_BHKV` has shape"):
        form(q, k, v, g, beta, initial_state_BHKV=torch.zeros(1, 2, 16, 16))
    with pytest.raises(ShapeError, match="`cu_seqlens`.*2 rows"):
        form(q, k, v, g, beta, cu_seqlens=torch.tensor([0, 8]))
    one = [x[:1] for x in (q, k, v, g, beta)]
    for ends in ([0, 5], [0, 6, 4, 8], [1, 8], [8]):
        with pytest.raises(ShapeError, match="must rise from 0 to the number of tokens, 8"):
            form(*one, cu_seqlens=torch.tensor(ends))
    with pytest.raises(ShapeError, match="`cu_seqlens` is torch.float32.*must be integers"):
        form(*one, cu_seqlens=torch.tensor([0.0, 8.0]))
    empty = [x[:, :0] for x in (q, k, v, g, beta)]
    with pytest.raises(ShapeError, match="no tokens"):
        form(*empty)
    o, final = form(*empty, initial_state_BHKV=state(2, 2, 16, 16), output_final_state=True)
    assert o.shape == (2, 0, 2, 16)
    assert torch.equal(final, state(2, 2, 16, 16))


def test_inverse_reads_only_the_strict_lower_triangle() -> None:
    rng = torch.Generator().manual_seed(0)
    k = torch.randn(3, 64, 8, generator=rng, dtype=torch.float64)
    k = k / k.norm(dim=-1, keepdim=True)
    lower = (k @ k.transpose(1, 2)).tril(-1)
    found = inverse(lower + torch.full((64, 64), torch.nan).triu())
    identity = torch.eye(64, dtype=torch.float64)
    torch.testing.assert_close(found @ (identity + lower), identity.expand(3, 64, 64))
    assert found.abs().max() <= 1


def test_memory_grows_with_tokens_and_not_with_their_square() -> None:
    from torch.profiler import ProfilerActivity, profile

    def peak(T: int) -> int:
        tensors = inputs(T)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            chunk_kda(*tensors)
        held = most = 0
        for event in profiled.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                most = max(most, held)
        return most

    # A segment of 4096 tokens of these sizes is one tensor of 2^18 elements at most.
    short, long = peak(16384), peak(32768)
    grown = (long - short) / (16384 * 2 * 16 * 4)  # in tensors of the 16384 tokens added
    assert 0 < grown <= 8


def test_on_cuda_the_kernels_of_fla_get_the_arguments(monkeypatch) -> None:
    monkeypatch.setattr(Tensor, "is_cuda", True)
    tensors = tuple(inputs(4))
    if find_spec("fla") is None:
        with pytest.raises(MissingExtraError, match="hanol\\[gpu\\]"):
            recurrent_kda(*tensors)
    kernels = ModuleType("fla.ops.kda")
    kernels.chunk_kda = lambda *args, **options: (args, options)
    for name, module in {"fla": ModuleType("fla"), "fla.ops": ModuleType("fla.ops")}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "fla.ops.kda", kernels)
    args, options = chunk_kda(*tensors, scale=0.5, output_final_state=True, use_qk_l2norm=True)
    assert args == tensors
    assert options == {
        "scale": 0.5,
        "initial_state": None,
        "output_final_state": True,
        "use_qk_l2norm_in_kernel": True,
        "cu_seqlens": None,
    }
