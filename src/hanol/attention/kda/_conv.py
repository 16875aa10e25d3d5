"""The short causal convolution on queries, keys and values, as shifted multiply-adds.

Works on [B, T, C] as the projections leave it; no transposes to channels-first and back.

Shape suffixes: B batch, T tokens, C channels, W = kernel - 1 tokens of left context, D documents,
N packed tokens.
"""

import torch
from torch import Tensor

from hanol.attention.kda._packing import Packing


def short_convolution(
    x_BTC: Tensor, weight_C1J: Tensor, window_BWC: Tensor | None, packing: Packing | None
) -> tuple[Tensor, Tensor]:
    """Causal depthwise convolution: y_t = sum_j w_j x_(t - W + j), without activation.

    The window is the last W projections of each row, None before the first token; returned are
    `y` and the new one. The kernels are as `torch.nn.Conv1d` stores them.
    """
    weight_JC = weight_C1J.squeeze(1).T
    W = len(weight_JC) - 1
    if packing is None:
        B, T, C = x_BTC.shape
        if window_BWC is None:
            window_BWC = x_BTC.new_zeros(B, W, C)
        seen_BSC = torch.cat([window_BWC, x_BTC], dim=1)
        # A copy: a view would keep all that was seen as long as the cache lives.
        return _shifted_sum(seen_BSC, weight_JC, T), seen_BSC[:, T:].clone()
    # Each document gets its own W tokens of context in front, then one pass runs over all.
    C = x_BTC.shape[-1]
    context_DWC = x_BTC.new_zeros(len(packing.row), W, C)
    if window_BWC is not None:
        context_DWC[packing.first_of_row] = window_BWC
    pieces, results, ends = [], [], []
    offset = 0
    # Splitting, not slicing: the gradient of each slice would be a row of zeros of its own.
    for d, x_TC in enumerate(x_BTC[0].split(packing.lengths)):
        pieces += [context_DWC[d], x_TC]
        results.append(torch.arange(offset, offset + len(x_TC)))
        offset += W + len(x_TC)
        ends.append(offset)
    seen_SC = torch.cat(pieces)
    y_SC = _shifted_sum(seen_SC.unsqueeze(0), weight_JC, len(seen_SC) - W)[0]
    tail_BW = torch.tensor(ends)[packing.last_of_row].unsqueeze(1) + torch.arange(-W, 0)
    return y_SC[torch.cat(results)].unsqueeze(0), seen_SC[tail_BW]


def _shifted_sum(seen_BSC: Tensor, weight_JC: Tensor, tokens: int) -> Tensor:
    y_BTC = seen_BSC[:, :tokens] * weight_JC[0]
    for j in range(1, len(weight_JC)):
        y_BTC = y_BTC.addcmul_(seen_BSC[:, j : j + tokens], weight_JC[j])
    return y_BTC
