"""Llama-3.2-Vision: tokens that see no image leave its cross-attention layers as they came.

transformers (5.23, 5.24; issue 39379) lets such tokens attend to all visual tokens evenly and masks
the MLP branch alone, so that text before an image depends on it. Meta's code zeroes both.
"""

from typing import Any

import torch
from torch import Tensor, nn


def fix_mllama_masks(model: nn.Module) -> int:
    """Give a Mllama model Meta's masking of rows that see no image.

    Args:
        model: An `MllamaForConditionalGeneration`, or any other model, which is left as it is.

    Returns:
        How many layers were changed; 0 if they had been before.
    """
    changed = 0
    for layer in model.modules():
        if type(layer).__name__ != "MllamaCrossAttentionDecoderLayer":
            continue
        if _unseen_stay not in layer._forward_hooks.values():
            layer.register_forward_hook(_unseen_stay, with_kwargs=True)
            changed += 1
    return changed


def _unseen_stay(layer: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
    sees_B1T1 = kwargs.get("full_text_row_masked_out_mask")
    if sees_B1T1 is None:
        return None
    hidden_BTD = args[0] if args else kwargs["hidden_states"]
    return torch.where(sees_B1T1[:, 0].bool(), output, hidden_BTD)
