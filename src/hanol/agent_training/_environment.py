"""The environment of training: the agent itself, run by a policy that is an engine.

A rollout is a run of `Researcher`: the same parser, tools, modes and budgets that serve a user.
What is added is the record of the sampled tokens, and a reward. What the policy does wrong costs it
reward; what breaks around it (engine, tool, reward function) makes a rollout without one, because
nothing can be learned from that.
"""

import asyncio
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from numbers import Real
from pathlib import Path
from typing import Any

from hanol.agent_training._recorder import Recorder
from hanol.engines import Engine, Sampling
from hanol.errors import DataError, EngineError, HanolError, RunError
from hanol.research import AGENT_SAMPLING, Researcher, default_tools
from hanol.retrieval import Index
from hanol.rl import Rollout
from hanol.runs import Budget, Event, Mode, RunEnded, RunFolder, Task, gather
from hanol.tools import Observation, Tool, ToolContext

Reward = Callable[[Task, str | None], float]
StrPath = str | os.PathLike[str]

_log = logging.getLogger(__name__)


class ResearchEnvironment:
    """Questions over documents, answered by a policy and rewarded.

    Two limits end a rollout that would never end. A limit of the budget is the policy's to
    respect: the run ends without an answer of its own, and the reward is that of what it has.
    `timeout_s` is for what hangs around the policy: such a rollout has no reward. It cannot stop a
    tool that blocks the thread of the loop.

    Args:
        index: The documents; None for tools that need none.
        reward: Finite reward of a task's answer, which is None where there is none.
        tools: Tools of the agent; None takes the local tools of the index. They are shared by
            all rollouts, so what they remember of one must not show in another.
        mode: Mode of `Researcher`.
        budget: Limits of one rollout; None takes those of the mode's paper.
        sampling: How turns are drawn; None as the paper does.
        timeout_s: Seconds of the clock for one rollout; None for no limit.
        system_prompt: None takes ours, with the tools' schemas and the date.
        today: Date in the system prompt; None is today's, or that of a run that is resumed.
        constrained: Hold turns to the agent's grammar where the engine can. Not for training: the
            probabilities of what was drawn are then those under the grammar.

    Raises:
        RunError: There are neither tools nor documents.
    """

    def __init__(
        self,
        index: Index | None,
        reward: Reward,
        *,
        tools: Sequence[Tool] | None = None,
        mode: Mode = "react",
        budget: Budget | None = None,
        sampling: Sampling | None = None,
        timeout_s: float | None = None,
        system_prompt: str | None = None,
        today: date | None = None,
        constrained: bool = False,
    ) -> None:
        self.index = index
        self._constrained = constrained
        self.tools = default_tools(index) if tools is None else tools
        self._reward = reward
        self._timeout_s = timeout_s
        self._today = today
        self.mode, self.sampling = mode, sampling or AGENT_SAMPLING
        self._budget, self._system_prompt = budget, system_prompt
        self._prepared: dict[tuple[int | None, date], Researcher] = {}

    async def rollout(
        self, engine: Engine, task: Task, *, seed: int = 0, run_folder: StrPath | None = None
    ) -> Rollout:
        """One attempt at a question.

        What goes wrong in it is in `Rollout.problem`, and logged. With a folder nothing is lost by
        that: the same call resumes from the last event, and a run that has ended is read back.

        Args:
            engine: The policy. Its turns are in the rollout if it returns token ids and
                log-probabilities; endpoints do not, and their rollouts have none.
            task: The question.
            seed: Seed for sampling, and for what tools leave to chance.
            run_folder: Gets the log and the turns; None keeps neither.

        Raises:
            RunError: There is no such mode, two tools have one name, or the folder has another
                run, or one that is damaged or in use.
        """
        folder = None if run_folder is None else RunFolder(run_folder)
        is_resumed = folder is not None and folder.exists
        recorder = Recorder(engine, None if folder is None else folder.path)
        if not self._constrained:
            recorder.capabilities -= {"grammar"}
        today = self._today
        if today is None and folder is not None and is_resumed:
            today = date.fromisoformat(folder.started().settings["today"])
        researcher = self._researcher(recorder, today or date.today())
        events: list[Event] = []
        reward, problem = None, None
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                setup = researcher.setup(task.question, task.files)
                settings = replace(setup.settings, seed=seed)
                setup = replace(setup, engine=recorder, settings=settings)
                async for event in setup.events(folder, on_request=recorder.took):
                    events.append(event)
            reward = self._reward_of(task, events[-1])
        except Exception as err:
            if is_resumed and isinstance(err, RunError):
                raise
            if isinstance(err, _ToolFaultError) and isinstance(err.__cause__, Exception):
                err = err.__cause__
            problem = f"{type(err).__name__}: {err}"
            if isinstance(err, TimeoutError) and limit.expired():
                problem = f"The run timed out after {self._timeout_s} s."
            _log.warning("Rollout of task %r, seed %d, is left out. %s", task.id, seed, problem)
        return Rollout(task, tuple(events), recorder.turns, reward, problem)

    async def rollouts(
        self,
        engine: Engine,
        tasks: Sequence[Task],
        *,
        seeds: Sequence[int],
        concurrency: int,
        folder: StrPath | None = None,
        on_rollout: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """One attempt at each of many questions; a question may occur with several seeds.

        Args:
            engine: The policy.
            tasks: The questions.
            seeds: One for each task.
            concurrency: Rollouts at once, at least 1.
            folder: Gets the run folders, `<task>/<seed>`; None keeps none.
            on_rollout: Called with each as it ends. What it raises stops all of them.

        Returns:
            The rollouts, in the order of the tasks.

        Raises:
            DataError: Seeds do not fit the tasks, or two rollouts would share a folder.
            RunError: See `rollout`.
        """
        _check_batch(tasks, seeds, folder)

        left = len(tasks)

        async def attempt(job: tuple[Task, int]) -> Rollout:
            nonlocal left
            task, seed = job
            run_folder = None if folder is None else rollout_folder(folder, task, seed)
            rollout = await self.rollout(engine, task, seed=seed, run_folder=run_folder)
            left -= 1
            engine.expect(min(concurrency, left))
            if on_rollout is not None:
                on_rollout(rollout)
            return rollout

        try:
            # Which answers are computed together must not depend on how long tools take.
            engine.expect(min(concurrency, left))
            return await gather(attempt, zip(tasks, seeds, strict=True), concurrency=concurrency)
        finally:
            engine.expect(0)

    def _researcher(self, engine: Engine, today: date) -> Researcher:
        """One for all rollouts, because checking the tools takes as long as a rollout."""
        key = (engine.context_window, today)
        if key not in self._prepared:
            self._prepared[key] = Researcher(
                self.index,
                engine,
                mode=self.mode,
                budget=self._budget,
                tools=[_Watched(tool) for tool in self.tools],
                system_prompt=self._system_prompt,
                today=today,
                sampling=self.sampling,
                logprobs=True,
            )
        return self._prepared[key]

    def _reward_of(self, task: Task, last: Event) -> float:
        assert isinstance(last, RunEnded)
        reward = self._reward(task, last.answer)
        if not isinstance(reward, Real) or not math.isfinite(reward):
            raise DataError(
                f"The reward of the answer {last.answer!r} is {reward!r}, but must be a finite "
                "number."
            )
        return float(reward)


class _ToolFaultError(EngineError):
    """Ends the run as a lost model does: what a tool raised is no fault of the policy."""


class _Watched:
    """A tool whose faults end the run; for a user they are failed observations."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self.name, self.description = tool.name, tool.description
        self.parameters = tool.parameters

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        try:
            return await self._tool.run(arguments, context)
        except HanolError:
            raise
        except Exception as err:
            raise _ToolFaultError(str(err)) from err


def rollout_folder(folder: StrPath, task: Task, seed: int) -> Path:
    """Where `rollouts` keeps one of its rollouts."""
    return Path(folder) / task.folder_name / str(seed)


def _check_batch(tasks: Sequence[Task], seeds: Sequence[int], folder: object) -> None:
    if len(seeds) != len(tasks):
        raise DataError(f"There are {len(tasks)} tasks, but {len(seeds)} seeds. Give one for each.")
    places = {(task.folder_name, seed) for task, seed in zip(tasks, seeds, strict=True)}
    if folder is not None and len(places) < len(tasks):
        raise DataError(
            "Two rollouts have the same task and the same seed, so they would share a run folder. "
            "Give each its own seed."
        )
