"""The research agent: takes a question, streams events, and can be stopped and resumed."""

import asyncio
import hashlib
import json
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import nullcontext
from datetime import date
from functools import cache
from importlib.metadata import version
from typing import Any

from hanol.engines import Engine, Message, Request
from hanol.errors import RunError, require
from hanol.research._prompts import system_prompt as default_prompt
from hanol.research._run import AGENT_SAMPLING, Run, Settings
from hanol.research._run_log import RunLog
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
    synchronous,
)
from hanol.sampling import Sampling
from hanol.tools import Tool, ToolContext

LOOPS = {"react": react, "markov": markov, "resum": resum}
_FREE = {"run_id", "versions", "parent", "index"}  # the folder of documents may have moved
# ReSum's own (arXiv 2509.13313); other modes have the defaults of `Budget`.
_RESUM_BUDGET = Budget(model_calls=60, context_tokens=32 * 1024)


class Researcher:
    """The deep-research agent of Tongyi (arXiv 2510.24701) over an indexed folder.

    Args:
        index: The documents; None for tools that need none.
        engine: The model.
        mode: "react" keeps one conversation, "markov" (IterResearch) a report between rounds of
            constant length, "resum" starts again from a summary when the context fills up.
        budget: Limits; None takes those of the mode's paper.
        tools: What may be called; None takes the local tools of the index.
        system_prompt: None takes ours, with the tools' schemas and the date.
        seed: Seed for sampling.
        today: Date in the system prompt; None is today's.
        strict_official: Keep message order and limits of the official code, its losses included.
        run_folder: Folder for the event log; a run that is in it already is resumed. None keeps
            no log.
        sampling: Sampling of the turns; None uses the settings of the paper.
        logprobs: Record how uncertain the model was about its calls, for partial rollouts.
        extract: Let `visit` ask the model what a page says about its goal, as the official code
            does; otherwise it shows the best passages.
        report_tokens: Markov mode: longest report.
        summary_every: ReSum mode: also restart after this many rounds.

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
        strict_official: bool = False,
        run_folder: str | os.PathLike[str] | None = None,
        sampling: Sampling | None = None,
        logprobs: bool = False,
        extract: bool = False,
        report_tokens: int = 4096,
        summary_every: int | None = None,
    ) -> None:
        if mode not in LOOPS:
            raise RunError(f"No mode is named {mode!r}. Known: {', '.join(LOOPS)}.")
        today = today or date.today()
        tools = default_tools(index) if tools is None else tools
        _check_tools(tools)
        self._index = index
        self._engine = engine
        self.tools = tools
        self.system = system_prompt or default_prompt(tools, today, mode)
        self._folder = None if run_folder is None else RunFolder(run_folder)
        self.settings = Settings(
            mode=mode,
            budget=budget or (_RESUM_BUDGET if mode == "resum" else Budget()),
            sampling=sampling or AGENT_SAMPLING,
            seed=seed,
            today=today.isoformat(),
            strict_official=strict_official,
            logprobs=logprobs,
            extract=extract,
            report_tokens=report_tokens,
            summary_every=summary_every,
            context_window=engine.context_window,
            schemas=tuple(describe(tool) for tool in tools),
        )

    def plan(self, question: str) -> dict[str, Any]:
        """What a run would use, without a call of the model."""
        prompt = [Message("system", self.system), Message("user", question)]
        budget = self.settings.budget
        most = self.settings.sampling.max_tokens or budget.context_tokens
        return {
            "model": self._engine.name,
            "context_window": self._engine.context_window,
            "mode": self.settings.mode,
            "tools": [tool.name for tool in self.tools],
            "documents": 0 if self._index is None else len(self._index.documents()),
            "prompt_tokens": self._engine.count_tokens(prompt),
            "budget": budget.to_dict(),
            "cost_at_most": budget.cost_at_most(most),
        }

    async def aask(self, question: str, files: Sequence[str] = ()) -> AsyncIterator[Event]:
        """Research a question; the events come as they happen, the last is a `RunEnded`.

        If the folder has a run already, its recorded events come first, without any call.

        Args:
            question: The user's question.
            files: Paths within the index that the question is about; they are announced to the
                model as the released data does.

        Raises:
            RunError: The folder has a run with other settings, or another process writes it.
            EngineError: The model failed. The log is complete so far: call again to resume.
        """
        question = announced(question, files)
        started = start_fields(question, self.settings, self.system, self._engine.name, self._index)
        async for event in run_events(
            started,
            settings=self.settings,
            engine=self._engine,
            tools=self.tools,
            index=self._index,
            folder=self._folder,
        ):
            yield event

    ask = synchronous(aask)


def announced(question: str, files: Sequence[str]) -> str:
    """The question with its files, as the official data writes it."""
    if not files:
        return question
    count = f"{len(files)} file" + ("s" if len(files) > 1 else "")
    return f"(Uploaded {count}: {list(files)})\n\n{question}"


def describe(tool: Tool) -> dict[str, Any]:
    """The tool's name, description and parameters, as plain JSON."""
    schema = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    plain: dict[str, Any] = json.loads(json.dumps(schema))
    return plain


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


def start_fields(
    question: str, settings: Settings, system: str, model: str, index: Index | None
) -> dict[str, Any]:
    """The first event of a run; its id is the hash of everything that decides the run."""
    fields: dict[str, Any] = {
        "question": question,
        "mode": settings.mode,
        "model": model,
        "settings": settings.to_dict(),
        "system_prompt": system,
        "tools": [schema["name"] for schema in settings.schemas],
        "index_version": None if index is None else index.version,
    }
    text = json.dumps(fields, sort_keys=True)
    return fields | {
        "run_id": hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16],
        "index": None if index is None else str(index.folder),
        "versions": {"hanol": _version(), "python": platform.python_version()},
    }


@cache
def _version() -> str:
    """Version of this package; looked up once, because that takes as long as a search."""
    return version("hanol")


async def run_events(
    started: dict[str, Any],
    *,
    settings: Settings,
    engine: Engine,
    tools: Sequence[Tool],
    index: Index | None = None,
    folder: RunFolder | None = None,
    recorded: Sequence[Event] = (),
    live: bool = True,
    on_request: Callable[[Request, ModelAnswered], None] | None = None,
    on_run: Callable[[Run], None] | None = None,
    loop: Callable[[Run], Awaitable[None]] | None = None,
) -> AsyncIterator[Event]:
    """Run a question to its end: the one way, live, resumed or replayed.

    Args:
        started: Fields of the first event.
        settings: As in `started`.
        engine: Model for the calls that the log does not have.
        tools: Tools for the calls that the log does not have.
        index: Documents for the tools.
        folder: Folder of the run: locked, read and appended to. None keeps no log.
        recorded: Events to replay when there is no folder.
        live: Whether calls may be made; False only replays.
        on_request: Called with every request and its answer.
        on_run: Called with the run's state when it starts.
        loop: The agent's loop; None is the loop of the mode.
    """
    queue: asyncio.Queue[Event | None] = asyncio.Queue()

    async def work() -> None:
        with folder or nullcontext():
            known = folder.events() if folder is not None else list(recorded)
            first = _checked(started, known, folder)
            log = RunLog(
                engine,
                settings.budget,
                folder=folder,
                recorded=known,
                on_event=queue.put_nowait,
                live=live,
                unchecked_steps=settings.fork_step,
            )
            if on_request is not None:
                log.on_request = on_request
            async with log:
                run = _begin(log, first, settings, tools, index)
                if on_run is not None:
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


def _begin(
    log: RunLog,
    started: dict[str, Any],
    settings: Settings,
    tools: Sequence[Tool],
    index: Index | None,
) -> Run:
    """The run's state before its first event; a prompt that cannot fit starts no run."""
    question = started["question"]
    addresses = set(find_addresses(question))
    return Run(
        question,
        run_id=started["run_id"],
        settings=settings,
        system=started["system_prompt"],
        tools=tools,
        log=log,
        context=ToolContext(SourceList(), index=index, addresses=addresses),
    )


def _checked(
    started: dict[str, Any], known: Sequence[Event], folder: RunFolder | None
) -> dict[str, Any]:
    """The first event's fields; those of the log where there is one.

    Raises:
        RunError: The log is of a run with other settings.
    """
    if not known:
        return started
    first = known[0]
    if not isinstance(first, RunStarted):
        raise RunError(f"The log begins with {first.type!r} instead of the start of a run.")
    what = "the run" if folder is None else f"the run in {str(folder.path)!r}"
    recorded = first.model_dump(exclude={"number", "time", "type", "token_counts"})
    check_unchanged(what, {k: recorded[k] for k in started}, started, _FREE)
    return recorded


def default_tools(index: Index | None) -> Sequence[Tool]:
    """The local tools of an index."""
    if index is None:
        raise RunError("Without an index there are no local tools. Pass `tools`.")
    from hanol.tools import local_tools

    return local_tools(index)
