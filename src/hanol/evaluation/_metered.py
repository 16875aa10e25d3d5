"""An engine that adds up what its calls cost."""

import time
from collections.abc import AsyncIterator, Sequence

from hanol.engines import Completion, Engine, Piece, Request, Scored, Usage, WrappedEngine
from hanol.runs import Ledger


class MeteredEngine(WrappedEngine):
    """An engine with the cost of its calls so far; the other one is closed with it.

    Attributes:
        spent: What its finished calls have cost.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.spent = Ledger()

    async def complete(self, request: Request) -> Completion:
        """The engine's answer, counted."""
        began = time.monotonic()
        completion = await self.engine.complete(request)
        self._count(began, completion.usage)
        return completion

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The pieces of the engine's answer as they come, counted with the last one."""
        began = time.monotonic()
        async for piece in self.engine.stream(request):
            if piece.completion is not None:
                self._count(began, piece.completion.usage)
            yield piece

    async def score(
        self, request: Request, continuations: Sequence[str | Sequence[int]]
    ) -> list[Scored]:
        """The engine's scores, counted."""
        began = time.monotonic()
        scores = await self.engine.score(request, continuations)
        self._count(began, Usage(), scored=sum(len(one.ids) for one in scores))
        return scores

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()

    def _count(self, began: float, usage: Usage, scored: int = 0) -> None:
        names = ("prompt_tokens", "cached_tokens", "generated_tokens")
        tokens = {name: getattr(usage, name) for name in names} | {"scored_tokens": scored}
        self.spent += Ledger(model_calls=1, seconds=time.monotonic() - began, **tokens)
