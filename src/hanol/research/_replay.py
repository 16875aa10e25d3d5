"""Resume, replay and fork runs from their event logs, and take them apart."""

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from hanol.engines import Engine, Message, Request, ScriptedEngine
from hanol.errors import RunError
from hanol.research._context import merged
from hanol.research._researcher import RunSetup
from hanol.research._run import Run, Settings
from hanol.research.modes._heavy import HeavyRollout, heavy_events, synthesize_run
from hanol.retrieval import Index
from hanol.runs import ContextRestarted, Event, ModelAnswered, RunFolder, RunStarted, synchronous
from hanol.tools import Tool, ToolSpec

Path = str | os.PathLike[str]
_SAVED = "saved"  # where the rollouts of a synthesis come from


def aresume(
    run_folder: Path, engine: Engine, index: Index | None, *, tools: Sequence[Tool] | None = None
) -> AsyncIterator[Event]:
    """Resume an interrupted run: its events so far, then new ones.

    Finished calls are not repeated; the call that was interrupted is.

    Args:
        tools: The tools that the run was started with; None uses the local tools.

    Raises:
        RunError: There is no run, or the model, documents or tools have changed; the message
            lists the changes.
    """
    folder = RunFolder(run_folder)
    started = folder.started()
    if (Settings.from_dict(started.settings).heavy or {}).get("sampling") == _SAVED:
        raise RunError(
            f"{str(folder.path)!r} is a synthesis of saved runs, which it does not name: call "
            "`synthesize` with these runs and this `run_folder` again."
        )
    setup = RunSetup.again(started, engine, index, tools)
    return heavy_events(setup, folder) if setup.settings.heavy else setup.events(folder)


resume = synchronous(aresume)


def areplay(run: Path | Sequence[Event]) -> AsyncIterator[Event]:
    """Replay a run from its log alone, without a model, documents or network.

    The agent runs again, and everything it does is compared with the log.

    Args:
        run: Folder of the run, or its events.

    Raises:
        RunError: The log is damaged, ends early, or is not what this version would do.
    """
    return _Replay(run).events()


replay = synchronous(areplay)


def afork(
    run_folder: Path,
    at_step: int,
    new_folder: Path,
    engine: Engine,
    index: Index | None,
    *,
    seed: int,
    tools: Sequence[Tool] | None = None,
) -> AsyncIterator[Event]:
    """Start a new run from the first rounds of another one.

    Args:
        run_folder: Run to branch off, finished or not.
        at_step: First round of the new run that is not copied, from 1.
        new_folder: Folder for the new run; must not have a run yet.

    Raises:
        RunError: There is no such round, a heavy run has no synthesis from there on, or
            `new_folder` has a run.
    """
    events = RunFolder(run_folder).events()
    old = RunFolder(run_folder).started()
    last = max(0 if isinstance(event, RunStarted) else event.step for event in events)
    if not 1 <= at_step <= last:
        raise RunError(f"`at_step` is {at_step}, but the run has rounds 1 to {last}.")
    heavy = Settings.from_dict(old.settings).heavy
    if heavy is not None and at_step <= heavy["n"]:
        raise RunError(
            f"`at_step` is {at_step}, but a heavy run can be forked only at {heavy['n'] + 1}, its "
            "synthesis: the rounds before are whole rollouts. Fork one of those, in "
            f"{str(RunFolder(run_folder).path / 'rollouts')!r}, or start another run."
        )
    folder = RunFolder(new_folder)
    if folder.exists:
        raise RunError(f"There is a run in {str(folder.path)!r} already; choose another.")
    setup = RunSetup.again(old, engine, index, tools, seed=seed, fork_step=at_step - 1)
    with folder:
        folder.append(setup.forked(events))
        folder.sync()
    return aresume(folder.path, engine, index, tools=tools)


fork = synchronous(afork)


async def asynthesize(
    runs: Sequence[Path], engine: Engine, *, run_folder: Path | None = None
) -> AsyncIterator[Event]:
    """Choose one answer from saved runs of one question, as heavy mode does; calls no tool.

    Args:
        runs: Folders of ended runs, of any mode.
        engine: Writes the missing reports and the synthesis.
        run_folder: Folder for the event log; a synthesis that is in it already is resumed. None
            keeps no log.

    Raises:
        RunError: No runs, runs of several questions, or one that has not ended.
    """
    if not runs:
        raise RunError("`runs` is empty: a synthesis needs at least 1 saved run.")
    replays = [_Replay(run) for run in runs]
    questions = {replayed.started.question for replayed in replays}
    if len(questions) > 1:
        raise RunError(
            "A synthesis needs runs of one question, but these are "
            f"{len(replays)} runs of {len(questions)} questions."
        )
    heavy = {"n": len(runs), "sampling": _SAVED}
    setup = RunSetup.again(replays[0].started, engine, None, (), heavy=heavy, fork_step=0)

    async def rollouts() -> list[HeavyRollout]:
        return [await replayed.rollout() for replayed in replays]

    folder = None if run_folder is None else RunFolder(run_folder)
    async for event in setup.events(folder, loop=lambda run: synthesize_run(run, rollouts)):
        yield event


synthesize = synchronous(asynthesize)


@dataclass(frozen=True)
class Segment:
    """One prompt and what the model wrote to it: what a trainer learns from.

    Args:
        messages: The prompt, with the model's earlier turns in it.
        completion: The model's last turn.
    """

    messages: tuple[Message, ...]
    completion: str


def segments(events: Sequence[Event]) -> list[Segment]:
    """Split a run into conversations that together hold every turn once.

    ReAct gives one; ReSum one for each restart and one for the end (arXiv 2509.13313); Markov one
    for each round, because no round sees another (arXiv 2511.07327).

    Raises:
        RunError: The run has not ended, or cannot be replayed.
    """
    replayed = _Replay(events)
    synchronous(replayed.rollout)()
    if replayed.started.mode == "markov":
        return [Segment(request.messages, answer.text) for request, answer in replayed.turns]
    restarts = [event.step for event in events if isinstance(event, ContextRestarted)]
    last_turns: dict[int, Segment] = {}  # by the number of restarts before them
    for request, answer in replayed.turns:
        before = sum(restart <= answer.step for restart in restarts)
        last_turns[before] = Segment(request.messages, answer.text)
    return list(last_turns.values())


def transcript(events: Sequence[Event]) -> list[Message]:
    """The whole run as one conversation, whatever the mode; roles alternate after the system's.

    Raises:
        RunError: The run has not ended, or cannot be replayed.
    """
    return list(synchronous(_Replay(events).rollout)().conversation)


class _Replay:
    """A run whose calls are all answered from its log."""

    def __init__(self, run: Path | Sequence[Event]) -> None:
        recorded = RunFolder(run).events() if isinstance(run, str | os.PathLike) else list(run)
        if not recorded or not isinstance(recorded[0], RunStarted):
            where = f" in {os.fspath(run)!r}" if isinstance(run, str | os.PathLike) else ""
            raise RunError(f"There is no run to replay{where}: the log is missing or empty.")
        self._recorded = recorded
        self.started = recorded[0]
        self._runs: list[Run] = []
        self.turns: list[tuple[Request, ModelAnswered]] = []

    def events(self) -> AsyncIterator[Event]:
        """The recorded events, each one compared with what the agent does."""
        started = self.started
        settings = Settings.from_dict(started.settings)
        # Answers of the model and results of tools are in the log: their names are enough.
        engine = ScriptedEngine([], name=started.model, context_window=settings.context_window)
        tools: list[Any] = [ToolSpec(**schema) for schema in settings.schemas]
        setup = RunSetup(started.question, settings, started.system_prompt, engine, tools)
        return setup.events(
            recorded=self._recorded,
            live=False,
            on_request=self._note,
            on_run=self._runs.append,
            loop=synthesize_run if settings.heavy else None,
        )

    async def rollout(self) -> HeavyRollout:
        """Go through all events; the run as the synthesis of heavy mode reads it."""
        async for _ in self.events():
            pass
        return HeavyRollout(self._recorded, merged(self._runs[-1].dialogue))

    def _note(self, request: Request, answer: ModelAnswered) -> None:
        if answer.purpose in ("turn", "forced_answer"):
            self.turns.append((request, answer))
