"""Kernels compiled by Numba for CPU. Imported through `_backend`, never at import of the package.

Every signature is declared, so nothing is compiled again for other strides; loops run along the
contiguous value width, which LLVM vectorises. One thread, without the interpreter lock and without
Numba's threading layers: those are not safe beside another OpenMP runtime or after a fork.

Shape suffixes: B batch, H value heads, K key width, V value width.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import boolean, float32, njit, void

_EPSILON = np.float32(1e-6)  # inside the root, as in `_inputs.l2norm`


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
