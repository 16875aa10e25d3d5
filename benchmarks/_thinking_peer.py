"""The beam search of its_hub over an engine of hanol: it continues texts, a request for each."""

import asyncio
import random
from typing import Any

from its_hub.api import AbstractLanguageModel, AbstractProcessRewardModel
from its_hub.core.algorithms.beam_search import BeamSearch
from its_hub.core.lms.step_generation import StepGeneration

from hanol.engines import CheckpointEngine, Request
from hanol.sampling import Sampling


class _Model(AbstractLanguageModel):
    """The engine as its_hub asks models; its searches know the text alone."""

    def __init__(self, engine: CheckpointEngine, prompt: tuple[int, ...]) -> None:
        self._engine, self._prompt, self._drawn = engine, prompt, 0
        self.tokens = len(prompt)

    async def agenerate(self, messages: Any, stop: str | None = None, **options: Any) -> Any:
        return await asyncio.gather(*(self._one(one, options) for one in messages))

    async def _one(self, messages: Any, options: dict[str, Any]) -> dict[str, str]:
        ids = self._prompt
        if len(messages) > 1:  # what was written so far
            ids += tuple(self._engine.encode(messages[1].content, begins=False))
        self._drawn += 1
        drawn = Sampling(
            temperature=1.0, seed=self._drawn, max_tokens=options["max_completion_tokens"]
        )
        completion = await self._engine.complete(Request((), drawn, prompt_ids=ids))
        self.tokens += completion.usage.generated_tokens
        return {"role": "assistant", "content": completion.text}


class _Chance(AbstractProcessRewardModel):
    """Scores that follow from the text."""

    def score(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
        return [random.Random(step).random() for step in steps]

    async def ascore(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
        return self.score(prompt_or_messages, steps)


async def peer_search(
    engine: CheckpointEngine, prompt: tuple[int, ...], beams: int, width: int, steps: int, step: int
) -> int:
    """One search with as many candidates, of which as many are kept; the tokens of its tree."""
    model = _Model(engine, prompt)
    found = BeamSearch(
        StepGeneration(steps - 1, tokens_per_step=step), _Chance(), beam_width=beams // width
    )
    await found.ainfer(model, "the prompt is given as tokens", beams)
    return model.tokens
