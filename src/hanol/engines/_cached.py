"""An engine whose finished calls are kept in a file, so that a killed command repeats none."""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from hanol.engines._base import WrappedEngine
from hanol.engines._calls import described
from hanol.engines._engine import Completion, Engine, Piece, Request, Scored
from hanol.files import JsonLines


@cache
def _form(kind: Any) -> Any:
    from pydantic import TypeAdapter  # here: it takes a while to import

    return TypeAdapter(kind)


class CachedEngine(WrappedEngine):
    """Answers what was asked before, by an engine of the same name, from a log of JSON lines.

    Equal requests get one answer: give different seeds where several are wanted.

    Args:
        engine: Answers everything else; it is closed with this one.
        path: The log; None remembers calls for the life of this object.
    """

    def __init__(self, engine: Engine, path: str | Path | None = None) -> None:
        super().__init__(engine)
        self._log = None if path is None else JsonLines(path)
        rows = self._log.read() if self._log else []
        self._known: dict[str, Any] = {row["request"]: row["answer"] for row in rows}

    async def complete(self, request: Request) -> Completion:
        """The answer of before, or the engine's."""
        key = self._key(request)
        if key not in self._known:
            completion = await self.engine.complete(request)
            self._keep(key, _form(Completion).dump_python(completion, mode="json"))
        return _form(Completion).validate_python(self._known[key])

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The answer of before at once, or the engine's as it comes."""
        key = self._key(request)
        pieces = super().stream(request) if key in self._known else self.engine.stream(request)
        async for piece in pieces:
            if piece.completion is not None and key not in self._known:
                self._keep(key, _form(Completion).dump_python(piece.completion, mode="json"))
            yield piece

    async def score(
        self, request: Request, continuations: Sequence[str | Sequence[int]]
    ) -> list[Scored]:
        """The scores of before, or the engine's."""
        key = self._key(request, continuations)
        if key not in self._known:
            scores = await self.engine.score(request, continuations)
            self._keep(key, _form(list[Scored]).dump_python(scores, mode="json"))
        return _form(list[Scored]).validate_python(self._known[key])

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()

    def _keep(self, key: str, answer: Any) -> None:
        self._known[key] = answer
        if self._log is not None:
            self._log.append({"request": key, "answer": answer})

    def _key(self, request: Request, continuations: Sequence[Any] | None = None) -> str:
        said = asdict(replace(request, tools=()))
        said["tools"] = [described(tool) for tool in request.tools]
        text = json.dumps(
            [self.name, said, continuations], sort_keys=True, default=lambda data: data.hex()
        )
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
