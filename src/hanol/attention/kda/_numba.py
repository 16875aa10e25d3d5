"""Kernels compiled by Numba for CPU. Imported through `_backend`, never at import of the package.

Every signature is declared, so nothing is compiled again for other strides; loops run along the
contiguous value width, which LLVM vectorises. One thread, without the interpreter lock and without
Numba's threading layers: those are not safe beside another OpenMP runtime or after a fork.

Shape suffixes: B batch, H value heads, K key width, V value width; those of `_blocks` for pairs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import boolean, float32, float64, int64, njit, void

_EPSILON = np.float32(1e-6)  # inside the root, as in `_inputs.l2norm`
_BLOCK = 16  # as in `_blocks`


def _compiled(*signature: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def compile_(function: Callable[..., None]) -> Callable[..., None]:
        # Reordering sums and fusing multiply-adds is all that is allowed: inf and NaN stay exact.
        allowed = {"contract", "reassoc"}
        try:
            return njit(void(*signature), cache=True, nogil=True, fastmath=allowed)(function)
        except RuntimeError:  # no folder to cache in: compile once a process
            return njit(void(*signature), nogil=True, fastmath=allowed)(function)

    return compile_


@_compiled(
    float32[:, :, :], float32[:, :, :], float32[:, :, :], float32[:, :, :], float32[:, :],
    float32[:, :, :, ::1], float32[:, :, ::1], float32, boolean,
)  # fmt: skip
def step(
    q_BHK: Any, k_BHK: Any, v_BHV: Any, g_BHK: Any, beta_BH: Any,
    state_BHKV: Any, o_BHV: Any, scale: Any, normalize: Any,
) -> None:  # fmt: skip
    """One token of the recurrence; writes the state and the output.

    Reads the state twice and writes it once: the error needs k^T Diag(exp(g)) S before the update.
    """
    B, H, K, V = state_BHKV.shape
    shared = H // q_BHK.shape[1]
    decay_K = np.empty(K, np.float32)
    key_K = np.empty(K, np.float32)
    query_K = np.empty(K, np.float32)
    error_V = np.empty(V, np.float32)
    for b in range(B):
        for h in range(H):
            q_sum = np.float32(0.0)
            k_sum = np.float32(0.0)
            for i in range(K):
                query_K[i] = q_BHK[b, h // shared, i]
                key_K[i] = k_BHK[b, h // shared, i]
                decay_K[i] = np.exp(g_BHK[b, h, i])
                q_sum += query_K[i] * query_K[i]
                k_sum += key_K[i] * key_K[i]
            q_factor = scale
            k_factor = np.float32(1.0)
            if normalize:
                q_factor = scale / np.sqrt(q_sum + _EPSILON)
                k_factor = np.float32(1.0) / np.sqrt(k_sum + _EPSILON)
            for i in range(K):
                query_K[i] *= q_factor
                key_K[i] *= k_factor
            for j in range(V):
                error_V[j] = np.float32(0.0)
            S = state_BHKV[b, h]
            for i in range(K):
                weight = key_K[i] * decay_K[i]
                for j in range(V):
                    error_V[j] += weight * S[i, j]
            o_V = o_BHV[b, h]
            strength = beta_BH[b, h]
            for j in range(V):
                error_V[j] = strength * (v_BHV[b, h, j] - error_V[j])
                o_V[j] = np.float32(0.0)
            for i in range(K):
                decay, key, query = decay_K[i], key_K[i], query_K[i]
                for j in range(V):
                    new = decay * S[i, j] + key * error_V[j]
                    S[i, j] = new
                    o_V[j] += query * new


@_compiled(float32[:, :, ::1], float32[:, :, ::1])
def invert_blocks(lower_XCC: Any, inverse_XCC: Any) -> None:
    """Inverses of the diagonal blocks of I + L, L strictly below the diagonal; row after row."""
    X, C, _ = lower_XCC.shape
    for x in range(X):
        for first in range(0, C, _BLOCK):
            for i in range(first, first + _BLOCK):
                row = inverse_XCC[x, i]
                for j in range(first, i):
                    factor = lower_XCC[x, i, j]
                    for c in range(first, first + _BLOCK):
                        row[c] -= factor * inverse_XCC[x, j, c]
                row[i] = np.float32(1.0)


@_compiled(
    int64[:], int64[:], int64[:], float64[:, :], boolean[:, :],
    float32[:, :, ::1], float32[:, :, ::1], float32[:, :, :, ::1],
)  # fmt: skip
def pairs(
    chunk_P: Any, block_P: Any, channel_P: Any, gate_PS: Any, column_PS: Any,
    q_XCK: Any, k_XCK: Any, diagonal_XMRS: Any,
) -> None:  # fmt: skip
    """Add the exact products of the columns beyond the largest exponent to the diagonal blocks.

    Row after row, each column is decayed by one more step: S exponentials a channel, not S^2.
    """
    size = gate_PS.shape[1]
    column_S = np.empty(size, np.float32)
    for p in range(len(chunk_P)):
        x, m, c = chunk_P[p], block_P[p], channel_P[p]
        column_S[:] = np.float32(0.0)
        found = False
        for i in range(size):
            if found:
                step_decay = np.float32(np.exp(np.float32(gate_PS[p, i] - gate_PS[p, i - 1])))
                for j in range(size):
                    column_S[j] *= step_decay
            query, key = q_XCK[x, m * size + i, c], k_XCK[x, m * size + i, c]
            if column_PS[p, i]:
                found = True
                column_S[i] = key
            if found:
                query_row, key_row = diagonal_XMRS[x, m, i], diagonal_XMRS[x, m, size + i]
                for j in range(size):
                    query_row[j] += query * column_S[j]
                    key_row[j] += key * column_S[j]


@_compiled(
    int64[:], int64[:], int64[:], float64[:, :], boolean[:, :],
    float64[:, :, ::1], float64[:, :, ::1], float64[:, :, :, ::1],
    float64[:, :, :, ::1], float64[:, :, :, ::1], float64[:, :, :, ::1],
)  # fmt: skip
def pairs_backward(
    chunk_P: Any, block_P: Any, channel_P: Any, gate_PS: Any, column_PS: Any,
    q_XCK: Any, k_XCK: Any, ddiagonal_XMRS: Any,
    dq_XMSK: Any, dk_XMSK: Any, dcolumns_XMSK: Any,
) -> None:  # fmt: skip
    """Add the gradients of `pairs`: of its query rows, key rows and columns."""
    size = gate_PS.shape[1]
    decay_S = np.empty(size, np.float64)
    key_S = np.empty(size, np.float64)
    dcolumn_S = np.empty(size, np.float64)
    for p in range(len(chunk_P)):
        x, m, c = chunk_P[p], block_P[p], channel_P[p]
        for j in range(size):
            key_S[j] = k_XCK[x, m * size + j, c]
        decay_S[:] = 0.0
        dcolumn_S[:] = 0.0
        found = False
        for i in range(size):
            if found:
                step_decay = np.exp(gate_PS[p, i] - gate_PS[p, i - 1])
                for j in range(size):
                    decay_S[j] *= step_decay
            if column_PS[p, i]:
                found = True
                decay_S[i] = 1.0
            if found:
                query, key = q_XCK[x, m * size + i, c], key_S[i]
                dquery_row, dkey_row = ddiagonal_XMRS[x, m, i], ddiagonal_XMRS[x, m, size + i]
                dquery, dkey = 0.0, 0.0
                for j in range(size):
                    column = decay_S[j] * key_S[j]
                    dquery += dquery_row[j] * column
                    dkey += dkey_row[j] * column
                    dcolumn_S[j] += decay_S[j] * (query * dquery_row[j] + key * dkey_row[j])
                dq_XMSK[x, m, i, c] += dquery
                dk_XMSK[x, m, i, c] += dkey
        for j in range(size):
            dcolumns_XMSK[x, m, j, c] += dcolumn_S[j]
