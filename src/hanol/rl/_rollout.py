"""Rollouts: where they come from, and the token sequences that a trainer learns from."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hanol.engines import Engine
from hanol.runs import Event, Mode, Task


@dataclass(frozen=True)
class SampledTurn:
    """One turn of the policy, token by token.

    Args:
        prompt_ids: What the model had read.
        token_ids: What it wrote; an end token counts.
        logprobs: Log-probability of each written token, in nats, under the distribution it was
            drawn from.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class TokenSegment:
    """One token sequence of a rollout.

    Args:
        input_ids: Prompt, turns and observations in order.
        action_mask: True where the policy wrote the token; everything else is observation.
        logprobs: Log-probabilities of the written tokens when drawn, in nats; 0.0 elsewhere.
    """

    input_ids: tuple[int, ...]
    action_mask: tuple[bool, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Rollout:
    """One attempt at a question.

    Args:
        task: The question.
        events: The log of the run; `replay` and `write_report` read it.
        turns: What the policy wrote, in order.
        reward: Reward of the answer; None where the environment broke (a tool or an engine that
            failed for good, a reward that was no number), so that nothing can be learned from it.
        problem: Why `reward` is None.
    """

    task: Task
    events: tuple[Event, ...]
    turns: tuple[SampledTurn, ...]
    reward: float | None
    problem: str | None = None

    @property
    def has_answer(self) -> bool:
        """Whether the model gave an answer of its own accord, not because a limit was reached."""
        last = self.events[-1] if self.events else None
        return getattr(last, "termination", None) == "answer"

    @property
    def is_lost(self) -> bool:
        """Whether it earned nothing because it ran into a limit, rather than by a wrong answer."""
        return not self.has_answer and self.reward is not None and self.reward <= 0

    @property
    def segments(self) -> tuple[TokenSegment, ...]:
        """The turns as token sequences, each turn in exactly one of them."""
        return join_turns(self.turns)


def join_turns(turns: Iterable[SampledTurn]) -> tuple[TokenSegment, ...]:
    """Join turns into as few sequences as hold each of them once, as it was sampled.

    A turn joins the sequence before it where its prompt begins with all of that sequence, as in
    ReAct. Otherwise it begins a new one: a round of Markov mode (arXiv 2511.07327), a restart of
    ReSum (arXiv 2509.13313), or text that the tokenizer cuts in another way than it was written.
    """
    segments: list[TokenSegment] = []
    for turn in turns:
        before = segments[-1] if segments else None
        if before is not None and turn.prompt_ids[: len(before.input_ids)] == before.input_ids:
            segments.pop()
        else:
            before = TokenSegment((), (), ())
        heard = turn.prompt_ids[len(before.input_ids) :]
        segments.append(
            TokenSegment(
                before.input_ids + heard + turn.token_ids,
                before.action_mask + (False,) * len(heard) + (True,) * len(turn.token_ids),
                before.logprobs + (0.0,) * len(heard) + turn.logprobs,
            )
        )
    return tuple(segments)


class Environment(Protocol):
    """Attempts questions by an engine, and says what each attempt was worth."""

    @property
    def sampling(self) -> Any:
        """How tokens are drawn."""

    @property
    def mode(self) -> Mode:
        """How the agent remembers."""

    async def rollouts(
        self,
        engine: Engine,
        tasks: Sequence[Task],
        *,
        seeds: Sequence[int],
        concurrency: int,
        folder: str | os.PathLike[str] | None = None,
        on_rollout: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """One attempt at each question with its seed, in the order of the tasks."""
        ...
