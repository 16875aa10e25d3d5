"""The next token of each row, and how likely it was.

Shape suffixes: B rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hanol.errors import EngineError
from hanol.sampling._top_p import top_p_keep


class Drawn(NamedTuple):
    """One token for each row."""

    token_B: Tensor
    # In nats under the distribution that was drawn from; the plain log-softmax where drawn
    # greedily. Never NaN.
    logprob_B: Tensor
    keep_BV: Tensor | None  # tokens that top-p left; None when nothing was cut in any row
    tempered_BV: Tensor  # logits of the distribution, -inf where it was cut
    total_B: Tensor  # logarithm of their sum: a log-probability is the logit minus this


def draw(
    logits_BV: Tensor,
    temperature_B: Tensor,
    top_p_B: Tensor,
    uniform_B: Tensor,
    *,
    top_k: Sequence[int | None] = (),
) -> Drawn:
    """Draw from the tempered and truncated distribution; the most likely token at temperature 0.

    A token is the first whose cumulative probability, in the order of the vocabulary, exceeds the
    row's random number: the same number gives the same token in any batch, on any device.

    Args:
        logits_BV: Logits with penalties applied; -inf excludes a token.
        temperature_B: Temperatures, at least 0.
        top_p_B: Top-p, above 0; 1 cuts nothing.
        uniform_B: Random numbers from [0, 1), float64.
        top_k: Draw from so many most likely tokens, a number for each row or None for all tokens;
            ties stay. Empty cuts nothing.

    Raises:
        EngineError: A row has NaN, +inf or nothing above -inf.
    """
    logits_BV = logits_BV.float()
    # Beyond float32's normal numbers a quotient of finite logits is infinite, or zero for all.
    exact = torch.finfo(torch.float32)
    greedy_B = temperature_B < exact.tiny
    temperature_B = temperature_B.clamp_max(exact.max)
    best_B1 = logits_BV.amax(-1, keepdim=True)
    if not bool(best_B1.isfinite().all()):
        raise EngineError(
            "The model gave logits that are NaN or infinite. Its weights are broken, or its dtype "
            "is too narrow: try float32."
        )
    tempered_BV = (logits_BV - best_B1) / temperature_B.masked_fill(greedy_B, 1).unsqueeze(-1)
    for row, k in enumerate(top_k):
        if k is not None and k < logits_BV.shape[-1] and not bool(greedy_B[row]):
            least = tempered_BV[row].topk(k).values[-1]
            tempered_BV[row] = tempered_BV[row].masked_fill(tempered_BV[row] < least, -torch.inf)
    top_p_B = top_p_B.masked_fill(greedy_B, 1)
    keep_BV = None
    if bool((top_p_B < 1).any()):
        keep_BV = top_p_keep(tempered_BV, top_p_B, check=False)
        tempered_BV = tempered_BV.masked_fill(~keep_BV, -torch.inf)
    # Summed in float64: neither a long tail nor the place in it is lost to rounding.
    cdf_BV = tempered_BV.exp().cumsum(-1, dtype=torch.float64)
    token_B = logits_BV.argmax(-1)
    if not bool(greedy_B.all()):
        # Strictly above the number: never a token without probability.
        at_B1 = uniform_B.unsqueeze(-1) * cdf_BV[:, -1:]
        drawn_B = torch.searchsorted(cdf_BV, at_B1, right=True).squeeze(-1)
        token_B = torch.where(greedy_B, token_B, drawn_B.clamp_max(logits_BV.shape[-1] - 1))
    chosen_B = tempered_BV.gather(-1, token_B.unsqueeze(-1)).squeeze(-1)
    total_B = cdf_BV[:, -1].log()
    return Drawn(token_B, chosen_B.double() - total_B, keep_BV, tempered_BV, total_B)
