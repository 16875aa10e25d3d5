"""The engine protocol, and what engines share: checks of requests, texts cut at stop strings."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from numbers import Integral
from typing import get_args

from hanol.engines._request import (
    AudioPart,
    Capability,
    Completion,
    ImagePart,
    Message,
    Piece,
    Request,
    Role,
    Scored,
    TextPart,
)
from hanol.errors import EngineError

_IN_PROCESS = "a checkpoint in this process (a folder or a hub id) can"
_BY_BYTES = "a checkpoint in this process whose tokenizer works on bytes can"
_WHO_CAN: dict[Capability, str] = {
    "json_schema": _BY_BYTES,
    "regex": _BY_BYTES,
    "grammar": _BY_BYTES,
    "images": "an endpoint whose model takes images (http://host:port/v1#model) can",
    "audio": "an endpoint whose model takes audio (http://host:port/v1#model) can",
}
_WORDS: dict[Capability, str] = {
    "score": "score continuations",
    "n": "draw several answers to one request",
    "prefill": "continue a `prefill`",
    "prompt_ids": "take a prompt as token ids",
    "tools": "offer `tools` to the model",
    "json_schema": "constrain an answer to a JSON schema",
    "regex": "constrain an answer to a regular expression",
    "grammar": "constrain an answer to a grammar",
    "logprobs": "return log-probabilities",
    "images": "read images",
    "audio": "process audio",
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

        The base yields one piece per choice.
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

    def check(self, request: Request) -> None:
        """Refuse a malformed request, or one that this engine cannot answer; call it first.

        Raises:
            EngineError: There is no prompt, a value is out of range, or the request needs a
                capability that the engine lacks: the message names an engine that has it.
        """
        _check_types(request)
        if not request.messages and not request.prompt_ids:
            raise EngineError("The request has no messages: give at least one of the user.")
        if request.messages and request.prompt_ids is not None:
            raise EngineError("The request has `messages` and `prompt_ids`: give one of them.")
        for name, value, least in (("n", request.n, 1), ("top_logprobs", request.top_logprobs, 0)):
            if value is not None and not (isinstance(value, Integral) and value >= least):
                raise EngineError(f"`{name}` is {value!r}, but must be {least} or more.")
        for needed in _needed(request):
            if needed not in self.capabilities:
                raise cannot(self.name, needed)


class WrappedEngine(Engine):
    """An engine that changes or watches what another one answers.

    Answers of a subclass with its own `complete` stream in one piece each. Closing it does not
    close the other one.

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

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The pieces of the engine's answer."""
        changed = type(self).complete is not WrappedEngine.complete
        async for piece in super().stream(request) if changed else self.engine.stream(request):
            yield piece

    async def score(
        self, request: Request, continuations: Sequence[str | Sequence[int]]
    ) -> list[Scored]:
        """The engine's scores."""
        return await self.engine.score(request, continuations)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """The engine's count."""
        return self.engine.count_tokens(messages)


def cut_at_stop(text: str, stop: Iterable[str]) -> tuple[str, bool]:
    """The text before the earliest stop string, and whether there was one."""
    places = [place for word in stop if word and (place := text.find(word)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def beginnings(stop: Iterable[str]) -> tuple[str, ...]:
    """Everything that stop strings begin with, themselves included."""
    return tuple({word[:n] for word in stop for n in range(1, len(word) + 1)})


def sure_length(text: str, begin: tuple[str, ...]) -> int:
    """Number of characters before whatever may be the beginning of a stop string."""
    held = (len(word) for word in begin if text.endswith(word)) if text.endswith(begin) else ()
    return len(text) - max(held, default=0)


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


def _check_types(request: Request) -> None:
    if not isinstance(request.messages, tuple | list):
        raise EngineError(f"`messages` is {request.messages!r}, but must be a tuple of `Message`.")
    for message in request.messages:
        if not isinstance(message, Message):
            raise EngineError(f"{message!r} is not a `Message`: write Message('user', 'Hello').")
        if message.role not in get_args(Role):
            raise EngineError(
                f"{message.role!r} is not a role; the roles are {', '.join(get_args(Role))}."
            )
        parts = message.content
        if not isinstance(parts, str) and not (
            isinstance(parts, tuple | list)
            and all(isinstance(part, TextPart | ImagePart | AudioPart) for part in parts)
        ):
            raise EngineError(
                f"The content of a message is {parts!r}, but must be a string or a tuple of parts."
            )
    if request.constraint is not None and request.constraint.kind not in _WORDS:
        raise EngineError(
            f"{request.constraint.kind!r} is not a kind of constraint: use the class methods "
            "`json_schema`, `regex` and `grammar`."
        )
