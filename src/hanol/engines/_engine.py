"""What an engine is: chat messages in, one completion out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str

    def to_dict(self) -> dict[str, str]:
        """The form that chat templates and endpoints read."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class ChatRequest:
    """What to complete, and how to sample.

    Args:
        messages: The conversation so far; the last one is usually the user's.
        max_tokens: At most this many new tokens; None leaves it to the engine's window.
        temperature: 0 takes the likeliest token. None is the engine's own default: 1, or what the
            heads of a checkpoint choose for each token.
        top_p: Mass of the nucleus; None as for `temperature`.
        presence_penalty: Subtracted from the logits of tokens that occurred in the answer.
        stop: Texts that end the answer; they are not part of it.
        seed: Of the sampling; equal seeds give equal answers in process, other engines may not.
        logprobs: Also return the log-probability of each sampled token.
    """

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False


@dataclass(frozen=True)
class Completion:
    """One answer.

    Args:
        text: What was written, reasoning included (in `<think>` tags where an endpoint sends it
            apart), without the stop text.
        finish_reason: "stop" when the model or a stop text ended it, "length" when a limit did.
        prompt_tokens: Tokens of the rendered conversation.
        completion_tokens: Tokens written.
        cached_tokens: Prompt tokens that did not have to be computed again.
        tokens: Texts of the sampled tokens, when `logprobs` was asked for and the engine has them.
        logprobs: Their log-probabilities in nats, under the distribution they were drawn from.
        token_ids: Their ids, where the engine knows them.
        prompt_ids: Ids of the rendered conversation, when `logprobs` was asked for and the engine
            knows them.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    tokens: tuple[str, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    prompt_ids: tuple[int, ...] | None = None


@runtime_checkable
class Engine(Protocol):
    """Whatever turns messages into a completion.

    Engines are used from one asyncio loop at a time and take many requests at once. Failures raise
    `EngineError`; they are never returned as text.
    """

    @property
    def name(self) -> str:
        """The specification that opens this engine again."""
        ...

    @property
    def context_window(self) -> int | None:
        """Tokens that prompt and answer may have together; None when the engine cannot know."""
        ...

    async def complete(self, request: ChatRequest) -> Completion:
        """Complete one conversation."""
        ...

    async def complete_batch(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """Complete many, in the order of the requests."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered conversation; an upper estimate where there is no tokenizer."""
        ...

    async def aclose(self) -> None:
        """Give back memory and connections."""
        ...
