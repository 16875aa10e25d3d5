"""What an engine is, and what engines share: refusals, and texts cut at stop strings."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence

from hanol.engines._request import (
    AudioPart,
    Capability,
    Completion,
    ImagePart,
    Message,
    Piece,
    Request,
    Scored,
)
from hanol.errors import EngineError

_IN_PROCESS = "a checkpoint in this process (a folder or a hub id) can"
_WHO_CAN: dict[Capability, str] = {
    "images": "an endpoint whose model sees (http://host:port/v1#model) can",
    "audio": "an endpoint whose model hears (http://host:port/v1#model) can",
}
_WORDS: dict[Capability, str] = {
    "score": "score continuations",
    "n": "draw several answers to one request",
    "prefill": "go on from a `prefill`",
    "prompt_ids": "take a prompt as token ids",
    "tools": "tell the model of `tools`",
    "json_schema": "hold an answer to a JSON schema",
    "regex": "hold an answer to a regular expression",
    "grammar": "hold an answer to a grammar",
    "logprobs": "tell log-probabilities",
    "images": "read images",
    "audio": "hear audio",
}


class Engine(ABC):
    """Whatever turns messages into completions: the one protocol of everything that asks a model.

    Engines are used from one asyncio loop at a time and take many requests at once. Failures raise
    `EngineError`; they are never returned as text. Unless a subclass does better, an answer streams
    in one piece and nothing is scored.

    Attributes:
        name: The specification that opens this engine again.
        context_window: Tokens that prompt and answer may have together; None when the engine
            cannot know.
        capabilities: What it can do besides completing and streaming messages.
    """

    name: str
    context_window: int | None = None
    capabilities: frozenset[Capability] = frozenset()

    @abstractmethod
    async def complete(self, request: Request) -> Completion:
        """Answer one request; cancelling the task gives up."""

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The answer piece by piece, the completion with the last; closing the iterator gives up.

        As defined here, there is one piece for each choice.
        """
        completion = await self.complete(request)
        last = len(completion.choices) - 1
        for i, choice in enumerate(completion.choices):
            yield Piece(choice.text, i, completion if i == last else None)

    async def score(
        self, request: Request, continuations: Sequence[str | Sequence[int]]
    ) -> list[Scored]:
        """How likely each continuation of the prompt (and its prefill) is.

        Raises:
            EngineError: This engine cannot score; the message names one that can.
        """
        raise cannot(self.name, "score")

    @abstractmethod
    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered conversation; an upper estimate where there is no tokenizer."""

    async def aclose(self) -> None:  # noqa: B027 - most have nothing
        """Release memory and connections."""


class WrappedEngine(Engine):
    """An engine that changes or watches what another one answers; the other outlives it.

    Args:
        engine: The other one.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name, self.context_window = engine.name, engine.context_window
        self.capabilities = engine.capabilities

    async def complete(self, request: Request) -> Completion:
        """The engine's answer."""
        return await self.engine.complete(request)

    async def score(
        self, request: Request, continuations: Sequence[str | Sequence[int]]
    ) -> list[Scored]:
        """As the engine scores."""
        return await self.engine.score(request, continuations)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As the engine counts."""
        return self.engine.count_tokens(messages)


def cut_at_stop(text: str, stop: Iterable[str]) -> tuple[str, bool]:
    """The text before the earliest stop string, and whether there was one."""
    places = [place for word in stop if word and (place := text.find(word)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def beginnings(stop: Iterable[str]) -> tuple[str, ...]:
    """Everything that stop strings begin with, themselves included."""
    return tuple({word[:n] for word in stop for n in range(1, len(word) + 1)})


def sure_length(text: str, begin: tuple[str, ...]) -> int:
    """Characters that stay whatever comes: behind them, a stop string may have begun."""
    held = (len(word) for word in begin if text.endswith(word)) if text.endswith(begin) else ()
    return len(text) - max(held, default=0)


def check_request(engine: Engine, request: Request) -> None:
    """Refuse what cannot be completed, or not by this engine.

    Raises:
        EngineError: There is no prompt, a value is out of range, or the request needs what the
            engine cannot do: the message names one that can.
    """
    if not request.messages and not request.prompt_ids:
        raise EngineError("The request has no messages: give at least one of the user.")
    if request.messages and request.prompt_ids is not None:
        raise EngineError("The request has `messages` and `prompt_ids`: give one of them.")
    if request.n < 1:
        raise EngineError(f"`n` is {request.n}, but must be at least 1.")
    if request.top_logprobs is not None and request.top_logprobs < 0:
        raise EngineError(f"`top_logprobs` is {request.top_logprobs}, but must be 0 or more.")
    for needed in _needed(request):
        if needed not in engine.capabilities:
            raise cannot(engine.name, needed)


def cannot(name: str, capability: Capability) -> EngineError:
    """The error of an engine that cannot do what is asked, with one that can."""
    who = _WHO_CAN.get(capability, _IN_PROCESS)
    return EngineError(f"The engine {name!r} cannot {_WORDS[capability]}; {who}.")


def _needed(request: Request) -> Iterable[Capability]:
    if request.prompt_ids is not None:
        yield "prompt_ids"
    if request.prefill:
        yield "prefill"
    if request.n > 1:
        yield "n"
    if request.tools:
        yield "tools"
    if request.constraint is not None:
        yield request.constraint.kind
    for message in request.messages:
        if not isinstance(message.content, str):
            if any(isinstance(part, ImagePart) for part in message.content):
                yield "images"
            if any(isinstance(part, AudioPart) for part in message.content):
                yield "audio"
