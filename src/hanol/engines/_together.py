"""What engines share: many requests at once, and texts cut at their stop strings."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from hanol.engines._engine import ChatRequest, Completion
from hanol.errors import EngineError


class EngineBase(ABC):
    """What engines have in common; they set their name and window."""

    _name: str
    _window: int | None

    @property
    def name(self) -> str:
        """The specification that opens this engine again."""
        return self._name

    @property
    def context_window(self) -> int | None:
        """Tokens that prompt and answer may have together; None when it is not known."""
        return self._window

    @abstractmethod
    async def complete(self, request: ChatRequest) -> Completion:
        """Complete one conversation."""

    async def complete_batch(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """Complete many, in the order of the requests; the first failure cancels the others."""
        tasks = [asyncio.ensure_future(self.complete(request)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise


def cut_at_stop(text: str, stop: Iterable[str]) -> tuple[str, bool]:
    """The text before the earliest stop string, and whether there was one."""
    places = [place for word in stop if word and (place := text.find(word)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def check_request(request: ChatRequest) -> None:
    """Refuse values that no engine can use.

    Raises:
        EngineError: There is no message, or a value is out of range.
    """
    if not request.messages:
        raise EngineError("The request has no messages: give at least one of the user.")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise EngineError(f"`max_tokens` is {request.max_tokens}, but must be at least 1.")
    if request.temperature is not None and not 0 <= request.temperature < float("inf"):
        raise EngineError(
            f"`temperature` is {request.temperature}, but must be 0 (greedy) or more."
        )
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise EngineError(f"`top_p` is {request.top_p}, but must be above 0 and at most 1.")
