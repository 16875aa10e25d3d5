"""What the agent costs besides model and tools: alone, and with many questions at once."""

import asyncio
import json
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from _bench import Report, Table, progress
from hanol.engines import Request, ScriptedEngine
from hanol.errors import HanolError
from hanol.research import AGENT_SAMPLING, Researcher
from hanol.runs import Event, ModelAnswered, RunEnded, RunFolder, ToolReturned
from hanol.tools import Observation, ToolContext

LATENCY = 0.05  # seconds that each fake model call and tool call takes
CALLS = 3  # tool calls of a question; its model calls are one more
WORDS = "The bridge of the northern harbour was opened in the year after the great storm. " * 8


@dataclass(frozen=True)
class FakeSearch:
    """A search that sleeps, and cites one source."""

    latency: float
    name: str = "search"
    description: str = "Search the documents."

    @property
    def parameters(self) -> Mapping[str, Any]:
        """As the real one's."""
        queries = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {"type": "object", "properties": {"query": queries}, "required": ["query"]}

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """One passage of about 100 words."""
        await asyncio.sleep(self.latency)
        text = f"{WORDS} {arguments['query'][0]}"
        source = context.sources.cite(text, address="doc://0/a.txt", title="a", sha256="0" * 64)
        return Observation(f"[{source.number}] {text}", sources=(source,))


def answers(calls: int) -> Any:
    """A model that searches `calls` times and then answers."""

    def reply(request: Request) -> str:
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn < calls:
            call = {"name": "search", "arguments": {"query": [f"query {turn}"]}}
            return f"<think>I look it up.</think>\n<tool_call>\n{json.dumps(call)}\n</tool_call>"
        return "<think>Enough.</think>\n<answer>It was opened after the great storm [1].</answer>"

    return reply


async def ask(folder: Path | None, question: str, calls: int, latency: float) -> list[Event]:
    """Run one question; its events."""
    researcher = Researcher(
        None,
        ScriptedEngine(answers(calls), latency=latency),
        tools=[FakeSearch(latency)],
        run_folder=folder,
        sampling=AGENT_SAMPLING,
    )
    events = [event async for event in researcher.aask(question)]
    check(events, calls)
    return events


def check(events: list[Event], calls: int) -> None:
    """Nothing is timed that went wrong.

    Raises:
        HanolError: An event is missing, twice there or out of order, or there is no answer.
    """
    models = sum(isinstance(event, ModelAnswered) for event in events)
    tools = sum(isinstance(event, ToolReturned) and not event.failed for event in events)
    end = events[-1]
    if (
        (models, tools) != (calls + 1, calls)
        or [event.number for event in events] != list(range(len(events)))
        or not isinstance(end, RunEnded)
        or end.termination != "answer"
    ):
        raise HanolError(
            f"A scripted run has {models} model calls and {tools} tool calls in {len(events)} "
            f"events, expected {calls + 1} and {calls}: its time means nothing."
        )


def agent(report: Report, quick: bool) -> None:
    """Overhead of a step, questions side by side, a thousand runs at once."""
    overhead(report, quick)
    side_by_side(report, 8 if quick else 64)
    many(report, (20, 40) if quick else (250, 1000))


def overhead(report: Report, quick: bool) -> None:
    """Seconds of a step when model and tools take none, by place in the run."""
    calls, rounds = (10, 2) if quick else (99, 5)
    asyncio.run(ask(None, "Warm up?", calls, 0.0))
    rows = []
    for title, logged in (("without a log", False), ("with the log on disk", True)):
        steps: list[list[float]] = []
        for i in range(rounds):
            with TemporaryDirectory() as name:
                folder = Path(name) / "run" if logged else None
                begin = time.time()
                events = asyncio.run(ask(folder, f"Question {i}?", calls, 0.0))
            marks = [begin, *(event.time for event in events if isinstance(event, ModelAnswered))]
            steps.append([1e3 * (b - a) for a, b in pairwise(marks)])
        means = [sum(one) / len(one) for one in steps]
        tenth = max(1, calls // 10)
        first = median(value for one in steps for value in one[1 : tenth + 1])
        last = median(value for one in steps for value in one[-tenth:])
        report.figures[f"step {title}, ms"] = median(means)
        rows.append(
            [
                title,
                f"{median(means):.2f} ms",
                f"{first:.2f} ms",
                f"{last:.2f} ms",
                f"{5 / median(means):.1f}x",
            ]
        )
    report.tables.append(
        Table(
            f"A step of the agent when model and tools take no time, runs of {calls + 1} steps",
            ["", "mean", "first tenth", "last tenth", "5 ms / mean"],
            rows,
            "Parsing, checking, prompt, counting of tokens, events, citations; each step adds an "
            "observation of 120 words to the transcript.",
        )
    )


def side_by_side(report: Report, number: int) -> None:
    """Questions together against one after another."""

    async def together(folder: Path) -> None:
        questions = (ask(folder / str(i), f"Question {i}?", CALLS, LATENCY) for i in range(number))
        await asyncio.gather(*questions)

    async def serial(folder: Path, bar: Any, task: Any) -> None:
        for i in range(number):
            await ask(folder / str(i), f"Question {i}?", CALLS, LATENCY)
            bar.advance(task)

    with TemporaryDirectory() as name, progress() as bar:
        begin = time.perf_counter()
        asyncio.run(together(Path(name) / "together"))
        middle = time.perf_counter()
        asyncio.run(serial(Path(name) / "serial", bar, bar.add_task("serially", total=number)))
        end = time.perf_counter()
    ratio = (end - middle) / (middle - begin)
    report.figures["questions side by side, ratio"] = ratio
    report.tables.append(
        Table(
            f"{number} questions of {CALLS + 1} model calls and {CALLS} tool calls, "
            f"{1e3 * LATENCY:.0f} ms each",
            ["", "time"],
            [
                ["one after another", f"{end - middle:.2f} s"],
                ["side by side", f"{middle - begin:.2f} s"],
                ["ratio", f"{ratio:.1f}x"],
            ],
            "Every run keeps its log on disk.",
        )
    )


def many(report: Report, sizes: tuple[int, int]) -> None:
    """Memory and events of many runs at once in one process."""
    rows, peaks = [], []
    for number in sizes:
        with (
            TemporaryDirectory() as name,
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        ):
            seconds, extra, events = pool.submit(run_many, Path(name), number).result()
        expected = number * (2 + 2 * CALLS + 1)
        report.figures[f"{number} runs at once, lost events"] = expected - events
        report.figures[f"{number} runs at once, bytes"] = extra
        peaks.append(extra / number)
        rows.append(
            [
                f"{number:,} runs",
                f"{seconds:.1f} s",
                f"{number / seconds:,.0f}",
                f"{extra / 1e6:.0f} MB",
                f"{extra / number / 1e3:.0f} kB",
                f"{events:,} of {expected:,}",
            ]
        )
    report.tables.append(
        Table(
            f"Runs at once in one process, {1e3 * LATENCY:.0f} ms latencies",
            ["", "time", "runs/s", "memory over idle", "per run", "events on disk"],
            rows,
            "Events are counted by reading every log again after all runs have ended.",
        )
    )


def run_many(folder: Path, number: int) -> tuple[float, int, int]:
    """In a fresh process: seconds, bytes above the level before, events found on disk."""
    raise_file_limit(4 * number + 256)
    asyncio.run(ask(folder / "warm", "Warm up?", CALLS, 0.0))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here

    async def together() -> int:
        runs = [ask(folder / str(i), f"Question {i}?", CALLS, LATENCY) for i in range(number)]
        done = 0
        for run in asyncio.as_completed(runs):
            done += len(await run)
        return done

    begin = time.perf_counter()
    streamed = asyncio.run(together())
    seconds = time.perf_counter() - begin
    extra = resident("VmHWM") - before
    kept = sum(len(RunFolder(folder / str(i)).events()) for i in range(number))
    if streamed != kept:
        raise HanolError(f"{streamed:,} events were streamed, but {kept:,} are on disk.")
    return seconds, extra, kept


def raise_file_limit(wanted: int) -> None:
    """Each run holds its log open."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def resident(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024
