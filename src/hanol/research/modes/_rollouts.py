"""Rollouts of heavy mode: all from the start, or branched where the model was uncertain."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hanol.engines import Engine
from hanol.errors import RunError
from hanol.research._replay import afork, aresume, transcript
from hanol.research._researcher import (
    Researcher,
    announced,
    default_tools,
    run_events,
    start_fields,
)
from hanol.research._run import Run, Settings
from hanol.research.modes._heavy import HeavyRollout, synthesize_run
from hanol.retrieval import Index
from hanol.runs import (
    Event,
    Mode,
    ModelAnswered,
    RunFolder,
    RunStarted,
    synchronous,
)
from hanol.tools import Tool

# ParallelMuse: the two most uncertain rounds of a full rollout, three continuations of each.
BRANCH_STEPS = 2
BRANCHES = 3
_SEEDS = 10_000  # apart, so that no calls of two rollouts share a seed

OnRollout = Callable[[int, Event], None]


async def aheavy_research(
    index: Index | None,
    engine: Engine,
    question: str,
    files: Sequence[str] = (),
    *,
    n: int = 4,
    sampling: Literal["parallel", "partial"] = "parallel",
    mode: Mode = "markov",
    run_folder: str | os.PathLike[str] | None = None,
    on_rollout: OnRollout | None = None,
    **options: Any,
) -> AsyncIterator[Event]:
    """Answer by several rollouts and a synthesis over their reports.

    The events are those of the synthesis: each rollout is one result of the tool "rollout", whose
    sources have common numbers; the last event counts what everything together spent.

    Args:
        index: The documents.
        engine: The model.
        question: The user's question.
        files: See `Researcher.aask`.
        n: Rollouts, at least 1.
        sampling: "parallel" makes all from the start, with seeds of their own. "partial" makes
            one, branches three times from each of the two rounds in which the model was least sure
            of its calls, and makes the rest from the start. An engine without log-probabilities
            counts as equally sure everywhere; the first rounds are taken.
        mode: Mode of the rollouts.
        run_folder: Folder for the event logs, those of the rollouts in "rollouts"; a run that is in
            it already is resumed. None keeps no logs.
        on_rollout: Called with the number of the rollout, from 1, and each of its events.
        options: Options of `Researcher`; the budget is that of one rollout.

    Raises:
        RunError: `n` is below 1, `sampling` is unknown, or the folder has another run.
        EngineError: The model failed; call again to resume.
    """
    if n < 1:
        raise RunError(f"`n` is {n}, but heavy mode needs at least 1 rollout (4 by default).")
    if sampling not in ("parallel", "partial"):
        raise RunError(f"`sampling` is {sampling!r}. Known: 'parallel', 'partial'.")
    model = Researcher(index, engine, mode=mode, **options)
    settings = replace(
        model.settings,
        heavy={"n": n, "sampling": sampling},
        logprobs=model.settings.logprobs or sampling == "partial",
    )
    rollouts = _Rollouts(
        announced(question, files), settings, model.system, engine, model.tools, index
    )
    async for event in rollouts.events(run_folder, on_rollout):
        yield event


heavy_research = synchronous(aheavy_research)


async def resume_heavy(
    folder: RunFolder, engine: Engine, index: Index | None, tools: Sequence[Tool] | None
) -> AsyncIterator[Event]:
    """Resume a heavy run; see `aresume`."""
    old = folder.started()
    settings = replace(Settings.from_dict(old.settings), context_window=engine.context_window)
    tools = default_tools(index) if tools is None else tools
    rollouts = _Rollouts(old.question, settings, old.system_prompt, engine, tools, index)
    async for event in rollouts.events(folder.path, None):
        yield event


async def asynthesize(
    runs: Sequence[str | os.PathLike[str]],
    engine: Engine,
    *,
    run_folder: str | os.PathLike[str] | None = None,
) -> AsyncIterator[Event]:
    """Choose one answer from saved runs of one question; no tool is called.

    Args:
        runs: Folders of ended runs, of any mode.
        engine: Writes the missing reports and the synthesis.
        run_folder: Folder for the event log.

    Raises:
        RunError: No runs, runs of several questions, or one that has not ended.
    """
    if not runs:
        raise RunError("`runs` is empty: a synthesis needs at least 1 saved run.")
    logs = [RunFolder(run).events() for run in runs]
    starts = [log[0] for log in logs if log and isinstance(log[0], RunStarted)]
    questions = {start.question for start in starts}
    if len(starts) < len(logs) or len(questions) > 1:
        raise RunError(
            f"A synthesis needs ended runs of one question, but these {len(logs)} folders have "
            f"{len(starts)} runs of {len(questions)} questions."
        )
    settings = replace(
        Settings.from_dict(starts[0].settings),
        heavy={"n": len(runs), "sampling": "saved"},
        context_window=engine.context_window,
    )
    fields = start_fields(starts[0].question, settings, starts[0].system_prompt, engine.name, None)

    async def rollouts() -> list[HeavyRollout]:
        return [await _finished(log) for log in logs]

    async for event in run_events(
        fields,
        settings=settings,
        engine=engine,
        tools=(),
        folder=None if run_folder is None else RunFolder(run_folder),
        loop=lambda run: synthesize_run(run, rollouts),
    ):
        yield event


synthesize = synchronous(asynthesize)


async def _finished(events: Sequence[Event]) -> HeavyRollout:
    return HeavyRollout(events, await asyncio.to_thread(transcript, events))


@dataclass(frozen=True)
class _Rollouts:
    """What the rollouts of one heavy run share."""

    question: str
    settings: Settings
    system: str
    engine: Engine
    tools: Sequence[Tool]
    index: Index | None

    async def events(
        self, run_folder: str | os.PathLike[str] | None, on_rollout: OnRollout | None
    ) -> AsyncIterator[Event]:
        """Make the rollouts and their synthesis."""
        place = tempfile.TemporaryDirectory() if run_folder is None else nullcontext(run_folder)
        with place as where:
            folder = Path(where) / "rollouts"

            async def loop(run: Run) -> None:
                await synthesize_run(run, lambda: self._make(folder, on_rollout))

            async for event in run_events(
                self._start(self.settings),
                settings=self.settings,
                engine=self.engine,
                tools=self.tools,
                index=self.index,
                folder=None if run_folder is None else RunFolder(run_folder),
                loop=loop,
            ):
                yield event

    async def _make(self, folder: Path, on_rollout: OnRollout | None) -> list[HeavyRollout]:
        heavy = self.settings.heavy or {}
        numbers = range(1, heavy["n"] + 1)
        branches: list[int] = []
        done: list[HeavyRollout] = []
        if heavy["sampling"] == "partial":
            done = [await self._one(folder, 1, None, on_rollout)]
            steps = uncertain_steps(done[0].events, BRANCH_STEPS)
            branches = [step for step in steps for _ in range(BRANCHES)][: heavy["n"] - 1]
        rest = [
            self._one(
                folder,
                number,
                branches[number - 2] if 0 <= number - 2 < len(branches) else None,
                on_rollout,
            )
            for number in numbers[len(done) :]
        ]
        # All of them get as far as they can: what has finished is not made again.
        results = await asyncio.gather(*rest, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            done.append(result)
        return done

    async def _one(
        self, folder: Path, number: int, step: int | None, on_rollout: OnRollout | None
    ) -> HeavyRollout:
        path = folder / f"{number:02d}"
        seed = self.settings.seed + _SEEDS * number
        if step is not None and not RunFolder(path).exists:
            stream = afork(
                folder / "01", step, path, self.engine, self.index, seed=seed, tools=self.tools
            )
        elif step is not None:
            stream = aresume(path, self.engine, self.index, tools=self.tools)
        else:
            settings = replace(self.settings, seed=seed, heavy=None)
            stream = run_events(
                self._start(settings),
                settings=settings,
                engine=self.engine,
                tools=self.tools,
                index=self.index,
                folder=RunFolder(path),
            )
        events = []
        async for event in stream:
            events.append(event)
            if on_rollout is not None:
                on_rollout(number, event)
        return await _finished(events)

    def _start(self, settings: Settings) -> dict[str, Any]:
        return start_fields(self.question, settings, self.system, self.engine.name, self.index)


def uncertain_steps(events: Sequence[Event], count: int) -> list[int]:
    """The rounds with the most uncertain calls, the most uncertain first."""
    turns = [
        event for event in events if isinstance(event, ModelAnswered) and event.purpose == "turn"
    ]
    unsure = {event.step: event.uncertainty or 0.0 for event in turns}
    return sorted(unsure, key=lambda step: (-unsure[step], step))[:count]
