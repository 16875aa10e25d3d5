"""Debates about many items: throughput beside the ideal and the serial run, memory, kills.

    python benchmarks/judging.py [--quick] [--json] [--record] [--only mock,endpoint,memory,kill]

The judges answer from a script after 50 ms, in this process or behind an OpenAI-compatible endpoint
in another one, so that nothing but the scheduling, the log and the client is measured. The ideal is
the number of calls times 50 ms over the calls at a time. Own cost is the processor time of this
process for a call: prompts, parsing, log, and of an endpoint the client library.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

from _bench import Report, Table, arguments, finish
from hanol.engines import Engine, Request, ScriptedEngine, open_engine
from hanol.evaluation import Item, JudgeLimits, JudgeRun, JudgeSettings, Rubric, judge

LATENCY = 0.05  # seconds
CONCURRENCY = 64
RUBRIC = Rubric.load("diting")
SECTIONS = ("mock", "endpoint", "memory", "kill")


def items(count: int) -> list[Item]:
    """Items with texts of their own."""
    return [
        Item(id=str(n), task="idiom", source=f"他做事马马虎虎，第{n}次了。" * 3, system=f"m{n % 5}",
             candidate=f"He does things carelessly; this is time number {n}. " * 3)
        for n in range(count)
    ]  # fmt: skip


def reply(task: str) -> str:
    """Scores that follow from the prompt; the judge is content."""
    n = sum(task.encode()[-400:])
    scores = {"sp": n % 3, "g_1": n // 3 % 3, "g_2": n // 9 % 3}
    said = {"thoughts": "The idiom is conveyed, though a native would say it otherwise. " * 3}
    return json.dumps({**said, "judge": "yes", **scores})


def scripted(latency: float = LATENCY) -> Engine:
    return ScriptedEngine(lambda request: reply(request.messages[1].text), latency=latency)


async def timed(engine: Engine, some: Sequence[Item], concurrency: int, run: Path | None) -> dict:
    """One run: wall and processor seconds, calls, share of items that are scored."""
    judging = JudgeRun(RUBRIC, engine, settings=JudgeSettings(),
                       limits=JudgeLimits(concurrency=concurrency), run=run)  # fmt: skip
    scored = 0

    def count(one: object) -> None:
        nonlocal scored
        scored += one.scores is not None

    wall, own = time.perf_counter(), time.process_time()
    await judging.judge(some, count)
    wall, own = time.perf_counter() - wall, time.process_time() - own
    return {"wall": wall, "own": own, "calls": judging.spent.model_calls, "scored": scored}


def throughput(report: Report, name: str, engine: Engine, count: int) -> None:
    """All items at once, and some of them one call after another."""

    async def both() -> tuple[dict, dict]:
        with tempfile.TemporaryDirectory() as folder:
            await timed(engine, items(64), CONCURRENCY, None)  # connections, caches
            many = await timed(engine, items(count), CONCURRENCY, Path(folder) / "run")
            few = await timed(engine, items(max(4, count // 50)), 1, Path(folder) / "serial")
        await engine.aclose()
        return many, few

    many, few = asyncio.run(both())
    ideal = many["calls"] * LATENCY / CONCURRENCY
    serial = few["wall"] / few["calls"] * many["calls"]
    own = 1000 * many["own"] / many["calls"]
    report.figures |= {
        f"{name}: wall over ideal": many["wall"] / ideal,
        f"{name}: times faster than serial": serial / many["wall"],
        f"{name}: own ms a call": own,
        f"{name}: coverage": many["scored"] / count,
    }
    report.tables.append(Table(
        f"{name}: {count:,} items, protocol paper, {CONCURRENCY} calls at a time, "
        f"{1000 * LATENCY:.0f} ms a call",
        ["calls", "seconds", "ideal", "over ideal", "over serial", "own ms a call", "scored"],
        [[f"{many['calls']:,}", f"{many['wall']:.2f}", f"{ideal:.2f}",
          f"{many['wall'] / ideal:.2f}", f"{serial / many['wall']:.1f} x faster", f"{own:.2f}",
          f"{many['scored']:,} of {count:,}"]],
        f"The serial time is that of {few['calls']} calls one after another, for all of them.",
    ))  # fmt: skip


def endpoint(report: Report, count: int) -> None:
    """The same judges behind HTTP."""
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        spec = f"http://127.0.0.1:{port}/v1#mock"
        throughput(report, "endpoint", open_engine(spec, max_concurrency=CONCURRENCY), count)
    finally:
        server.kill()
        server.wait()


def memory(report: Report, count: int) -> None:
    """What a run holds at most, for few items and for many."""
    peaks = {}
    for size in (count // 4, count):
        some = items(size)
        with tempfile.TemporaryDirectory() as folder:
            tracemalloc.start()
            asyncio.run(timed(scripted(0.0), some, CONCURRENCY, Path(folder) / "run"))
            peaks[size] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    (few, low), (many, high) = peaks.items()
    report.figures["memory: bytes an item more"] = (high - low) / (many - few)
    report.tables.append(Table(
        "memory of a run at its highest, without the items themselves",
        ["items", "MiB", "bytes an item more"],
        [[f"{few:,}", f"{low / 2**20:.2f}", ""],
         [f"{many:,}", f"{high / 2**20:.2f}", f"{(high - low) / (many - few):,.0f}"]],
        "An item that is judged stands in the file and is held no longer; its key and its place "
        "among the items stay.",
    ))  # fmt: skip


def kill(report: Report, count: int) -> None:
    """A run that is killed, again and again, beside one that is not."""
    with tempfile.TemporaryDirectory() as folder:
        whole, run = Path(folder) / "whole", Path(folder) / "run"
        calls = 0

        def counted(request: Request) -> str:
            nonlocal calls
            calls += 1
            return reply(request.messages[1].text)

        judge(items(count), RUBRIC, ScriptedEngine(counted), run=whole, concurrency=CONCURRENCY)
        kills = 0
        for share in (0.1, 0.35, 0.8):
            command = [sys.executable, __file__, "--run", str(run), str(count)]
            process = subprocess.Popen(command)
            log = run / "calls.jsonl"
            while process.poll() is None and _lines(log) < share * calls:
                time.sleep(0.002)
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        kept, first = _lines(run / "calls.jsonl"), calls
        judge(items(count), RUBRIC, ScriptedEngine(counted), run=run, concurrency=CONCURRENCY)
        same = sorted(_rows(whole)) == sorted(_rows(run))
        once = len({row["call"] for row in map(json.loads, _rows(run, "calls.jsonl"))})
        again = _lines(run / "calls.jsonl") - once
        assert same
        assert calls - first == first - kept
        report.figures |= {"kill: calls repeated": float(again), "kill: times": float(kills)}
        report.tables.append(Table(
            f"{count:,} items, killed by signal 9 {kills} times",
            ["calls", "before the kills", "after", "repeated", "judgements"],
            [[f"{first:,}", f"{kept:,}", f"{calls - first:,}", str(again), "the same"]],
            "Of the calls in flight at a kill the answers are lost: nobody can know them.",
        ))  # fmt: skip


def _rows(run: Path, name: str = "judgements.jsonl") -> list[bytes]:
    return (run / name).read_bytes().splitlines()


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


async def serve() -> None:
    """An endpoint for chat completions, as small as it can be."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                               if line.lower().startswith(b"content-length")), 0)  # fmt: skip
                body = json.loads(await reader.readexactly(length)) if length else {}
                await asyncio.sleep(LATENCY)
                text = reply(body["messages"][1]["content"]) if body else ""
                choice = {"index": 0, "finish_reason": "stop",
                          "message": {"role": "assistant", "content": text}}  # fmt: skip
                answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "mock",
                          "choices": [choice], "data": [],
                          "usage": {"prompt_tokens": 400, "completion_tokens": 60}}  # fmt: skip
                data = json.dumps(answer).encode()
                head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve())
        return
    if sys.argv[1:2] == ["--run"]:
        judge(items(int(sys.argv[3])), RUBRIC, scripted(0.01), run=sys.argv[2],
              concurrency=CONCURRENCY)  # fmt: skip
        return
    options = arguments(__doc__.splitlines()[0], threads=1, sections=SECTIONS)
    os.environ.pop("OPENAI_API_KEY", None)
    report = Report("judging", "Judges: throughput, memory, kills", "python benchmarks/judging.py")
    count = 100 if options.quick else 1000
    if "mock" in options.only:
        throughput(report, "in process", scripted(), count)
    if "endpoint" in options.only:
        endpoint(report, count)
    if "memory" in options.only:
        memory(report, count)
    if "kill" in options.only:
        kill(report, max(60, count // 4))
    finish(report, options, ("openai",))


if __name__ == "__main__":
    main()
