"""The products inside a chunk that do not depend on the state, and their gradients.

The decay between two tokens, D_ij = exp(G_i - G_j) with G the running sum of the gate, must not be
factorised over a whole chunk: the gate is unbounded and exp(-G_j) overflows. Rows are taken in
blocks of 16 with the reference r = G at the last row before the block. For earlier columns both
exp(G_i - r) and exp(r - G_j) are at most 1. For columns of the block itself exp(r - G_j) may grow,
but r and G_j are past values, so a product of two float64 exponentials is used up to
`_LARGEST_EXPONENT`; the channels of a block that go beyond it get exact pairwise terms. No output
depends on a later token, not even in its last bit.

Shape suffixes: X chunks in parallel, C tokens of a chunk, M blocks of a chunk, S tokens of a
block, R = 2 S rows (q, then k), K key width, P pairs of a block and a channel.
Source: arXiv 2510.26692, section 3.2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hanol.attention.kda._backend import numba_kernels

CHUNK = 64
BLOCK = 16
BLOCKS = CHUNK // BLOCK
# Products of exponentials up to exp(60) stay far from float32's limit of exp(88) in every sum.
_LARGEST_EXPONENT = 60.0
# Channels of blocks whose pairwise terms are computed at once.
_PAIR_BATCH = 4096


class Decay(NamedTuple):
    """Exponentials of the running sum of the gate; all but `column_XMSK` are at most 1.

    With e_J the last G of block J, so that the reference of block I is e_(I-1):
    """

    row_XMSK: Tensor  # exp(G_i - reference of its block)
    column_XMSK: Tensor  # exp(reference - G_j), 0 where it is too large
    to_block_end_XMSK: Tensor  # exp(e_J - G_j)
    between_XMMK: Tensor  # [I, J]: exp(e_I - e_J) for J <= I
    from_start_XM1K: Tensor  # exp(reference of the block)
    strong: "Strong | None"

    def earlier_XJSK(self, block: int) -> Tensor:
        """Factor of the columns of all blocks before `block` up to its reference: [X, J, 1, K]."""
        return self.between_XMMK[:, block - 1, :block].unsqueeze(2)


class Strong(NamedTuple):
    """Channels of blocks with columns beyond the largest exponent."""

    chunk_P: Tensor
    block_P: Tensor
    channel_P: Tensor
    gate_PS: Tensor  # G, float64
    column_PS: Tensor  # which columns are beyond

    def parts(self) -> list["Strong"]:
        """Split into batches that keep the pairwise terms small."""
        pieces = zip(*(x.split(_PAIR_BATCH) for x in self), strict=True)
        return [Strong(*piece) for piece in pieces]

    def pairs_PSS(self, dtype: torch.dtype) -> Tensor:
        """Exact D_ij of the columns beyond, 0 elsewhere."""
        difference = (self.gate_PS.unsqueeze(2) - self.gate_PS.unsqueeze(1)).to(dtype)
        # Clamp before exp: an infinity above the diagonal would turn into NaN when masked.
        return difference.clamp_(max=0.0).exp_() * self.column_PS.unsqueeze(1)

    def take_PS(self, x_XCK: Tensor) -> Tensor:
        """The block's tokens of the channel."""
        x_XMSK = x_XCK.view(len(x_XCK), BLOCKS, BLOCK, -1)
        return x_XMSK[self.chunk_P, self.block_P, :, self.channel_P]

    def flat_P(self) -> Tensor:
        """Number of the block over all chunks."""
        return self.chunk_P * BLOCKS + self.block_P


def decay_of(g_XCK: Tensor) -> Decay:
    """Prepare every exponential that the chunks need; g is at most 0."""
    dtype = g_XCK.dtype
    X, _, K = g_XCK.shape
    # float64: a float32 running sum loses the small differences once a strong reset is in it.
    G_XMSK = g_XCK.cumsum(dim=-2, dtype=torch.float64).view(X, BLOCKS, BLOCK, K)
    end_XMK = G_XMSK[:, :, -1]
    reference_XMK = torch.cat([torch.zeros_like(end_XMK[:, :1]), end_XMK[:, :-1]], dim=1)
    # float64 exponentials: these two are multiplied with each other, and float32 would round
    # their large exponents.
    row_XMSK = G_XMSK - reference_XMK.unsqueeze(2)
    strong = beyond_XMSK = None
    # G falls along the tokens, so the last row tells whether any is beyond.
    if bool((row_XMSK[:, :, -1] < -_LARGEST_EXPONENT).any()):
        beyond_XMSK = row_XMSK < -_LARGEST_EXPONENT
        where = beyond_XMSK[:, :, -1].nonzero(as_tuple=True)
        index = (where[0], where[1], slice(None), where[2])
        strong = Strong(where[0], where[1], where[2], G_XMSK[index], beyond_XMSK[index])
    row_XMSK.exp_()
    column_XMSK = row_XMSK.reciprocal()
    if beyond_XMSK is not None:
        column_XMSK.masked_fill_(beyond_XMSK, 0.0)
    between_XMMK = (end_XMK.unsqueeze(2) - end_XMK.unsqueeze(1)).to(dtype)
    return Decay(
        row_XMSK=row_XMSK.to(dtype),
        column_XMSK=column_XMSK.to(dtype),
        to_block_end_XMSK=(end_XMK.unsqueeze(2) - G_XMSK).to(dtype).exp_(),
        between_XMMK=between_XMMK.clamp_(max=0.0).exp_(),
        from_start_XM1K=reference_XMK.to(dtype).exp_().unsqueeze(2),
        strong=strong,
    )


class Products(NamedTuple):
    """The products inside each chunk that do not depend on the state."""

    query_XCC: Tensor  # lower triangle: sum_c q_ic k_jc D_ijc
    key_XCC: Tensor  # strict lower triangle: sum_c k_ic k_jc D_ijc, without beta; the rest is junk
    rows_XMRK: Tensor  # q and k times the row factor
    to_block_end_XMSK: Tensor  # k times the factor to the end of its block


def products(q_XCK: Tensor, k_XCK: Tensor, decay: Decay) -> Products:
    """Multiply all pairs of tokens of a chunk, decayed from the earlier to the later."""
    X, _, K = q_XCK.shape
    blocked = (X, BLOCKS, BLOCK, K)
    rows_XMRK = torch.empty(X, BLOCKS, 2 * BLOCK, K, dtype=q_XCK.dtype)
    torch.mul(q_XCK.view(blocked), decay.row_XMSK, out=rows_XMRK[:, :, :BLOCK])
    torch.mul(k_XCK.view(blocked), decay.row_XMSK, out=rows_XMRK[:, :, BLOCK:])
    columns_XMSK = k_XCK.view(blocked) * decay.column_XMSK
    diagonal_XMRS = rows_XMRK @ columns_XMSK.transpose(-1, -2)
    if decay.strong is not None:
        _add_strong(diagonal_XMRS, q_XCK, k_XCK, decay.strong)
    query_XCC = torch.zeros(X, CHUNK, CHUNK, dtype=q_XCK.dtype)
    key_XCC = torch.zeros(X, CHUNK, CHUNK, dtype=q_XCK.dtype)
    to_block_end_XMSK = k_XCK.view(blocked) * decay.to_block_end_XMSK
    for i in range(BLOCKS):
        here, before = slice(i * BLOCK, (i + 1) * BLOCK), slice(0, i * BLOCK)
        query_XCC[:, here, here] = diagonal_XMRS[:, i, :BLOCK].tril()
        key_XCC[:, here, here] = diagonal_XMRS[:, i, BLOCK:]
        if i:
            columns_XJSK = to_block_end_XMSK[:, :i] * decay.earlier_XJSK(i)
            both_XRJ = rows_XMRK[:, i] @ columns_XJSK.flatten(1, 2).transpose(-1, -2)
            query_XCC[:, here, before] = both_XRJ[:, :BLOCK]
            key_XCC[:, here, before] = both_XRJ[:, BLOCK:]
    return Products(query_XCC, key_XCC, rows_XMRK, to_block_end_XMSK)


def _add_strong(diagonal_XMRS: Tensor, q_XCK: Tensor, k_XCK: Tensor, all_strong: Strong) -> None:
    """Add the pairwise terms of the columns beyond the largest exponent."""
    kernels = numba_kernels()
    if kernels is not None and q_XCK.dtype == torch.float32:
        kernels.pairs(*(x.numpy() for x in (*all_strong, q_XCK, k_XCK, diagonal_XMRS)))
        return
    for strong in all_strong.parts():
        terms_PSS = strong.pairs_PSS(q_XCK.dtype)
        terms_PSS *= strong.take_PS(k_XCK).unsqueeze(1)
        for rows, x_XCK in (slice(0, BLOCK), q_XCK), (slice(BLOCK, 2 * BLOCK), k_XCK):
            diagonal_XMRS.flatten(0, 1)[:, rows].index_add_(
                0, strong.flat_P(), terms_PSS * strong.take_PS(x_XCK).unsqueeze(2)
            )


def products_backward(
    dquery_XCC: Tensor,
    dkey_XCC: Tensor,
    q_XCK: Tensor,
    k_XCK: Tensor,
    product: Products,
    decay: Decay,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (of q, of k, of the log decay) through the two triangular products.

    Runs in float64: a pair of tokens adds to the gradient of G at one of them and subtracts the
    same at the other, and what float32 leaves of that difference is noise.
    """
    dtype = q_XCK.dtype
    q_XCK, k_XCK, rows_XMRK, to_end_XMSK, column_XMSK, row_XMSK = (
        x.double()
        for x in (
            q_XCK, k_XCK, product.rows_XMRK, product.to_block_end_XMSK, decay.column_XMSK,
            decay.row_XMSK,
        )
    )  # fmt: skip
    X, _, K = q_XCK.shape
    blocked = (X, BLOCKS, BLOCK, K)
    diagonal_XMRS = torch.empty(X, BLOCKS, 2 * BLOCK, BLOCK, dtype=torch.float64)
    for i in range(BLOCKS):
        here = slice(i * BLOCK, (i + 1) * BLOCK)
        diagonal_XMRS[:, i, :BLOCK] = dquery_XCC[:, here, here]
        diagonal_XMRS[:, i, BLOCK:] = dkey_XCC[:, here, here]
    drows_XMRK = diagonal_XMRS @ (k_XCK.view(blocked) * column_XMSK)
    dcolumns_XMSK = (diagonal_XMRS.transpose(-1, -2) @ rows_XMRK).mul_(column_XMSK)
    dto_end_XMSK = torch.zeros_like(dcolumns_XMSK)
    for i in range(1, BLOCKS):
        here, before = slice(i * BLOCK, (i + 1) * BLOCK), slice(0, i * BLOCK)
        both_XRJ = torch.cat([dquery_XCC[:, here, before], dkey_XCC[:, here, before]], dim=1)
        both_XRJ = both_XRJ.double()
        earlier_XJSK = decay.earlier_XJSK(i).double()
        drows_XMRK[:, i] += both_XRJ @ (to_end_XMSK[:, :i] * earlier_XJSK).flatten(1, 2)
        dto_end_XMSK[:, :i].addcmul_(
            (both_XRJ.transpose(-1, -2) @ rows_XMRK[:, i]).view(X, i, BLOCK, K), earlier_XJSK
        )
    dcolumns_XMSK.addcmul_(dto_end_XMSK, decay.to_block_end_XMSK.double())
    dq_XMSK = drows_XMRK[:, :, :BLOCK] * row_XMSK
    dk_XMSK = drows_XMRK[:, :, BLOCK:] * row_XMSK
    if decay.strong is not None:
        _add_strong_gradients(
            dq_XMSK, dk_XMSK, dcolumns_XMSK, diagonal_XMRS, q_XCK, k_XCK, decay.strong
        )
    dq_XCK, dk_XCK = dq_XMSK.view(X, CHUNK, K), dk_XMSK.view(X, CHUNK, K)
    dcolumns_XCK = dcolumns_XMSK.view(X, CHUNK, K)
    dG_XCK = q_XCK * dq_XCK + k_XCK * (dk_XCK - dcolumns_XCK)
    return dq_XCK.to(dtype), dk_XCK.add_(dcolumns_XCK).to(dtype), from_here(dG_XCK).to(dtype)


def _add_strong_gradients(
    dq_XMSK: Tensor,
    dk_XMSK: Tensor,
    dcolumns_XMSK: Tensor,
    diagonal_XMRS: Tensor,
    q_XCK: Tensor,
    k_XCK: Tensor,
    all_strong: Strong,
) -> None:
    """Add the gradients of `_add_strong` to those of rows and columns; all float64."""
    kernels = numba_kernels()
    if kernels is not None:
        tensors = (*all_strong, q_XCK, k_XCK, diagonal_XMRS, dq_XMSK, dk_XMSK, dcolumns_XMSK)
        kernels.pairs_backward(*(x.numpy() for x in tensors))
        return
    for strong in all_strong.parts():
        pairs_PSS = strong.pairs_PSS(torch.float64)
        index = (strong.chunk_P, strong.block_P, slice(None), strong.channel_P)
        keys_PS = strong.take_PS(k_XCK)
        dcolumns_PS = torch.zeros_like(keys_PS)
        for rows, x_XCK, dx_XMSK in (
            (slice(0, BLOCK), q_XCK, dq_XMSK),
            (slice(BLOCK, 2 * BLOCK), k_XCK, dk_XMSK),
        ):
            weights_PSS = diagonal_XMRS[strong.chunk_P, strong.block_P, rows] * pairs_PSS
            dx_XMSK[index] += (weights_PSS @ keys_PS.unsqueeze(-1)).squeeze(-1)
            dcolumns_PS += (strong.take_PS(x_XCK).unsqueeze(1) @ weights_PSS).squeeze(1)
        dcolumns_XMSK[index] += dcolumns_PS


def from_here(x_XCK: Tensor) -> Tensor:
    """Sum of each token and all after it in the chunk."""
    return x_XCK.flip(1).cumsum(1).flip(1)


def inverse(lower_XCC: Tensor) -> Tensor:
    """(I + L)^-1 of the strict lower triangle L; the rest of the input is not read.

    For keys of unit length and beta in [0, 1] every entry lies in [-1, 1]: it is a product of
    contractions between two keys. So the inverse itself is as exact as a solve, and faster on CPU.
    """
    inverse_XCC = torch.zeros_like(lower_XCC)
    kernels = numba_kernels()
    if kernels is not None and lower_XCC.dtype == torch.float32:
        kernels.invert_blocks(lower_XCC.numpy(), inverse_XCC.numpy())
    else:
        identity_XSS = torch.eye(BLOCK, dtype=lower_XCC.dtype).expand(len(lower_XCC), -1, -1)
        for i in range(0, CHUNK, BLOCK):
            here = slice(i, i + BLOCK)
            inverse_XCC[:, here, here] = torch.linalg.solve_triangular(
                lower_XCC[:, here, here], identity_XSS, upper=False, unitriangular=True
            )
    for size in (BLOCK, 2 * BLOCK):
        for i in range(0, CHUNK, 2 * size):
            upper, lower = slice(i, i + size), slice(i + size, i + 2 * size)
            corner_XSS = inverse_XCC[:, lower, lower] @ lower_XCC[:, lower, upper]
            inverse_XCC[:, lower, upper] = (corner_XSS @ inverse_XCC[:, upper, upper]).neg_()
    return inverse_XCC
