"""An engine that answers from a script: tests, examples and benchmarks without a model."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from annotated_types import Ge

from hanol.engines._engine import Engine
from hanol.engines._request import Capability, Choice, Completion, Message, Request, Usage
from hanol.errors import EngineError
from hanol.files import read_text
from hanol.sampling import StopStrings

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4


@dataclass(frozen=True)
class Reply:
    """One answer of a script.

    Args:
        text: What is answered.
        match: Regular expression; the reply is for requests in whose last message it is found.
            None makes it the reply to the turn at its place among those without one.
        latency: Seconds until the answer; None is the latency of the engine.

    Raises:
        EngineError: `match` is not a regular expression.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - no field: read by pydantic

    text: str
    match: str | None = None
    latency: Annotated[float, Ge(0)] | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.match or "")
        except re.error as err:
            raise EngineError(
                f"{self.match!r} is not a regular expression to match messages with: {err}."
            ) from err


Script = Callable[[Request], str | Completion] | Sequence[str | Reply]


class ScriptedEngine(Engine):
    """Answers that follow from the request alone, not from the order in which requests come.

    A reply with `match` goes to every request whose last message it matches, the first such reply
    in the script. Otherwise the reply of a conversation's turn t is the t-th one without `match`,
    where t is the number of assistant messages that the request holds: conversations in parallel,
    or resumed, get the same answers. (Prompts that are written anew each round hold no assistant
    messages: give such a script `match`, or a function.)

    A request may ask for a prefill, tools or a constraint: the script must follow them. All
    `n` answers are the same. A token is 4 bytes of UTF-8, or the rest of them; a message has 4
    more.

    Args:
        script: Replies, or a function that gives the text (or the whole completion) for a request.
        latency: Seconds that each answer takes.
        context_window: Longer prompts are refused, as a model would.
        name: Name of the engine.
    """

    capabilities: frozenset[Capability] = frozenset(
        {"n", "prefill", "tools", "json_schema", "regex", "grammar"}
    )

    def __init__(
        self,
        script: Script,
        *,
        latency: float = 0.0,
        context_window: int | None = None,
        name: str = "scripted",
    ) -> None:
        self._function = script if callable(script) else None
        entries = () if callable(script) else script
        replies = [Reply(entry) if isinstance(entry, str) else entry for entry in entries]
        self._matching = [reply for reply in replies if reply.match is not None]
        self._turns = [reply for reply in replies if reply.match is None]
        self._latency, self.context_window, self.name = latency, context_window, name

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Self:
        """Read a script of one JSON object a line: "text", and "match" or "latency" if wanted.

        Raises:
            EngineError: The file cannot be read, or a line is something else.
        """
        try:
            lines = read_text(path).splitlines()
        except (OSError, ValueError) as err:
            raise EngineError(f"The script {str(path)!r} cannot be read: {err}") from err
        replies = [
            _read_reply(line, f"{str(path)!r}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
        return cls(replies, **{"name": f"scripted:{path}", **options})

    async def complete(self, request: Request) -> Completion:
        """The script's answer, cut at stop strings and at `max_tokens`.

        Raises:
            EngineError: The script has no answer, or the prompt is longer than the window.
        """
        self.check(request)
        prompt_tokens = self.count_tokens(request.messages)
        if self.context_window is not None and prompt_tokens >= self.context_window:
            raise EngineError(
                f"The prompt has {prompt_tokens} tokens, but the context window of {self.name!r} "
                f"is {self.context_window}. Shorten the conversation."
            )
        answer, latency = self._answer(request)
        if latency:
            await asyncio.sleep(latency)
        if isinstance(answer, Completion):
            return answer
        text, _ = StopStrings(request.sampling.stop).cut(answer)
        limit = request.sampling.max_tokens
        if self.context_window is not None:
            limit = min(limit or self.context_window, self.context_window - prompt_tokens)
        choice = Choice(text)
        if limit is not None and _tokens(text) > limit:
            text = text.encode()[: limit * _BYTES_PER_TOKEN].decode(errors="ignore")
            choice = Choice(text, "length")
        usage = Usage(prompt_tokens, request.n * _tokens(text))
        return Completion((choice,) * request.n, usage)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens by the rule of the class."""
        return sum(_TOKENS_PER_MESSAGE + _tokens(message.text) for message in messages)

    def _answer(self, request: Request) -> tuple[str | Completion, float]:
        if self._function is not None:
            return self._function(request), self._latency
        last = request.messages[-1].text
        turn = sum(message.role == "assistant" for message in request.messages)
        for reply in self._matching:
            if re.search(reply.match or "", last):
                break
        else:
            if turn >= len(self._turns):
                raise EngineError(
                    f"The script {self.name!r} has no answer to turn {turn + 1}: it has "
                    f"{len(self._turns)} replies to turns, and none of {len(self._matching)} that "
                    f"match fits the last message {last[:80]!r}."
                )
            reply = self._turns[turn]
        return reply.text, self._latency if reply.latency is None else reply.latency


def _read_reply(line: str, where: str) -> Reply:
    from pydantic import TypeAdapter, ValidationError  # here: it takes a while to import

    try:
        return TypeAdapter(Reply).validate_json(line, strict=True)
    except ValidationError as err:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}".lstrip(": ") for one in err.errors()
        )
        raise EngineError(
            f'{where} is not an object with a string "text", as {{"text": "Hi"}}, and perhaps '
            f'"match" (a string) and "latency" (seconds): {wrong}.'
        ) from err


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)
