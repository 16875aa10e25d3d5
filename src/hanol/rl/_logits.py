"""Logits where something was written.

Shape suffixes: B rows, T tokens, L = T - 1 that are predicted, N chosen ones, V vocabulary.
"""

from typing import Any

from torch import Tensor, nn


def logits_at(model: nn.Module, head: nn.Module, ids_BT: Tensor, at_BL: Tensor) -> Tensor:
    """Logits of chosen next tokens; no other position goes through the head.

    Of an agent's tokens four in five were read, not written, and the head of a small model is much
    of its work.

    Args:
        model: A causal language model, as it may be wrapped for several processes.
        head: Its output embeddings.
        ids_BT: Rows padded at their end: nothing before the padding sees it, so there is no mask.
        at_BL: True where the token after the first is predicted.

    Returns:
        logits_NV, in the order of the rows.
    """
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][:, :-1][at_BL],))
    try:
        outputs: Any = model(input_ids=ids_BT, use_cache=False)
    finally:
        hook.remove()
    logits_NV: Tensor = outputs.logits
    return logits_NV
