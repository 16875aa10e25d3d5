"""What the heads choose for rows of logits, and the logits that follow from it.

Shape suffixes: B batch, T positions, V vocabulary, H hidden width; both functions take any leading
dimensions.
Source: arXiv 2510.26697, section 2.
"""

from typing import Literal

import torch
from torch import Tensor

from hanol.decoding._heads import TemperatureHead, TopPHead, statistics
from hanol.decoding._soft_top_p import STEEPNESS, excess, tempered
from hanol.decoding._top_p import top_p_keep

Apply = Literal["hard", "soft", "off"]

MIN_TEMPERATURE = 1e-2
# Tokens outside of the nucleus: exp(-1000) is exactly 0 in float32, so sampling never takes them.
# Not -inf: when a grammar bans the whole nucleus, what is left keeps its tempered order.
EXCLUDED = 1000.0


def predict(
    hidden_BTH: Tensor,
    logits_BTV: Tensor,
    temp_head: TemperatureHead | None,
    top_p_head: TopPHead | None,
) -> tuple[Tensor, Tensor]:
    """`temperature_BT` and `top_p_BT`; 1 where there is no head."""
    ones_BT = torch.ones(hidden_BTH.shape[:-1], device=hidden_BTH.device)
    temperature_BT = ones_BT if temp_head is None else temp_head(hidden_BTH)
    if top_p_head is None:
        return temperature_BT, ones_BT
    # What the top-p head reads is an input, not a way for its gradient into the temperature head.
    detached_BT = temperature_BT.detach()
    read = statistics(logits_BTV, detached_BT) if top_p_head.enhanced else None
    return temperature_BT, top_p_head(hidden_BTH, detached_BT, read)


def rescale(
    logits_BTV: Tensor, temperature_BT: Tensor, top_p_BT: Tensor | None, apply: Apply
) -> Tensor:
    """The logits to sample from at temperature 1 and top-p 1, in float32.

    Args:
        logits_BTV: Logits of the base, any dtype.
        temperature_BT: Temperatures, above 0.
        top_p_BT: None cuts nothing.
        apply: "hard" or "soft".

    Raises:
        DataError: Logits on CPU that are not numbers.
    """
    tempered_BTV = tempered(logits_BTV.float(), temperature_BT)
    if top_p_BT is None:
        return tempered_BTV
    if apply == "soft":
        # The logarithm of `soft_top_p` but for its epsilons and a constant. Finite, so that here
        # too a grammar may ban every likely token.
        return tempered_BTV - STEEPNESS * excess(tempered_BTV.softmax(-1), top_p_BT)
    keep_NV = top_p_keep(
        tempered_BTV.flatten(0, -2),
        top_p_BT.flatten(),
        # Looking for NaN would make an accelerator wait at every token.
        check=tempered_BTV.device.type == "cpu",
    )
    return torch.where(keep_NV.view_as(tempered_BTV), tempered_BTV, tempered_BTV - EXCLUDED)
