"""The policy-gradient loss of token-level GRPO with leave-one-out advantages.

Tongyi DeepResearch (arXiv 2510.24701, eq. 4-5): rewards of one question are compared with each
other, without division by their spread and without a KL term; DAPO's clip-higher (arXiv
2503.14476) acts when a batch is used for more than one update.

Shape suffixes: B token sequences, L tokens.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hanol import training
from hanol.errors import DataError, ShapeError

Baseline = Literal["loo", "mean"]
Normalize = Literal["batch", "question"]


def group_advantages(
    rewards: Sequence[float | None],
    *,
    baseline: Baseline = "loo",
    excluded: Sequence[bool] | None = None,
    excluded_in_baseline: bool = True,
) -> list[float | None]:
    """How much better each rollout of one question was than the others.

    `training.group_advantages` without division by a spread, and with rollouts that have no part in
    the loss.

    Args:
        rewards: One per rollout; None where the environment broke, which keeps the rollout out of
            the loss and out of the baseline.
        baseline: "loo" compares with the mean of the others, "mean" with the mean of all: equal
            up to the factor G / (G - 1).
        excluded: Rollouts to keep out of the loss, such as those that ran into a limit without an
            answer; None for none.
        excluded_in_baseline: Their rewards count in what the others are compared with.

    Returns:
        The advantage of each rollout, or None where it has no part in the loss. Exactly 0 where
        nothing distinguishes the rollouts, also when only one is left.

    Raises:
        DataError: A reward is no finite number, or `excluded` has another length.

    Example:
        >>> group_advantages([1.0, 0.0, None, 0.0])
        [1.0, -0.5, None, -0.5]
        >>> group_advantages([1.0, 0.0, 0.0], excluded=[False, False, True])
        [1.0, -0.5, None]
    """
    excluded = [False] * len(rewards) if excluded is None else excluded
    if len(excluded) != len(rewards):
        raise DataError(f"{len(rewards)} rewards, but `excluded` has {len(excluded)} entries.")
    pairs = list(zip(rewards, excluded, strict=True))
    counted = [None if out and not excluded_in_baseline else reward for reward, out in pairs]
    kind: Literal["rloo", "dr_grpo"] = "rloo" if baseline == "loo" else "dr_grpo"
    advantages = training.group_advantages(counted, len(counted) or 1, kind=kind).tolist()
    return [
        None if reward is None or out else advantage
        for (reward, out), advantage in zip(pairs, advantages, strict=True)
    ]


def token_weights(
    tokens_B: Tensor,
    advantage_B: Tensor,
    question_B: Tensor,
    *,
    normalize: Normalize = "batch",
    drop_zero_variance: bool = False,
) -> Tensor:
    """Weight of one token of each sequence in the loss of a whole optimizer batch.

    Args:
        tokens_B: Tokens that the policy wrote, of all sequences of the batch: those that are in
            the loss, and no others.
        advantage_B: See `group_advantages`; the same for all sequences of a rollout.
        question_B: Integers that tell the questions apart.
        normalize: "batch" divides by the tokens of the batch; "question" by those of each question
            and then by the number of questions, as eq. 4 is printed.
        drop_zero_variance: Leave questions whose advantages are all 0 out of the denominators;
            they add nothing to the loss either way.

    Returns:
        weight_B, float64: the loss is the sum over tokens of weight times the token's loss, so
        that a batch may be split in any way. All 0 where nothing is left.
    """
    tokens_B = tokens_B.double()
    _, group_B = question_B.unique(return_inverse=True)
    groups = int(group_B.max()) + 1 if len(group_B) else 0
    zeros_Q = tokens_B.new_zeros(groups)
    if drop_zero_variance:
        signal_Q = zeros_Q.index_add(0, group_B, (advantage_B != 0).double())
        tokens_B = torch.where(signal_Q[group_B] > 0, tokens_B, 0)
    if normalize == "batch":
        total = tokens_B.sum()
        return torch.where(total > 0, 1 / total, 0).expand(len(tokens_B))
    tokens_Q = zeros_Q.index_add(0, group_B, tokens_B)
    counted = (tokens_Q > 0).sum()
    return torch.where(tokens_Q > 0, 1 / (tokens_Q * counted), 0)[group_B]


def policy_loss(
    logprob_BL: Tensor,
    old_logprob_BL: Tensor,
    advantage_B: Tensor,
    action_BL: Tensor,
    weight_B: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
) -> Tensor:
    """Clipped policy-gradient loss, to be minimised.

    -sum over written tokens of weight * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), where r
    is the ratio of the probabilities now and when the token was drawn. The sum over micro-batches
    is the loss of the batch.

    Args:
        logprob_BL: Log-probability of each token under the policy now, in nats; has the gradient.
        old_logprob_BL: The same when the token was drawn.
        advantage_B: Advantage of the rollout that a sequence is part of.
        action_BL: True where the policy wrote the token and it is in the loss. All else (prompt,
            observations, padding, excluded rollouts) has no value and a gradient of exactly 0.
        weight_B: From `token_weights`.
        clip_low: Ratios further below 1 earn nothing more where the advantage is negative.
        clip_high: And further above where it is positive; wider, so that rare tokens may grow.

    Raises:
        ShapeError: Shapes that do not belong together.
    """
    shape = logprob_BL.shape
    if not (old_logprob_BL.shape == action_BL.shape == shape and len(shape) == 2):
        raise ShapeError(
            f"logprob_BL is {tuple(shape)}, old_logprob_BL {tuple(old_logprob_BL.shape)}, "
            f"action_BL {tuple(action_BL.shape)}: they must be [B, L] and equal."
        )
    if not (advantage_B.shape == weight_B.shape == shape[:1]):
        raise ShapeError(
            f"advantage_B is {tuple(advantage_B.shape)} and weight_B {tuple(weight_B.shape)}, but "
            f"both must have one entry for each of the {shape[0]} sequences."
        )
    # Before exp: what is masked afterwards may be infinite, and its gradient then NaN.
    log_ratio_BL = torch.where(action_BL, logprob_BL - old_logprob_BL, 0)
    ratio_BL = log_ratio_BL.exp()
    advantage_B1 = advantage_B.to(ratio_BL).unsqueeze(1)
    gain_BL = torch.minimum(
        ratio_BL * advantage_B1, ratio_BL.clamp(1 - clip_low, 1 + clip_high) * advantage_B1
    )
    weight_BL = torch.where(action_BL, weight_B.to(ratio_BL).unsqueeze(1), 0)
    return -(gain_BL * weight_BL).sum()
