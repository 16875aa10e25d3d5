"""Rows to learn from: rollouts of an engine that writes text, in the tokens of a model.

They are made in the environment itself, so what is learned is what will be used.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hanol.engines import ChatRequest, Completion, Engine, Message
from hanol.errors import DataError
from hanol.research._batch import Task
from hanol.research._training._environment import ResearchEnvironment
from hanol.research._training._expert import Expert
from hanol.research._training._rollout import Rollout, TokenSegment, join_turns


class Spelled:
    """An engine whose turns are told in the tokens of another model.

    Turns that the expert gets wrong on purpose are noted, so that nobody learns them.

    Args:
        engine: Writes.
        tokenizer: Spells; needs a chat template and an end token.

    Raises:
        DataError: The tokenizer has no chat template, or no end token.
    """

    def __init__(self, engine: Engine, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None) or tokenizer.eos_token_id is None:
            raise DataError(
                "The tokenizer has no chat template or no end token, so it does not say how "
                "conversations are written. Use the tokenizer of a chat model."
            )
        self._engine = engine
        self._tokenizer = tokenizer
        self.mistakes: set[tuple[int, ...]] = set()

    @property
    def name(self) -> str:
        """Of the engine."""
        return self._engine.name

    @property
    def context_window(self) -> int | None:
        """Of the engine."""
        return self._engine.context_window

    async def complete(self, request: ChatRequest) -> Completion:
        """The engine's turn, with its tokens; their log-probabilities are not known and 0."""
        written = await self._engine.complete(request)
        conversation = self._tokenizer.apply_chat_template(
            [message.to_dict() for message in request.messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        prompt_ids = self._ids(conversation)
        token_ids = (*self._ids(written.text), self._tokenizer.eos_token_id)
        if isinstance(self._engine, Expert) and self._engine.is_detour(request.messages):
            self.mistakes.add(prompt_ids)
        return Completion(
            written.text,
            written.finish_reason,
            len(prompt_ids),
            len(token_ids),
            token_ids=token_ids,
            logprobs=(0.0,) * len(token_ids),
            prompt_ids=prompt_ids,
        )

    async def complete_batch(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """The turns of several conversations, in order."""
        return [await self.complete(request) for request in requests]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As the engine counts."""
        return self._engine.count_tokens(messages)

    async def aclose(self) -> None:
        """The engine outlives its spelling."""

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)


def demonstrations(
    environment: ResearchEnvironment,
    engine: Engine,
    tokenizer: Any,
    tasks: Sequence[Task],
    *,
    seed: int = 0,
    concurrency: int = 1,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> list[tuple[TokenSegment, ...]]:
    """The segments of each task's rollout that ended in the right answer; empty for the others.

    Args:
        environment: Where the tasks are from.
        engine: Who demonstrates, often an `Expert`.
        tokenizer: Of the model that will learn.
        tasks: The questions.
        seed: Of the first; the others count on from it.
        concurrency: Rollouts at once.
        on_rollout: Told of each.
    """
    spelled = Spelled(engine, tokenizer)
    rollouts = asyncio.run(
        environment.rollouts(
            spelled,
            tasks,
            seeds=range(seed, seed + len(tasks)),
            concurrency=concurrency,
            on_rollout=on_rollout,
        )
    )
    found = []
    for rollout in rollouts:
        # A turn that is left out becomes something that was read.
        turns = [turn for turn in rollout.turns if turn.prompt_ids not in spelled.mistakes]
        found.append(join_turns(turns) if rollout.reward == 1.0 else ())
    return found
