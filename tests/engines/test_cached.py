"""A log of finished calls: what was asked before is answered from it, also by another process."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hanol.engines import (
    CachedEngine,
    Choice,
    Completion,
    Constraint,
    Message,
    Piece,
    Request,
    Sampling,
    Scored,
    ScriptedEngine,
    ToolCall,
    Usage,
    WrappedEngine,
    open_engine,
)
from hanol.errors import EngineError


class Counted(WrappedEngine):
    """Counts what it is asked."""

    def __init__(self, engine: ScriptedEngine) -> None:
        super().__init__(engine)
        self.calls = 0

    async def complete(self, request: Request) -> Completion:
        self.calls += 1
        return await self.engine.complete(request)

    async def score(self, request: Request, continuations: object) -> list[Scored]:
        self.calls += 1
        return [Scored((1, 2), (-0.25, -0.125))]


FULL = Completion.of(
    "hi", "length", Usage(3, 2, 1), ids=(4, 5), tokens=("h", "i"), logprobs=(-0.1, -0.2),
    top_logprobs=((("h", -0.1), ("x", -3.0)), (("i", -0.2),)), prompt_ids=(7, 8, 9),
    tool_calls=(ToolCall("search", {"query": ["a"]}, "call_0"),),
)  # fmt: skip


def ask(text: str, **values: object) -> Request:
    return Request((Message("user", text),), Sampling(**values))  # type: ignore[arg-type]


def test_what_was_asked_before_is_not_asked_again(tmp_path: Path) -> None:
    inner = Counted(ScriptedEngine(lambda request: FULL))
    engine = CachedEngine(inner, tmp_path / "calls.jsonl")

    async def twice() -> None:
        assert await engine.complete(ask("q")) == FULL
        assert await engine.complete(ask("q")) == FULL
        assert inner.calls == 1
        await engine.complete(ask("q", seed=1))
        await engine.complete(Request(ask("q").messages, constraint=Constraint.regex("a")))
        assert inner.calls == 3
        scores = await engine.score(ask("q"), ["a", (1, 2)])
        again = CachedEngine(inner, tmp_path / "calls.jsonl")  # another process
        assert await again.complete(ask("q")) == FULL
        assert await again.score(ask("q"), ["a", (1, 2)]) == scores
        pieces = [piece async for piece in again.stream(ask("q"))]
        assert pieces == [Piece("hi", 0, FULL)]
        assert inner.calls == 4

    asyncio.run(twice())


def test_a_torn_line_is_asked_again(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    inner = Counted(ScriptedEngine(["one"]))
    asyncio.run(CachedEngine(inner, log).complete(ask("q")))
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"request": "x", "ans')
    asyncio.run(CachedEngine(inner, log).complete(ask("other")))
    assert inner.calls == 2
    assert [
        json.loads(line)["answer"]["choices"][0]["text"] for line in log.read_text().splitlines()
    ] == ["one"] * 2


def test_streams_are_kept(tmp_path: Path) -> None:
    async def streamed() -> None:
        engine = CachedEngine(ScriptedEngine(["one two"]), tmp_path / "calls.jsonl")
        async for piece in engine.stream(ask("q")):
            assert piece.completion is not None
        assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 1

    asyncio.run(streamed())


def test_equal_requests_at_once_get_one_answer() -> None:
    async def together() -> None:
        texts = iter("abcdefgh")
        inner = Counted(ScriptedEngine(lambda request: next(texts), latency=0.01))
        engine = CachedEngine(inner)
        answers = await asyncio.gather(*(engine.complete(ask("q")) for _ in range(5)))
        assert {answer.text for answer in answers} == {"a"}
        assert inner.calls == 1

    asyncio.run(together())


def test_a_file_that_is_no_log_of_calls(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "q"}\n')
    with pytest.raises(EngineError, match=r"rows.jsonl', line 1 has no `request` and `answer`"):
        CachedEngine(ScriptedEngine(["a"]), tmp_path / "rows.jsonl")


class InPieces(ScriptedEngine):
    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        for text in "abc":
            yield Piece(text)
        yield Piece("", 0, await self.complete(request))


def test_a_wrapped_engine_streams_in_the_same_pieces() -> None:
    async def texts(engine: WrappedEngine) -> list[str]:
        return [piece.text async for piece in engine.stream(ask("q"))]

    inner = InPieces(["abc"])
    assert asyncio.run(texts(WrappedEngine(inner))) == ["a", "b", "c", ""]
    counted = Counted(inner)  # its own `complete` must see every answer
    assert asyncio.run(texts(counted)) == ["abc"]
    assert counted.calls == 1


def test_a_specification_opens_one(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"text": "hello"}\n')
    engine = open_engine(f"cached:{tmp_path / 'calls.jsonl'}:scripted:{script}")
    assert engine.name == f"scripted:{script}"
    assert asyncio.run(engine.complete(ask("q"))).text == "hello"
    asyncio.run(engine.aclose())
    with pytest.raises(EngineError, match="is written cached:FILE.jsonl:SPEC"):
        open_engine("cached:calls.jsonl")


def test_answers_with_seeds_are_kept_one_by_one(tmp_path: Path) -> None:
    asked: list[tuple[int, int | None]] = []

    def answer(request: Request) -> Completion:
        seed = request.sampling.seed or 0
        asked.append((request.n, seed))
        choices = tuple(Choice(f"{seed + i}", ids=(seed, i)) for i in range(request.n))
        return Completion(choices, Usage(7, 2 * request.n, 3))

    def several(n: int, seed: int | None = 0) -> Request:
        return replace(ask("q", seed=seed), n=n)

    async def texts(request: Request) -> list[str]:
        engine = CachedEngine(ScriptedEngine(answer), tmp_path / "calls.jsonl")  # each anew
        lacking = engine.lacks(request)
        before = len(asked)
        completion = await engine.complete(request)
        assert len(asked) - before == lacking
        assert engine.lacks(request) == 0
        assert completion.usage.prompt_tokens == 7
        return [choice.text for choice in completion.choices]

    async def all_of_them() -> None:
        assert await texts(several(2, 1)) == ["1", "2"]
        assert await texts(several(5)) == ["0", "1", "2", "3", "4"]
        assert asked == [(2, 1), (1, 0), (2, 3)]  # what is missing, in runs
        assert await texts(several(1, 4)) == ["4"]
        assert await texts(several(6, 0)) == ["0", "1", "2", "3", "4", "5"]
        assert asked[3:] == [(1, 5)]
        engine = CachedEngine(ScriptedEngine(answer), tmp_path / "calls.jsonl")
        pieces = [piece.text async for piece in engine.stream(several(3, 2))]
        assert pieces == ["2", "3", "4"]
        await texts(several(2, None))
        assert asked[4:] == [(2, 0)]  # without a seed they are one answer

    asyncio.run(all_of_them())
