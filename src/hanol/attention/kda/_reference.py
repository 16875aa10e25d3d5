"""The definition of Kimi Delta Attention, one token at a time in float64.

Everything fast in this room is tested against this loop.

Shape suffixes: B batch, T tokens, H value heads, K key width, V value width.
Source: arXiv 2510.26692, equation 1. The decay comes first, then the delta rule.
"""

import torch
from torch import Tensor

from hanol.attention.kda._inputs import Inputs


def reference_kda(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    g_BTHK: Tensor,
    beta_BTH: Tensor,
    *,
    scale: float | None = None,
    initial_state_BHKV: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm: bool = False,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Run the recurrence as it is written, in float64, with plain autograd.

    S' = Diag(exp(g_t)) S;  e = beta_t (v_t - S'^T k_t);  S = S' + k_t e^T;  o_t = S^T q_t * scale.

    Arguments, errors and results are those of `chunk_kda`, except that both results are float64.
    """
    inputs = Inputs.checked(
        q_BTHK, k_BTHK, v_BTHV, g_BTHK, beta_BTH, scale, initial_state_BHKV, use_qk_l2norm,
        cu_seqlens, torch.float64,
    )  # fmt: skip
    outputs, finals = [], []
    for document, (first, last) in enumerate(inputs.documents):
        packed = len(inputs.documents) > 1
        S_BHKV = inputs.state[document : document + 1] if packed else inputs.state
        for t in range(first, last):
            q_BHK, k_BHK, v_BHV = inputs.q[:, t], inputs.k[:, t], inputs.v[:, t]
            S_BHKV = S_BHKV * inputs.g[:, t].exp().unsqueeze(-1)
            predicted_BHV = (S_BHKV * k_BHK.unsqueeze(-1)).sum(-2)
            error_BHV = inputs.beta[:, t].unsqueeze(-1) * (v_BHV - predicted_BHV)
            S_BHKV = S_BHKV + k_BHK.unsqueeze(-1) * error_BHV.unsqueeze(-2)
            outputs.append((S_BHKV * q_BHK.unsqueeze(-1)).sum(-2))
        finals.append(S_BHKV)
    o_BTHV = torch.stack(outputs, dim=1) if outputs else inputs.v
    return o_BTHV, torch.cat(finals) if output_final_state else None
