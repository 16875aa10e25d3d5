"""Exact top-p without sorting the vocabulary.

The rule, with p = softmax(logits): keep a token when the mass of all strictly more likely tokens
is below P. So the smallest set of most likely tokens that reaches P is kept, and with the last of
them every token that is exactly as likely (sorting versions keep an arbitrary part of such ties).

The set is {logits >= cut}, so each method only looks for the row's cut. Two rules make the search
short, where V counts the vocabulary:

- A token with p < (1 - P) / (V - 1) cannot be kept: it and the less likely ones together would
  not hold the 1 - P that are left when it is reached.
- When the k most likely tokens hold P, the set lies among them.

Probabilities are summed in float64, but those of the whole row are float32 numbers: where the mass
before a token is within 1e-6 of P, the set may differ by that token.

Shape suffixes: N rows, V vocabulary, K candidates (sorted, most likely first).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanol.errors import ConfigError, DataError, ShapeError

Method = Literal["auto", "sort", "prefilter", "histogram"]

_BINS = 4096  # of the histogram
_WINDOW = 1024  # most likely tokens that an accelerator looks at before it sorts a row
_BLOCK = 1 << 22  # logits searched at a time, which bounds the temporaries
_MANY = 8192  # candidates from which a histogram is faster than a sort
_SMALL = 2048  # a vocabulary up to this size is sorted faster than it is filtered


def top_p_keep(
    logits_NV: Tensor, top_p_N: Tensor, method: Method = "auto", *, check: bool = True
) -> Tensor:
    """Mark the tokens that top-p sampling may draw.

    Args:
        logits_NV: Logits already divided by the temperature, any float dtype. -inf is a token
            without probability.
        top_p_N: Share of the mass to keep. At most 0 keeps one most likely token, at least 1
            keeps everything.
        method: "sort" is the plain definition. "prefilter" sorts only what the first rule above
            leaves; "histogram" sorts only the tokens about as likely as the cut. All give the
            same set. "auto" takes the fastest for the device, the vocabulary and the row.
        check: Look for NaN. Costs one more synchronisation on an accelerator.

    Returns:
        Boolean `keep_NV`; every row keeps at least one token.

    Raises:
        ShapeError: `logits_NV` is not a matrix with columns, or `top_p_N` does not have one value
            per row.
        DataError: A row has NaN, +inf or nothing above -inf, or its top-p is NaN.
        ConfigError: `method` is another name.
    """
    if logits_NV.ndim != 2 or logits_NV.shape[1] == 0 or top_p_N.shape != logits_NV.shape[:1]:
        raise ShapeError(
            f"`logits_NV` has shape {tuple(logits_NV.shape)} and `top_p_N` "
            f"{tuple(top_p_N.shape)}, but (rows, vocabulary) and (rows,) are needed."
        )
    logits_NV = logits_NV.detach()
    if len(logits_NV) == 0:
        return torch.zeros_like(logits_NV, dtype=torch.bool)
    if logits_NV.dtype != torch.float64:
        logits_NV = logits_NV.float()
    max_N = logits_NV.amax(-1)
    if check:
        _refuse_bad_rows(max_N, top_p_N)
    share_N = top_p_N.detach().double().clamp_min(0)
    search = _search(method, logits_NV)
    rows = max(1, _BLOCK // logits_NV.shape[1])
    blocks = zip(logits_NV.split(rows), max_N.split(rows), share_N.split(rows), strict=True)
    cut_N = torch.cat([search(*block) for block in blocks])
    keep_NV = logits_NV >= cut_N.masked_fill(share_N >= 1, -math.inf).unsqueeze(-1)
    greedy_N = share_N <= 0
    if greedy_N.any():
        first_G1 = logits_NV[greedy_N].argmax(-1, keepdim=True)
        keep_NV[greedy_N] = torch.zeros_like(keep_NV[greedy_N]).scatter(1, first_G1, True)
    return keep_NV


def sort_rows_(x_NV: Tensor) -> Tensor:
    """Sort each row ascending, in place. float32 or float64."""
    if x_NV.device.type == "cpu":
        x_NV.numpy().sort(axis=-1)  # vectorised, and unlike torch's makes no indices
    else:
        for block in x_NV.split(16):  # the indices are twice as large as the rows
            block.copy_(block.sort(-1).values)
    return x_NV


_Search = Callable[[Tensor, Tensor, Tensor], Tensor]


def _search(method: Method, logits_NV: Tensor) -> _Search:
    if method in ("auto", "prefilter") and logits_NV.device.type != "cpu":
        return _window
    if method == "auto":
        return _sort if logits_NV.shape[1] <= _SMALL else partial(_prefilter, most=_MANY)
    named: dict[str, _Search] = {"prefilter": _prefilter, "sort": _sort, "histogram": _histogram}
    if method in named:
        return named[method]
    raise ConfigError(
        f'`method` is {method!r}, but must be "auto", "sort", "prefilter" or "histogram".'
    )


def _refuse_bad_rows(max_N: Tensor, top_p_N: Tensor) -> None:
    # The maximum of a row with NaN is NaN.
    bad_N = ~max_N.isfinite() | top_p_N.isnan()
    if bad_N.any():
        row = int(bad_N.nonzero()[0])
        raise DataError(
            f"Row {row} of `logits_NV` has the maximum {max_N[row].item()} and the top-p "
            f"{top_p_N[row].item()}: logits must not be NaN or +inf, at least one must be above "
            "-inf, and a top-p must be a number. Look for an overflow in the model (float16?) or "
            "a mask that bans every token."
        )


def _cut(
    candidates_NK: Tensor, max_N: Tensor, before_N: Tensor | float, needed_N: Tensor
) -> Tensor:
    """The least likely candidate (most likely come first) with less than the needed mass before it.

    A mass is exp(logit - max of the row); `before_N` is that of the tokens more likely than all
    candidates, `needed_N` is P times that of the row.
    """
    mass_NK = (candidates_NK - max_N.unsqueeze(-1)).double().exp_()
    running_NK = mass_NK.cumsum(-1).sub_(mass_NK)
    last_N = (running_NK < (needed_N - before_N).unsqueeze(-1)).sum(-1).sub_(1).clamp_min_(0)
    return candidates_NK.gather(-1, last_N.unsqueeze(-1)).squeeze(-1)


def _total(p_NV: Tensor) -> Tensor:
    """Mass of each row, in float64 and in units of its largest probability."""
    # softmax divides by a running float32 sum: the sum of its results tells how good that was.
    return p_NV.sum(-1, dtype=torch.float64) / p_NV.amax(-1)


def _sort(logits_NV: Tensor, max_N: Tensor, share_N: Tensor) -> Tensor:
    candidates_NV = sort_rows_(-logits_NV).neg_()
    return _cut(candidates_NV, max_N, 0.0, share_N * _total(logits_NV.softmax(-1)))


def _prefilter(logits_NV: Tensor, max_N: Tensor, share_N: Tensor, most: float = math.inf) -> Tensor:
    """The first rule; rows with more candidates than `most` get a histogram instead of a sort."""
    p_NV = logits_NV.softmax(-1)
    held_N = p_NV.sum(-1, dtype=torch.float64)
    needed_N = share_N * held_N / p_NV.amax(-1)  # as in `_total`
    cuts = []
    for n, (share, held) in enumerate(zip(share_N.tolist(), held_N.tolist(), strict=True)):
        if share >= 1:  # everything is kept, wherever the cut is
            cuts.append(max_N[n])
            continue
        tokens_K = torch.from_numpy(_candidates(p_NV[n].numpy(), held, share * held))
        if len(tokens_K) > most:
            row = slice(n, n + 1)
            cuts.append(_histogram(logits_NV[row], max_N[row], share_N[row])[0])
            continue
        candidates_K = sort_rows_(-logits_NV[n][tokens_K]).neg_()
        cuts.append(_cut(candidates_K, max_N[n], 0.0, needed_N[n]))
    return torch.stack(cuts)


def _candidates(p_V: NDArray[Any], held: float, needed: float) -> NDArray[np.intp]:
    """Tokens that the first rule leaves, applied to what it left until little changes."""
    p_K, tokens_K = p_V, None
    while True:
        # What the candidates hold beyond the needed is shared by those from a token on. The 1e-6
        # is for rounding.
        least = (held - needed - 1e-6) / len(p_K)
        at_K = np.flatnonzero(p_K >= least)
        few = len(at_K) < 0.7 * len(p_K)
        tokens_K = at_K if tokens_K is None else tokens_K[at_K]
        if not few or len(at_K) < 256:
            return tokens_K
        p_K = p_K[at_K]
        held = float(p_K.sum(dtype=np.float64))


def _window(logits_NV: Tensor, max_N: Tensor, share_N: Tensor) -> Tensor:
    """The second rule for all rows at once; rows that need more than the window are sorted."""
    needed_N = share_N * _total(logits_NV.softmax(-1))
    candidates_NK = logits_NV.topk(min(_WINDOW, logits_NV.shape[1])).values
    cut_N = _cut(candidates_NK, max_N, 0.0, needed_N)
    held_N = (candidates_NK - max_N.unsqueeze(-1)).double().exp_().sum(-1)
    # A tie that goes on beyond the window is no harm: the cut is its value.
    wide = ((held_N < needed_N) & (share_N < 1)).nonzero().squeeze(-1)
    if len(wide):
        cut_N[wide] = _sort(logits_NV[wide], max_N[wide], share_N[wide])
    return cut_N


def _histogram(logits_NV: Tensor, max_N: Tensor, share_N: Tensor) -> Tensor:
    """The bin of the cut from the masses of all bins; only the tokens of that bin are sorted."""
    below_NV = max_N.unsqueeze(-1) - logits_NV
    mass_NV = below_NV.neg().exp_().double()
    total_N = mass_NV.sum(-1)
    # How far below the largest logit the first rule looks, and a little more.
    rest_N = (1 - share_N).clamp_min(0) * total_N / logits_NV.shape[1]
    reach_N1 = (1e-3 - rest_N.log()).clamp(1e-3, 1e4).unsqueeze(-1)
    # One bin more, for the tokens that it excludes.
    bin_NV = (below_NV * (_BINS / reach_N1).to(below_NV.dtype)).clamp_max_(_BINS).long()
    mass_NB = mass_NV.new_zeros(len(mass_NV), _BINS + 1).scatter_add_(1, bin_NV, mass_NV)
    running_NB = mass_NB.cumsum(-1)
    # At most what the bins hold: rounding must not look for more.
    needed_N = torch.minimum(share_N * total_N, running_NB[:, -1])
    crossed_N = (running_NB < needed_N.unsqueeze(-1)).sum(-1)
    before_N = (running_NB - mass_NB).gather(-1, crossed_N.unsqueeze(-1)).squeeze(-1)
    cuts = []
    for n, crossed in enumerate(crossed_N):
        inside_K = sort_rows_(-logits_NV[n][bin_NV[n] == crossed]).neg_()
        cuts.append(_cut(inside_K, max_N[n], before_N[n], needed_N[n]))
    return torch.stack(cuts)
