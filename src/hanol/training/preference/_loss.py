"""Losses of direct preference optimization on token log-probabilities.

DPO (arXiv 2305.18290, "sigmoid"), its length-normalised form of Tulu 3 (arXiv 2411.15124,
"sigmoid_norm") and IPO (arXiv 2310.12036, "ipo", per token as its authors confirmed to TRL), each
with the likelihood term and the mask of formatting tokens of Llama 3 (arXiv 2407.21783, 4.1.4).

Shape suffixes: B pairs, L tokens, S = 2 sides (chosen, rejected).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from hanol.errors import ConfigError, ShapeError

PreferenceKind = Literal["sigmoid", "sigmoid_norm", "ipo"]
NllNorm = Literal["token", "sequence", "batch"]
Sides = Tensor | Sequence[Tensor]


class Margins(NamedTuple):
    """By how much more a policy prefers each side than its reference, in nats.

    Attributes:
        chosen_B: log policy - log reference of the chosen answers, over the tokens that count; for
            kinds with lengths, per token.
        rejected_B: Likewise of the rejected ones.
    """

    chosen_B: Tensor
    rejected_B: Tensor


def preference_loss(
    policy_logps: Sides,
    reference_logps: Sides,
    masks: Sides,
    *,
    beta: float,
    kind: PreferenceKind = "sigmoid",
    nll_weight: float = 0.0,
    nll_norm: NllNorm = "token",
    format_mask: Sides | None = None,
) -> Tensor:
    """Mean loss of pairs of a chosen and a rejected answer.

    With d = (log policy - log reference of the chosen) - (the same of the rejected), each summed
    over the tokens that count: "sigmoid" is -log sigmoid(beta d); "sigmoid_norm" the same with each
    side divided by its number of tokens; "ipo" is (d - 1 / (2 beta))^2 with d per token.

    All four arguments with tokens come in one of three forms: a pair of [B, L] tensors (chosen,
    rejected), whose L may differ; one [2, B, L] tensor; or one [2 B, L] tensor, the chosen rows
    first, as TRL has them.

    Args:
        policy_logps: Log-probability of each token under the policy, in nats; has the gradient.
        reference_logps: The same under the reference model.
        masks: True (or 1) at the tokens of the answers; prompts and padding are False.
        beta: Strength of the reference: larger keeps the policy closer.
        kind: The loss.
        nll_weight: Weight of the negative log-likelihood of the chosen answers; 0.2 in Llama 3.
        nll_norm: What it is divided by: "token" by the tokens of all chosen answers (as TRL's
            "sft"), "sequence" each answer by its own tokens, then by B, "batch" by B.
        format_mask: True at formatting tokens (headers, ends of turns), which do not count in the
            preference. They count in the likelihood: the model must still learn to end its answers.

    Returns:
        A scalar. Its gradient at a token that does not count is exactly 0.

    Raises:
        ConfigError: `beta` is not above 0, `nll_weight` is below 0, or an unknown name.
        ShapeError: Shapes do not belong together.

    Example:
        >>> policy, reference = torch.tensor([[-1.0], [-2.0]]), torch.tensor([[-2.0], [-2.0]])
        >>> preference_loss(policy, reference, torch.ones(2, 1), beta=0.1).item()
        0.6443966627120972
    """
    _check(beta, kind, nll_weight, nll_norm)
    chosen_BL, masks_S = _sides(policy_logps, "policy_logps")[0], _sides(masks, "masks")
    margins = preference_margins(
        policy_logps, reference_logps, masks, kind=kind, format_mask=format_mask
    )
    difference_B = margins.chosen_B - margins.rejected_B
    if kind == "ipo":
        loss = ((difference_B - 1 / (2 * beta)) ** 2).mean()
    else:
        loss = -functional.logsigmoid(beta * difference_B).mean()
    if not nll_weight:
        return loss
    mask_BL = masks_S[0].bool()
    nll_B = -_exact(chosen_BL).where(mask_BL, 0).sum(1)
    length_B = mask_BL.sum(1)
    if nll_norm == "token":
        nll = nll_B.sum() / length_B.sum().clamp(min=1)
    elif nll_norm == "sequence":
        nll = (nll_B / length_B.clamp(min=1)).mean()
    else:
        nll = nll_B.mean()
    return loss + nll_weight * nll


def preference_margins(
    policy_logps: Sides,
    reference_logps: Sides,
    masks: Sides,
    *,
    kind: PreferenceKind = "sigmoid",
    format_mask: Sides | None = None,
) -> Margins:
    """What `preference_loss` compares: an answer pair is right where `chosen_B` is larger."""
    named = {"policy_logps": policy_logps, "reference_logps": reference_logps, "masks": masks}
    if format_mask is not None:
        named["format_mask"] = format_mask
    sides = {name: _sides(value, name) for name, value in named.items()}
    found = []
    for number, side in enumerate(("chosen", "rejected")):
        tensors = {name: tensors_S[number] for name, tensors_S in sides.items()}
        policy_BL = tensors["policy_logps"]
        if wrong := [name for name, x in tensors.items() if x.shape != policy_BL.shape]:
            raise ShapeError(
                f"`{wrong[0]}` of the {side} answers is {tuple(tensors[wrong[0]].shape)}, but "
                f"`policy_logps` is {tuple(policy_BL.shape)}: one entry per token."
            )
        counts_BL = tensors["masks"].bool()
        if format_mask is not None:
            counts_BL = counts_BL & ~tensors["format_mask"].bool()
        # Before the difference: what does not count may be infinite, and its gradient then NaN.
        policy_BL = _exact(policy_BL).where(counts_BL, 0)
        margin_B = (policy_BL - _exact(tensors["reference_logps"]).where(counts_BL, 0)).sum(1)
        if kind != "sigmoid":
            margin_B = margin_B / counts_BL.sum(1).clamp(min=1)
        found.append(margin_B)
    if len(found[0]) != len(found[1]):
        raise ShapeError(f"{len(found[0])} chosen answers, but {len(found[1])} rejected ones.")
    return Margins(*found)


def _sides(value: Sides, name: str) -> tuple[Tensor, Tensor]:
    """Chosen and rejected, [B, L] each."""
    if isinstance(value, Tensor) and value.dim() == 2 and len(value) % 2 == 0:
        chosen, rejected = value.chunk(2)
    elif len(value) == 2 and all(x.dim() == 2 for x in value):
        chosen, rejected = value
    else:
        form = tuple(value.shape) if isinstance(value, Tensor) else [tuple(x.shape) for x in value]
        raise ShapeError(
            f"`{name}` is {form}: give a pair of [B, L] tensors (chosen, rejected), or one of "
            "[2, B, L] or [2 B, L]."
        )
    return chosen, rejected


def _exact(logps_BL: Tensor) -> Tensor:
    """At least float32: sums over a long answer lose digits in bfloat16."""
    return logps_BL.to(torch.promote_types(logps_BL.dtype, torch.float32))


def _check(beta: float, kind: str, nll_weight: float, nll_norm: str) -> None:
    if not beta > 0:
        raise ConfigError(f"`beta` is {beta}: it must be above 0.")
    if not nll_weight >= 0:
        raise ConfigError(f"`nll_weight` is {nll_weight}: it must be 0 or more.")
    for name, value, known in (
        ("kind", kind, get_args(PreferenceKind)),
        ("nll_norm", nll_norm, get_args(NllNorm)),
    ):
        if value not in known:
            raise ConfigError(f"`{name}` is {value!r}: give one of {', '.join(map(repr, known))}.")
