"""Kills rollouts at every turn and goes on with them, in real processes: the driver of a test.

    python killed_rollouts.py FOLDER

For each turn of an undisturbed rollout, a child kills itself with signal 9 when the turn has been
"drawn" (nothing of it was written), "torn" (half of its tokens were written), "kept" (its tokens,
but not its event) or "logged" (its event too). A second child goes on, a third reads the finished
rollout back. Children are forked, so that hanol is imported once. Results are in "done.json" of
each folder, calls in "calls.txt".
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hanol.agent_training import ResearchEnvironment
from hanol.agent_training._recorder import (
    Recorder,
)  # private: the process is killed at each of its writes
from hanol.engines import Completion, Request, ScriptedEngine, Usage
from hanol.runs import RunFolder, Task
from hanol.tools import SEARCH, Observation, ToolContext

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from claims.deep_research.unreliable import UnreliableTool
from forked import in_child

SEARCHES = 2
TASK = Task("rain", "Where does it rain?", "Everywhere")


class Notes:
    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        note(self._folder, f"tool {arguments['query'][0]}")
        return Observation(f"note on {arguments['query'][0]}")


class Policy(ScriptedEngine):
    """Searches, then answers; a token is a byte."""

    def __init__(self, folder: Path) -> None:
        super().__init__(self._write)
        self._folder = folder

    def _write(self, request: Request) -> Completion:
        turn = sum(message.role == "assistant" for message in request.messages)
        note(self._folder, f"model {turn}")
        text = "<answer>Everywhere</answer>"
        if turn < SEARCHES:
            query = json.dumps({"name": "search", "arguments": {"query": [f"rain {turn}"]}})
            text = f"<tool_call>\n{query}\n</tool_call>"
        read = "".join(f"{m.role}\n{m.content}\n" for m in request.messages) + "assistant\n"
        logprobs = tuple(-1 / (3 + (turn * 31 + i) % 97) for i in range(len(text)))
        ids = tuple(text.encode())
        return Completion.of(
            text,
            usage=Usage(len(read), len(ids)),
            prompt_ids=tuple(read.encode()),
            ids=ids,
            logprobs=logprobs,
        )


def note(folder: Path, line: str) -> None:
    with (folder / "calls.txt").open("a") as file:
        file.write(line + "\n")


def rollout(folder: Path) -> None:
    tool = UnreliableTool(Notes(folder), failures=0.5)
    environment = ResearchEnvironment(None, lambda *_: 1.0, tools=[tool])
    done = asyncio.run(environment.rollout(Policy(folder), TASK, seed=2, run_folder=folder / "run"))
    result = {
        "problem": done.problem,
        "reward": done.reward,
        "turns": [[t.prompt_ids, t.token_ids, t.logprobs] for t in done.turns],
        "tools": [e.text for e in done.events if e.type == "tool_returned"],
    }
    (folder / "done.json").write_text(json.dumps(result))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def rollout_until(folder: Path, place: int, when: str) -> None:
    """The rollout, killed at its turn number `place`."""
    turns = 0
    append, log, complete = Recorder._append, RunFolder.append, Recorder.complete

    async def counted(self: Recorder, request: Request) -> Completion:
        nonlocal turns
        turns += 1
        return await complete(self, request)

    def keep(self: Recorder, key: str, turn: Any) -> None:
        if turns == place and when == "drawn":
            die()
        append(self, key, turn)
        if turns == place and when == "torn":
            assert self._path is not None
            size = self._path.stat().st_size
            line = len(self._path.read_bytes().splitlines()[-1])
            os.truncate(self._path, size - line // 2)
            die()
        if turns == place and when == "kept":
            die()

    def logged(self: RunFolder, events: Any) -> None:
        log(self, events)
        if turns == place and when == "logged" and events[0].type == "model_answered":
            die()

    Recorder._append, RunFolder.append = keep, logged  # type: ignore[method-assign]
    Recorder.complete = counted  # type: ignore[method-assign]
    rollout(folder)


def main(root: Path) -> None:
    whole = root / "whole"
    whole.mkdir()
    assert in_child(partial(rollout, whole)) == 0
    for place in range(1, SEARCHES + 2):
        for when in ("drawn", "torn", "kept", "logged"):
            folder = root / f"{when}-{place}"
            folder.mkdir()
            status = in_child(partial(rollout_until, folder, place, when))
            assert status == -signal.SIGKILL, folder
            assert not (folder / "done.json").exists()
            for _ in range(2):  # goes on with it, then reads it back
                assert in_child(partial(rollout, folder)) == 0, folder


if __name__ == "__main__":
    main(Path(sys.argv[1]))
