"""A fleet on this machine: the same answers, and none lost with an actor."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hanol.engines import Engine, Message, Request, Sampling, open_engine
from hanol.errors import CheckpointError, EngineError
from hanol.runs import gather

from .conftest import checkpoint

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow  # starting a cluster takes seconds


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    yield
    ray.shutdown()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.jsonl"
    rows = [{"text": f"answer {i}", "match": f"^question {i}$", "latency": 0.2} for i in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def ask(text: str) -> Request:
    return Request((Message("user", text),))


def test_requests_are_spread_and_answered_in_order(script: Path) -> None:
    async def run() -> None:
        engine: Any = open_engine(f"ray:2:scripted:{script}", context_window=500)
        assert isinstance(engine, Engine)
        assert engine.name == f"ray:2:scripted:{script}"
        assert engine.context_window == 500
        alone = open_engine(f"scripted:{script}")
        requests = [ask(f"question {i}") for i in range(12)]
        tasks = asyncio.ensure_future(gather(engine.complete, requests, concurrency=64))
        await asyncio.sleep(0.05)
        assert engine._in_flight == [6, 6]
        assert await tasks == await gather(alone.complete, requests, concurrency=64)
        assert engine._in_flight == [0, 0]
        assert engine.count_tokens(requests[0].messages) == alone.count_tokens(requests[0].messages)
        with pytest.raises(EngineError, match="no answer to turn 1"):
            await engine.complete(ask("unknown"))
        await engine.aclose()

    asyncio.run(run())


def test_a_request_outlives_its_actor(script: Path) -> None:
    async def run() -> None:
        engine: Any = open_engine(f"ray:2:scripted:{script}")
        tasks = asyncio.ensure_future(
            gather(engine.complete, [ask(f"question {i}") for i in range(12)], concurrency=64)
        )
        await asyncio.sleep(0.1)
        ray.kill(engine._members[0], no_restart=False)
        assert [answer.text for answer in await tasks] == [f"answer {i}" for i in range(12)]
        await engine.aclose()

    asyncio.run(run())


def test_errors_of_the_engines_come_through(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no folder"):
        open_engine(f"ray:1:{tmp_path}/nothing")
    with pytest.raises(EngineError, match="was not open within 1 seconds. The cluster has"):
        open_engine("ray:1:tiny", num_cpus=10_000, start_seconds=1)


def test_pieces_and_scores_come_from_the_members(tmp_path: Path, script: Path) -> None:
    folder = checkpoint("llama", tmp_path / "model")
    messages = (Message("user", "the sea"),)
    request = Request(messages, Sampling(max_tokens=8, seed=1, temperature=1.3), n=2)

    async def run() -> None:
        engine: Any = open_engine(f"ray:1:{folder}")
        alone = open_engine(str(folder))
        assert engine.capabilities == alone.capabilities
        pieces = [piece async for piece in engine.stream(request)]
        assert pieces[-1].completion == await alone.complete(request)
        assert len(pieces) > 6
        [scored] = await engine.score(request, ["abc"])
        [expected] = await alone.score(request, ["abc"])
        assert scored.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        with pytest.raises(EngineError, match="A continuation is empty"):
            await engine.score(request, [""])
        async for _ in engine.stream(Request(messages, Sampling(max_tokens=900, seed=1))):
            break
        assert engine._in_flight in ([0], [1])  # private: freed as soon as the stream is closed
        await engine.aclose()
        await alone.aclose()

    asyncio.run(run())


def test_a_cluster_of_its_own_listens_on_loopback_alone(script: Path) -> None:
    engine: Any = open_engine(f"ray:1:scripted:{script}")
    asyncio.run(engine.complete(ask("question 1")))
    started = psutil.Process().children(recursive=True)
    places = [
        place.laddr.ip
        for process in (psutil.Process(), *started)
        for place in process.net_connections("inet")
        if place.status == psutil.CONN_LISTEN
    ]
    assert len(started) > 2
    assert len(places) > 3
    assert {place.removeprefix("::ffff:") for place in places} == {"127.0.0.1"}
    asyncio.run(engine.aclose())
