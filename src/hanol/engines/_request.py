"""What engines are asked and what they answer."""

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from numbers import Integral
from typing import Any, Literal, Protocol, Self, get_args

from hanol.errors import EngineError
from hanol.sampling import Sampling

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length"]
ConstraintKind = Literal["json_schema", "regex", "grammar"]
Capability = Literal[
    "score", "n", "prefill", "prompt_ids", "tools", "json_schema", "regex", "grammar",
    "logprobs", "keep_stop", "images", "audio",
]  # fmt: skip


@dataclass(frozen=True)
class TextPart:
    """Text of a message that has other parts too."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """A picture of a message."""

    data: bytes
    media_type: str = "image/png"


@dataclass(frozen=True)
class AudioPart:
    """A recording of a message."""

    data: bytes
    media_type: str = "audio/wav"


Content = str | tuple[TextPart | ImagePart | AudioPart, ...]


class ToolSchema(Protocol):
    """The description of a tool for a model; every tool has it."""

    @property
    def name(self) -> str:
        """The name that the model writes, matched exactly."""

    @property
    def description(self) -> str:
        """One paragraph for the model."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of the arguments."""


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool.

    Args:
        name: The tool's.
        arguments: What it is called with.
        id: What the message with the result names; engines without such ids leave it empty.
        malformed: What the model wrote where it is no JSON object; `arguments` is empty then.
    """

    name: str
    arguments: dict[str, Any]
    id: str = ""
    malformed: str | None = None


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Args:
        role: Who speaks; "tool" is the result of a call.
        content: Text, or parts of text, images and audio.
        tool_calls: Calls that an assistant's message makes.
        tool_call_id: The call that a tool's message answers.
    """

    role: Role
    content: Content
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The images of the content."""
        parts = () if isinstance(self.content, str) else self.content
        return tuple(part for part in parts if isinstance(part, ImagePart))

    def to_dict(self, *, parts: bool = False) -> dict[str, Any]:
        """The form that chat templates read.

        Args:
            parts: Whether the content is a list of parts, as templates of models that see have it;
                an image is a part without its data. Else it is the text.
        """
        made: dict[str, Any] = {"role": self.role, "content": self.text}
        if parts:
            content = (TextPart(self.content),) if isinstance(self.content, str) else self.content
            made["content"] = [
                {"type": "text", "text": part.text}
                if isinstance(part, TextPart)
                else {"type": "image" if isinstance(part, ImagePart) else "audio"}
                for part in content
            ]
        if self.tool_calls:
            made["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        return made


@dataclass(frozen=True)
class Constraint:
    """What an answer must follow: a JSON schema, a regular expression or a Lark grammar.

    Make one by `json_schema`, `regex` or `grammar`.

    Args:
        kind: What `text` is.
        text: As the engines in this process and vLLM read it.
        gbnf: The same grammar as a llama.cpp server reads it; None where there is none.
    """

    kind: ConstraintKind
    text: str
    gbnf: str | None = None

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any]) -> Self:
        """Answers are JSON that fits the schema."""
        return cls("json_schema", json.dumps(schema))

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Answers match the pattern as a whole."""
        return cls("regex", pattern)

    @classmethod
    def grammar(cls, lark: str, gbnf: str | None = None) -> Self:
        """Answers are sentences of a Lark grammar, from its rule `start`; in GBNF from `root`."""
        return cls("grammar", lark, gbnf)


@dataclass(frozen=True)
class Request:
    """What to complete, and how.

    Args:
        messages: The conversation so far; the last one is usually the user's.
        sampling: How tokens are drawn, and where the answer ends.
        prompt_ids: The prompt as token ids, instead of `messages`.
        prefill: The answer continues this text, which is not part of the completion.
        n: Answers to draw; with a seed, answer i has the seed plus i.
        tools: What the model may call.
        constraint: What each answer must follow.
        top_logprobs: Log-probabilities of the answer's tokens, and of this many likeliest ones in
            the place of each; None asks for none. An engine without "logprobs" among its
            capabilities refuses 1 and more, and leaves them out where it is 0.
        keep_stop: A stop text that ends an answer is part of it, with the whole token in which it
            ends: the answer can go on from exactly these tokens.
    """

    messages: tuple[Message, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    _: KW_ONLY
    prompt_ids: tuple[int, ...] | None = None
    prefill: str = ""
    n: int = 1
    tools: tuple[ToolSchema, ...] = ()
    constraint: Constraint | None = None
    top_logprobs: int | None = None
    keep_stop: bool = False

    @property
    def needs(self) -> list[Capability]:
        """What an engine must be capable of to answer it."""
        contents = [one.content for one in self.messages if not isinstance(one.content, str)]
        asked: dict[Capability, bool] = {
            "prompt_ids": self.prompt_ids is not None,
            "prefill": bool(self.prefill),
            "n": self.n > 1,
            "tools": bool(self.tools),
            "logprobs": bool(self.top_logprobs),
            "keep_stop": self.keep_stop,
            "images": any(isinstance(part, ImagePart) for parts in contents for part in parts),
            "audio": any(isinstance(part, AudioPart) for parts in contents for part in parts),
        }
        if self.constraint is not None:
            asked[self.constraint.kind] = True
        return [capability for capability, is_asked in asked.items() if is_asked]

    def check(self) -> None:
        """Refuse a request that no engine could answer.

        Raises:
            EngineError: There is no prompt, or a value is out of range or of another type.
        """
        if not isinstance(self.messages, tuple | list):
            raise EngineError(f"`messages` is {self.messages!r}, but must be a tuple of `Message`.")
        for message in self.messages:
            if not isinstance(message, Message):
                raise EngineError(
                    f"{message!r} is not a `Message`: write Message('user', 'Hello')."
                )
            if message.role not in get_args(Role):
                roles = ", ".join(get_args(Role))
                raise EngineError(f"{message.role!r} is not a role; the roles are {roles}.")
            parts = message.content
            if not isinstance(parts, str) and not (
                isinstance(parts, tuple | list)
                and all(isinstance(part, TextPart | ImagePart | AudioPart) for part in parts)
            ):
                raise EngineError(
                    f"The content of a message is {parts!r}, but must be a string or a tuple of "
                    "parts."
                )
        if self.constraint is not None and self.constraint.kind not in get_args(ConstraintKind):
            raise EngineError(
                f"{self.constraint.kind!r} is not a kind of constraint: use the class methods "
                "`json_schema`, `regex` and `grammar`."
            )
        if not self.messages and not self.prompt_ids:
            raise EngineError("The request has no messages: give at least one of the user.")
        if self.messages and self.prompt_ids is not None:
            raise EngineError("The request has `messages` and `prompt_ids`: give one of them.")
        for name, value, least in (("n", self.n, 1), ("top_logprobs", self.top_logprobs, 0)):
            if value is not None and not (isinstance(value, Integral) and value >= least):
                raise EngineError(f"`{name}` is {value!r}, but must be {least} or more.")


@dataclass(frozen=True)
class Choice:
    """One answer.

    Args:
        text: What was written, reasoning included (in `<think>` tags where an endpoint sends it
            apart), without the stop text unless it was asked for.
        finish_reason: "stop" when the model or a stop text ended it, "length" when a limit did.
        ids: Its token ids, where the engine knows them.
        tokens: Their texts, when log-probabilities were asked for and the engine has them.
        logprobs: Their log-probabilities in nats, under the distribution they were drawn from.
        top_logprobs: For each token the likeliest ones in its place, with their log-probabilities.
        tool_calls: Calls of tools in the answer, where the request named tools.
    """

    text: str
    finish_reason: FinishReason = "stop"
    _: KW_ONLY
    ids: tuple[int, ...] | None = None
    tokens: tuple[str, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Usage:
    """What a request cost.

    Args:
        prompt_tokens: Tokens of the rendered conversation.
        generated_tokens: Tokens written, in all choices.
        cached_tokens: Prompt tokens that did not have to be computed again.
        prompt_seconds: Until the first token, where the engine measures it.
        generation_seconds: From the first token to the last.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    prompt_seconds: float = field(default=0.0, compare=False)
    generation_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Completion:
    """The answers to one request; `text` and its like are those of the first.

    Args:
        choices: The answers.
        usage: What they cost.
        prompt_ids: Ids of the rendered conversation, when log-probabilities were asked for and the
            engine knows them.
    """

    choices: tuple[Choice, ...]
    usage: Usage = field(default_factory=Usage)
    prompt_ids: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        text: str,
        finish_reason: FinishReason = "stop",
        usage: Usage | None = None,
        **more: Any,
    ) -> Self:
        """A completion of one choice; `more` are fields of the choice."""
        prompt_ids = more.pop("prompt_ids", None)
        return cls((Choice(text, finish_reason, **more),), usage or Usage(), prompt_ids)

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first choice ended."""
        return self.choices[0].finish_reason

    @property
    def ids(self) -> tuple[int, ...] | None:
        """Token ids of the first choice."""
        return self.choices[0].ids

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """Texts of the tokens of the first choice."""
        return self.choices[0].tokens

    @property
    def logprobs(self) -> tuple[float, ...] | None:
        """Log-probabilities of the first choice."""
        return self.choices[0].logprobs

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Tool calls of the first choice."""
        return self.choices[0].tool_calls


@dataclass(frozen=True)
class Piece:
    """Some text of an answer, as it comes.

    Args:
        text: What is new.
        choice: The answer that it belongs to.
        completion: The whole result; with the last piece only.
        temperature: What AutoDeco heads chose for its last token, where they did.
    """

    text: str
    choice: int = 0
    completion: Completion | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Scored:
    """How likely a continuation is.

    Args:
        ids: Its tokens.
        logprobs: Log-probability of each, in nats, under the model's own distribution:
            temperature 1, no penalties.
        cached_tokens: Tokens of the prompt that did not have to be computed again.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    cached_tokens: int = 0

    @property
    def logprob(self) -> float:
        """Log-probability of the whole continuation, in nats."""
        return sum(self.logprobs)
