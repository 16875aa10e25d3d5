"""What calls cost: answers pass unchanged, also piece by piece, and are counted once each."""

import asyncio
from collections.abc import AsyncIterator

from hanol.engines import CachedEngine, Message, Piece, Request, ScriptedEngine
from hanol.evaluation import MeteredEngine

ASK = Request((Message("user", "four"),))


class InPieces(ScriptedEngine):
    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        for text in "abc":
            yield Piece(text)
        yield Piece("", 0, await self.complete(request))


def test_a_streamed_answer_comes_in_its_pieces_and_is_counted_at_its_end() -> None:
    engine = MeteredEngine(InPieces(["abc"]))

    async def stream() -> None:
        shown, counted = [], []
        async for piece in engine.stream(ASK):
            shown.append(piece.text)
            counted.append(engine.spent.model_calls)
        assert shown == ["a", "b", "c", ""]
        assert counted == [0, 0, 0, 1]

    asyncio.run(stream())
    streamed, engine.spent = engine.spent, type(engine.spent)()
    asyncio.run(engine.complete(ASK))
    assert streamed.seconds > 0
    streamed.seconds = engine.spent.seconds
    assert streamed == engine.spent
    assert (streamed.model_calls, streamed.prompt_tokens, streamed.generated_tokens) == (1, 5, 1)


def test_an_answer_that_is_given_up_is_not_counted() -> None:
    engine = MeteredEngine(InPieces(["abc"]))

    async def give_up() -> None:
        assert (await anext(engine.stream(ASK))).text == "a"

    asyncio.run(give_up())
    assert engine.spent.model_calls == 0


def test_a_cached_answer_streams_in_pieces_once_and_costs_nothing_again() -> None:
    metered = MeteredEngine(InPieces(["abc"]))
    engine = CachedEngine(metered)

    async def texts() -> list[str]:
        return [piece.text async for piece in engine.stream(ASK)]

    assert asyncio.run(texts()) == ["a", "b", "c", ""]
    assert asyncio.run(texts()) == ["abc"]
    assert metered.spent.model_calls == 1
