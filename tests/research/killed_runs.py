"""Kills runs at every event and resumes them, in real processes: the driver of `test_resume`.

    python killed_runs.py FOLDER MODE WHEN

For each event of an undisturbed run, a child process runs the same question in a folder of its own
and kills itself with signal 9 at that event: WHEN is "after" it was written, "before" it was
written (its call has been made) or "torn" (half of it was written). A second child resumes. All
calls are noted in "calls.txt" of the folder. Children are forked, so that hanol is imported once.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanol.engines import Completion, Message, Request, ScriptedEngine
from hanol.research import Researcher, heavy_research, resume
from hanol.runs import Budget, RunFolder
from hanol.tools import SEARCH, Observation, ToolContext

sys.path.insert(0, str(Path(__file__).parents[1]))

from forked import in_child

STEPS = 12
BUDGET = Budget(model_calls=STEPS - 1, observation_tokens=500)


class Notes:
    """A search whose every other call asks the model to read, twice."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, calls: Path) -> None:
        self._calls = calls

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        (query,) = arguments["query"]
        text = f"note on {query}"
        if context.engine is not None and query.endswith(("2", "4")):
            for part in ("one", "two"):
                prompt = Message("user", f"read {part} for {query}")
                text += (await context.engine.complete(Request((prompt,)))).text
        source = context.sources.cite(text, address=f"doc://{query}", title=query, sha256="0")
        note(self._calls, f"tool {query}")
        return Observation(f"[{source.number}] {text}", (source,), (source.address,))


class Model(ScriptedEngine):
    """Searches, fails to write a turn in round 5, and answers when it must."""

    def __init__(self, calls: Path) -> None:
        super().__init__(self._write)
        self._calls = calls

    async def complete(self, request: Request) -> Completion:
        completion = await super().complete(request)
        note(
            self._calls,
            f"model {request.sampling.seed} {len(request.messages[-1].content)} "
            f"{request.messages[-1].content[:30]!r}",
        )
        return completion

    def _write(self, request: Request) -> str:
        last, number = request.messages[-1].content, (request.sampling.seed or 0) % 100
        if last.startswith("read "):
            return f" ({last})"
        if "inside <summary></summary>" in last:
            return f"<summary>summary {number}</summary>"
        if "no room left" in last or "Several assistants" in last:
            return "<answer>the answer [1]</answer>"
        if "Write a report on how" in last:
            return "<report>report [1]</report>"
        if number == 5:
            return "no action"
        queries = [f"{number}-{call}" for call in range(1 + number % 2)]
        calls = [json.dumps({"name": "search", "arguments": {"query": [q]}}) for q in queries]
        return f"<think>t</think><report>report {number}</report>" + "".join(
            f"<tool_call>\n{call}\n</tool_call>" for call in calls
        )


def note(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line.replace("\n", " ") + "\n")


def run(folder: Path, mode: str) -> None:
    calls = folder / "calls.txt"
    options: dict[str, Any] = {"tools": [Notes(calls)], "budget": BUDGET, "extract": True}
    if mode == "heavy":
        options["budget"] = Budget(model_calls=3)
        events = heavy_research(
            None, Model(calls), "What?", n=2, mode="react", run_folder=folder / "run", **options
        )
    else:
        every = 4 if mode == "resum" else None
        events = Researcher(
            None,
            Model(calls),
            mode=mode,
            run_folder=folder / "run",
            summary_every=every,
            **options,
        ).ask("What?")
    assert list(events)


def finish(folder: Path, mode: str) -> None:
    calls = folder / "calls.txt"
    if RunFolder(folder / "run").events():
        list(resume(folder / "run", Model(calls), None, tools=[Notes(calls)]))
    else:
        run(folder, mode)


def kill_at(number: int, when: str) -> None:
    """Let this process die at the n-th event that it writes."""
    append = RunFolder.append
    seen = [0]

    def deadly(self: RunFolder, events: Any) -> None:
        seen[0] += 1
        if seen[0] < number:
            return append(self, events)
        if when == "torn":
            data = events[0].model_dump_json().encode()
            os.write(self._descriptor, data[: len(data) // 2])
        if when == "after":
            append(self, events)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    RunFolder.append = deadly


def main(root: Path, mode: str, when: str) -> None:
    whole = root / "whole"
    whole.mkdir()
    assert in_child(lambda: run(whole, mode)) == 0
    total = sum(len(RunFolder(log.parent).events()) for log in whole.rglob("events.jsonl"))
    for number in range(1, total + 1):
        folder = root / f"{number:03d}"
        folder.mkdir()

        def killed(folder: Path = folder, number: int = number) -> None:
            kill_at(number, when)
            run(folder, mode)

        assert in_child(killed) == -signal.SIGKILL
        assert in_child(lambda folder=folder: finish(folder, mode)) == 0
    sys.stdout.write(f"{total}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
