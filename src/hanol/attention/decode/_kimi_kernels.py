"""Parts of Kimi-Linear's decode step, compiled by Numba: Kimi Delta Attention, latents, experts.

As in `_kernels`. Shape suffixes: R rows, K model width, N output width, G groups of a row of
weights, H heads, D head width, C channels of a convolution, W its window, Q query width of latent
attention, X width of a latent with its shared key, L tokens, E experts, I inner width.
"""

from typing import Any

import numpy as np
from numba import float32

from hanol.attention.decode._kernels import (
    add_product,
    compiled,
    exp,
    product,
    rms_norm,
    swiglu,
)
from hanol.attention.kda._numba import step

_BLOCK = 32  # latents that every head reads while they are near


@compiled
def _sigmoid(x: Any) -> Any:
    return float32(1.0) / (float32(1.0) + exp(-x))


@compiled
def delta_attention(
    hidden_RK: Any, norm_K: Any, epsilon: Any, in_NK: Any, in_scale_NG: Any, convolution_CJ: Any,
    decay_CD: Any, decay_scale_CG: Any, rate_H: Any, bias_C: Any, gate_CD: Any, gate_scale_CG: Any,
    out_norm_D: Any, out_epsilon: Any, window_RWC: Any, new_RWC: Any, state_RHDD: Any, out_KC: Any,
    out_scale_KG: Any, normed_RK: Any, projected_RN: Any, added_RK: Any,
) -> None:  # fmt: skip
    """Kimi Delta Attention; changes state and hidden states, and writes the next window.

    Projected are q, k, v, then the low ranks of decay and output gate, then the strengths.
    """
    R, H, D, _ = state_RHDD.shape
    W, C, inner = window_RWC.shape[1], window_RWC.shape[2], H * D
    qkv_R3HD = np.empty((R, 3, H, D), np.float32)
    low_2RD = np.empty((2, R, D), np.float32)
    decay_RHD = np.empty((R, H, D), np.float32)
    gate_RC = np.empty((R, inner), np.float32)
    strength_RH = np.empty((R, H), np.float32)
    out_RHD = np.empty((R, H, D), np.float32)
    for r in range(R):
        rms_norm(hidden_RK[r], norm_K, float32(0.0), epsilon, normed_RK[r])
    product(in_NK, in_scale_NG, normed_RK, projected_RN)
    for r in range(R):
        row, qkv_C = projected_RN[r], qkv_R3HD[r].reshape(C)
        for c in range(C):
            qkv_C[c] = convolution_CJ[c, W] * row[c]
        for w in range(W):
            for c in range(C):
                qkv_C[c] += convolution_CJ[c, w] * window_RWC[r, w, c]
        for c in range(C):
            qkv_C[c] *= _sigmoid(qkv_C[c])
            new_RWC[r, W - 1, c] = row[c]
        for w in range(W - 1):
            new_RWC[r, w] = window_RWC[r, w + 1]
        for d in range(D):
            low_2RD[0, r, d] = row[C + d]
            low_2RD[1, r, d] = row[C + D + d]
        for h in range(H):
            strength_RH[r, h] = float32(1.0) / (float32(1.0) + np.exp(-row[C + 2 * D + h]))
    product(decay_CD, decay_scale_CG, low_2RD[0], decay_RHD.reshape(R, inner))
    product(gate_CD, gate_scale_CG, low_2RD[1], gate_RC)
    for r in range(R):
        for h in range(H):
            rate = np.exp(rate_H[h])
            for d in range(D):
                x = decay_RHD[r, h, d] + bias_C[h * D + d]
                softplus = x if x > float32(20.0) else np.log1p(np.exp(x))
                decay_RHD[r, h, d] = -rate * softplus
    scale = float32(1.0) / np.sqrt(float32(D))
    step(
        qkv_R3HD[:, 0], qkv_R3HD[:, 1], qkv_R3HD[:, 2], decay_RHD, strength_RH, state_RHDD,
        out_RHD, scale, True,
    )  # fmt: skip
    for r in range(R):
        for h in range(H):
            out = out_RHD[r, h]
            rms_norm(out, out_norm_D, float32(0.0), out_epsilon, out)
            for d in range(D):
                out[d] *= _sigmoid(gate_RC[r, h * D + d])
    add_product(out_KC, out_scale_KG, norm_K[:0], out_RHD.reshape(R, inner), added_RK, hidden_RK)


@compiled
def before_latents(
    hidden_RK: Any, norm_K: Any, epsilon: Any, low_NK: Any, low_scale_NG: Any, low_norm_N: Any,
    query_NK: Any, query_scale_NG: Any, latent_XK: Any, latent_scale_XG: Any, latent_norm: Any,
    small_epsilon: Any, normed_RK: Any, query_RN: Any, latent_RX: Any,
) -> None:  # fmt: skip
    """Queries, by way of a low rank where there is one, and the latent of the new token."""
    R, rank = len(hidden_RK), len(latent_norm)
    for r in range(R):
        rms_norm(hidden_RK[r], norm_K, float32(0.0), epsilon, normed_RK[r])
    product(latent_XK, latent_scale_XG, normed_RK, latent_RX)
    for r in range(R):
        latent = latent_RX[r, :rank]
        rms_norm(latent, latent_norm, float32(0.0), small_epsilon, latent)
    if len(low_norm_N):
        low_RN = np.empty((R, len(low_norm_N)), np.float32)
        product(low_NK, low_scale_NG, normed_RK, low_RN)
        for r in range(R):
            rms_norm(low_RN[r], low_norm_N, float32(0.0), small_epsilon, low_RN[r])
        product(query_NK, query_scale_NG, low_RN, query_RN)
    else:
        product(query_NK, query_scale_NG, normed_RK, query_RN)


@compiled
def latent_attention(
    hidden_RK: Any, query_RHQ: Any, latents: Any, row_stride: Any, stride: Any, length: Any,
    valid_RL: Any, up_HNR: Any, scale: Any, out_KN: Any, out_scale_KG: Any, mixed_RN: Any,
    added_RK: Any,
) -> None:  # fmt: skip
    """Attention over latents as they are stored, output projection; changes the hidden states.

    The latents of row r and token t begin at r * row_stride + t * stride. `up_HNR` makes keys, then
    values of a head, from the first R numbers of a latent; its last ones are a key that all heads
    share.
    """
    rows, H, Q = query_RHQ.shape
    rank = up_HNR.shape[2]
    V = mixed_RN.shape[1] // H
    N = up_HNR.shape[1] - V
    X = rank + Q - N
    query_HX = np.empty((H, X), np.float32)
    sum_HR = np.empty((H, rank), np.float32)
    largest_H = np.empty(H, np.float32)
    total_H = np.empty(H, np.float32)
    score = np.empty(_BLOCK, np.float32)
    for r in range(rows):
        for h in range(H):
            query = query_HX[h]
            for x in range(rank):
                query[x] = float32(0.0)
                sum_HR[h, x] = float32(0.0)
            for n in range(N):
                factor = query_RHQ[r, h, n] * scale
                up = up_HNR[h, n]
                for x in range(rank):
                    query[x] += factor * up[x]
            for x in range(Q - N):
                query[rank + x] = query_RHQ[r, h, N + x] * scale
            largest_H[h], total_H[h] = float32(-np.inf), float32(0.0)
        for first in range(0, length, _BLOCK):
            count = min(_BLOCK, length - first)
            for h in range(H):
                query, out = query_HX[h], sum_HR[h]
                largest = largest_H[h]
                for t in range(count):
                    at = r * row_stride + (first + t) * stride
                    latent = latents[at : at + X]
                    one = float32(0.0)
                    for x in range(X):
                        one += query[x] * latent[x]
                    if len(valid_RL) and not valid_RL[r, first + t]:
                        one = float32(-np.inf)
                    score[t] = one
                    largest = max(largest, one)
                if largest == float32(-np.inf):
                    continue  # nothing counts so far
                shrink = exp(largest_H[h] - largest)
                if largest_H[h] == float32(-np.inf):
                    shrink = float32(0.0)
                if shrink != float32(1.0):
                    for x in range(rank):
                        out[x] *= shrink
                total = total_H[h] * shrink
                for t in range(count):
                    weight = exp(score[t] - largest)
                    if score[t] == float32(-np.inf):
                        weight = float32(0.0)
                    score[t] = weight
                    total += weight
                largest_H[h], total_H[h] = largest, total
                for t in range(0, count - 3, 4):
                    at = r * row_stride + (first + t) * stride
                    a, b = latents[at : at + rank], latents[at + stride : at + stride + rank]
                    at += 2 * stride
                    c, d = latents[at : at + rank], latents[at + stride : at + stride + rank]
                    s, u, v, w = score[t], score[t + 1], score[t + 2], score[t + 3]
                    for x in range(rank):
                        out[x] += s * a[x] + u * b[x] + v * c[x] + w * d[x]
                for t in range(count // 4 * 4, count):
                    at = r * row_stride + (first + t) * stride
                    latent = latents[at : at + rank]
                    weight = score[t]
                    for x in range(rank):
                        out[x] += weight * latent[x]
        for h in range(H):
            out = sum_HR[h]
            for v in range(V):
                up = up_HNR[h, N + v]
                one = float32(0.0)
                for x in range(rank):
                    one += up[x] * out[x]
                mixed_RN[r, h * V + v] = one / total_H[h]
    add_product(out_KN, out_scale_KG, mixed_RN[0, :0], mixed_RN, added_RK, hidden_RK)


@compiled
def _chosen(score_E: Any, bias_E: Any, groups: Any, kept_groups: Any, chosen: Any) -> None:
    """The experts of the highest biased scores, of the groups whose two best are highest."""
    E = len(score_E)
    size = E // groups
    biased = np.empty(E, np.float32)
    for e in range(E):
        biased[e] = score_E[e] + bias_E[e]
    if kept_groups < groups:
        best = np.empty(groups, np.float32)
        for g in range(groups):
            first, second = float32(-np.inf), float32(-np.inf)
            for e in range(g * size, (g + 1) * size):
                if biased[e] > first:
                    first, second = biased[e], first
                elif biased[e] > second:
                    second = biased[e]
            best[g] = first + second
        for _ in range(groups - kept_groups):
            worst = 0
            for g in range(groups):
                if best[g] <= best[worst]:
                    worst = g
            best[worst] = float32(np.inf)
            for e in range(worst * size, (worst + 1) * size):
                biased[e] = float32(-np.inf)
    for i in range(len(chosen)):
        top = 0
        for e in range(E):
            if biased[e] > biased[top]:
                top = e
        chosen[i] = top
        biased[top] = float32(-np.inf)


@compiled
def experts(
    hidden_RK: Any, norm_K: Any, epsilon: Any, router_EK: Any, bias_E: Any, groups: Any,
    kept_groups: Any, top: Any, normalise: Any, factor: Any, gate_up_ENK: Any, down_EKI: Any,
    shared_NK: Any, shared_scale_NG: Any, shared_down_KI: Any, shared_down_scale_KG: Any,
    normed_RK: Any, added_RK: Any,
) -> None:  # fmt: skip
    """A mixture of experts with shared ones; changes the hidden states."""
    R, K = hidden_RK.shape
    E, inner = len(bias_E), down_EKI.shape[2]
    logit_RE = np.empty((R, E), np.float32)
    inner_1N, gated_1I = np.empty((1, 2 * inner), np.float32), np.empty((1, inner), np.float32)
    shared_RN = np.empty((R, len(shared_NK)), np.float32)
    shared_RI = np.empty((R, len(shared_NK) // 2), np.float32)
    chosen, none = np.empty(top, np.int64), np.empty((0, 0), np.float32)
    for r in range(R):
        rms_norm(hidden_RK[r], norm_K, float32(0.0), epsilon, normed_RK[r])
    product(router_EK, none, normed_RK, logit_RE)
    for r in range(R):
        score_E = logit_RE[r]
        for e in range(E):
            score_E[e] = float32(1.0) / (float32(1.0) + np.exp(-score_E[e]))
        _chosen(score_E, bias_E, groups, kept_groups, chosen)
        total = float32(0.0)
        for e in chosen:
            total += score_E[e]
        for e in chosen:
            weight = score_E[e] * factor
            if normalise:
                weight /= total + float32(1e-20)
            product(gate_up_ENK[e], none, normed_RK[r : r + 1], inner_1N)
            swiglu(inner_1N, gated_1I)
            product(down_EKI[e], none, gated_1I, added_RK[r : r + 1])
            for k in range(K):
                hidden_RK[r, k] += weight * added_RK[r, k]
    product(shared_NK, shared_scale_NG, normed_RK, shared_RN)
    swiglu(shared_RN, shared_RI)
    add_product(
        shared_down_KI, shared_down_scale_KG, norm_K[:0], shared_RI, added_RK, hidden_RK
    )  # fmt: skip
