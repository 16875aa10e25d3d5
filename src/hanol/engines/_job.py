"""One request on its way through a model, and what comes of it."""

from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hanol.engines._engine import Completion, Request, Usage
from hanol.engines._stream import TextStream

_DRAWN_AT_ONCE = 64


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

    request: Request
    ids: list[int]
    limit: int
    stop: tuple[str, ...]
    marks: tuple[int, ...]
    future: "Future[Completion]" = field(default_factory=Future)
    # While it runs:
    sequence: list[int] = field(init=False)  # prompt and answer
    fed: int = 0  # tokens of it that the model has seen
    cached: int = 0
    epoch: int = 0  # of the weights
    logprobs: list[float] = field(default_factory=list)
    points: dict[int, list[Tensor]] = field(default_factory=dict)
    stopping: int = -1  # the point before what may become a stop string
    stream: TextStream = field(init=False)
    penalty_V: Tensor | None = None

    def __post_init__(self) -> None:
        self.sequence = list(self.ids)
        self._generator: torch.Generator | None = None
        self._uniform: list[float] = []

    @property
    def behind(self) -> int:
        """Tokens that the model has to see before it gives the next one."""
        return len(self.sequence) - self.fed

    @property
    def new_tokens(self) -> int:
        """Tokens of the answer."""
        return len(self.sequence) - len(self.ids)

    def uniform(self) -> float:
        """The next random number of this request, from [0, 1)."""
        if not self._uniform:
            if self._generator is None:
                self._generator = torch.Generator()
                if self.request.sampling.seed is None:
                    self._generator.seed()
                else:
                    self._generator.manual_seed(self.request.sampling.seed)
            drawn = torch.rand(_DRAWN_AT_ONCE, generator=self._generator, dtype=torch.float64)
            self._uniform = drawn.tolist()[::-1]
        return self._uniform.pop()

    def completion(self, ends: frozenset[int]) -> Completion:
        """What came of it, once it is finished."""
        stream, new = self.stream, self.sequence[len(self.ids) :]
        ended = new[-1] in ends
        stream.end()
        kept = stream.kept_tokens + (ended and not stream.stopped)
        wanted = self.request.top_logprobs is not None
        tokens = stream.pieces() + (("",) if ended and not stream.stopped else ())
        return Completion.of(
            stream.text,
            "stop" if ended or stream.stopped else "length",
            usage=Usage(len(self.ids), kept, self.cached),
            tokens=tokens if wanted else None,
            logprobs=tuple(self.logprobs[:kept]) if wanted else None,
            ids=tuple(new[:kept]),
            prompt_ids=tuple(self.ids) if wanted else None,
        )
