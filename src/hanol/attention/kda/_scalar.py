"""The chunkwise form for one decay a head (gated delta net): less work than one a channel.

With the same symbols as `_chunk`, the decay D_ij = exp(G_i - G_j) of a pair of tokens is a number,
so that the products of a chunk are (q k^T) * D and (k k^T) * D: exact for any gate without blocks,
and shared by the value heads of a key head. What reads the state is scaled after the product, by
exp(G_i).

Shape suffixes: B batch, T tokens, H value heads, K key width, V value width, C chunk, D = 2 C rows
(q, then k), N chunks of a segment, X = N * B * H chunks of value heads, Y = B * H, Z = N * B * key
heads, G value heads a key head.
Source: arXiv 2412.06464, section 3.3.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hanol.attention.kda._blocks import CHUNK, from_here, inverse
from hanol.attention.kda._inputs import without_autocast
from hanol.attention.kda._layout import Layout, chunked, scatter, segments


class _ScalarSegment:
    """N chunks of all heads, with everything that does not depend on the state."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: range
    ) -> None:
        self.v_XCV = chunked(v, chunks)
        self.beta_XC1 = chunked(beta.unsqueeze(-1), chunks)
        self.qk_ZDK = chunked(q, chunks, k)
        self.groups = v.shape[2] // q.shape[2]
        # float64: a float32 running sum loses the small differences after a strong reset.
        G_XC1 = chunked(g.unsqueeze(-1), chunks).cumsum(1, dtype=torch.float64)
        end_X11 = G_XC1[:, -1:]
        self.from_start_XC1, self.to_end_XC1, self.end_X11 = (
            x.to(v.dtype).exp() for x in (G_XC1, end_X11 - G_XC1, end_X11)
        )
        difference_XCC = (G_XC1 - G_XC1.transpose(1, 2)).to(v.dtype)
        # Clamp before exp: an infinity above the diagonal would turn into NaN when masked.
        decay_XCC = difference_XCC.clamp_(max=0.0).exp_().tril_()
        products_ZDC = self.qk_ZDK @ self.qk_ZDK[:, CHUNK:].transpose(1, 2)
        self.decay_X1CC = decay_XCC.unsqueeze(1)
        # q k^T D, then k k^T D.
        products_X2CC = self.of_value_heads(products_ZDC).unflatten(1, (2, CHUNK)) * self.decay_X1CC
        self.query_XCC, self.key_XCC = products_X2CC.unbind(1)
        self.inverse_XCC = inverse(self.key_XCC * self.beta_XC1)
        self.read_XDK = self.of_value_heads(self.qk_ZDK)
        self.key_XCK = self.read_XDK[:, CHUNK:] * self.to_end_XC1

    def of_value_heads(self, x_ZAB: Tensor) -> Tensor:
        """Repeat what key heads have for each of their value heads: [X, A, B]."""
        return x_ZAB if self.groups == 1 else x_ZAB.repeat_interleave(self.groups, dim=0)

    def of_key_heads(self, x_XAB: Tensor) -> Tensor:
        """Add up what the value heads of a key head have: [Z, A, B]."""
        return x_XAB if self.groups == 1 else x_XAB.unflatten(0, (-1, self.groups)).sum(1)


class ChunkScalar(torch.autograd.Function):
    """The chunkwise form; tokens are padded to whole chunks by the caller.

    Inputs q, k [B, T, key heads, K], v [B, T, H, V], g, beta [B, T, H], all of one dtype (float32
    or float64), and states [B, H, K, V], or [documents, H, K, V] when B is 1. The backward keeps
    the inputs and the state at the start of each chunk and computes the rest of a segment again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        initial: Tensor,
        layout: Layout,
    ) -> tuple[Tensor, Tensor]:
        B, T, H, V = v.shape
        K, Y = q.shape[-1], B * H
        o_BTHV = torch.empty_like(v)
        keep = any(ctx.needs_input_grad)
        starts = torch.empty(T // CHUNK, B, H, K, V, dtype=v.dtype) if keep else None
        final = torch.empty_like(initial)
        state_YKV = initial.new_empty(Y, K, V)
        for chunks in segments(T // CHUNK, Y * CHUNK * max(K, V)):
            N = len(chunks)
            seg = _ScalarSegment(q, k, v, g, beta, chunks)
            transform_XCC = seg.inverse_XCC * seg.beta_XC1.transpose(1, 2)
            read, key, end, values, transform, from_start = (
                x.unflatten(0, (N, Y))
                for x in (
                    seg.read_XDK, seg.key_XCK.transpose(1, 2), seg.end_X11, seg.v_XCV,
                    transform_XCC, seg.from_start_XC1,
                )
            )  # fmt: skip
            read_state = torch.empty(N, Y, 2 * CHUNK, V, dtype=v.dtype)
            new_v = torch.empty(N, Y, CHUNK, V, dtype=v.dtype)
            for n, chunk in enumerate(chunks):
                if layout.starts(chunk):
                    state_YKV = layout.rows(chunk, initial, B).reshape(Y, K, V).clone()
                if starts is not None:
                    starts[chunk] = state_YKV.view(B, H, K, V)
                torch.bmm(read[n], state_YKV, out=read_state[n])
                error = torch.addcmul(
                    values[n], read_state[n, :, CHUNK:], from_start[n], value=-1.0
                )
                torch.bmm(transform[n], error, out=new_v[n])
                state_YKV.mul_(end[n]).baddbmm_(key[n], new_v[n])
                if layout.ends(chunk):
                    layout.rows(chunk, final, B).copy_(state_YKV.view(B, H, K, V))
            o_XCV = (read_state.flatten(0, 1)[:, :CHUNK] * seg.from_start_XC1).baddbmm_(
                seg.query_XCC, new_v.flatten(0, 1)
            )
            scatter(o_BTHV, o_XCV, chunks)
        if starts is not None:
            ctx.save_for_backward(q, k, v, g, beta, initial, starts)
        ctx.layout = layout
        return o_BTHV, final

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, do_BTHV: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, beta, initial, starts = ctx.saved_tensors
        layout: Layout = ctx.layout
        B, T, H, V = v.shape
        K, Y = q.shape[-1], B * H
        dq, dk, dv, dg, dbeta = (torch.empty_like(x) for x in (q, k, v, g, beta))
        dinitial = torch.zeros_like(initial)
        dstate_YKV = initial.new_empty(Y, K, V)
        for chunks in reversed(segments(T // CHUNK, Y * CHUNK * max(K, V))):
            N = len(chunks)
            seg = _ScalarSegment(q, k, v, g, beta, chunks)
            start_XKV = starts[chunks.start : chunks.stop].view(N * Y, K, V)
            q_XCK, k_XCK = seg.read_XDK.split(CHUNK, dim=1)
            error_XCV = torch.addcmul(seg.v_XCV, k_XCK @ start_XKV, seg.from_start_XC1, value=-1.0)
            transform_XCC = seg.inverse_XCC * seg.beta_XC1.transpose(1, 2)
            new_v_XCV = transform_XCC @ error_XCV

            do_XCV = chunked(do_BTHV, chunks)
            # Gradients of what q and k read of the state; that of k is minus that of the error.
            dread_XDV = torch.empty(N * Y, 2 * CHUNK, V, dtype=v.dtype)
            torch.mul(do_XCV, seg.from_start_XC1, out=dread_XDV[:, :CHUNK])
            dnew_v_XCV = seg.query_XCC.transpose(1, 2) @ do_XCV
            dstart_XKV = q_XCK.transpose(1, 2) @ dread_XDV[:, :CHUNK]
            dend_XKV = torch.empty_like(start_XKV)
            z_XCV = torch.empty_like(dnew_v_XCV)
            erase_XKC = (k_XCK * (seg.beta_XC1 * seg.from_start_XC1)).transpose(1, 2)
            dnew_v, dstart, dend, z, key, end, solve, erase = (
                x.unflatten(0, (N, Y))
                for x in (
                    dnew_v_XCV, dstart_XKV, dend_XKV, z_XCV, seg.key_XCK, seg.end_X11,
                    seg.inverse_XCC.transpose(1, 2), erase_XKC,
                )
            )  # fmt: skip
            for n, chunk in reversed(list(enumerate(chunks))):
                if layout.ends(chunk):
                    dstate_YKV = layout.rows(chunk, dfinal, B).reshape(Y, K, V).to(v.dtype)
                dend[n] = dstate_YKV
                dnew_v[n].baddbmm_(key[n], dend[n])
                torch.bmm(solve[n], dnew_v[n], out=z[n])
                dstate_YKV = torch.addcmul(dstart[n], dend[n], end[n])
                dstate_YKV.baddbmm_(erase[n], z[n], alpha=-1.0)
                if layout.starts(chunk):
                    layout.rows(chunk, dinitial, B).copy_(dstate_YKV.view(B, H, K, V))

            dv_XCV = z_XCV * seg.beta_XC1
            torch.mul(dv_XCV, seg.from_start_XC1, out=dread_XDV[:, CHUNK:]).neg_()
            dread_XDK = dread_XDV @ start_XKV.transpose(1, 2)
            dkey_XCK = (new_v_XCV @ dend_XKV.transpose(1, 2)).mul_(seg.to_end_XC1)
            # Gradients of the products q k^T D and k k^T D, then of those without D.
            dproducts_X2CC = torch.empty(N * Y, 2, CHUNK, CHUNK, dtype=v.dtype)
            torch.bmm(do_XCV, new_v_XCV.transpose(1, 2), out=dproducts_X2CC[:, 0])
            dlower_XCC = (z_XCV @ new_v_XCV.transpose(1, 2)).neg_().tril_(-1)
            torch.mul(dlower_XCC, seg.beta_XC1, out=dproducts_X2CC[:, 1])
            felt_XCC = dproducts_X2CC[:, 0] * seg.query_XCC
            felt_XCC.addcmul_(dproducts_X2CC[:, 1], seg.key_XCC)
            dproducts_X2CC.mul_(seg.decay_X1CC)
            dproducts_ZDC = seg.of_key_heads(dproducts_X2CC.flatten(1, 2))
            k_ZCK = seg.qk_ZDK[:, CHUNK:]
            dqk_ZDK = seg.of_key_heads(dread_XDK).baddbmm(dproducts_ZDC, k_ZCK)
            dk_ZCK = dqk_ZDK[:, CHUNK:].baddbmm(dproducts_ZDC.transpose(1, 2), seg.qk_ZDK)
            dk_ZCK += seg.of_key_heads(dkey_XCK)
            # A pair of tokens adds to the gradient of G at the later one and subtracts the same
            # at the earlier one; exp(G_i) feels every gate up to i, exp(G_C - G_i) those after i.
            dG_XC = felt_XCC.sum(2, dtype=torch.float64) - felt_XCC.sum(1, dtype=torch.float64)
            both_XD = (seg.read_XDK * dread_XDK).sum(-1)
            dG_XC += both_XD[:, :CHUNK] + both_XD[:, CHUNK:]
            after_XC = (k_XCK * dkey_XCK).sum(-1, dtype=torch.float64)
            dg_XC = from_here(dG_XC) + after_XC.cumsum(1) - after_XC
            dg_XC += (start_XKV * dend_XKV).sum((1, 2)).unsqueeze(1) * seg.end_X11[:, 0]
            dbeta_XC = (dlower_XCC * seg.key_XCC).sum(-1) + (error_XCV * z_XCV).sum(-1)
            for out, x in (
                (dq, dqk_ZDK[:, :CHUNK]), (dk, dk_ZCK), (dv, dv_XCV),
                (dg.unsqueeze(-1), dg_XC.unsqueeze(-1)),
                (dbeta.unsqueeze(-1), dbeta_XC.unsqueeze(-1)),
            ):  # fmt: skip
                scatter(out, x, chunks)
        return dq, dk, dv, dg, dbeta, dinitial, None
