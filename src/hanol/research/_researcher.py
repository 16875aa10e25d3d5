"""The research agent: takes a question, streams events, and can be stopped and resumed."""

import asyncio
import hashlib
import json
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import cache
from importlib.metadata import version
from typing import Any, Self

from hanol.engines import Engine, Message, Request
from hanol.errors import HanolError, RunError, require
from hanol.research._prompts import describe, is_small
from hanol.research._prompts import system_prompt as default_prompt
from hanol.research._run import AGENT_SAMPLING, SMALL_SAMPLING, Run, Settings
from hanol.research._run_log import RunLog, printable
from hanol.research.modes._markov import markov
from hanol.research.modes._react import react
from hanol.research.modes._resum import resum
from hanol.retrieval import Index, SourceList, find_addresses
from hanol.runs import (
    Budget,
    Event,
    Mode,
    ModelAnswered,
    RunFolder,
    RunStarted,
    check_unchanged,
    seal,
    synchronous,
)
from hanol.sampling import Sampling
from hanol.tools import Tool, ToolContext, local_tools

LOOPS = {"react": react, "markov": markov, "resum": resum}
_version = cache(version)  # looked up once, because that takes as long as a search
_FREE = {"run_id", "versions", "parent", "index", "seal"}  # the folder of documents may have moved
# ReSum's own (arXiv 2509.13313); other modes have the defaults of `Budget`.
_RESUM_BUDGET = Budget(model_calls=60, context_tokens=32 * 1024)


class Researcher:
    """The deep-research agent of Tongyi (arXiv 2510.24701) over an indexed folder.

    Args:
        index: The documents; None for tools that need none.
        mode: "react" keeps one conversation, "markov" (IterResearch) a report between rounds of
            constant length, "resum" starts again from a summary when the context fills up.
        budget: Limits; None takes those of the mode's paper.
        tools: What may be called; None takes the local tools of the index.
        system_prompt: None takes ours, with the tools' schemas and the date.
        today: Date in the system prompt; None is today's.
        run_folder: Folder for the event log; a run that is in it already is resumed. None keeps
            no log.
        sampling: How turns are drawn; None as the paper does, cooler in windows of up to 8,192
            tokens.
        options: Further fields of `Settings`: `extract`, `logprobs`, `report_tokens`,
            `strict_official`, `summary_every`, `turns`.

    Raises:
        RunError: An unknown mode, or tools that cannot be told apart or described.

    Example:
        >>> for event in Researcher(index, engine).ask("Who built the bridge?"):  # doctest: +SKIP
        ...     print(event.type)
    """

    def __init__(
        self,
        index: Index | None,
        engine: Engine,
        *,
        mode: Mode = "react",
        budget: Budget | None = None,
        tools: Sequence[Tool] | None = None,
        system_prompt: str | None = None,
        seed: int = 0,
        today: date | None = None,
        run_folder: str | os.PathLike[str] | None = None,
        sampling: Sampling | None = None,
        **options: Any,
    ) -> None:
        if mode not in LOOPS:
            raise RunError(f"No mode is named {mode!r}. Known: {', '.join(LOOPS)}.")
        today = today or date.today()
        self.tools = default_tools(index) if tools is None else tools
        _check_tools(self.tools)
        self._index = index
        self._engine = engine
        self.system = system_prompt or default_prompt(
            self.tools, today, mode, window=engine.context_window
        )
        own_sampling = SMALL_SAMPLING if is_small(engine.context_window) else AGENT_SAMPLING
        self._folder = None if run_folder is None else RunFolder(run_folder)
        self.settings = Settings(
            mode=mode,
            budget=budget or (_RESUM_BUDGET if mode == "resum" else Budget()),
            sampling=sampling or own_sampling,
            seed=seed,
            today=today.isoformat(),
            context_window=engine.context_window,
            schemas=tuple(map(describe, self.tools)),
            **control_of(engine),
            **options,
        )

    def plan(self, question: str) -> dict[str, Any]:
        """What a run would use, without a call of the model."""
        prompt = [Message("system", self.system), Message("user", self.setup(question).question)]
        budget = self.settings.budget
        most = self.settings.sampling.max_tokens or budget.context_tokens
        return {
            "model": self._engine.name,
            "context_window": self._engine.context_window,
            "mode": self.settings.mode,
            "tools": [tool.name for tool in self.tools],
            "documents": 0 if self._index is None else len(self._index.documents()),
            "prompt_tokens": self._engine.count_tokens(prompt),
            "budget": asdict(budget),
            "cost_at_most": budget.cost_at_most(most),
        }

    def setup(self, question: str, files: Sequence[str] = ()) -> "RunSetup":
        """The run of a question; its files are announced as the official data does."""
        if files:
            count = f"{len(files)} file" + ("s" if len(files) > 1 else "")
            question = f"(Uploaded {count}: {list(files)})\n\n{question}"
        return RunSetup(
            printable(question), self.settings, self.system, self._engine, self.tools, self._index
        )

    def aask(self, question: str, files: Sequence[str] = ()) -> AsyncIterator[Event]:
        """Research a question; the events come as they happen, the last is a `RunEnded`.

        If the folder has a run already, its recorded events come first, without any call.

        Args:
            files: Paths within the index that the question is about.

        Raises:
            RunError: The folder has a run with other settings, or another process writes it.
            EngineError: The model failed. The log is complete so far: call again to resume.
        """
        return self.setup(question, files).events(self._folder)

    ask = synchronous(aask)


def control_of(engine: Engine) -> dict[str, Any]:
    """The settings about an engine's control tokens."""
    control = engine.control_tokens
    return {"control_tokens": control.unknown(), "control_mark": control.mark}


def _check_tools(tools: Sequence[Tool]) -> None:
    jsonschema = require("jsonschema", extra="research", feature="A run with tools")
    names: set[str] = set()
    for tool in tools:
        if tool.name in names:
            raise RunError(
                f"Two tools are named {tool.name!r}, so a call could mean either. Rename one."
            )
        names.add(tool.name)
        try:
            jsonschema.Draft202012Validator.check_schema(tool.parameters)
        except jsonschema.SchemaError as err:
            raise RunError(
                f"The parameters of the tool {tool.name!r} are no JSON schema: {err.message}."
            ) from err


@dataclass(frozen=True)
class RunSetup:
    """What decides a run, and what the calls that its log does not have are made with.

    Args:
        question: Question as the model reads it, with the names of its files.
    """

    question: str
    settings: Settings
    system: str
    engine: Engine
    tools: Sequence[Tool] = ()
    index: Index | None = None

    @classmethod
    def again(
        cls,
        old: RunStarted,
        engine: Engine,
        index: Index | None,
        tools: Sequence[Tool] | None,
        **changes: Any,
    ) -> Self:
        """The setup of an earlier run with another model and tools, and changed settings."""
        tools = default_tools(index) if tools is None else tools
        if engine.name != old.model:
            changes["loading"] = None  # those of the other model
            changes |= control_of(engine)
        settings = replace(
            Settings.from_dict(old.settings),
            context_window=engine.context_window,
            schemas=tuple(map(describe, tools)),
            **changes,
        )
        return cls(old.question, settings, old.system_prompt, engine, tools, index)

    def started(self) -> dict[str, Any]:
        """The first event; its id is the hash of everything that decides the run."""
        index = self.index
        fields: dict[str, Any] = {
            "question": self.question,
            "mode": self.settings.mode,
            "model": self.engine.name,
            "settings": self.settings.to_dict(),
            "system_prompt": self.system,
            "tools": [schema["name"] for schema in self.settings.schemas],
            "index_version": None if index is None else index.version,
        }
        text = json.dumps(fields, sort_keys=True)
        fields |= {
            "run_id": hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16],
            "index": None if index is None else str(index.folder),
            "versions": {"hanol": _version("hanol"), "python": platform.python_version()},
        }
        return fields | {"seal": seal(fields)}

    def forked(self, events: Sequence[Event]) -> list[Event]:
        """The log that this run begins with: rounds of another run up to its `fork_step`."""
        old, last = events[0], self.settings.fork_step
        assert isinstance(old, RunStarted), "a run begins with its start"
        first = RunStarted(
            number=0,
            time=old.time,
            token_counts=old.token_counts,
            parent=f"{old.run_id}@{last + 1}",
            **self.started(),
        )
        return [first, *(e for e in events if not isinstance(e, RunStarted) and e.step <= last)]

    async def events(
        self,
        folder: RunFolder | None = None,
        *,
        recorded: Sequence[Event] = (),
        live: bool = True,
        on_request: Callable[[Request, ModelAnswered], None] = lambda *_: None,
        on_run: Callable[[Run], None] = lambda run: None,
        loop: Callable[[Run], Awaitable[None]] | None = None,
    ) -> AsyncIterator[Event]:
        """Run the question to its end: the one way, live, resumed or replayed.

        Args:
            folder: Folder of the run: locked, read and appended to. None keeps no log.
            recorded: Events to replay first. A folder that has none yet gets them.
            live: Whether calls may be made; False only replays.
            on_request: Called with every request and its answer.
            on_run: Called with the run's state when it starts.
            loop: The agent's loop; None is the loop of the mode.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        settings = self.settings

        async def work() -> None:
            with folder or nullcontext():
                known = folder.events() if folder is not None else []
                if recorded and not known:
                    known = list(recorded)
                    if folder is not None:
                        folder.append(known)
                        folder.sync()
                first = self._first(known, folder, live)
                log = RunLog(
                    self.engine,
                    settings.budget,
                    folder=folder,
                    recorded=known,
                    on_event=queue.put_nowait,
                    on_request=on_request,
                    live=live,
                    unchecked_steps=settings.fork_step,
                )
                async with aclosing(log), _following(log):
                    # Before the first event: a prompt that cannot fit starts no run.
                    addresses = set(find_addresses(first["question"]))
                    context = ToolContext(SourceList(), index=self.index, addresses=addresses)
                    run = Run(first, settings, self.tools, log, context)
                    on_run(run)
                    await log.emit(RunStarted, **first)
                    await (loop or LOOPS[settings.mode])(run)

        task = asyncio.create_task(work())
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            task.cancel()
            await asyncio.wait([task])
        await task

    def _first(
        self, known: Sequence[Event], folder: RunFolder | None, live: bool
    ) -> dict[str, Any]:
        """The first event's fields; those of the log where there is one with the same settings."""
        if not known:
            return self.started()
        first = known[0]
        if not isinstance(first, RunStarted):
            raise RunError(f"The log begins with {first.type!r} instead of the start of a run.")
        recorded = first.content()
        if live:
            started = self.started()
            what = "the run" if folder is None else f"the run in {str(folder.path)!r}"
            check_unchanged(what, {name: recorded[name] for name in started}, started, _FREE)
        return recorded


@asynccontextmanager
async def _following(log: RunLog) -> AsyncIterator[None]:
    """What a damaged log leads to, while it is followed, is an error of the log."""
    try:
        yield
    except HanolError:
        raise
    except Exception as err:
        if not log.is_followed:
            raise
        why = f"The log cannot be followed ({type(err).__name__}: {err})"
        raise RunError(f"{why}: it is damaged. Start a new run in another folder.") from err


def default_tools(index: Index | None) -> Sequence[Tool]:
    """The local tools of an index."""
    if index is None:
        raise RunError("Without an index there are no local tools. Pass `tools`.")
    return local_tools(index)
