"""What a pass through a model with heads gives.

Shape suffixes: B batch, T positions whose logits are computed, V vocabulary, H hidden width.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class AutoDecoOutput(ModelOutput):
    """What a forward pass gives; entries of the base that are not listed here are kept.

    Attributes:
        loss: With `labels`.
        logits: What to sample from at temperature 1 and top-p 1, [B, T, V]; float32 unless
            `apply="off"`.
        temperature: Chosen temperatures, [B, T]; None with `apply="off"`.
        top_p: Chosen top-p, [B, T]; None with `apply="off"`.
        base_logits: Logits of the base, [B, T, V], with `output_base_logits=True`.
        past_key_values: The base's cache.
        hidden_states: The base's, on request.
        attentions: The base's, on request.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    temperature: Tensor | None = None
    top_p: Tensor | None = None
    base_logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: Any = None
    attentions: Any = None


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
