"""Penalties on tokens that occurred before.

Shape suffixes: V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hanol.sampling._settings import Sampling


class Penalties:
    """What one answer takes off the logits of tokens that it has, kept as the answer grows.

    Args:
        sampling: Presence and frequency penalty count tokens of the answer, the repetition penalty
            those of the prompt too.
        prompt: Tokens before the answer.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._presence, self._frequency = sampling.presence_penalty, sampling.frequency_penalty
        self._repetition = sampling.repetition_penalty
        self._counts: dict[int, int] = {}
        self._seen = set(prompt) if self._repetition != 1 else set[int]()

    @staticmethod
    def wanted(sampling: Sampling) -> bool:
        """Whether a sampling has any."""
        return bool(
            sampling.presence_penalty
            or sampling.frequency_penalty
            or sampling.repetition_penalty != 1
        )

    def add(self, token: int) -> None:
        """Note a token of the answer."""
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._repetition != 1:
            self._seen.add(token)

    def apply_(self, logits_V: Tensor) -> None:
        """Change the logits in place."""
        device = logits_V.device
        if self._seen:
            seen = torch.tensor(sorted(self._seen), device=device)
            old = logits_V[seen]
            logits_V[seen] = torch.where(old > 0, old / self._repetition, old * self._repetition)
        if self._counts and (self._presence or self._frequency):
            taken = [self._presence + self._frequency * n for n in self._counts.values()]
            tokens = torch.tensor(list(self._counts), device=device)
            logits_V[tokens] -= torch.tensor(taken, device=device, dtype=logits_V.dtype)
