"""The two public forms of Kimi Delta Attention and the choice of the device's kernels.

Shape suffixes: B batch, T tokens, H value heads, K key width, V value width, N packed sequences.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hanol.attention.kda._blocks import CHUNK
from hanol.attention.kda._chunk import ChunkKda
from hanol.attention.kda._inputs import Inputs, without_autocast
from hanol.attention.kda._layout import layout_of
from hanol.attention.kda._scalar import ChunkScalar
from hanol.attention.kda._step import step_
from hanol.errors import require

_ON_CUDA = "Kimi Delta Attention on CUDA"


@without_autocast
def chunk_kda(
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
    """Kimi Delta Attention for prompts and training, in chunks of 64 tokens.

    Args:
        q_BTHK: Queries; q and k may have fewer heads than v (each is shared by consecutive ones).
        k_BTHK: Keys, of unit length unless `use_qk_l2norm`.
        v_BTHV: Values.
        g_BTHK: Log decay of every channel, at most 0 (see `kda_gate`); [B, T, H] is one a head,
            the gated delta rule, which costs less than as many equal channels.
        beta_BTH: Strength of the update, in [0, 1].
        scale: Factor of the queries; None is K ** -0.5.
        initial_state_BHKV: State before the first token, float32; None is zero. With
            `cu_seqlens`, one state per packed sequence, [N, H, K, V].
        output_final_state: Also return the state after the last token.
        use_qk_l2norm: First bring q and k to unit length, x / sqrt(sum(x^2) + 1e-6).
        cu_seqlens: Ends of the sequences packed into one row, [N + 1] integers from 0 to T; the
            state starts anew at each.

    Returns:
        `o_BTHV` in the dtype of `q_BTHK`, and the final state in float32 or None. All sums run in
        float32, or in float64 for float64 inputs.

    Raises:
        ShapeError: An argument does not fit; the message names it.

    Source: arXiv 2510.26692, section 3.
    """
    arguments = (q_BTHK, k_BTHK, v_BTHV, g_BTHK, beta_BTH)
    if q_BTHK.is_cuda:
        kernels = require("fla.ops.kda", extra="gpu", feature=_ON_CUDA)
        return kernels.chunk_kda(
            *arguments, scale=scale, initial_state=initial_state_BHKV,
            output_final_state=output_final_state, use_qk_l2norm_in_kernel=use_qk_l2norm,
            cu_seqlens=cu_seqlens,
        )  # fmt: skip
    is_scalar = g_BTHK.ndim == 3
    inputs = Inputs.checked(
        *arguments, scale, initial_state_BHKV, use_qk_l2norm, cu_seqlens, per_head=is_scalar
    )
    if not any(last > first for first, last in inputs.documents):
        return v_BTHV, inputs.state if output_final_state else None
    layout, token_of_slot = layout_of(inputs.documents)
    tensors = [inputs.q, inputs.k, inputs.v, inputs.g, inputs.beta]
    T = q_BTHK.shape[1]
    if token_of_slot is not None:
        tensors = [x.index_select(1, token_of_slot.clamp(min=0)) for x in tensors]
        real = (token_of_slot >= 0).view(1, -1, 1, 1)
        # k = v = beta = 0 adds nothing and g = 0 keeps: padding leaves the state as it is.
        tensors = [x * (real if x.ndim == 4 else real[..., 0]) for x in tensors]
    elif padding := -T % CHUNK:
        tensors = [F.pad(x, (*([0, 0] * (x.ndim - 2)), 0, padding)) for x in tensors]
    form = ChunkScalar if is_scalar else ChunkKda
    o_BTHV, final = form.apply(*tensors, inputs.state.contiguous(), layout)
    if token_of_slot is not None:
        o_BTHV = o_BTHV[:, token_of_slot >= 0]
    o_BTHV = o_BTHV[:, :T].to(q_BTHK.dtype)
    if not output_final_state:
        return o_BTHV, None
    # A packed sequence without tokens has no chunk; its state stays what it was.
    empty = [last == first for first, last in inputs.documents]
    if any(empty):
        final = torch.where(torch.tensor(empty).view(-1, 1, 1, 1), inputs.state, final)
    return o_BTHV, final


@without_autocast
def recurrent_kda(
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
    """Kimi Delta Attention one token after another: for decoding, a few tokens on a state.

    Arguments, results and errors are those of `chunk_kda`. Gradients flow by plain autograd,
    which keeps every state: use `chunk_kda` to train.
    """
    arguments = (q_BTHK, k_BTHK, v_BTHV, g_BTHK, beta_BTH)
    if q_BTHK.is_cuda:
        kernels = require("fla.ops.kda", extra="gpu", feature=_ON_CUDA)
        return kernels.fused_recurrent_kda(
            *arguments, scale=scale, initial_state=initial_state_BHKV,
            output_final_state=output_final_state, use_qk_l2norm_in_kernel=use_qk_l2norm,
            cu_seqlens=cu_seqlens,
        )  # fmt: skip
    inputs = Inputs.checked(*arguments, scale, initial_state_BHKV, use_qk_l2norm, cu_seqlens)
    tensors = (*arguments, inputs.state)
    keep_graph = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    step = _step if keep_graph else step_
    packed = cu_seqlens is not None
    outputs, finals = [], []
    for document, (first, last) in enumerate(inputs.documents):
        state = inputs.state[document : document + 1] if packed else inputs.state
        state = state if keep_graph else state.clone(memory_format=torch.contiguous_format)
        for t in range(first, last):
            o_BHV, state = step(
                inputs.q[:, t], inputs.k[:, t], inputs.v[:, t], inputs.g[:, t], inputs.beta[:, t],
                state,
            )  # fmt: skip
            outputs.append(o_BHV)
        finals.append(state)
    o_BTHV = torch.stack(outputs, dim=1).to(q_BTHK.dtype) if outputs else v_BTHV
    return o_BTHV, torch.cat(finals) if output_final_state else None


def _step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, g_BHK: Tensor, beta_BH: Tensor, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    state_BHKV = state_BHKV * g_BHK.exp().unsqueeze(-1)
    error_BHV = (v_BHV - (k_BHK.unsqueeze(-2) @ state_BHKV).squeeze(-2)) * beta_BH.unsqueeze(-1)
    state_BHKV = state_BHKV + k_BHK.unsqueeze(-1) * error_BHV.unsqueeze(-2)
    return (q_BHK.unsqueeze(-2) @ state_BHKV).squeeze(-2), state_BHKV
