"""Asking a model many things, so that a killed run asks nothing twice."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from hanol.engines import Engine, Message, Request, Sampling


class Replies:
    """Answers of a model, kept in a file as they come.

    A request that was answered before, by the same model, is answered from the file.

    Args:
        engine: The model.
        path: The file, made when the first answer comes; None keeps nothing.
        concurrency: Requests at once, at least 1.
    """

    def __init__(self, engine: Engine, path: Path | None = None, *, concurrency: int = 8) -> None:
        self.engine = engine
        self._path = path
        self._concurrency = concurrency
        self._known = {} if path is None else _read(path)

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
        """The text that answers each prompt.

        Args:
            prompts: One message of the user each.
            max_tokens: Of one answer.
            seed: Of the sampling.
            temperature: 0 takes the likeliest tokens.
            with_thoughts: Keep what stands before the last `</think>`.
            on_reply: Called after each.

        Raises:
            EngineError: The model did not answer; what came before is kept.
        """
        waiting = iter(dict.fromkeys(prompts))
        texts: dict[str, str] = {}

        async def work() -> None:
            for prompt in waiting:
                request = Request(
                    (Message("user", prompt),),
                    Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed),
                )
                texts[prompt] = await self._complete(request)
                on_reply()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._concurrency, len(prompts))):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        if with_thoughts:
            return [texts[prompt] for prompt in prompts]
        return [texts[prompt].rpartition("</think>")[2].strip() for prompt in prompts]

    async def _complete(self, request: Request) -> str:
        text = json.dumps([self.engine.name, asdict(request)], sort_keys=True)
        key = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        if key not in self._known:
            answer = (await self.engine.complete(request)).text
            self._known[key] = answer
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"request": key, "text": answer}) + "\n")
        return self._known[key]


def _read(path: Path) -> dict[str, str]:
    """Answers of the file; a torn last line is what the kill left."""
    if not path.exists():
        return {}
    known = {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    for line in whole.splitlines():
        row = json.loads(line)
        known[row["request"]] = row["text"]
    return known
