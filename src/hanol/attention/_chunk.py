"""Chunkwise Kimi Delta Attention for CPU: blocked PyTorch with its own backward.

The sequence is cut into chunks of C = 64 tokens. Inside a chunk everything is a matrix product or
one triangular solve (arXiv 2510.26692, section 3.2); the state walks from chunk to chunk.

The decay between two tokens, D_ij = exp(G_i - G_j), must not be factorised over a whole chunk:
the gate is unbounded and exp(-G_j) overflows. Rows are taken in blocks of 16 with the reference
r = G at the last row before the block. For earlier columns both exp(G_i - r) and exp(r - G_j) are
at most 1. For columns of the block itself exp(r - G_j) may grow, but r and G_j are past values, so
a product of two float64 exponentials is used up to `_LARGEST_EXPONENT` and the few columns beyond
it get exact pairwise terms. No output depends on a later token, not even in its last bit.

Shape suffixes: B batch, T tokens, H value heads, K key width, V value width, C chunk, S rows of a
block, M blocks of a chunk, N chunks of a segment, X = B * H * N chunks in parallel.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 64
_BLOCK = 16
_BLOCKS = CHUNK // _BLOCK
# Products of exponentials up to exp(60) stay far from float32's limit of exp(88) in every sum.
_LARGEST_EXPONENT = 60.0
# Elements of one [X, C, K] tensor of a segment: bounds the temporaries and keeps them in cache.
_SEGMENT_ELEMENTS = 1 << 19
# Blocks whose pairwise terms are computed at once.
_PAIR_BATCH = 64


class _Decay(NamedTuple):
    """Exponentials of the cumulative gate of X chunks; all but the last two are at most 1."""

    from_start_XCK: Tensor  # exp(G_i)
    to_end_XCK: Tensor  # exp(G_C - G_i)
    row_XMSK: Tensor  # exp(G_i - r of its block)
    column_XMSK: Tensor  # exp(r - G_j) inside the block, 0 where it is too large
    earlier: list[Tensor]  # for block I > 0: exp(r_I - G_j) of all columns before it
    pair_blocks: Tensor | None  # [P, 2] (chunk, block) with columns beyond the largest exponent
    pair_gate_PSK: Tensor | None  # G of those blocks, float64
    pair_column_PSK: Tensor | None  # which of their columns


def _decay(g_XCK: Tensor) -> _Decay:
    dtype = g_XCK.dtype
    X, _, K = g_XCK.shape
    # float64: a float32 running sum loses the small differences once a strong reset is in it.
    G_XCK = g_XCK.double().cumsum(dim=-2)
    G_XMSK = G_XCK.view(X, _BLOCKS, _BLOCK, K)
    reference_XMK = torch.zeros(X, _BLOCKS, K, dtype=G_XCK.dtype)
    reference_XMK[:, 1:] = G_XMSK[:, :-1, -1]
    # float64 exponentials: these two are multiplied with each other, and float32 would round
    # their large exponents.
    row_XMSK = G_XMSK - reference_XMK.unsqueeze(2)
    beyond_XMSK = row_XMSK < -_LARGEST_EXPONENT
    column_XMSK = row_XMSK.neg().exp_()
    pair_blocks = pair_gate_PSK = pair_column_PSK = None
    if bool(beyond_XMSK.any()):
        column_XMSK.masked_fill_(beyond_XMSK, 0.0)
        pair_blocks = beyond_XMSK.flatten(2).any(-1).nonzero()
        pair_gate_PSK = G_XMSK[pair_blocks[:, 0], pair_blocks[:, 1]]
        pair_column_PSK = beyond_XMSK[pair_blocks[:, 0], pair_blocks[:, 1]]
    return _Decay(
        from_start_XCK=G_XCK.to(dtype).exp(),
        to_end_XCK=(G_XCK[:, -1:] - G_XCK).to(dtype).exp_(),
        row_XMSK=row_XMSK.exp_().to(dtype),
        column_XMSK=column_XMSK.to(dtype),
        earlier=[
            (reference_XMK[:, i : i + 1] - G_XCK[:, : i * _BLOCK]).to(dtype).exp_()
            for i in range(1, _BLOCKS)
        ],
        pair_blocks=pair_blocks,
        pair_gate_PSK=pair_gate_PSK,
        pair_column_PSK=pair_column_PSK,
    )


def _pair_decay(decay: _Decay, part: slice, dtype: torch.dtype) -> Tensor:
    """Exact D_ij of the columns beyond the largest exponent, 0 elsewhere: [P, S, S, K]."""
    assert decay.pair_gate_PSK is not None
    assert decay.pair_column_PSK is not None
    G_PSK, column_PSK = decay.pair_gate_PSK[part], decay.pair_column_PSK[part]
    difference = (G_PSK.unsqueeze(2) - G_PSK.unsqueeze(1)).to(dtype)
    # Clamp before exp: an infinity above the diagonal would turn into NaN when masked.
    return difference.clamp_(max=0.0).exp_() * column_PSK.unsqueeze(1)


def _pair_parts(decay: _Decay) -> list[slice]:
    if decay.pair_blocks is None:
        return []
    count = len(decay.pair_blocks)
    return [slice(i, min(i + _PAIR_BATCH, count)) for i in range(0, count, _PAIR_BATCH)]


class _Products(NamedTuple):
    """The products inside each chunk that do not depend on the state."""

    query_XCC: Tensor  # lower triangle: sum_c q_ic k_jc D_ijc
    key_XCC: Tensor  # strict lower triangle: sum_c k_ic k_jc D_ijc, without beta
    rows_XMRK: Tensor  # q and k of each block times the row factor, R = 2 S


def _products(q_XCK: Tensor, k_XCK: Tensor, decay: _Decay) -> _Products:
    X, _, K = q_XCK.shape
    blocked = (X, _BLOCKS, _BLOCK, K)
    rows_XMRK = torch.empty(X, _BLOCKS, 2 * _BLOCK, K, dtype=q_XCK.dtype)
    torch.mul(q_XCK.view(blocked), decay.row_XMSK, out=rows_XMRK[:, :, :_BLOCK])
    torch.mul(k_XCK.view(blocked), decay.row_XMSK, out=rows_XMRK[:, :, _BLOCK:])
    columns_XMSK = k_XCK.view(blocked) * decay.column_XMSK
    diagonal_XMRS = rows_XMRK @ columns_XMSK.transpose(-1, -2)
    for part in _pair_parts(decay):
        assert decay.pair_blocks is not None
        chunk, block = decay.pair_blocks[part].T
        pair_PSSK = _pair_decay(decay, part, q_XCK.dtype)
        pair_PSSK *= k_XCK.view(blocked)[chunk, block].unsqueeze(1)
        both_PRK = torch.cat([x.view(blocked)[chunk, block] for x in (q_XCK, k_XCK)], dim=1)
        diagonal_XMRS[chunk, block] += torch.cat(
            [
                (rows_PSK.unsqueeze(2) * pair_PSSK).sum(-1)
                for rows_PSK in both_PRK.split(_BLOCK, dim=1)
            ],
            dim=1,
        )
    query_XCC = torch.zeros(X, CHUNK, CHUNK, dtype=q_XCK.dtype)
    key_XCC = torch.zeros(X, CHUNK, CHUNK, dtype=q_XCK.dtype)
    for i in range(_BLOCKS):
        here = slice(i * _BLOCK, (i + 1) * _BLOCK)
        query_XCC[:, here, here] = diagonal_XMRS[:, i, :_BLOCK].tril()
        key_XCC[:, here, here] = diagonal_XMRS[:, i, _BLOCK:].tril(-1)
        if i:
            before = slice(0, i * _BLOCK)
            columns_XJK = k_XCK[:, before] * decay.earlier[i - 1]
            both_XRJ = rows_XMRK[:, i] @ columns_XJK.transpose(-1, -2)
            query_XCC[:, here, before] = both_XRJ[:, :_BLOCK]
            key_XCC[:, here, before] = both_XRJ[:, _BLOCK:]
    return _Products(query_XCC, key_XCC, rows_XMRK)


def _products_backward(
    dquery_XCC: Tensor,
    dkey_XCC: Tensor,
    q_XCK: Tensor,
    k_XCK: Tensor,
    rows_XMRK: Tensor,
    decay: _Decay,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (of q, of k, of the log decay) through the two triangular products.

    Runs in float64: a pair of tokens adds to the gradient of G at one of them and subtracts the
    same at the other, and what float32 leaves of that difference is noise.
    """
    dtype = q_XCK.dtype
    q_XCK, k_XCK, rows_XMRK, row_XMSK, column_XMSK, *earlier = (
        x.double()
        for x in (q_XCK, k_XCK, rows_XMRK, decay.row_XMSK, decay.column_XMSK, *decay.earlier)
    )
    X, _, K = q_XCK.shape
    blocked = (X, _BLOCKS, _BLOCK, K)
    diagonal_XMRS = torch.empty(X, _BLOCKS, 2 * _BLOCK, _BLOCK, dtype=torch.float64)
    for i in range(_BLOCKS):
        here = slice(i * _BLOCK, (i + 1) * _BLOCK)
        diagonal_XMRS[:, i, :_BLOCK] = dquery_XCC[:, here, here]
        diagonal_XMRS[:, i, _BLOCK:] = dkey_XCC[:, here, here]
    drows_XMRK = diagonal_XMRS @ (k_XCK.view(blocked) * column_XMSK)
    dcolumns_XMSK = (diagonal_XMRS.transpose(-1, -2) @ rows_XMRK).mul_(column_XMSK)
    dcolumns_XCK = dcolumns_XMSK.view(X, CHUNK, K)
    for i in range(1, _BLOCKS):
        here, before = slice(i * _BLOCK, (i + 1) * _BLOCK), slice(0, i * _BLOCK)
        both_XRJ = torch.cat([dquery_XCC[:, here, before], dkey_XCC[:, here, before]], dim=1)
        both_XRJ = both_XRJ.double()
        drows_XMRK[:, i] += both_XRJ @ (k_XCK[:, before] * earlier[i - 1])
        dcolumns_XCK[:, before] += (both_XRJ.transpose(-1, -2) @ rows_XMRK[:, i]).mul_(
            earlier[i - 1]
        )
    dq_XMSK = drows_XMRK[:, :, :_BLOCK] * row_XMSK
    dk_XMSK = drows_XMRK[:, :, _BLOCK:] * row_XMSK
    for part in _pair_parts(decay):
        assert decay.pair_blocks is not None
        chunk, block = decay.pair_blocks[part].T
        pair_PSSK = _pair_decay(decay, part, torch.float64)
        q_PSK, k_PSK = (x.view(blocked)[chunk, block] for x in (q_XCK, k_XCK))
        dquery_PSS, dkey_PSS = diagonal_XMRS[chunk, block].split(_BLOCK, dim=1)
        dq_XMSK[chunk, block] += torch.einsum("pij,pijk,pjk->pik", dquery_PSS, pair_PSSK, k_PSK)
        dk_XMSK[chunk, block] += torch.einsum("pij,pijk,pjk->pik", dkey_PSS, pair_PSSK, k_PSK)
        dcolumns_XMSK[chunk, block] += torch.einsum(
            "pij,pijk,pik->pjk", dquery_PSS, pair_PSSK, q_PSK
        ) + torch.einsum("pij,pijk,pik->pjk", dkey_PSS, pair_PSSK, k_PSK)
    dq_XCK, dk_XCK = dq_XMSK.view(X, CHUNK, K), dk_XMSK.view(X, CHUNK, K)
    dG_XCK = q_XCK * dq_XCK + k_XCK * (dk_XCK - dcolumns_XCK)
    return dq_XCK.to(dtype), dk_XCK.add_(dcolumns_XCK).to(dtype), _from_here(dG_XCK).to(dtype)


def _from_here(x_XCK: Tensor) -> Tensor:
    """Sum of each token and all after it in the chunk."""
    return x_XCK.flip(1).cumsum(1).flip(1)


def _solve(lower_XCC: Tensor, rhs_XCW: Tensor, *, transposed: bool) -> Tensor:
    """(I + L)^-1 rhs, or with L transposed; the diagonal and the upper half of L are not read."""
    if transposed:
        return torch.linalg.solve_triangular(
            lower_XCC.transpose(-1, -2), rhs_XCW, upper=True, unitriangular=True
        )
    return torch.linalg.solve_triangular(lower_XCC, rhs_XCW, upper=False, unitriangular=True)


class _Segment:
    """N chunks of all heads, with everything that does not depend on the state."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, part: slice
    ) -> None:
        def chunked(x_BTHD: Tensor) -> Tensor:
            B, _, H, D = x_BTHD.shape
            x_BHTD = x_BTHD[:, part].transpose(1, 2)
            return x_BHTD.reshape(B * H * (x_BHTD.shape[2] // CHUNK), CHUNK, D)

        self.q, self.k, self.v = chunked(q), chunked(k), chunked(v)
        self.beta = chunked(beta.unsqueeze(-1))
        self.decay = _decay(chunked(g))
        self.products = _products(self.q, self.k, self.decay)
        V = self.v.shape[-1]
        rhs_XCW = torch.empty(*self.v.shape[:-1], V + self.k.shape[-1], dtype=v.dtype)
        torch.mul(self.v, self.beta, out=rhs_XCW[..., :V])
        torch.mul(self.k, self.decay.from_start_XCK, out=rhs_XCW[..., V:])
        rhs_XCW[..., V:] *= self.beta
        self.lower_XCC = self.products.key_XCC * self.beta
        self.solved_XCW = _solve(self.lower_XCC, rhs_XCW, transposed=False)
        self.u_XCV, self.w_XCK = self.solved_XCW.split([V, self.k.shape[-1]], dim=-1)
        self.query_XCK = self.q * self.decay.from_start_XCK
        self.key_XCK = self.k * self.decay.to_end_XCK
        self.end_X1K = self.decay.from_start_XCK[:, -1:]


class Layout(NamedTuple):
    """Which chunk belongs to which document; documents start at chunk borders.

    Args:
        document: Document of each chunk, ascending; all 0 without packing.
    """

    document: list[int]

    def starts(self, chunk: int) -> bool:
        """Whether this chunk is the first of its document."""
        return chunk == 0 or self.document[chunk] != self.document[chunk - 1]

    def ends(self, chunk: int) -> bool:
        """Whether this chunk is the last of its document."""
        return chunk + 1 == len(self.document) or self.starts(chunk + 1)


def _segments(chunks: int, elements_of_a_chunk: int) -> list[range]:
    length = max(1, _SEGMENT_ELEMENTS // elements_of_a_chunk)
    return [range(i, min(i + length, chunks)) for i in range(0, chunks, length)]


class ChunkKda(torch.autograd.Function):
    """The chunkwise form; tokens are padded to whole chunks by the caller.

    Inputs q, k [B, T, H, K], v [B, T, H, V], g [B, T, H, K], beta [B, T, H], all of one dtype
    (float32 or float64), and states [B, H, K, V], or [documents, H, K, V] when B is 1.
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
        V = v.shape[-1]
        o_BTHV = torch.empty(B, T, H, V, dtype=v.dtype)
        keep = any(ctx.needs_input_grad)
        chunks = T // CHUNK
        starts = torch.empty(chunks, B, H, K, V, dtype=v.dtype) if keep else None
        final = torch.empty_like(initial)
        state = initial
        for chunk_range in _segments(chunks, B * H * CHUNK * max(K, V)):
            N = len(chunk_range)
            part = slice(chunk_range.start * CHUNK, chunk_range.stop * CHUNK)
            seg = _Segment(q, k, v, g, beta, part)
            by_chunk = (B * H, N, -1)
            read = torch.cat([seg.w_XCK, seg.query_XCK], dim=1).view(*by_chunk, K)
            u, key = seg.u_XCV.view(*by_chunk, V), seg.key_XCK.view(*by_chunk, K)
            end = seg.end_X1K.view(B * H, N, K, 1)
            new_v = torch.empty(B * H, N, CHUNK, V, dtype=v.dtype)
            from_state = torch.empty_like(new_v)
            for n, chunk in enumerate(chunk_range):
                document = layout.document[chunk]
                if layout.starts(chunk):
                    state = initial[document : document + 1] if B == 1 else initial
                    state = state.reshape(B * H, K, V).clone()
                if starts is not None:
                    starts[chunk] = state.view(B, H, K, V)
                both = read[:, n] @ state
                torch.sub(u[:, n], both[:, :CHUNK], out=new_v[:, n])
                from_state[:, n] = both[:, CHUNK:]
                state.mul_(end[:, n])
                state.baddbmm_(key[:, n].transpose(1, 2), new_v[:, n])
                if layout.ends(chunk):
                    if B == 1:
                        final[document] = state.view(H, K, V)
                    else:
                        final.copy_(state.view(B, H, K, V))
            flat = from_state.view(-1, CHUNK, V)
            flat.baddbmm_(seg.products.query_XCC, new_v.view(-1, CHUNK, V))
            o_BTHV[:, part] = flat.view(B, H, N * CHUNK, V).transpose(1, 2)
        if keep:
            assert starts is not None
            ctx.save_for_backward(q, k, v, g, beta, initial, starts)
        ctx.layout = layout
        return o_BTHV, final

    @staticmethod
    def backward(ctx: Any, do_BTHV: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, g, beta, initial, starts = ctx.saved_tensors
        layout: Layout = ctx.layout
        B, T, H, K = q.shape
        V = v.shape[-1]
        dq, dk, dv, dg, dbeta = (torch.empty_like(x) for x in (q, k, v, g, beta))
        dinitial = torch.zeros_like(initial)
        dstate = torch.zeros(B * H, K, V, dtype=v.dtype)
        for chunk_range in reversed(_segments(T // CHUNK, B * H * CHUNK * max(K, V))):
            N = len(chunk_range)
            part = slice(chunk_range.start * CHUNK, chunk_range.stop * CHUNK)
            seg = _Segment(q, k, v, g, beta, part)
            decay, X = seg.decay, B * H * N
            do = do_BTHV[:, part].transpose(1, 2).reshape(X, CHUNK, V)
            start = starts[chunk_range.start : chunk_range.stop]
            start = start.permute(1, 2, 0, 3, 4).reshape(X, K, V)

            dnew_v = torch.bmm(seg.products.query_XCC.transpose(1, 2), do)
            dstart = torch.bmm(seg.query_XCK.transpose(1, 2), do)
            dend = torch.empty(B * H, N, K, V, dtype=v.dtype)
            by_chunk = (B * H, N, -1)
            dnew_v_n, dstart_n = dnew_v.view(*by_chunk, V), dstart.view(*by_chunk, V)
            w_n, key_n = seg.w_XCK.reshape(*by_chunk, K), seg.key_XCK.view(*by_chunk, K)
            end_n = seg.end_X1K.view(B * H, N, K, 1)
            for n, chunk in reversed(list(enumerate(chunk_range))):
                document = layout.document[chunk]
                if layout.ends(chunk):
                    from_final = dfinal[document : document + 1] if B == 1 else dfinal
                    dstate = from_final.reshape(B * H, K, V).to(v.dtype).clone()
                dend[:, n] = dstate
                dnew_v_n[:, n].baddbmm_(key_n[:, n], dstate)
                dstate = dstate.mul_(end_n[:, n]).add_(dstart_n[:, n])
                dstate.baddbmm_(w_n[:, n].transpose(1, 2), dnew_v_n[:, n], alpha=-1.0)
                if layout.starts(chunk):
                    if B == 1:
                        dinitial[document] = dstate.view(H, K, V)
                    else:
                        dinitial.copy_(dstate.view(B, H, K, V))

            new_v = torch.baddbmm(seg.u_XCV, seg.w_XCK, start, alpha=-1.0)
            dend = dend.view(X, K, V)
            dquery_XCC = torch.bmm(do, new_v.transpose(1, 2)).tril_()
            dqg = torch.bmm(do, start.transpose(1, 2))
            dkd = torch.bmm(new_v, dend.transpose(1, 2))
            dsolved = torch.empty_like(seg.solved_XCW)
            dsolved[..., :V] = dnew_v
            dsolved[..., V:] = torch.bmm(dnew_v, start.transpose(1, 2)).neg_()
            z = _solve(seg.lower_XCC, dsolved, transposed=True)
            dlower = torch.bmm(z, seg.solved_XCW.transpose(1, 2)).neg_().tril_(-1)
            z_v, z_k = z[..., :V], z[..., V:]

            dq_all, dk_all, dg_all = _products_backward(
                dquery_XCC, dlower * seg.beta, seg.q, seg.k, seg.products.rows_XMRK, decay
            )
            weighted_k = seg.k * decay.from_start_XCK
            # exp(G_i) feels every gate up to i, exp(G_C - G_i) every gate after i.
            dg_all += _from_here(seg.query_XCK * dqg + weighted_k * seg.beta * z_k)
            to_end = seg.key_XCK * dkd
            dg_all += to_end.cumsum(1) - to_end
            dg_all += seg.end_X1K * (start * dend).sum(-1).unsqueeze(1)

            def scatter(out_BTHD: Tensor, x_XCD: Tensor, part: slice = part, N: int = N) -> None:
                out_BTHD[:, part] = x_XCD.reshape(B, H, N * CHUNK, -1).transpose(1, 2)

            scatter(dq, dq_all.addcmul_(dqg, decay.from_start_XCK))
            dk_all = dk_all.addcmul_(dkd, decay.to_end_XCK)
            scatter(dk, dk_all.addcmul_(z_k, decay.from_start_XCK * seg.beta))
            scatter(dv, z_v * seg.beta)
            scatter(dg, dg_all)
            dbeta_XC1 = (dlower * seg.products.key_XCC).sum(-1, keepdim=True)
            dbeta_XC1 += (seg.v * z_v).sum(-1, keepdim=True)
            dbeta_XC1 += (weighted_k * z_k).sum(-1, keepdim=True)
            scatter(dbeta.unsqueeze(-1), dbeta_XC1)
        return dq, dk, dv, dg, dbeta, dinitial, None
