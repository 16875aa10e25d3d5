"""From the rollouts of a step to the token batches of its update.

Shape suffixes: B sequences, L tokens that are predicted (one less than there are), V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hanol.research._training._grpo_settings import GrpoSettings
from hanol.research._training._rollout import Rollout, TokenSegment
from hanol.training import group_advantages


@dataclass(frozen=True)
class Row:
    """One token sequence that is in the loss.

    Args:
        segment: The tokens.
        advantage: Of its rollout; all segments of a rollout have the same (arXiv 2509.13313).
        question: Tells the questions of a step apart.
    """

    segment: TokenSegment
    advantage: float
    question: int

    @property
    def written(self) -> int:
        """Tokens that the policy wrote."""
        return sum(self.segment.action_mask)


@dataclass(frozen=True)
class MicroBatch:
    """Rows of similar length, padded on the right: what is padded is seen by no real token.

    Args:
        ids_BT: Token ids, one column more than the others.
        action_BL: Which of the predicted tokens the policy wrote.
        old_logprob_BL: Of these when they were drawn, in nats.
        advantage_B: Of the rollouts.
        weight_B: Of one token in the loss.
    """

    ids_BT: Tensor
    action_BL: Tensor
    old_logprob_BL: Tensor
    advantage_B: Tensor
    weight_B: Tensor


def is_lost(rollout: Rollout) -> bool:
    """Whether it earned nothing because it ran into a limit, rather than by a wrong answer."""
    return not rollout.has_answer and rollout.reward is not None and rollout.reward <= 0


def rows_of(group: Sequence[Rollout], question: int, settings: GrpoSettings) -> list[Row]:
    """The rows of one question's rollouts that are in the loss."""
    advantages = group_advantages(
        [rollout.reward for rollout in group],
        baseline=settings.baseline,
        excluded=[settings.no_answer == "excluded" and is_lost(rollout) for rollout in group],
        excluded_in_baseline=settings.excluded_in_baseline,
    )
    return [
        Row(segment, advantage, question)
        for rollout, advantage in zip(group, advantages, strict=True)
        if advantage is not None
        for segment in rollout.segments
        if any(segment.action_mask)
    ]


def micro_batches(
    rows: Sequence[Row], weight_B: Tensor, *, max_tokens: int, device: Any
) -> Iterator[MicroBatch]:
    """Rows in batches of at most so many padded tokens, or of one row that is longer."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].segment.input_ids))
    chunk: list[int] = []
    for i in order:
        if chunk and (len(chunk) + 1) * len(rows[i].segment.input_ids) > max_tokens:
            yield _padded([rows[i] for i in chunk], weight_B[chunk], device)
            chunk = []
        chunk.append(i)
    if chunk:
        yield _padded([rows[i] for i in chunk], weight_B[chunk], device)


def _padded(rows: Sequence[Row], weight_B: Tensor, device: Any) -> MicroBatch:
    longest = max(len(row.segment.input_ids) for row in rows)

    def pad(values: Sequence[Sequence[Any]], dtype: torch.dtype) -> Tensor:
        made = torch.zeros(len(rows), longest, dtype=dtype)
        for i, row in enumerate(values):
            made[i, : len(row)] = torch.tensor(row, dtype=dtype)
        return made.to(device)

    return MicroBatch(
        pad([row.segment.input_ids for row in rows], torch.long),
        pad([row.segment.action_mask for row in rows], torch.bool)[:, 1:],
        pad([row.segment.logprobs for row in rows], torch.float64)[:, 1:],
        torch.tensor([row.advantage for row in rows], dtype=torch.float64, device=device),
        weight_B.to(device),
    )


def token_logprobs(model: Any, ids_BT: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """What the policy gives to each token after the first, as it was drawn: tempered, uncut.

    Returns:
        logprob_BL in nats, and entropy_BL of the distributions without a gradient.
    """
    logits_BLV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
    logits_BLV = logits_BLV.to(torch.promote_types(logits_BLV.dtype, torch.float32))
    logprob_BLV = (logits_BLV / temperature).log_softmax(-1)
    logprob_BL = logprob_BLV.gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
    with torch.no_grad():
        entropy_BL = -(logprob_BLV.exp() * logprob_BLV).sum(-1)
    return logprob_BL, entropy_BL
