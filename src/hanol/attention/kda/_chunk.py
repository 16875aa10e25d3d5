"""Chunkwise Kimi Delta Attention for CPU: blocked PyTorch with its own backward.

The sequence is cut into chunks of C = 64 tokens. With S the state at the start of a chunk and
E = exp(G) the decay from there, all of a chunk is

    V' = T (v - (k E) S)                    T = (I + stril(beta K))^-1 diag(beta)
    O  = (q E) S + tril(Q) V'               Q, K: decayed products of q and k with k (`_blocks`)
    S <- diag(E_C) S + (k E_C / E)^T V'

which is arXiv 2510.26692, section 3.2, with the two right-hand sides of its solve joined: only
T, Q and K are computed for all chunks at once, the rest walks from chunk to chunk.

Shape suffixes: B batch, T tokens, H value heads, K key width, V value width, C chunk, N chunks of
a segment, X = N * B * H chunks in parallel, Y = B * H.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hanol.attention.kda._blocks import (
    CHUNK,
    decay_of,
    from_here,
    inverse,
    products,
    products_backward,
)
from hanol.attention.kda._inputs import without_autocast
from hanol.attention.kda._layout import Layout, chunked, scatter, segments


class _Segment:
    """N chunks of all heads, with everything that does not depend on the state."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunks: range
    ) -> None:
        self.q_XCK, self.k_XCK, self.v_XCV = (chunked(x, chunks) for x in (q, k, v))
        self.beta_XC1 = chunked(beta.unsqueeze(-1), chunks)
        self.decay = decay_of(chunked(g, chunks))
        self.products = products(self.q_XCK, self.k_XCK, self.decay)
        rows_XMRK, from_start = self.products.rows_XMRK, self.decay.from_start_XM1K
        X, M, _, K = rows_XMRK.shape
        # q E, then k E: what reads the state at the start of the chunk.
        self.read_XDK = torch.empty(X, 2 * CHUNK, K, dtype=q.dtype)
        torch.mul(
            rows_XMRK.view(X, M, 2, -1, K).transpose(1, 2),
            from_start.unsqueeze(1),
            out=self.read_XDK.view(X, 2, M, -1, K),
        )
        # exp(G_C - the last G of each block).
        self.to_end_XM1K = self.decay.between_XMMK[:, -1].unsqueeze(2)
        self.key_XCK = (self.products.to_block_end_XMSK * self.to_end_XM1K).view(X, CHUNK, K)
        # exp(G_C): the last reference and the last row of the last block.
        self.end_XK1 = (from_start[:, -1, 0] * self.decay.row_XMSK[:, -1, -1]).unsqueeze(-1)
        self.inverse_XCC = inverse(self.products.key_XCC * self.beta_XC1)


class ChunkKda(torch.autograd.Function):
    """The chunkwise form; tokens are padded to whole chunks by the caller.

    Inputs q, k [B, T, H, K], v [B, T, H, V], g [B, T, H, K], beta [B, T, H], all of one dtype
    (float32 or float64), and states [B, H, K, V], or [documents, H, K, V] when B is 1.
    The backward keeps the inputs and the state at the start of each chunk and computes the rest
    of a segment again.
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
        B, T, H, K = q.shape
        V, Y = v.shape[-1], B * H
        o_BTHV = torch.empty(B, T, H, V, dtype=v.dtype)
        keep = any(ctx.needs_input_grad)
        starts = torch.empty(T // CHUNK, B, H, K, V, dtype=v.dtype) if keep else None
        final = torch.empty_like(initial)
        state_YKV = initial.new_empty(Y, K, V)
        for chunks in segments(T // CHUNK, Y * CHUNK * max(K, V)):
            N = len(chunks)
            seg = _Segment(q, k, v, g, beta, chunks)
            transform_XCC = seg.inverse_XCC * seg.beta_XC1.transpose(1, 2)
            read, key, end = (
                x.unflatten(0, (N, Y)) for x in (seg.read_XDK, seg.key_XCK, seg.end_XK1)
            )
            values, transform = (x.unflatten(0, (N, Y)) for x in (seg.v_XCV, transform_XCC))
            read_state = torch.empty(N, Y, 2 * CHUNK, V, dtype=v.dtype)
            new_v = torch.empty(N, Y, CHUNK, V, dtype=v.dtype)
            for n, chunk in enumerate(chunks):
                if layout.starts(chunk):
                    state_YKV = layout.rows(chunk, initial, B).reshape(Y, K, V).clone()
                if starts is not None:
                    starts[chunk] = state_YKV.view(B, H, K, V)
                torch.bmm(read[n], state_YKV, out=read_state[n])
                torch.bmm(transform[n], values[n] - read_state[n, :, CHUNK:], out=new_v[n])
                state_YKV.mul_(end[n]).baddbmm_(key[n].transpose(1, 2), new_v[n])
                if layout.ends(chunk):
                    layout.rows(chunk, final, B).copy_(state_YKV.view(B, H, K, V))
            o_XCV = torch.baddbmm(
                read_state.flatten(0, 1)[:, :CHUNK], seg.products.query_XCC, new_v.flatten(0, 1)
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
        B, T, H, K = q.shape
        V, Y = v.shape[-1], B * H
        dq, dk, dv, dg, dbeta = (torch.empty_like(x) for x in (q, k, v, g, beta))
        dinitial = torch.zeros_like(initial)
        dstate_YKV = initial.new_empty(Y, K, V)
        for chunks in reversed(segments(T // CHUNK, Y * CHUNK * max(K, V))):
            N = len(chunks)
            seg = _Segment(q, k, v, g, beta, chunks)
            start_XKV = starts[chunks.start : chunks.stop].view(N * Y, K, V)
            read_q_XCK, read_k_XCK = seg.read_XDK.split(CHUNK, dim=1)
            error_XCV = torch.baddbmm(seg.v_XCV, read_k_XCK, start_XKV, alpha=-1.0)
            transform_XCC = seg.inverse_XCC * seg.beta_XC1.transpose(1, 2)
            new_v_XCV = transform_XCC @ error_XCV

            # dread: gradients of q E S and of k E S; the second is minus that of the error.
            dread_XDV = torch.empty(N * Y, 2 * CHUNK, V, dtype=v.dtype)
            do_XCV = dread_XDV[:, :CHUNK]
            do_XCV.copy_(chunked(do_BTHV, chunks))
            dnew_v_XCV = seg.products.query_XCC.transpose(1, 2) @ do_XCV
            dstart_XKV = read_q_XCK.transpose(1, 2) @ do_XCV
            dend_XKV = torch.empty_like(start_XKV)
            z_XCV = torch.empty_like(dnew_v_XCV)
            dnew_v, dstart, dend, z, key, end, solve, erase = (
                x.unflatten(0, (N, Y))
                for x in (
                    dnew_v_XCV, dstart_XKV, dend_XKV, z_XCV, seg.key_XCK, seg.end_XK1,
                    seg.inverse_XCC.transpose(1, 2), (read_k_XCK * seg.beta_XC1).transpose(1, 2),
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

            dquery_XCC = (do_XCV @ new_v_XCV.transpose(1, 2)).tril_()
            dlower_XCC = (z_XCV @ new_v_XCV.transpose(1, 2)).neg_().tril_(-1)
            dv_XCV = z_XCV * seg.beta_XC1
            torch.neg(dv_XCV, out=dread_XDV[:, CHUNK:])
            dread_XDK = dread_XDV @ start_XKV.transpose(1, 2)
            dkey_XCK = new_v_XCV @ dend_XKV.transpose(1, 2)
            dq_XCK, dk_XCK, dg_XCK = products_backward(
                dquery_XCC, dlower_XCC * seg.beta_XC1, seg.q_XCK, seg.k_XCK, seg.products, seg.decay
            )
            # exp(G_i) feels every gate up to i, exp(G_C - G_i) every gate after i.
            both_XDK = seg.read_XDK * dread_XDK
            dg_XCK += from_here(both_XDK[:, :CHUNK] + both_XDK[:, CHUNK:])
            felt_XCK = seg.key_XCK * dkey_XCK
            dg_XCK += felt_XCK.cumsum(1) - felt_XCK
            dg_XCK += (start_XKV * dend_XKV).sum(-1, keepdim=True).mul_(seg.end_XK1).transpose(1, 2)
            from_start_XCK = (seg.decay.row_XMSK * seg.decay.from_start_XM1K).flatten(1, 2)
            to_end_XCK = (seg.decay.to_block_end_XMSK * seg.to_end_XM1K).flatten(1, 2)
            dq_XCK.addcmul_(dread_XDK[:, :CHUNK], from_start_XCK)
            dk_XCK.addcmul_(dread_XDK[:, CHUNK:], from_start_XCK)
            dk_XCK.addcmul_(dkey_XCK, to_end_XCK)
            dbeta_XC1 = (dlower_XCC * seg.products.key_XCC).sum(-1, keepdim=True)
            dbeta_XC1 += (error_XCV * z_XCV).sum(-1, keepdim=True)
            for out, x in (
                (dq, dq_XCK), (dk, dk_XCK), (dv, dv_XCV), (dg, dg_XCK),
                (dbeta.unsqueeze(-1), dbeta_XC1),
            ):  # fmt: skip
                scatter(out, x, chunks)
        return dq, dk, dv, dg, dbeta, dinitial, None
