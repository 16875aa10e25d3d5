"""Logits, log-probabilities and entropies where something was written.

Shape suffixes: B rows, T tokens, L = T - 1 that are predicted, N chosen ones, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100  # label of what is not learned
_LOWEST = -2e3  # a log-probability whose probability is 0 in any float type


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


def logprob_and_entropy(
    logits_NV: Tensor, token_N: Tensor, *, entropy_gradient: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-probability of each token, in nats, and entropy of the distribution it was drawn from.

    Args:
        logits_NV: At least float32; -inf excludes a token.
        token_N: The tokens.
        entropy_gradient: Whether the entropy has a gradient.
    """
    log_NV = logits_NV.log_softmax(-1)
    logprob_N = log_NV.gather(-1, token_N.unsqueeze(-1)).squeeze(-1)
    with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_gradient):
        # 0 * -inf is not a number: of tokens that are excluded.
        entropy_N = -(log_NV.exp() * log_NV.clamp_min(_LOWEST)).sum(-1)
    return logprob_N, entropy_N
