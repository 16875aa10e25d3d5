"""One request on its way through a model, and what comes of it.

Shape suffixes: V vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hanol.engines._calls import read_calls
from hanol.engines._request import Choice, Completion, Scored, Usage
from hanol.engines.checkpoint._layers import Contents
from hanol.engines.checkpoint._sight import Pictured, Seen
from hanol.sampling import Penalties, Sampling, TextStream, TokenConstraint

_DRAWN_AT_ONCE = 64
Alternatives = tuple[tuple[str, float], ...]


@dataclass(eq=False)
class EngineTask:
    """One request: a prompt that goes through the model once, and what follows it."""

    ids: list[int]  # of the prompt
    marks: tuple[int, ...]  # lengths of it at which another conversation may branch off
    sampling: Sampling = field(default_factory=Sampling)  # `stop` holds every stop string
    limit: int = 0  # tokens of an answer
    constraints: Sequence[TokenConstraint | None] = ()  # one for each answer, at its start
    continuations: Sequence[list[int]] = ()  # to score, instead of writing answers
    top_logprobs: int | None = None
    calls_tools: bool = False  # answers are searched for calls of tools
    keeps_stop: bool = False  # stop strings are part of the answers
    pictured: Pictured | None = None  # the prompt, if it has images
    # Called with the number of an answer, its new text, and the temperature that heads chose for
    # it, in the model's thread:
    on_text: Callable[[int, str, float | None], None] | None = None
    future: "Future[Any]" = field(default_factory=Future)
    # While it runs:
    jobs: "list[Job]" = field(init=False)
    cached: int = 0
    prompt: Contents | None = None  # computed, but for its last token; while jobs wait for it
    waiting: int = 0  # jobs that have not started
    seen: Seen | None = None  # what the model keeps of the images
    times: list[float] = field(default_factory=list)  # begin, first token

    def __post_init__(self) -> None:
        if self.continuations:
            self.jobs = [Job(self, i, after) for i, after in enumerate(self.continuations)]
        else:
            self.jobs = [Job(self, i) for i in range(len(self.constraints))]
        self.waiting = len(self.jobs)

    @property
    def keys(self) -> list[int]:
        """The prompt as it is told from others: with a number for its images."""
        return self.ids if self.pictured is None else self.pictured.keys

    def fail(self, error: Exception) -> None:
        """Tell who waits."""
        with suppress(InvalidStateError):  # cancelled, or failed before
            self.future.set_exception(error)

    def finish(self) -> None:
        """Give the result to whoever waits, once every job is finished."""
        if not all(job.is_finished for job in self.jobs):
            return
        scores = [Scored(tuple(job.new), tuple(job.logprobs), self.cached) for job in self.jobs]
        with suppress(InvalidStateError):
            self.future.set_result(scores if self.continuations else self._completion())

    def _completion(self) -> Completion:
        choices = tuple(job.choice() for job in self.jobs)
        end = time.perf_counter()
        begin, first = self.times if len(self.times) == 2 else (self.times[0], end)
        generated = sum(len(choice.ids or ()) for choice in choices)
        usage = Usage(
            len(self.ids), generated, self.cached,
            prompt_seconds=first - begin, generation_seconds=end - first,
        )  # fmt: skip
        return Completion(choices, usage, None if self.top_logprobs is None else tuple(self.ids))


class Job:
    """One answer to a request, or one continuation to score, in a row of its own."""

    text: TextStream  # of the answer

    def __init__(self, task: EngineTask, index: int, continuation: list[int] | None = None) -> None:
        self.task, self.index = task, index
        self.is_scored = continuation is not None
        self.constraint = None if self.is_scored else task.constraints[index]
        self.sequence = [*task.ids, *(continuation or ())]
        self.fed = 0  # tokens of the sequence that the model has seen
        self.epoch = 0  # version of the weights
        self.temperature: float | None = None  # that heads chose for the last token
        self.logprobs: list[float] = []  # of what follows the prompt
        self.alternatives: list[Alternatives] = []
        self.points: dict[int, list[Tensor]] = {}  # recurrent states after so many tokens
        self.stopping = -1  # the point before what may become a stop string
        self.is_finished = self.has_ended = False
        self.penalties = (
            Penalties(task.sampling, task.ids) if Penalties.wanted(task.sampling) else None
        )
        self._shown = 0  # characters that `on_text` has received
        self._generator: torch.Generator | None = None
        self._uniform: list[float] = []

    @property
    def behind(self) -> int:
        """Tokens that the model has to see before it gives the next one."""
        return len(self.sequence) - self.fed

    @property
    def new(self) -> list[int]:
        """Tokens after the prompt."""
        return self.sequence[len(self.task.ids) :]

    @property
    def keys(self) -> list[int]:
        """What the model has seen, as it is told from other sequences."""
        return (self.task.keys + self.new)[: self.fed]

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.task.future.done()

    def uniform(self) -> float:
        """The next random number of this answer, from [0, 1)."""
        if not self._uniform:
            if self._generator is None:
                self._generator = torch.Generator()
                seed = self.task.sampling.seed
                if seed is None:
                    self._generator.seed()
                else:
                    self._generator.manual_seed(seed + self.index)
            drawn = torch.rand(_DRAWN_AT_ONCE, generator=self._generator, dtype=torch.float64)
            self._uniform = drawn.tolist()[::-1]
        return self._uniform.pop()

    def append(
        self, token: int, logprob: float, alternatives: Alternatives, ends: frozenset[int]
    ) -> bool:
        """Add a token to the answer; whether that finishes it."""
        self.sequence.append(token)
        self.logprobs.append(logprob)
        self.alternatives.append(alternatives)
        if self.penalties is not None:
            self.penalties.add(token)
        if self.constraint is not None:
            self.constraint.accept(token)
        self.has_ended = token in ends
        if not self.has_ended:
            self.text.push(token)
        length = len(self.logprobs)
        self.is_finished = self.has_ended or self.text.stopped or length >= self.task.limit
        if self.is_finished:
            self.text.end()
        return self.is_finished

    def show(self) -> None:
        """Pass on text that is new and cannot be cut off any more."""
        sure = len(self.text.text) if self.is_finished else self.text.sure
        if self.task.on_text is not None and sure > self._shown:
            new, self._shown = self.text.text[self._shown : sure], sure
            self.task.on_text(self.index, new, self.temperature)

    def choice(self) -> Choice:
        """The answer, once it is finished."""
        text = self.text
        counts_end = self.has_ended and not text.stopped
        kept = text.kept_tokens + counts_end
        wanted = self.task.top_logprobs
        is_whole = self.constraint is not None and self.constraint.is_complete
        return Choice(
            text.text,
            "stop" if self.has_ended or text.stopped or is_whole else "length",
            ids=tuple(self.new[:kept]),
            tokens=None if wanted is None else text.pieces() + (("",) if counts_end else ()),
            logprobs=None if wanted is None else tuple(self.logprobs[:kept]),
            top_logprobs=tuple(self.alternatives[:kept]) if wanted else None,
            tool_calls=read_calls(text.text) if self.task.calls_tools else (),
        )
