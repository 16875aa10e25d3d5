"""Many runs in one process: they overlap, keep to themselves, and cost little."""

import asyncio
import gc
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hanol.engines import Completion, Request, ScriptedEngine
from hanol.research import Researcher
from hanol.runs import Event, RunEnded, RunFolder
from hanol.tools import SEARCH, Observation, ToolContext

STEPS = 5


class Waiting:
    """A clock that counts how many waits overlap, instead of measuring time."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.total = 0

    async def wait(self, seconds: float) -> None:
        self.total += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(seconds)
        self.now -= 1


class Slow(ScriptedEngine):
    """Takes its time over each answer."""

    def __init__(self, waiting: Waiting, seconds: float) -> None:
        super().__init__(self._write)
        self._waiting, self._seconds = waiting, seconds

    async def complete(self, request: Request) -> Completion:
        await self._waiting.wait(self._seconds)
        return await super().complete(request)

    def _write(self, request: Request) -> str:
        question, turn = request.messages[1].content, len(request.messages) // 2
        if turn > STEPS:
            return f"<answer>answer to {question}</answer>"
        call = f'{{"name": "search", "arguments": {{"query": ["{question} {turn}"]}}}}'
        return f"<tool_call>\n{call}\n</tool_call>"


class Notes:
    """A search that takes its time."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, waiting: Waiting, seconds: float) -> None:
        self._waiting, self._seconds = waiting, seconds

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        await self._waiting.wait(self._seconds)
        (query,) = arguments["query"]
        source = context.sources.cite(query, address=f"doc://{query}", title="t", sha256="0")
        return Observation(f"[{source.number}] {query} " + "text " * 200, (source,))


async def ask_many(count: int, folder: Path, waiting: Waiting, seconds: float) -> None:
    engine, tools = Slow(waiting, seconds), [Notes(waiting, seconds)]

    async def ask(number: int) -> None:
        researcher = Researcher(None, engine, tools=tools, run_folder=folder / f"{number:04d}")
        last: Event | None = None
        async for event in researcher.aask(f"q{number:04d}"):
            last = event
        assert isinstance(last, RunEnded)
        assert last.answer == f"answer to q{number:04d}"

    await asyncio.gather(*(ask(number) for number in range(count)))


def assert_complete(folder: Path, count: int) -> None:
    runs = sorted(folder.iterdir())
    assert len(runs) == count
    for run in runs:
        events = RunFolder(run).events()
        assert [event.number for event in events] == list(range(2 * STEPS + 3))
        assert all(run.name in e.text for e in events if e.type == "tool_returned")


def test_64_questions_wait_for_their_calls_together(tmp_path: Path) -> None:
    waiting = Waiting()
    asyncio.run(ask_many(64, tmp_path, waiting, 0.05))
    assert waiting.total == 64 * (2 * STEPS + 1)
    assert waiting.most > 20  # of 64: otherwise something serialises them
    assert_complete(tmp_path, 64)


@pytest.mark.slow
def test_a_thousand_runs_lose_nothing_and_need_bounded_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    asyncio.run(ask_many(1000, tmp_path, Waiting(), 0.01))
    _, peak = tracemalloc.get_traced_memory()
    gc.collect()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_complete(tmp_path, 1000)
    assert peak < 200 * 2**20  # 0.2 MB a run, whose transcript alone is 0.01 MB
    assert left < 20 * 2**20


def test_more_runs_than_open_files_are_allowed(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, hard))
    try:
        asyncio.run(ask_many(60, tmp_path, Waiting(), 0.01))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert_complete(tmp_path, 60)
