"""The engine protocol."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

from hanol.control import ControlTokens
from hanol.engines._request import Capability, Completion, Message, Piece, Request, Scored
from hanol.errors import CapabilityError
from hanol.sampling import Sampling

_IN_PROCESS = "a checkpoint in this process (a folder or a hub id) can"
_BY_BYTES = "a checkpoint in this process whose tokenizer works on bytes can"
_ENDPOINT = "an endpoint whose model takes {} (http://host:port/v1#model) can"
_SEEING = (
    "an endpoint whose model takes images (http://host:port/v1#model), or a checkpoint that was "
    "trained on images and has a processor, can"
)
# What it is that some engines cannot do, and who can.
_CAPABILITIES: dict[Capability, tuple[str, str]] = {
    "score": ("score continuations", _IN_PROCESS),
    "n": ("draw several answers to one request", _IN_PROCESS),
    "prefill": ("continue a `prefill`", _IN_PROCESS),
    "prompt_ids": ("take a prompt as token ids", _IN_PROCESS),
    "tools": ("offer `tools` to the model", _IN_PROCESS),
    "json_schema": ("constrain an answer to a JSON schema", _BY_BYTES),
    "regex": ("constrain an answer to a regular expression", _BY_BYTES),
    "grammar": ("constrain an answer to a grammar", _BY_BYTES),
    "logprobs": ("return log-probabilities", _IN_PROCESS),
    "keep_stop": ("keep the text that ends an answer", _IN_PROCESS),
    "images": ("read images", _SEEING),
    "audio": ("process audio", _ENDPOINT.format("audio")),
}

Continuations = Sequence[str | Sequence[int]]  # of a prompt, as texts or as tokens


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
        default_sampling: What fits the model where a user says nothing. Requests do not take it by
            themselves: it is for commands that talk to people.
        parameters: Weights of the model that a token meets (all experts counted); None when the
            engine cannot know.
    """

    name: str
    context_window: int | None = None
    capabilities: frozenset[Capability] = frozenset()
    default_sampling: Sampling = Sampling()
    parameters: int | None = None

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

    async def score(self, request: Request, continuations: Continuations) -> list[Scored]:
        """How likely each continuation of the prompt (and its prefill) is.

        Raises:
            CapabilityError: This engine cannot score; the message names one that can.
        """
        raise cannot(self.name, "score")

    @property
    def control_tokens(self) -> ControlTokens:
        """What the model reads as control tokens; where that is unknown, the common shapes."""
        return ControlTokens()

    def encode(self, prompt: str | Sequence[Message], *, begins: bool = True) -> tuple[int, ...]:
        """The tokens of a text, or of a conversation up to where the answer begins.

        They are for `Request.prompt_ids`.

        Args:
            prompt: The text or the conversation.
            begins: Whether a text begins a sequence, so that a begin token may stand before it.

        Raises:
            CapabilityError: This engine takes no token ids; the message names one that does.
        """
        raise cannot(self.name, "prompt_ids")

    @abstractmethod
    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered conversation; an upper estimate where there is no tokenizer."""

    def expect(self, requests: int) -> None:  # noqa: B027 - most have nothing
        """Announce how many requests there are at once, each followed by the next; 0 ends it.

        Engines that compute several together wait for all of them before each token, up to five
        seconds, so that the roundings of an answer do not depend on who came first. Others do
        nothing.
        """

    async def aclose(self) -> None:  # noqa: B027 - most have nothing
        """Release memory and connections."""

    def check(self, request: Request) -> None:
        """Refuse a malformed request, or one that this engine cannot answer; call it first.

        Raises:
            EngineError: There is no prompt, or a value is out of range.
            CapabilityError: The request needs what the engine lacks; the message names an engine
                that has it.
        """
        request.check()
        for needed in request.needs:
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
        self.capabilities, self.default_sampling = engine.capabilities, engine.default_sampling
        self.parameters = getattr(engine, "parameters", None)  # engines of before have none

    async def complete(self, request: Request) -> Completion:
        """The engine's answer."""
        return await self.engine.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The pieces of the engine's answer."""
        changed = type(self).complete is not WrappedEngine.complete
        async for piece in super().stream(request) if changed else self.engine.stream(request):
            yield piece

    async def score(self, request: Request, continuations: Continuations) -> list[Scored]:
        """The engine's scores."""
        return await self.engine.score(request, continuations)

    @property
    def control_tokens(self) -> ControlTokens:
        """Those of the engine."""
        return self.engine.control_tokens

    def encode(self, prompt: str | Sequence[Message], *, begins: bool = True) -> tuple[int, ...]:
        """The engine's tokens."""
        return self.engine.encode(prompt, begins=begins)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """The engine's count."""
        return self.engine.count_tokens(messages)


def cannot(name: str, capability: Capability) -> CapabilityError:
    """The error of an engine that cannot do what is asked, with one that can."""
    what, who = _CAPABILITIES[capability]
    return CapabilityError(f"The engine {name!r} cannot {what}; {who}.")
