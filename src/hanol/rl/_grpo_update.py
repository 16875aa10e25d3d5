"""From the rollouts of a step to the optimizer steps that they make, on one process or several.

Shape suffixes: B sequences, L tokens that are predicted (one less than there are), N of them that
the policy wrote, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from hanol.errors import TrainingError
from hanol.rl._grpo_settings import GrpoSettings
from hanol.rl._policy import group_advantages, policy_loss, token_weights
from hanol.rl._rollout import Rollout, TokenSegment
from hanol.training import logits_at, logprob_and_entropy, muon_adamw

Metrics = dict[str, float]
Item = TypeVar("Item")


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


class MicroBatch(NamedTuple):
    """Rows of similar length, padded on the right: what is padded is seen by no real token."""

    ids_BT: Tensor  # one column more than the others
    action_BL: Tensor  # which of the predicted tokens the policy wrote
    old_logprob_BL: Tensor  # when they were drawn, in nats
    advantage_B: Tensor
    weight_B: Tensor  # weight of one token in the loss


def rows_of(group: Sequence[Rollout], question: int, settings: GrpoSettings) -> list[SegmentRow]:
    """The rows of one question's rollouts that are in the loss."""
    advantages = group_advantages(
        [rollout.reward for rollout in group],
        baseline=settings.baseline,
        excluded=[settings.no_answer == "excluded" and rollout.is_lost for rollout in group],
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
    """Rows in batches of at most so many padded tokens, or of one row that is longer."""
    # Those with an advantage of 0, which have no gradient, have batches of their own.
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
    def pad(name: str, dtype: torch.dtype) -> Tensor:
        values = [torch.tensor(getattr(row.segment, name), dtype=dtype) for row in rows]
        return pad_sequence(values, batch_first=True).to(device)

    return MicroBatch(
        pad("input_ids", torch.long),
        pad("action_mask", torch.bool)[:, 1:],
        pad("logprobs", torch.float64)[:, 1:],
        torch.tensor([row.advantage for row in rows], dtype=torch.float64, device=device),
        weight_B.to(device),
    )


def token_logprobs(model: Any, batch: MicroBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the written tokens, as they were drawn: tempered, uncut; 0 elsewhere.

    And the entropies of their distributions, without a gradient, in a row.
    """
    logits_NV = logits_at(model, model.get_output_embeddings(), batch.ids_BT, batch.action_BL)
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    token_N = batch.ids_BT[:, 1:][batch.action_BL]
    logprob_N, entropy_N = logprob_and_entropy(
        logits_NV / temperature, token_N, entropy_gradient=False
    )
    logprob_BL = logits_NV.new_zeros(batch.action_BL.shape)
    return logprob_BL.masked_scatter(batch.action_BL, logprob_N), entropy_N


def gathered(accelerator: Any, items: list[Item]) -> list[Item]:
    """The items of all processes, in the order of the processes."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


class Updater:
    """A model with its optimizer.

    Gradients of several processes are added up by hand: each may have another number of batches,
    and the model that rollouts are sampled from stays the plain one. `temperature` is that at which
    tokens are drawn.
    """

    def __init__(
        self, model: PreTrainedModel, temperature: float, settings: GrpoSettings, accelerator: Any
    ) -> None:
        self._model, self._temperature = model, temperature
        self._settings, self._accelerator = settings, accelerator
        self.optimizer = muon_adamw(model, settings)

    def update(self, rows: Sequence[SegmentRow]) -> Metrics:
        """Make the optimizer steps of one batch; none where no advantage differs from 0.

        Loss, gradient norm and share of clipped tokens are those of the last step; entropy and
        largest deviation of log-probabilities, in nats, those of the policy that drew the tokens.
        """
        weight_B, signal = self._weights(rows)
        metrics: Metrics = {}
        for number in range(self._settings.updates_per_batch if signal else 1):
            self.optimizer.zero_grad(set_to_none=True)
            found = self._gradient(rows, weight_B)
            if number == 0:
                self._check(found["deviation"])
                metrics = found
            metrics |= {name: found[name] for name in ("loss", "clipped")}
            metrics["grad_norm"] = self._descend(found["loss"]) if signal else 0.0
        return metrics

    def _weights(self, rows: Sequence[SegmentRow]) -> tuple[Tensor, bool]:
        """Weights of this process's rows in the loss of all, and whether there is any signal."""
        mine = [(row.written, row.advantage, row.question) for row in rows]
        every = gathered(self._accelerator, mine)
        counts = gathered(self._accelerator, [len(rows)])
        weight_B = token_weights(
            torch.tensor([tokens for tokens, _, _ in every]),
            torch.tensor([advantage for _, advantage, _ in every]),
            torch.tensor([question for _, _, question in every], dtype=torch.long),
            normalize=self._settings.normalize,
            drop_zero_variance=self._settings.drop_zero_variance,
        )
        begin = sum(counts[: self._accelerator.process_index])
        return weight_B[begin : begin + len(rows)], any(advantage for _, advantage, _ in every)

    def _gradient(self, rows: Sequence[SegmentRow], weight_B: Tensor) -> Metrics:
        """Accumulate the gradient of all processes in the parameters."""
        found = dict.fromkeys(("loss", "entropy", "clipped", "deviation", "actions"), 0.0)
        most, device = self._settings.micro_batch_tokens, self._model.device
        try:
            for batch in micro_batches(rows, weight_B, max_tokens=most, device=device):
                self._add(batch, found)
        except torch.OutOfMemoryError as err:
            raise TrainingError(
                f"The memory of {device} is full. Lower `micro_batch_tokens` (now {most}) and "
                "start again from the last checkpoint."
            ) from err
        every = gathered(self._accelerator, [found])
        if len(every) > 1:
            self._add_up_gradients()
        total = {name: math.fsum(one[name] for one in every) for name in found}
        actions = max(total.pop("actions"), 1.0)
        return {
            "loss": total["loss"],
            "entropy": total["entropy"] / actions,
            "clipped": total["clipped"] / actions,
            "deviation": max(one["deviation"] for one in every),
        }

    def _add(self, batch: MicroBatch, found: Metrics) -> None:
        low, high = self._settings.clip_low, self._settings.clip_high
        _, action_BL, old_BL, advantage_B, weight_B = batch
        with torch.set_grad_enabled(bool(advantage_B.any())):
            logprob_BL, entropy_N = token_logprobs(self._model, batch, self._temperature)
        loss = policy_loss(
            logprob_BL, old_BL, advantage_B, action_BL, weight_B, clip_low=low, clip_high=high
        )
        if loss.requires_grad:
            loss.backward()
        difference = (logprob_BL.detach() - old_BL)[action_BL]
        ratio = difference.exp()
        found["loss"] += float(loss.detach())
        found["entropy"] += float(entropy_N.sum())
        found["clipped"] += float(((ratio < 1 - low) | (ratio > 1 + high)).sum())
        worst = difference.abs().nan_to_num(nan=math.inf).max()
        found["deviation"] = max(found["deviation"], float(worst))
        found["actions"] += len(difference)

    def _add_up_gradients(self) -> None:
        for parameter in self._model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:  # this process had no rows
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad = self._accelerator.reduce(parameter.grad, "sum")

    def _check(self, deviation: float) -> None:
        limit = self._settings.max_deviation
        if limit is not None and not deviation <= limit:
            raise TrainingError(
                f"The log-probability of a sampled token differs by {deviation:.2g} nats between "
                f"engine and trainer; `max_deviation` is {limit:.2g}. The engine has other "
                "weights, cuts its distribution, or only rounds differently: then raise the limit."
            )

    def _descend(self, loss: float) -> float:
        """One optimizer step; returns the norm of the gradient before it was clipped."""
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._settings.clip_norm))
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise TrainingError(
                f"The loss is {loss} and the norm of its gradient {norm}. Lower the rates and "
                "start again from the last checkpoint."
            )
        self.optimizer.step()
        return norm
