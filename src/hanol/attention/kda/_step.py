"""One token of Kimi Delta Attention on a state that is changed in place: the decode step.

Shape suffixes: B batch, H value heads, K key width, V value width, X = B * H.
"""

import torch
from torch import Tensor

from hanol.attention.kda._backend import numba_kernels
from hanol.attention.kda._inputs import l2norm


def step_(
    q_BHK: Tensor,
    k_BHK: Tensor,
    v_BHV: Tensor,
    g_BHK: Tensor,
    beta_BH: Tensor,
    state_BHKV: Tensor,
    *,
    scale: float = 1.0,
    use_qk_l2norm: bool = False,
) -> tuple[Tensor, Tensor]:
    """`o_BHV` of one token, without autograd, and the state: the same tensor, changed in place.

    The arguments are those of `chunk_kda`. The state is contiguous; all tensors have its dtype.
    """
    if g_BHK.ndim == 2:
        g_BHK = g_BHK.unsqueeze(-1).expand(-1, -1, state_BHKV.shape[2])
    out = torch.empty(v_BHV.shape, dtype=v_BHV.dtype, device=v_BHV.device)
    kernels = numba_kernels()
    if kernels is not None and state_BHKV.dtype == torch.float32 and state_BHKV.is_cpu:
        arrays = (x.numpy() for x in (q_BHK, k_BHK, v_BHV, g_BHK, beta_BH, state_BHKV, out))
        kernels.step(*arrays, scale, use_qk_l2norm)
        return out, state_BHKV
    if use_qk_l2norm:
        q_BHK, k_BHK = l2norm(q_BHK), l2norm(k_BHK)
    if scale != 1.0:
        q_BHK = q_BHK * scale
    B, H, K, V = state_BHKV.shape
    if (shared := H // q_BHK.shape[1]) > 1:
        q_BHK, k_BHK = (x.repeat_interleave(shared, dim=1) for x in (q_BHK, k_BHK))
    with torch.autocast("cpu", enabled=False):
        state_XKV = state_BHKV.view(B * H, K, V)
        state_XKV *= g_BHK.exp().reshape(B * H, K, 1)
        k_X1K = k_BHK.reshape(B * H, 1, K)
        error_X1V = torch.baddbmm(v_BHV.reshape(B * H, 1, V), k_X1K, state_XKV, alpha=-1)
        error_X1V *= beta_BH.reshape(B * H, 1, 1)
        state_XKV.baddbmm_(k_X1K.transpose(1, 2), error_X1V)
        torch.bmm(q_BHK.reshape(B * H, 1, K), state_XKV, out=out.view(B * H, 1, V))
    return out, state_BHKV
