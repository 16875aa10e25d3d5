"""What a pass through a model with heads gives.

Shape suffixes: B batch, T positions whose logits are computed, V vocabulary, H hidden width.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast


@dataclass
class AutoDecoOutput(CausalLMOutputWithPast):
    """What a forward pass gives: the base's output, its cache included, and the fields below.

    Attributes:
        loss: With `labels`.
        logits: What to sample from at temperature 1 and top-p 1, [B, T, V]; float32 unless
            `apply="off"`.
        temperature: Chosen temperatures, [B, T]; None with `apply="off"`.
        top_p: Chosen top-p, [B, T]; None with `apply="off"`.
        base_logits: Logits of the base, [B, T, V], with `output_base_logits=True`.
    """

    temperature: Tensor | None = None
    top_p: Tensor | None = None
    base_logits: Tensor | None = None


class Features(NamedTuple):
    """What the heads read, and the rest that the base gave.

    Attributes:
        hidden_BTH: Hidden states after the final norm.
        logits_BTV: Logits of the base, its own soft-cap or scale included.
        outputs: The base's output.
    """

    hidden_BTH: Tensor
    logits_BTV: Tensor
    outputs: Any
