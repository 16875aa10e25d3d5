"""Parts of a decode step, compiled by Numba: products, norms, attention, the delta rule, SwiGLU.

Every row has one new token. Weights are float32, bfloat16 (as uint16), int8 or int4 (two in a
uint8); sums run in float32. Loops run along contiguous widths, which LLVM vectorises; one thread:
a core reads weights nearly as fast as memory gives them.

Shape suffixes: R rows, K input width, N output width, G groups of a row of weights, H heads,
D head width, L tokens.
"""

from typing import Any

import numpy as np
from numba import float32, int32, njit, types, uint32
from numba.extending import intrinsic

from hanol.attention.decode._vectors import dot_of
from hanol.attention.decode._weights import SPAN

# inf and NaN stay exact; sums may be reordered, multiply-adds fused.
_FAST = {"contract", "reassoc"}


def compiled(function: Any) -> Any:
    """A kernel whose machine code is kept on disk, one for each type of weights."""
    try:
        return njit(cache=True, nogil=True, fastmath=_FAST)(function)
    except RuntimeError:  # no folder to cache in: compile once a process
        return njit(nogil=True, fastmath=_FAST)(function)


def _float_of_bits(typing: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), build


_as_float: Any = intrinsic(_float_of_bits)


@compiled
def exp(x: Any) -> Any:
    """e^x in float32 to two units in the last place, without a call, so that loops vectorise."""
    x = min(max(x, float32(-87.0)), float32(88.0))
    n = np.floor(x * float32(1.44269504088896341) + float32(0.5))
    x = x - n * float32(0.693359375) - n * float32(-2.12194440e-4)
    p = float32(1.9875691500e-4)
    p = p * x + float32(1.3981999507e-3)
    p = p * x + float32(8.3334519073e-3)
    p = p * x + float32(4.1665795894e-2)
    p = p * x + float32(1.6666665459e-1)
    p = p * x + float32(5.0000001201e-1)
    p = p * x * x + x + float32(1.0)
    return p * _as_float(uint32((int32(n) + int32(127)) << int32(23)))


# Products of so many rows of inputs with so many rows of weights at once.
_dot_8x2, _dot_4x4, _dot_2x2, _dot_1x1 = dot_of(8, 2), dot_of(4, 4), dot_of(2, 2), dot_of(1, 1)
_dot_8x1, _dot_4x1, _dot_2x1 = dot_of(8, 1), dot_of(4, 1), dot_of(2, 1)


@compiled
def product(weight_NK: Any, scale_NG: Any, x_RK: Any, y_RN: Any) -> None:
    """Y = x W^T, row after row of the weights; K is a multiple of `SPAN`."""
    R, N = len(x_RK), len(weight_NK)
    r = 0
    if R == 8:
        for n in range(0, N - 1, 2):
            _dot_8x2(weight_NK, scale_NG, x_RK, y_RN, n, r)
        if N % 2:
            _dot_8x1(weight_NK, scale_NG, x_RK, y_RN, N - 1, r)
        return
    if R >= 4:
        for n in range(0, N - 3, 4):
            _dot_4x4(weight_NK, scale_NG, x_RK, y_RN, n, r)
        for n in range(N // 4 * 4, N):
            _dot_4x1(weight_NK, scale_NG, x_RK, y_RN, n, r)
        r += 4
    if r + 2 <= R:
        for n in range(0, N - 1, 2):
            _dot_2x2(weight_NK, scale_NG, x_RK, y_RN, n, r)
        if N % 2:
            _dot_2x1(weight_NK, scale_NG, x_RK, y_RN, N - 1, r)
        r += 2
    if r < R:
        for n in range(N):
            _dot_1x1(weight_NK, scale_NG, x_RK, y_RN, n, r)


@compiled
def rms_norm(x_K: Any, weight_K: Any, offset: Any, epsilon: Any, y_K: Any) -> None:
    """Y = (offset + weight) * x / rms(x); the offset is 0, or 1 for weights around 0."""
    K = len(x_K)
    total = float32(0.0)
    for k in range(K):
        total += x_K[k] * x_K[k]
    factor = float32(1.0) / np.sqrt(total / float32(K) + epsilon)
    for k in range(K):
        y_K[k] = x_K[k] * factor * (offset + weight_K[k])


@compiled
def _norm_and_rotate(
    x_D: Any, norm_D: Any, offset: Any, epsilon: Any, cos_D: Any, sin_D: Any
) -> None:
    """Norm of a head, if it has one, and its position, in place."""
    if len(norm_D):
        rms_norm(x_D, norm_D, offset, epsilon, x_D)
    half = len(cos_D) // 2
    for d in range(half):
        a, b = x_D[d], x_D[d + half]
        x_D[d] = a * cos_D[d] - b * sin_D[d]
        x_D[d + half] = b * cos_D[d + half] + a * sin_D[d + half]


@compiled
def before_attention(
    hidden_RK: Any, norm_K: Any, offset: Any, epsilon: Any, weight_NK: Any, scale_NG: Any,
    bias_N: Any, query_norm_D: Any, key_norm_D: Any, cos_RD: Any, sin_RD: Any, heads: Any,
    key_heads: Any, stride: Any, normed_RK: Any, qkv_RHD: Any,
) -> None:  # fmt: skip
    """Queries, keys and values of a layer, side by side: [R, stride * heads + 2 key heads, D].

    With a stride of 2, each head has a gate behind its query.
    """
    R = len(hidden_RK)
    for r in range(R):
        rms_norm(hidden_RK[r], norm_K, offset, epsilon, normed_RK[r])
    qkv_RN = qkv_RHD.reshape(R, -1)
    product(weight_NK, scale_NG, normed_RK, qkv_RN)
    for r in range(R):
        if len(bias_N):
            for n in range(len(bias_N)):
                qkv_RN[r, n] += bias_N[n]
        cos, sin = cos_RD[r], sin_RD[r]
        for h in range(heads):
            _norm_and_rotate(qkv_RHD[r, h * stride], query_norm_D, offset, epsilon, cos, sin)
        for h in range(heads * stride, heads * stride + key_heads):
            _norm_and_rotate(qkv_RHD[r, h], key_norm_D, offset, epsilon, cos, sin)


@compiled
def _scores(
    query_SD: Any, keys: Any, first: Any, key_stride: Any, weight_SL: Any
) -> None:  # fmt: skip
    """Products of some queries with all keys of a head, which begin at `first`."""
    S, D = query_SD.shape
    L = weight_SL.shape[1]
    if key_stride == D and D % SPAN == 0:
        rows = keys[first : first + L * D].reshape(L, D)
        product(rows, np.empty((0, 0), np.float32), query_SD, weight_SL)
        return
    for s in range(S):
        query = query_SD[s]
        for t in range(L):
            key = keys[first + t * key_stride : first + t * key_stride + D]
            total = float32(0.0)
            for d in range(D):
                total += query[d] * key[d]
            weight_SL[s, t] = total


@compiled
def _soften(weight_L: Any, valid_L: Any) -> None:
    """Softmax over the tokens that count, in place."""
    L = len(weight_L)
    if len(valid_L):
        for t in range(L):
            if not valid_L[t]:
                weight_L[t] = float32(-np.inf)
    largest = float32(-np.inf)
    for t in range(L):
        largest = max(largest, weight_L[t])
    total = float32(0.0)
    for t in range(L):
        weight = exp(weight_L[t] - largest)
        weight_L[t] = weight
        total += weight
    if len(valid_L):
        for t in range(L):
            if not valid_L[t]:
                total -= weight_L[t]
                weight_L[t] = float32(0.0)
    factor = float32(1.0) / total
    for t in range(L):
        weight_L[t] *= factor


@compiled
def attend(
    qkv_HD: Any, stride: Any, keys: Any, values: Any, key_strides: Any, value_strides: Any,
    row: Any, valid_L: Any, length: Any, key_heads: Any, scale: Any, out_HD: Any,
) -> None:  # fmt: skip
    """Attention of one row over its keys and values, which lie at strides in flat memory.

    Heads that share keys and values read them together.
    """
    heads, D = out_HD.shape
    S, step = heads // key_heads, value_strides[2]
    query_SD = np.empty((S, D), np.float32)
    weight_SL = np.empty((S, length), np.float32)
    for k in range(key_heads):
        for s in range(S):
            for d in range(D):
                query_SD[s, d] = qkv_HD[(k * S + s) * stride, d] * scale
                out_HD[k * S + s, d] = float32(0.0)
        first = row * key_strides[0] + k * key_strides[1]
        _scores(query_SD, keys, first, key_strides[2], weight_SL)
        for s in range(S):
            _soften(weight_SL[s], valid_L)
        first = row * value_strides[0] + k * value_strides[1]
        for t in range(0, length - 3, 4):
            at = first + t * step
            v0, v1 = values[at : at + D], values[at + step : at + step + D]
            at += 2 * step
            v2, v3 = values[at : at + D], values[at + step : at + step + D]
            for s in range(S):
                w0, w1, w2, w3 = (
                    weight_SL[s, t], weight_SL[s, t + 1], weight_SL[s, t + 2], weight_SL[s, t + 3]
                )  # fmt: skip
                out = out_HD[k * S + s]
                for d in range(D):
                    out[d] += w0 * v0[d] + w1 * v1[d] + w2 * v2[d] + w3 * v3[d]
        for t in range(length // 4 * 4, length):
            at = first + t * step
            value = values[at : at + D]
            for s in range(S):
                weight, out = weight_SL[s, t], out_HD[k * S + s]
                for d in range(D):
                    out[d] += weight * value[d]
    if stride == 2:
        for h in range(heads):
            for d in range(D):
                out_HD[h, d] /= float32(1.0) + exp(-qkv_HD[2 * h + 1, d])


@compiled
def add_product(
    weight_NK: Any, scale_NG: Any, bias_N: Any, x_RK: Any, added_RN: Any, hidden_RN: Any
) -> None:
    """Hidden += x W^T + b."""
    product(weight_NK, scale_NG, x_RK, added_RN)
    R, N = hidden_RN.shape
    for r in range(R):
        for n in range(N):
            hidden_RN[r, n] += added_RN[r, n]
        if len(bias_N):
            for n in range(N):
                hidden_RN[r, n] += bias_N[n]


@compiled
def swiglu(inner_RN: Any, gated_RI: Any) -> None:
    """Silu of the first half times the second."""
    R, half = gated_RI.shape
    for r in range(R):
        for n in range(half):
            gate = inner_RN[r, n]
            gated_RI[r, n] = gate / (float32(1.0) + exp(-gate)) * inner_RN[r, half + n]


@compiled
def mlp(
    hidden_RK: Any, norm_K: Any, offset: Any, epsilon: Any, gate_up_NK: Any,
    gate_up_scale_NG: Any, down_NK: Any, down_scale_NG: Any, normed_RK: Any, added_RK: Any,
    inner_RN: Any, gated_RN: Any,
) -> None:  # fmt: skip
    """SwiGLU; changes the hidden states."""
    for r in range(len(hidden_RK)):
        rms_norm(hidden_RK[r], norm_K, offset, epsilon, normed_RK[r])
    product(gate_up_NK, gate_up_scale_NG, normed_RK, inner_RN)
    swiglu(inner_RN, gated_RN)
    add_product(down_NK, down_scale_NG, norm_K[:0], gated_RN, added_RK, hidden_RK)


@compiled
def after_attention(
    hidden_RK: Any, qkv_RHD: Any, stride: Any, keys: Any, values: Any, key_strides: Any,
    value_strides: Any, valid_RL: Any, length: Any, key_heads: Any, scale: Any,
    out_NK: Any, out_scale_NG: Any, out_bias_N: Any, norm_K: Any, offset: Any, epsilon: Any,
    gate_up_NK: Any, gate_up_scale_NG: Any, down_NK: Any, down_scale_NG: Any,
    normed_RK: Any, mixed_RHD: Any, added_RK: Any, inner_RN: Any, gated_RN: Any,
) -> None:  # fmt: skip
    """The rest of a layer: attention, output projection, SwiGLU; changes the hidden states."""
    R = len(hidden_RK)
    for r in range(R):
        attend(
            qkv_RHD[r], stride, keys, values, key_strides, value_strides, r, valid_RL[r], length,
            key_heads, scale, mixed_RHD[r],
        )  # fmt: skip
    add_product(out_NK, out_scale_NG, out_bias_N, mixed_RHD.reshape(R, -1), added_RK, hidden_RK)
    mlp(
        hidden_RK, norm_K, offset, epsilon, gate_up_NK, gate_up_scale_NG, down_NK, down_scale_NG,
        normed_RK, added_RK, inner_RN, gated_RN,
    )  # fmt: skip


@compiled
def _convolve(x_C: Any, weight_CJ: Any, state_CJ: Any) -> None:
    """One step of the causal convolution with SiLU, in place; the state gets the input."""
    C, J = weight_CJ.shape
    for c in range(C):
        total = weight_CJ[c, J - 1] * x_C[c]
        for j in range(J - 1):
            state_CJ[c, j] = state_CJ[c, j + 1]
            total += weight_CJ[c, j] * state_CJ[c, j]
        state_CJ[c, J - 1] = x_C[c]
        x_C[c] = total
    for c in range(C):
        x_C[c] = x_C[c] / (float32(1.0) + exp(-x_C[c]))


@compiled
def _inverse_length(x_K: Any) -> Any:
    total = float32(0.0)
    for k in range(len(x_K)):
        total += x_K[k] * x_K[k]
    return float32(1.0) / np.sqrt(total + float32(1e-6))


@compiled
def _delta_step(
    query_K: Any, key_K: Any, value_V: Any, decay: Any, strength: Any, state_KV: Any, error_V: Any,
    out_V: Any,
) -> None:  # fmt: skip
    """One token of the delta rule with one decay a head, on the state in place."""
    K, V = state_KV.shape
    query_factor = _inverse_length(query_K) / np.sqrt(float32(K))
    key_factor = _inverse_length(key_K)
    for v in range(V):
        error_V[v] = float32(0.0)
        out_V[v] = float32(0.0)
    for k in range(K):
        key = key_K[k] * key_factor
        row = state_KV[k]
        for v in range(V):
            error_V[v] += key * row[v]
    for v in range(V):
        error_V[v] = strength * (value_V[v] - decay * error_V[v])
    for k in range(K):
        key, query = key_K[k] * key_factor, query_K[k] * query_factor
        row = state_KV[k]
        for v in range(V):
            new = decay * row[v] + key * error_V[v]
            row[v] = new
            out_V[v] += query * new


@compiled
def delta_layer(
    hidden_RK: Any, norm_K: Any, offset: Any, epsilon: Any, in_NK: Any, in_scale_NG: Any,
    convolution_CJ: Any, rate_H: Any, bias_H: Any, key_heads: Any, gated_norm_V: Any,
    window_RCJ: Any, state_RHKV: Any, out_NK: Any, out_scale_NG: Any, norm_after_K: Any,
    gate_up_NK: Any, gate_up_scale_NG: Any, down_NK: Any, down_scale_NG: Any, normed_RK: Any,
    projected_RN: Any, mixed_RN: Any, added_RK: Any, inner_RN: Any, gated_RN: Any,
) -> None:  # fmt: skip
    """A gated delta net layer of Qwen3.5; changes window, state and hidden states.

    Projected are q, k, v, then the output gate, then strength and decay of each head.
    """
    R, H, K, V = state_RHKV.shape
    C = len(convolution_CJ)
    shared = H // key_heads
    error_V = np.empty(V, np.float32)
    for r in range(R):
        rms_norm(hidden_RK[r], norm_K, offset, epsilon, normed_RK[r])
    product(in_NK, in_scale_NG, normed_RK, projected_RN)
    for r in range(R):
        row = projected_RN[r]
        _convolve(row[:C], convolution_CJ, window_RCJ[r])
        for h in range(H):
            at = h // shared * K
            strength = float32(1.0) / (float32(1.0) + np.exp(-row[C + H * V + h]))
            gate = row[C + H * V + H + h] + bias_H[h]
            softplus = gate if gate > float32(20.0) else np.log1p(np.exp(gate))
            decay = np.exp(-np.exp(rate_H[h]) * softplus)
            first = 2 * key_heads * K + h * V
            out = mixed_RN[r, h * V : (h + 1) * V]
            _delta_step(
                row[at : at + K], row[key_heads * K + at : key_heads * K + at + K],
                row[first : first + V], decay, strength, state_RHKV[r, h], error_V, out,
            )  # fmt: skip
            rms_norm(out, gated_norm_V, float32(0.0), epsilon, out)
            for v in range(V):
                z = row[C + h * V + v]
                out[v] *= z / (float32(1.0) + exp(-z))
    add_product(out_NK, out_scale_NG, norm_K[:0], mixed_RN, added_RK, hidden_RK)
    mlp(
        hidden_RK, norm_after_K, offset, epsilon, gate_up_NK, gate_up_scale_NG, down_NK,
        down_scale_NG, normed_RK, added_RK, inner_RN, gated_RN,
    )  # fmt: skip


@compiled
def linear(weight_NK: Any, scale_NG: Any, x_RK: Any, y_RN: Any) -> None:
    """`product` by itself."""
    product(weight_NK, scale_NG, x_RK, y_RN)
