"""The log of a run, as the layer between the agent and the world.

Everything that is not a function of earlier events goes through a `RunLog`: answers of the model,
results of tools, counts of tokens. While the log has events, they are served from it and compared
with what the agent does; afterwards calls are made and written. So a live run, a resumed one and a
replay are the same code, and no finished call is ever made again.
"""

import asyncio
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import accumulate
from typing import Any, TypeVar, cast

from hanol.engines import (
    Completion,
    Engine,
    Message,
    Request,
    ToolCall,
    Usage,
    WrappedEngine,
)
from hanol.errors import EngineError, RunError
from hanol.runs import (
    Budget,
    Event,
    ModelAnswered,
    Purpose,
    RunEnded,
    RunFolder,
    Spent,
    ToolReturned,
)
from hanol.tools import Observation, render_call

T = TypeVar("T")
_LONGEST_TOKEN = 16  # characters, in the mean of a text
# Not compared between a log and a repetition of it: times, and what was only measured.
_FREE = {"number", "time", "seconds", "token_counts", "cached_tokens", "citations", "versions",
         "repaired"}  # fmt: skip


class TimeIsUp(Exception):  # noqa: N818 - control flow between the log and the loop
    """A call was cut off because the run's time was used up."""


def printable(text: str) -> str:
    """The text as UTF-8 can keep it: half characters, which models and files bring, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def request_sha256(request: Request) -> str:
    """Hash of what a request says, as the log keeps it.

    Its constraint follows from the settings and tools of the run, and from what the server can do.
    """
    digest = hashlib.sha256()
    for message in request.messages:
        content = message.text.encode()
        digest.update(f"{message.role} {len(content)}\n".encode())
        digest.update(content)
    sampling = request.sampling
    options = {
        name: getattr(sampling, name)
        for name in ("max_tokens", "temperature", "top_p", "presence_penalty", "stop", "seed")
    }
    others = {"top_k": None, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
    options |= {
        name: getattr(sampling, name)
        for name, default in others.items()
        if getattr(sampling, name) != default
    }
    digest.update(json.dumps(options).encode())
    return digest.hexdigest()


def call_uncertainty(completion: Completion) -> float | None:
    """Mean surprise of the tokens of a turn's tool calls, in nats: where ParallelMuse branches.

    The paper (arXiv 2510.24698) takes the entropy of the 16 likeliest tokens at each position. The
    surprise of the drawn token, which every engine tells, has the full entropy as its expectation.
    """
    if completion.tokens is None or not completion.logprobs:
        return None
    text = "".join(completion.tokens)
    # Calls that are only thought about do not count.
    begin = text.find("<tool_call>", text.rfind("</think>") + 1)
    ends = accumulate(map(len, completion.tokens))
    called = [-p for p, end in zip(completion.logprobs, ends, strict=True) if end > begin >= 0]
    return sum(called) / len(called) if called else None


class RunLog:
    """One run's events: first the recorded ones, then, where it is `live`, new ones.

    Requests of rounds up to `unchecked_steps` are not compared: a fork took them from another run,
    with another seed or engine.
    """

    def __init__(
        self,
        engine: Engine,
        budget: Budget,
        *,
        folder: RunFolder | None = None,
        recorded: Sequence[Event] = (),
        on_event: Callable[[Event], None] = lambda event: None,
        on_request: Callable[[Request, ModelAnswered], None] = lambda *_: None,
        live: bool = True,
        unchecked_steps: int = 0,
    ) -> None:
        self.engine = engine
        self.spent = Spent(budget)
        self._folder = folder
        self._recorded = deque(recorded)
        self._on_event, self._on_request = on_event, on_request
        self._live = live
        self._unchecked_steps = unchecked_steps
        self._next = len(recorded)  # number of the next new event
        self._counts = {key: n for event in recorded for key, n in event.token_counts.items()}
        self._new_counts: dict[str, int] = {}
        self._syncing: list[asyncio.Future[None]] = []

    @property
    def is_followed(self) -> bool:
        """Whether recorded events are still to be served."""
        return bool(self._recorded)

    def recorded_results(self, name: str) -> list[ToolReturned]:
        """Results of a tool that are still to be served."""
        return [e for e in self._recorded if isinstance(e, ToolReturned) and e.name == name]

    async def emit(self, kind: type[Event], **fields: Any) -> Event:
        """Record an event that follows from earlier ones."""
        if not self._recorded:
            return await self._write(kind, fields)
        expected = self._recorded[0]
        made = kind(number=expected.number, time=expected.time, **fields)
        if (differences := _differences(expected, made)) or type(expected) is not kind:
            raise self._diverged(f"{made.type} ({', '.join(differences) or 'another event'})")
        return self._serve()

    async def model(
        self, request: Request, *, step: int, purpose: Purpose, seconds: float = math.inf
    ) -> ModelAnswered:
        """The answer to a request, from the log or the engine; `TimeIsUp` if it took too long."""
        sha256 = request_sha256(request)
        if event := self._served_answer(sha256, purpose):
            self._on_request(request, event)
            return event
        self._need_live(f"call of the model ({purpose})")
        self.spent.start()
        began = time.monotonic()
        completion = await _within(seconds, self.engine.complete(request))
        fields = self._answer_fields(request, completion, time.monotonic() - began)
        fields |= {"step": step, "purpose": purpose, "request_sha256": sha256}
        event = cast(ModelAnswered, await self._write(ModelAnswered, fields))
        self._on_request(request, event)
        return event

    async def tool(
        self,
        run: Callable[[], Awaitable[Observation]],
        *,
        step: int,
        call: int,
        name: str,
        arguments: Mapping[str, Any],
        seconds: float = math.inf,
    ) -> ToolReturned:
        """The result of a tool call: from the log, or by running it.

        A tool that asked the model before the process was killed runs again, but its questions
        are answered from the log (see `extractor`).
        """
        fields = {"step": step, "call": call, "name": name, "arguments": dict(arguments)}
        if any(isinstance(event, ToolReturned) for event in self._recorded):
            while isinstance(self._recorded[0], ModelAnswered):  # asked by this call
                self._serve()
            expected = self._recorded[0]
            made = {key: getattr(expected, key, None) for key in fields}
            if not isinstance(expected, ToolReturned) or made != fields:
                raise self._diverged(f"{name} of step {step}")
            return cast(ToolReturned, self._serve())
        self._need_live(f"call of the tool {name}")
        self.spent.start()
        began = time.monotonic()
        try:
            result = await _within(seconds, run())
        except TimeIsUp:
            result = Observation("The run's time was used up before this call ended.", failed=True)
        while self._recorded:  # questions of the killed call that were not asked again
            self._serve()
        fields |= {
            "text": result.text,
            "sources": list(result.sources),
            "addresses": list(result.addresses),
            "failed": result.failed,
            "seconds": time.monotonic() - began,
        }
        return cast(ToolReturned, await self._write(ToolReturned, fields))

    def extractor(self, step: int) -> Engine:
        """The engine as tools may use it: its answers are part of the log."""
        return _Extractor(self, step)

    def knows(self, request: Request) -> bool:
        """Whether the log has the answer to a question of a tool."""
        sha256 = request_sha256(request)
        return any(getattr(event, "request_sha256", "") == sha256 for event in self._recorded)

    def count(self, text: str) -> int:
        """Tokens of a message with this content; counted once per run."""
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        if key not in self._counts:
            if self._recorded and not self._live:
                raise self._diverged("a text that was not part of the run")
            self._need_live("count of tokens")
            number = self.engine.count_tokens([Message("user", text)])
            self._counts[key] = self._new_counts[key] = number
        return self._counts[key]

    async def aclose(self) -> None:
        """Wait for the disk."""
        while self._syncing:
            await self._syncing.pop()

    def _served_answer(self, sha256: str, purpose: Purpose) -> ModelAnswered | None:
        """The recorded answer to a request; tools ask in any order, the agent in one."""
        if purpose in ("extract", "condense"):
            for event in self._recorded:
                if isinstance(event, ModelAnswered) and event.request_sha256 == sha256:
                    self._recorded.remove(event)
                    return cast(ModelAnswered, self._tell(event))
            return None
        if not self._recorded:
            return None
        expected = self._recorded[0]
        if purpose != "forced_answer" and (
            isinstance(expected, RunEnded)
            or (isinstance(expected, ModelAnswered) and expected.purpose == "forced_answer")
        ):
            raise TimeIsUp  # the call was cut off when the log was written
        if purpose == "forced_answer" and isinstance(expected, RunEnded):
            raise TimeIsUp
        if (
            not isinstance(expected, ModelAnswered)
            or expected.purpose != purpose
            or (expected.request_sha256 != sha256 and expected.step > self._unchecked_steps)
        ):
            raise self._diverged(f"a call of the model ({purpose})")
        return cast(ModelAnswered, self._serve())

    def _answer_fields(
        self, request: Request, completion: Completion, seconds: float
    ) -> dict[str, Any]:
        usage = completion.usage
        # Cut on our side too: not every server honours stop texts and limits.
        most = (request.sampling.max_tokens or self.spent.budget.context_tokens) * _LONGEST_TOKEN
        text = completion.text[:most].partition("<tool_response>")[0]
        if native := bool(completion.tool_calls) and "<tool_call>" not in text:
            text = "\n".join([text.strip(), *map(_block, completion.tool_calls)]).strip()
        return {
            "text": printable(text),
            "native_calls": native,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.generated_tokens,
            "cached_tokens": usage.cached_tokens,
            "seconds": seconds,
            "money": self.spent.budget.cost(usage.prompt_tokens, usage.generated_tokens),
            "uncertainty": call_uncertainty(completion),
        }

    def _serve(self) -> Event:
        return self._tell(self._recorded.popleft())

    def _tell(self, event: Event) -> Event:
        self.spent.add(event)
        self._on_event(event)
        return event

    async def _write(self, kind: type[Event], fields: dict[str, Any]) -> Event:
        self._need_live(f"event {kind.__name__}")
        await self.aclose()  # the last event reaches the disk while the next call runs
        counts, self._new_counts = self._new_counts, {}
        event = kind(number=self._next, time=time.time(), token_counts=counts, **fields)
        if self._folder is not None:
            self._folder.append([event])
            loop = asyncio.get_running_loop()
            self._syncing.append(loop.run_in_executor(_disk(), self._folder.sync))
        self._next += 1
        if isinstance(event, RunEnded):
            await self.aclose()
        return self._tell(event)

    def _need_live(self, what: str) -> None:
        if not self._live:
            raise RunError(
                f"The log ends at event {self._next}, before the {what}: a replay makes no calls. "
                "Resume the run first."
            )

    def _diverged(self, what: str) -> RunError:
        have = f"{self._recorded[0].number} is {self._recorded[0].type}"
        return RunError(
            f"The log does not fit: event {have}, but the run comes to {what}. The log was "
            "written by another version, or edited; start a new run in another folder."
        )


class _Extractor(WrappedEngine):
    """The engine as a tool may use it: its calls are recorded and limited by the budget."""

    def __init__(self, log: RunLog, step: int) -> None:
        super().__init__(log.engine)
        self._run_log = log
        self._step = step

    async def complete(self, request: Request) -> Completion:
        log = self._run_log
        if not log.knows(request):
            room = log.spent.room(log.engine.count_tokens(request.messages))
            if room < (request.sampling.max_tokens or 1):
                raise EngineError("The budget of the run leaves nothing for reading this page.")
        event = await self._run_log.model(request, step=self._step, purpose="extract")
        usage = Usage(event.prompt_tokens, event.completion_tokens, event.cached_tokens)
        return Completion.of(event.text, event.finish_reason, usage)


async def _within(seconds: float, work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(None if math.isinf(seconds) else seconds) as limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise  # its own
        raise TimeIsUp from None


def _block(call: ToolCall) -> str:
    """A call that a server took out of the text, where the parser finds it."""
    if call.malformed is None:
        return render_call(call)
    text = json.dumps({"name": call.name, "arguments": call.malformed})
    return f"<tool_call>\n{text}\n</tool_call>"


@cache
def _disk() -> ThreadPoolExecutor:
    # Threads of their own: engines and tools use asyncio's, and must not wait for the disk.
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="hanol-log")


def _differences(expected: Event, made: Event) -> list[str]:
    old, new = expected.model_dump(exclude=_FREE), made.model_dump(exclude=_FREE)
    return [name for name in old | new if old.get(name) != new.get(name)]
