"""Asking a model many things, so that a killed run asks nothing twice."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hanol.engines import CachedEngine, Engine, Message, Request, Sampling
from hanol.evaluation import MeteredEngine
from hanol.runs import gather


class Replies:
    """Answers of a model, stored in a file as they come.

    A request that the same model has already answered is answered from the file.

    Args:
        engine: The model.
        path: The file; None stores nothing.
        concurrency: Number of requests at once.

    Attributes:
        engine: The model, with the cost of what was not answered from the file.
    """

    def __init__(self, engine: Engine, path: Path | None = None, *, concurrency: int = 8) -> None:
        self.engine = MeteredEngine(engine)
        self._cached = CachedEngine(self.engine, path)
        self._concurrency = concurrency

    async def ask(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        seed: int = 0,
        temperature: float = 0.0,
        with_thoughts: bool = False,
        on_reply: Callable[[], None] = lambda: None,
    ) -> list[str]:
        """The model's answer to each prompt.

        Args:
            prompts: User messages, each a conversation of its own.
            max_tokens: Limit for each answer.
            seed: Seed for sampling.
            temperature: Sampling temperature; 0 is greedy.
            with_thoughts: Keep the text before the last `</think>`.
            on_reply: Called after each answer.

        Raises:
            EngineError: The model did not answer; earlier answers are stored.
        """
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed)

        async def ask(prompt: str) -> str:
            text = (await self._cached.complete(Request((Message("user", prompt),), sampling))).text
            on_reply()
            return text if with_thoughts else text.rpartition("</think>")[2].strip()

        unique = list(dict.fromkeys(prompts))
        concurrency = max(1, min(self._concurrency, len(unique)))
        answers = await gather(ask, unique, concurrency=concurrency)
        texts = dict(zip(unique, answers, strict=True))
        return [texts[prompt] for prompt in prompts]
