"""The next token of each answer, from what the model and its heads gave.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hanol.engines.checkpoint._job import Alternatives, Job
from hanol.errors import EngineError
from hanol.sampling import draw, soft_top_p


def has_heads(model: Any) -> bool:
    """Whether it is an `AutoDecoForCausalLM`; without heads, nothing of them is imported."""
    return model.config.model_type == "autodeco"


class Draws:
    """Draws tokens for many answers at once, each by its own sampling, heads and constraint."""

    def __init__(self, model: Any, text_of: Callable[[tuple[int, ...]], str]) -> None:
        self._text_of = text_of
        self._heads = has_heads(model)
        self._truncation = model.config.serving()[0] if self._heads else "hard"
        # What the model needs to be called with:
        self.inputs: dict[str, Any] = {"output_base_logits": True} if self._heads else {}

    def logits(self, outputs: Any) -> Tensor:
        """The model's own, [B, T, V], whatever its heads choose."""
        return outputs.base_logits if self._heads else outputs.logits

    def __call__(
        self, outputs: Any, rows: list[int], jobs: list[Job]
    ) -> list[tuple[int, float, Alternatives]]:
        """For each of these rows a token, its log-probability, and the likeliest in its place."""
        drawn = draw(
            *self._distribution(outputs, rows, jobs),
            top_k=[job.task.sampling.top_k for job in jobs],
        )
        others = [
            self._alternatives(job, drawn.tempered_BV[i], drawn.total_B[i])
            for i, job in enumerate(jobs)
        ]
        return list(zip(drawn.token_B.tolist(), drawn.logprob_B.tolist(), others, strict=True))

    def _alternatives(self, job: Job, tempered_V: Tensor, total: Tensor) -> Alternatives:
        if not job.task.top_logprobs:
            return ()
        best = tempered_V.topk(min(job.task.top_logprobs, len(tempered_V)))
        logprobs = (best.values.double() - total).tolist()
        return tuple(
            (self._text_of((token,)), logprob)
            for token, logprob in zip(best.indices.tolist(), logprobs, strict=True)
            if logprob > -torch.inf
        )

    def _distribution(
        self, outputs: Any, rows: list[int], jobs: list[Job]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits, temperature, top-p and a random number of each of these rows.

        What a constraint forbids goes first, then heads choose, then penalties count.
        """
        logits_BV = self.logits(outputs)[rows, -1].float()
        temperatures, top_ps = [1.0] * len(jobs), [1.0] * len(jobs)
        if self._heads:
            temperatures = outputs.temperature[rows, -1].tolist()
            top_ps = outputs.top_p[rows, -1].tolist()
        uniform = []
        for i, job in enumerate(jobs):
            sampling = job.task.sampling
            allowed_V = _allowed(job, logits_BV.shape[-1])
            if allowed_V is not None:
                allowed_V = allowed_V.to(logits_BV.device)
                logits_BV[i].masked_fill_(~allowed_V, -torch.inf)
            if sampling.temperature is not None:
                temperatures[i] = sampling.temperature
            elif self._heads:
                job.temperature = temperatures[i]
            if sampling.top_p is not None:
                top_ps[i] = sampling.top_p
            elif self._truncation == "none":
                top_ps[i] = 1.0
            elif self._truncation == "soft" and sampling.temperature is None:
                if allowed_V is None:
                    logits_BV[i] = outputs.logits[rows[i], -1]
                else:
                    cut_V = (outputs.temperature[rows[i], -1:], outputs.top_p[rows[i], -1:])
                    logits_BV[i] = soft_top_p(logits_BV[i : i + 1], *cut_V)[0].log()
                temperatures[i] = top_ps[i] = 1.0
            if job.penalties is not None:
                job.penalties.apply_(logits_BV[i])
            has_choice = allowed_V is None or int(allowed_V.sum()) > 1
            uniform.append(job.uniform() if has_choice else 0.0)
        device = logits_BV.device
        return (
            logits_BV,
            torch.tensor(temperatures, device=device),
            torch.tensor(top_ps, device=device),
            torch.tensor(uniform, device=device, dtype=torch.float64),
        )


def _allowed(job: Job, size: int) -> Tensor | None:
    """What the constraint allows; one that allows nothing fails its own request only."""
    if job.constraint is None:
        return None
    try:
        return job.constraint.allowed(size)
    except EngineError as err:
        job.task.fail(err)
        return None
