"""Sentences by how likely they make the question: how a trained reader finds the one that answers.

The log-probability of the question after a sentence, less that without one, says how much of the
question the sentence explains (Sachan et al., arXiv 2204.07496). The sentence stands first, so that
the next question about the same passages finds all of them in the engine's cache.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol, TypeGuard, runtime_checkable

from hanol.engines import Engine, Request, Scored, WrappedEngine
from hanol.research.asking._units import Unit, units_of
from hanol.runs import Ledger

_TITLE, _BEFORE, _TEXT = 60, 100, 300  # most characters of each part of a prompt
_ASKS = "Question:"
_MOST = 2.0  # nats of a token


@runtime_checkable
class Ranks(Protocol):
    """An engine that scores plain text, as one of a checkpoint in this process does."""

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of a text."""

    async def score(self, request: Request, continuations: Sequence[str]) -> list[Scored]:
        """How likely continuations are."""


def can_rank(engine: object) -> TypeGuard[Ranks]:
    """Whether an engine scores plain text."""
    if isinstance(engine, WrappedEngine):
        return can_rank(engine.engine)
    if isinstance(engine, Engine):
        kind = type(engine)
        return kind.encode is not Engine.encode and kind.score is not Engine.score
    return isinstance(engine, Ranks)


def sentence_prompt(sentence: Unit | None) -> str:
    """What a question follows: a sentence with its title and what stands before it, or nothing.

    Readers are trained on exactly this; the question follows after a blank.

    Args:
        sentence: One of `sentences_of`; None for a question without any.
    """
    if sentence is None:
        return _ASKS
    before = " ".join(sentence.before.split())
    before = before if len(before) <= _BEFORE else f"… {before[-_BEFORE:]}"
    title, text = _clipped(sentence.passage.title, _TITLE), _clipped(sentence.text, _TEXT)
    return f"{title}: {before} {text}\n{_ASKS}"


sentences_of = units_of


async def aevidence(
    question: str, sentences: Sequence[Unit], engine: Ranks
) -> tuple[list[float], Ledger]:
    """How much more likely each sentence makes the question, in nats a token, and its cost.

    A token counts for 2 nats at most: a name that the whole document repeats explains nothing.

    Raises:
        EngineError: The model failed, or a sentence does not fit its window.
    """
    asked = f" {' '.join(question.split())}"
    prompts = [engine.encode(sentence_prompt(one)) for one in (None, *sentences)]
    found = await asyncio.gather(
        *(engine.score(Request(prompt_ids=ids), [asked]) for ids in prompts)
    )
    alone, *given = (scored[0].logprobs for scored in found)
    length = len(alone)
    ledger = Ledger(
        model_calls=len(prompts),
        prompt_tokens=sum(map(len, prompts)),
        cached_tokens=sum(scored[0].cached_tokens for scored in found),
        scored_tokens=length * len(prompts),
    )
    gains = ((min(_MOST, a - b) for a, b in zip(one, alone, strict=True)) for one in given)
    return [sum(values) / length for values in gains], ledger


def _clipped(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[:length]} …"
