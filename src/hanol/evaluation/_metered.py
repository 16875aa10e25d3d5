"""An engine that adds up what its calls cost."""

import time
from collections.abc import Sequence

from hanol.engines import Completion, Engine, Request, Scored, WrappedEngine
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
        self.spent += Ledger(
            model_calls=1,
            prompt_tokens=completion.usage.prompt_tokens,
            cached_tokens=completion.usage.cached_tokens,
            generated_tokens=completion.usage.generated_tokens,
            seconds=time.monotonic() - began,
        )
        return completion

    async def score(
        self, request: Request, continuations: Sequence[str | Sequence[int]]
    ) -> list[Scored]:
        """The engine's scores, counted."""
        began = time.monotonic()
        scores = await self.engine.score(request, continuations)
        tokens = sum(len(scored.ids) for scored in scores)
        seconds = time.monotonic() - began
        self.spent += Ledger(model_calls=1, scored_tokens=tokens, seconds=seconds)
        return scores

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()
