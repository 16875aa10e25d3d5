"""Checks and preparation of inputs, common to all forms of the operator.

Shape suffixes: B batch, T tokens, H value heads, K key width, V value width, N packed sequences.
"""

from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hanol.errors import ShapeError

_EPSILON = 1e-6  # inside the root, as in the official kernels; not torch.nn.functional.normalize

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def without_autocast(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Disable mixed precision, which would compute products of float32 tensors in bfloat16."""

    @wraps(function)
    def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with torch.autocast("cpu", enabled=False):
            return function(*args, **kwargs)

    return run


class _UnitLength(torch.autograd.Function):
    """`l2norm` with a backward of three passes, a quarter of what autograd's own costs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        factor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().add_(_EPSILON).rsqrt_()
        unit = x * factor
        ctx.save_for_backward(unit, factor)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dunit: Tensor) -> Tensor:
        unit, factor = ctx.saved_tensors
        along = (unit * dunit).sum(-1, keepdim=True)
        return torch.addcmul(dunit, unit, along, value=-1.0).mul_(factor)


def l2norm(x: Tensor) -> Tensor:
    """Scale the last dimension to unit length: x / sqrt(sum(x^2) + 1e-6)."""
    return _UnitLength.apply(x)


class Inputs(NamedTuple):
    """Checked inputs in the dtype of the computation: q scaled; all heads and channels alike.

    That is, q and k are repeated per value head and the gate per channel, unless `per_head` forms
    are asked for, which know how to share.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor
    state: Tensor  # [B, H, K, V], or [N, H, K, V] of packed sequences
    documents: list[tuple[int, int]]  # first and last + 1 token of each packed sequence

    @classmethod
    def checked(
        cls,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        scale: float | None,
        state: Tensor | None,
        use_qk_l2norm: bool,
        cu_seqlens: Tensor | None,
        dtype: torch.dtype | None = None,
        *,
        per_head: bool = False,
    ) -> Self:
        """Check shapes and values, then cast, normalise, scale and repeat.

        `dtype` is that of the computation; None is float64 for float64 inputs, else float32.
        """
        _check(q, k, v, g, beta)
        dtype = dtype or (torch.float64 if q.dtype == torch.float64 else torch.float32)
        B, T, _, K = q.shape
        H, V = v.shape[2:]
        documents = documents_of(cu_seqlens, B, T)
        states = B if cu_seqlens is None else len(documents)
        if state is None:
            if T == 0:
                raise ShapeError(
                    "`q_BTHK` has no tokens (T=0) and `initial_state_BHKV` is None: there is "
                    "nothing to compute. Pass at least one token or a state."
                )
            state = torch.zeros(states, H, K, V, dtype=dtype, device=q.device)
        elif state.shape != (states, H, K, V):
            raise ShapeError(
                f"`initial_state_BHKV` has shape {tuple(state.shape)}, but these inputs need "
                f"{(states, H, K, V)}: one state per sequence."
            )
        elif state.dtype not in (torch.float32, torch.float64):
            raise ShapeError(
                f"`initial_state_BHKV` is {state.dtype}, but the state must stay float32: "
                "it adds up thousands of small updates. Pass `state.float()`."
            )
        q, k, v, g, beta, state = (x.to(dtype) for x in (q, k, v, g, beta, state))
        if use_qk_l2norm:
            q, k = l2norm(q), l2norm(k)
        q = q * (K**-0.5 if scale is None else scale)
        if per_head:
            return cls(q, k, v, g, beta, state, documents)
        if g.ndim == 3:
            g = g.unsqueeze(-1).expand(-1, -1, -1, K)
        if (groups := H // q.shape[2]) > 1:
            q, k = (x.repeat_interleave(groups, dim=2) for x in (q, k))
        return cls(q, k, v, g, beta, state, documents)


def _check(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> None:
    if q.ndim != 4 or k.shape != q.shape:
        raise ShapeError(
            f"`q_BTHK` {tuple(q.shape)} and `k_BTHK` {tuple(k.shape)} must have the same shape "
            "[batch, tokens, heads, key width]."
        )
    B, T, key_heads, K = q.shape
    if v.ndim != 4 or v.shape[:2] != (B, T) or v.shape[2] % key_heads:
        raise ShapeError(
            f"`v_BTHV` has shape {tuple(v.shape)}, but `q_BTHK` {tuple(q.shape)} needs "
            f"[{B}, {T}, a multiple of {key_heads} value heads, value width]."
        )
    H = v.shape[2]
    if g.shape not in ((B, T, H, K), (B, T, H)):
        raise ShapeError(
            f"`g_BTHK` has shape {tuple(g.shape)}, but needs {(B, T, H, K)}: "
            f"one log decay per value head and key channel, or {(B, T, H)}: one per value head."
        )
    if beta.shape != (B, T, H):
        raise ShapeError(
            f"`beta_BTH` has shape {tuple(beta.shape)}, but needs {(B, T, H)}: one per value head."
        )
    for name, x in (("k_BTHK", k), ("v_BTHV", v)):
        if x.dtype != q.dtype:
            raise ShapeError(f"`{name}` is {x.dtype}, but `q_BTHK` is {q.dtype}: cast them alike.")
    # NaN passes: it shows in the outputs, and a trainer names the step of the loss that became one.
    if g.numel() and g.max().item() > 0:
        raise ShapeError(
            f"`g_BTHK` is a log decay and must be at most 0, but reaches {g.max().item()}. "
            "Make it with `kda_gate`, or pass the logarithm of the decay."
        )


def documents_of(cu_seqlens: Tensor | None, B: int, T: int) -> list[tuple[int, int]]:
    """First token and end of each packed sequence; the whole row without `cu_seqlens`."""
    if cu_seqlens is None:
        return [(0, T)]
    if B != 1:
        raise ShapeError(
            f"`cu_seqlens` describes sequences packed into one row, but the batch has {B} rows. "
            "Concatenate the rows along T, or drop `cu_seqlens`."
        )
    if cu_seqlens.ndim != 1 or cu_seqlens.is_floating_point():
        raise ShapeError(
            f"`cu_seqlens` is {cu_seqlens.dtype} of shape {tuple(cu_seqlens.shape)}, but must be "
            "integers of shape [sequences + 1]."
        )
    ends: list[int] = cu_seqlens.tolist()
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != T or sorted(ends) != ends:
        raise ShapeError(
            f"`cu_seqlens` is {ends}, but must rise from 0 to the number of tokens, {T}."
        )
    return list(pairwise(ends))
