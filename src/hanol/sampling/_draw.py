"""The next token of each row, and how likely it was.

Shape suffixes: B rows, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hanol.errors import EngineError
from hanol.sampling._top_p import top_p_keep


class Drawn(NamedTuple):
    """One token for each row."""

    tokens: list[int]
    logprobs: list[float]  # nats; NaN-free, and of the log-softmax itself where drawn greedily


def draw(logits_BV: Tensor, temperature_B: Tensor, top_p_B: Tensor, uniform_B: Tensor) -> Drawn:
    """Draw from the tempered and truncated distribution; the likeliest where temperature is 0.

    Args:
        logits_BV: Logits, penalties included.
        temperature_B: 0 or more.
        top_p_B: Above 0; 1 cuts nothing.
        uniform_B: Numbers from [0, 1), float64: the place in the cumulative distribution.

    Raises:
        EngineError: Logits are no numbers.
    """
    logits_BV = logits_BV.float()
    greedy_B = temperature_B == 0
    best_B1 = logits_BV.amax(-1, keepdim=True)
    if not bool(best_B1.isfinite().all()):
        raise EngineError(
            "The model gave logits that are NaN or infinite. Its weights are broken, or its dtype "
            "is too narrow: try float32."
        )
    tempered_BV = (logits_BV - best_B1) / temperature_B.masked_fill(greedy_B, 1).unsqueeze(-1)
    top_p_B = top_p_B.masked_fill(greedy_B, 1)
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
    return Drawn(token_B.tolist(), (chosen_B.double() - cdf_BV[:, -1].log()).tolist())
