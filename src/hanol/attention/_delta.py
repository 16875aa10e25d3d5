"""The Kimi Delta Attention layer, in the place of transformers' `KimiLinearDeltaAttention`.

Shape suffixes: B batch, T tokens, D model width, H heads, K key width (the value width too),
C = 3 H K channels of the convolution.
Source: arXiv 2510.26692, section 4.
"""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache
from transformers.models.kimi_linear import modeling_kimi_linear as upstream

from hanol.attention._cache import DeltaStep, KdaState
from hanol.attention._fuse import project
from hanol.attention.kda._conv import short_convolution
from hanol.attention.kda._gate import kda_gate
from hanol.attention.kda._inputs import l2norm
from hanol.attention.kda._kda import chunk_kda, recurrent_kda
from hanol.attention.kda._packing import Packing
from hanol.attention.kda._step import step_

# A prompt passes in pieces of this many tokens: what lies between projection and output stays
# the same size for any length of prompt.
_PIECE = 1024


class KimiLinearForgetGate(upstream.KimiLinearForgetGate):
    """The forget gate with an exact softplus: finite gradients for every input."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Log decay g, [B, T, H, K] in float32."""
        return self.gate(self.f_a_proj(hidden_states))

    def gate(self, low_rank_BTR: Tensor) -> Tensor:
        """The second half of `forward`, from the first projection on."""
        x_BTC = self.f_b_proj(low_rank_BTR)
        return kda_gate(x_BTC.unflatten(-1, (-1, self.head_dim)), self.A_log, self.dt_bias)


class KimiLinearDeltaAttention(upstream.KimiLinearDeltaAttention):
    """Kimi Delta Attention with hanol's operators; the parameters are those of transformers."""

    def forward(
        self,
        hidden_states: Tensor,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        packing: Packing | None = None,
        *,
        cache_params: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Mix tokens, [B, T, D] or [1, N, D] of packed documents.

        The mask is not used: padding has been taken out by the model. transformers 5.23 passes the
        cache as `cache_params`.
        """
        cache = cache_params if cache is None else cache
        state = None if cache is None else cache.layers[self.layer_idx]
        tokens = hidden_states.shape[1] if packing is None else packing.shape[1]
        inference = not torch.is_grad_enabled()
        if packing is not None or not inference or hidden_states.shape[1] <= _PIECE:
            return self._mix(hidden_states, state, packing, tokens)
        carried = state if state is not None else KdaState()
        pieces = hidden_states.split(_PIECE, dim=1)
        mixed = [self._mix(piece, carried, None, piece.shape[1]) for piece in pieces]
        return torch.cat(mixed, dim=1)

    def _mix(
        self, x_BTD: Tensor, state: KdaState | None, packing: Packing | None, tokens: int
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        gate = self.forget_gate
        layers = [self.q_proj, self.k_proj, self.v_proj, gate.f_a_proj, self.g_a_proj, self.b_proj]
        *qkv, f_BTR, gate_BTR, beta_BTH = project(layers, x_BTD)
        qkv_BTC = _joined(qkv)
        window = None if state is None else state.window_BWC
        mixed_BTC, new_window = short_convolution(qkv_BTC, self.conv1d.weight, window, packing)
        q, k, v = (
            x.unflatten(-1, (-1, self.head_dim))
            for x in F.silu(mixed_BTC).split(self.qkv_dim, dim=-1)
        )
        inputs = (q, k, v, gate.gate(f_BTR), torch.sigmoid(beta_BTH.float()))
        if state is not None and state.record_past and (packing is None or len(packing.row) == 1):
            real_T = None if packing is None else packing.is_real[0]
            self._record(state, inputs, qkv_BTC, real_T)
        o_BTHK, final = self._recurrence(inputs, state, packing)
        if state is not None and final is not None:
            state.write(final, new_window, tokens)
        gate_BTHK = self.g_b_proj(gate_BTR).unflatten(-1, (-1, self.head_dim))
        return self.o_proj(self.o_norm(o_BTHK, gate_BTHK).view(B, T, -1))

    def _record(
        self,
        state: KdaState,
        inputs: tuple[Tensor, ...],
        projections_BTC: Tensor,
        real_T: Tensor | None,
    ) -> None:
        """Keep what `crop` needs to take tokens back."""
        q, k, v, g, beta = inputs
        B, _, H, K = q.shape
        before, window = state.state_BHKV, state.window_BWC
        if before is None or window is None:
            before = q.new_zeros(B, H, K, K, dtype=torch.float32)
            window = projections_BTC.new_zeros(B, self.conv_kernel_size - 1, 3 * self.qkv_dim)
        q32, k32 = l2norm(q.float()) * self.head_dim**-0.5, l2norm(k.float())
        state.record(
            DeltaStep(
                before.clone(), window, (q32, k32, v.float(), g, beta), projections_BTC, real_T
            )
        )

    def _recurrence(
        self, inputs: tuple[Tensor, ...], state: KdaState | None, packing: Packing | None
    ) -> tuple[Tensor, Tensor | None]:
        """The operator's output, and the state after the last token where there is a cache."""
        q, k, v, g, beta = inputs
        initial = None if state is None else state.state_BHKV
        inference = not torch.is_grad_enabled()
        if inference and q.shape[1] == 1 and packing is None and initial is not None and q.is_cpu:
            o_BHK, final = step_(
                q[:, 0].float(), k[:, 0].float(), v[:, 0].float(), g[:, 0], beta[:, 0], initial,
                scale=self.head_dim**-0.5, use_qk_l2norm=True,
            )  # fmt: skip
            return o_BHK.unsqueeze(1).to(q.dtype), final
        if packing is not None and initial is not None:
            by_document = initial.new_zeros(len(packing.row), *initial.shape[1:])
            by_document[packing.first_of_row] = initial
            initial = by_document
        form = recurrent_kda if inference and q.shape[1] <= 4 else chunk_kda
        o, last = form(
            q, k, v, g.to(q.dtype) if q.is_cuda else g, beta,
            initial_state_BHKV=initial,
            output_final_state=state is not None,
            use_qk_l2norm=True,
            cu_seqlens=None if packing is None else packing.cu_seqlens,
        )  # fmt: skip
        return o, last if last is None or packing is None else last[packing.last_of_row]


def _joined(parts: list[Tensor]) -> Tensor:
    """The parts side by side; without a copy where they are neighbours already."""
    first = parts[0]
    width = sum(x.shape[-1] for x in parts)
    adjacent = first.stride(-2) > width and all(
        a.data_ptr() + a.shape[-1] * a.element_size() == b.data_ptr()
        for a, b in itertools.pairwise(parts)
    )
    if adjacent and not torch.is_grad_enabled():
        return first.as_strided((*first.shape[:-1], width), first.stride())
    return torch.cat(parts, dim=-1)
