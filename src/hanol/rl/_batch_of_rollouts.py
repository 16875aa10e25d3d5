"""From the rollouts of a step to the token batches of its update.

Shape suffixes: B sequences, L tokens that are predicted (one less than there are), N of them that
the policy wrote, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hanol.rl._grpo_settings import GrpoSettings
from hanol.rl._policy import group_advantages
from hanol.rl._rollout import Rollout, TokenSegment
from hanol.training import logits_at, logprob_and_entropy


@dataclass(frozen=True)
class SegmentRow:
    """One token sequence that is in the loss."""

    segment: TokenSegment
    advantage: float  # the same for all segments of a rollout (arXiv 2509.13313)
    question: int  # tells the questions of a step apart

    @property
    def written(self) -> int:
        """Tokens that the policy wrote."""
        return sum(self.segment.action_mask)


@dataclass(frozen=True)
class MicroBatch:
    """Rows of similar length, padded on the right: what is padded is seen by no real token."""

    ids_BT: Tensor  # one column more than the others
    action_BL: Tensor  # which of the predicted tokens the policy wrote
    old_logprob_BL: Tensor  # when they were drawn, in nats
    advantage_B: Tensor
    weight_B: Tensor  # of one token in the loss


def is_lost(rollout: Rollout) -> bool:
    """Whether it earned nothing because it ran into a limit, rather than by a wrong answer."""
    return not rollout.has_answer and rollout.reward is not None and rollout.reward <= 0


def rows_of(group: Sequence[Rollout], question: int, settings: GrpoSettings) -> list[SegmentRow]:
    """The rows of one question's rollouts that are in the loss."""
    advantages = group_advantages(
        [rollout.reward for rollout in group],
        baseline=settings.baseline,
        excluded=[settings.no_answer == "excluded" and is_lost(rollout) for rollout in group],
        excluded_in_baseline=settings.excluded_in_baseline,
    )
    return [
        SegmentRow(segment, advantage, question)
        for rollout, advantage in zip(group, advantages, strict=True)
        if advantage is not None
        for segment in rollout.segments
        if any(segment.action_mask)
    ]


def micro_batches(
    rows: Sequence[SegmentRow], weight_B: Tensor, *, max_tokens: int, device: Any
) -> Iterator[MicroBatch]:
    """Rows in batches of at most so many padded tokens, or of one row that is longer.

    Rows with an advantage of 0, which have no gradient, have batches of their own.
    """
    order = sorted(
        range(len(rows)), key=lambda i: (rows[i].advantage == 0, len(rows[i].segment.input_ids))
    )
    chunk: list[int] = []
    for i in order:
        is_full = (len(chunk) + 1) * len(rows[i].segment.input_ids) > max_tokens
        if chunk and (is_full or (rows[i].advantage == 0) != (rows[chunk[0]].advantage == 0)):
            yield _padded([rows[j] for j in chunk], weight_B[chunk], device)
            chunk = []
        chunk.append(i)
    if chunk:
        yield _padded([rows[i] for i in chunk], weight_B[chunk], device)


def _padded(rows: Sequence[SegmentRow], weight_B: Tensor, device: Any) -> MicroBatch:
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


def token_logprobs(model: Any, batch: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """What the policy gives to each token that was written, as it was drawn: tempered, uncut.

    Returns:
        logprob_BL in nats, 0 elsewhere, and the entropies of the distributions of the written
        tokens, without a gradient, in a row.
    """
    logits_NV = logits_at(model, model.get_output_embeddings(), batch.ids_BT, batch.action_BL)
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    token_N = batch.ids_BT[:, 1:][batch.action_BL]
    logprob_N, entropy_N = logprob_and_entropy(
        logits_NV / temperature, token_N, entropy_gradient=False
    )
    logprob_BL = logits_NV.new_zeros(batch.action_BL.shape)
    return logprob_BL.masked_scatter(batch.action_BL, logprob_N), entropy_N
