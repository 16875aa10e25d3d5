"""One request on its way through a model, and what comes of it."""

from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hanol.engines._engine import ChatRequest, Completion
from hanol.engines._stream import TextStream


@dataclass
class Job:
    """One request on its way through the model.

    Args:
        request: How to sample.
        ids: Tokens of the prompt.
        limit: Most new tokens.
        stop: Stop strings.
        marks: Prompt lengths at which another conversation may go on from this one.
    """

    request: ChatRequest
    ids: list[int]
    limit: int
    stop: tuple[str, ...]
    marks: tuple[int, ...]
    future: "Future[Completion]" = field(default_factory=Future)
    # While it runs:
    cached: int = 0
    new: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    points: dict[int, list[Tensor]] = field(default_factory=dict)
    stopping: int = -1  # the point before what may become a stop string
    stream: TextStream = field(init=False)
    generator: torch.Generator = field(init=False)
    penalty_V: Tensor | None = None

    def completion(self, ends: frozenset[int]) -> Completion:
        """What came of it, once it is finished."""
        stream, ended = self.stream, self.new[-1] in ends
        stream.end()
        kept = stream.kept_tokens + (ended and not stream.stopped)
        tokens = stream.pieces() + (("",) if ended and not stream.stopped else ())
        return Completion(
            text=stream.text,
            finish_reason="stop" if ended or stream.stopped else "length",
            prompt_tokens=len(self.ids),
            completion_tokens=kept,
            cached_tokens=self.cached,
            tokens=tokens if self.request.logprobs else None,
            logprobs=tuple(self.logprobs[:kept]) if self.request.logprobs else None,
            token_ids=tuple(self.new[:kept]),
        )
