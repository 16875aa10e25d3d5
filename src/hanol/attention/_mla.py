"""Multi-head latent attention without positions, in the place of `KimiLinearAttention`.

Two ways to the same result. Expanded: keys and values are made from the latents, then ordinary
attention; right for many new tokens. Absorbed: the key projection moves into the query and the
value projection behind the sum, so that each cached token is read once as it is stored; right for
few new tokens on a long cache.

Shape suffixes: B batch, T new tokens, L cached and new tokens, H heads, N unrotated key width,
P shared key width, Q = N + P, V value width, R latent width.
Source: arXiv 2405.04434, section 2.1; arXiv 2510.26692, section 4.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache
from transformers.models.kimi_linear import modeling_kimi_linear as upstream

from hanol.attention._cache import LatentLayer
from hanol.attention.kda._packing import Packing

# Bounds of what a long prompt on a long cache makes at once: queries that meet a mask, and numbers
# of a mask or of the keys and values of some heads.
_QUERY_BLOCK = 512
_CACHE_BLOCK = 1 << 21


class KimiLinearAttention(upstream.KimiLinearAttention):
    """Multi-head latent attention with a latent cache; parameters are those of transformers."""

    record_max_logit = False  # in training passes, for `qk_clip`
    max_logit_H: Tensor | None = None

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        packing: Packing | None = None,
        *,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Mix tokens, [B, T, D] or [1, N, D] of packed documents.

        The mask is not used: padding has been taken out by the model. transformers 5.23 passes the
        cache as `past_key_values`. The attention weights are returned by the eager implementation
        on unpacked rows that begin their text.
        """
        cache = past_key_values if cache is None else cache
        layer = None if cache is None else cache.layers[self.layer_idx]
        q_BTHQ = self._queries(hidden_states)
        c_BTR, shared_BTP = self.kv_a_proj_with_mqa(hidden_states).split(
            [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1
        )
        latent_BTX = torch.cat([self.kv_a_layernorm(c_BTR), shared_BTP], dim=-1)
        weights = None
        if packing is not None:
            o_BTHV = self._packed(q_BTHQ, latent_BTX, layer, packing)
        elif layer is None:
            o_BTHV, weights = self._expanded(q_BTHQ, latent_BTX)
        elif layer.length:
            o_BTHV = self._continued(q_BTHQ, layer.append(latent_BTX, None), layer.valid_BL)
        else:
            o_BTHV, weights = self._expanded(q_BTHQ, layer.append(latent_BTX, None))
        return self.o_proj(o_BTHV.flatten(2)), weights

    def _queries(self, x_BTD: Tensor) -> Tensor:
        if self.q_lora_rank is None:
            q = self.q_proj(x_BTD)
        else:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD)))
        return q.unflatten(-1, (self.num_heads, self.qk_head_dim))

    def _packed(
        self, q_BTHQ: Tensor, latent_BTX: Tensor, layer: LatentLayer | None, packing: Packing
    ) -> Tensor:
        """Documents one after another; the first of a row goes on from the row's cache."""
        before = 0
        if layer is not None:
            before = layer.length
            is_padded = packing.position_N.numel() < packing.is_real.numel()
            all_BLX = layer.append(
                packing.unpack(latent_BTX), packing.is_real if is_padded else None
            )
        outputs = []
        # Splitting, not slicing: the gradient of each slice would be a row of zeros of its own.
        parts = zip(*(x.split(packing.lengths, dim=1) for x in (q_BTHQ, latent_BTX)), strict=True)
        for d, (q, latent) in enumerate(parts):
            row = packing.row[d]
            if not q.shape[1]:
                continue
            if layer is not None and before and d == packing.first_of_row[row]:
                past_1LX = all_BLX[row : row + 1, :before]
                if layer.valid_BL is not None:
                    past_1LX = past_1LX[:, layer.valid_BL[row, :before]]
                outputs.append(self._continued(q, torch.cat([past_1LX, latent], dim=1), None))
            else:
                outputs.append(self._expanded(q, latent)[0])
        return torch.cat(outputs, dim=1)

    def _continued(self, q_BTHQ: Tensor, all_BLX: Tensor, valid_BL: Tensor | None) -> Tensor:
        """New tokens on a filled cache: the way that costs less."""
        T, L = q_BTHQ.shape[1], all_BLX.shape[1]
        N, V, R = self.qk_nope_head_dim, self.v_head_dim, self.kv_lora_rank
        if T == 1:
            mask = None if valid_BL is None else valid_BL[:, None, None]
            return self._absorbed(q_BTHQ, all_BLX, mask)
        size = min(_QUERY_BLOCK, max(1, _CACHE_BLOCK // L))
        blocks = [slice(start, min(start + size, T)) for start in range(0, T, size)]
        # Expanding costs R (N + V) a cached token and head, absorbing 2 R - N - V more a query.
        extra = 2 * R - N - V
        if extra <= 0 or R * (N + V) / extra >= T:
            outputs = []
            for block in blocks:
                mask = _causal(block, T, all_BLX, valid_BL)
                seen_BLX = all_BLX[:, : mask.shape[-1]]
                outputs.append(self._absorbed(q_BTHQ[:, block], seen_BLX, mask))
            return torch.cat(outputs, dim=1)
        o_BTHV = q_BTHQ.new_empty(*q_BTHQ.shape[:3], V)
        num_heads = max(1, _CACHE_BLOCK // (L * (self.qk_head_dim + V)))
        for first in range(0, self.num_heads, num_heads):
            heads = slice(first, first + num_heads)
            k_BHLQ, v_BHLV = self._expand(all_BLX, heads)
            for block in blocks:
                mask = _causal(block, T, all_BLX, valid_BL)
                q_BHTQ = q_BTHQ[:, block, heads].transpose(1, 2)
                k, v = (x[:, :, : mask.shape[-1]] for x in (k_BHLQ, v_BHLV))
                o = _sdpa(q_BHTQ, k, v, mask, self.scaling, 0.0)
                o_BTHV[:, block, heads] = o.transpose(1, 2)
        return o_BTHV

    def _expand(self, latent_BLX: Tensor, heads: slice | None = None) -> tuple[Tensor, Tensor]:
        """Keys [B, H, L, Q] and values [B, H, L, V] of cached tokens, of some heads or of all."""
        c_BLR, shared_BLP = latent_BLX.split([self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        width = self.qk_nope_head_dim + self.v_head_dim
        if heads is None:
            kv_BLX = self.kv_b_proj(c_BLR)
        else:
            up_HXR = self.kv_b_proj.weight.view(self.num_heads, width, -1)
            kv_BLX = F.linear(c_BLR, up_HXR[heads].flatten(0, 1))
        kv_BHLX = kv_BLX.unflatten(-1, (-1, width)).transpose(1, 2)
        k_nope, v_BHLV = kv_BHLX.split([self.qk_nope_head_dim, self.v_head_dim], dim=-1)
        shared = shared_BLP.unsqueeze(1).expand(-1, k_nope.shape[1], -1, -1)
        return torch.cat([k_nope, shared], dim=-1), v_BHLV

    def _expanded(self, q_BTHQ: Tensor, latent_BTX: Tensor) -> tuple[Tensor, Tensor | None]:
        """Causal attention among the new tokens alone."""
        q_BHTQ = q_BTHQ.transpose(1, 2)
        k_BHTQ, v_BHTV = self._expand(latent_BTX)
        if self.record_max_logit and self.training:
            self._record(q_BHTQ, k_BHTQ)
        dropout = self.attention_dropout if self.training else 0.0
        if self.config._attn_implementation == "eager":
            T = q_BHTQ.shape[2]
            mask = torch.full((T, T), float("-inf"), device=q_BHTQ.device).triu(1)
            scores = (q_BHTQ @ k_BHTQ.transpose(-1, -2)).float() * self.scaling + mask
            weights = F.dropout(scores.softmax(-1).to(q_BTHQ.dtype), dropout, self.training)
            return (weights @ v_BHTV).transpose(1, 2), weights
        o_BHTV = _sdpa(q_BHTQ, k_BHTQ, v_BHTV, None, self.scaling, dropout)
        return o_BHTV.transpose(1, 2), None

    def _absorbed(self, q_BTHQ: Tensor, all_BLX: Tensor, mask: Tensor | None) -> Tensor:
        B, T, H, _ = q_BTHQ.shape
        N, V, R = self.qk_nope_head_dim, self.v_head_dim, self.kv_lora_rank
        up_HNR, up_HVR = self.kv_b_proj.weight.view(H, N + V, R).split([N, V], dim=1)
        q_HXN = q_BTHQ[..., :N].permute(2, 0, 1, 3).reshape(H, B * T, N)
        q_latent_BHTR = torch.bmm(q_HXN, up_HNR).view(H, B, T, R).transpose(0, 1)
        q_shared_BHTP = q_BTHQ[..., N:].transpose(1, 2)
        q_BXY = torch.cat([q_latent_BHTR, q_shared_BHTP], dim=-1).reshape(B, H * T, -1)
        scores = torch.bmm(q_BXY, all_BLX.transpose(1, 2)).view(B, H, T, -1).float() * self.scaling
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        probs_BXL = scores.softmax(-1).to(q_BTHQ.dtype).view(B, H * T, -1)
        o_BXR = torch.bmm(probs_BXL, all_BLX[..., :R])
        o_HXR = o_BXR.view(B, H, T, R).permute(1, 0, 2, 3).reshape(H, B * T, R)
        o_HXV = torch.bmm(o_HXR, up_HVR.transpose(1, 2))
        return o_HXV.view(H, B, T, V).permute(1, 2, 0, 3)

    @torch.no_grad()
    def _record(self, q_BHTQ: Tensor, k_BHTQ: Tensor) -> None:
        T = q_BHTQ.shape[2]
        for start in range(0, T, _QUERY_BLOCK):
            block = q_BHTQ[:, :, start : start + _QUERY_BLOCK].float()
            end = start + block.shape[2]
            scores = block @ k_BHTQ[:, :, :end].float().transpose(-1, -2) * self.scaling
            t = torch.arange(start, end, device=scores.device).unsqueeze(1)
            future = torch.arange(end, device=scores.device) > t
            largest_H = scores.masked_fill(future, float("-inf")).amax(dim=(0, 2, 3))
            known = self.max_logit_H
            self.max_logit_H = largest_H if known is None else torch.maximum(known, largest_H)


def _causal(block: slice, T: int, all_BLX: Tensor, valid_BL: Tensor | None) -> Tensor:
    """Which cached tokens, up to the block's last, this block of the T new tokens sees."""
    before = all_BLX.shape[1] - T
    end, device = before + block.stop, all_BLX.device
    t = torch.arange(block.start, block.stop, device=device).unsqueeze(1)
    mask = (torch.arange(end, device=device) <= t + before)[None, None]
    return mask if valid_BL is None else mask & valid_BL[:, None, None, :end]


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """Attention that never materialises all scores.

    torch's flash path for CPU wants values as wide as keys: they are padded with zeros, which
    leaves the result as it is.
    """
    width = v.shape[-1]
    if q.device.type == "cpu" and width < q.shape[-1]:
        v = F.pad(v, (0, q.shape[-1] - width))
    o = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, dropout_p=dropout
    )
    return o[..., :width]


@torch.no_grad()
def qk_clip(model: torch.nn.Module, tau: float = 100.0) -> int:
    """Rescale query and key projections of heads whose largest logit passed `tau`.

    With gamma = tau / logit, the unrotated rows of queries and keys shrink by sqrt(gamma), the
    query rows that meet the shared key by gamma; the shared key stays. Call it after the optimizer
    step; set `record_max_logit` on the attention layers before the forward pass.

    Args:
        model: Any module with `KimiLinearAttention` layers.
        tau: Largest logit allowed.

    Returns:
        Number of heads that were clipped.

    Source: Kimi K2 technical report, MuonClip (not verified against released code).
    """
    clipped = 0
    for layer in model.modules():
        if not isinstance(layer, KimiLinearAttention) or layer.max_logit_H is None:
            continue
        largest_H = layer.max_logit_H
        layer.max_logit_H = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(largest_H, torch.distributed.ReduceOp.MAX)
        gamma_H = (tau / largest_H).clamp(max=1.0)
        clipped += int((gamma_H < 1).sum())
        if bool((gamma_H == 1).all()):
            continue
        N, V = layer.qk_nope_head_dim, layer.v_head_dim
        q_proj = layer.q_proj if layer.q_lora_rank is None else layer.q_b_proj
        root_H1 = gamma_H.sqrt().unsqueeze(1)
        shared = gamma_H.unsqueeze(1).expand(-1, layer.qk_head_dim - N)
        _scale_rows(q_proj.weight, torch.cat([root_H1.expand(-1, N), shared], dim=1))
        values = torch.ones_like(root_H1).expand(-1, V)
        _scale_rows(layer.kv_b_proj.weight, torch.cat([root_H1.expand(-1, N), values], dim=1))
    return clipped


def _scale_rows(weight: Tensor, scale_HQ: Tensor) -> None:
    column = scale_HQ.reshape(-1, 1).to(weight.dtype)
    if hasattr(weight, "placements"):  # sharded by rows
        from torch.distributed.tensor import distribute_tensor

        column = distribute_tensor(column, weight.device_mesh, weight.placements)  # type: ignore[attr-defined]
    weight.mul_(column)
