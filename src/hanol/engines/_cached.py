"""An engine whose finished calls are kept in a file, so that a killed command repeats none."""

import hashlib
import json
from asyncio import Lock
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from hanol.engines._calls import described
from hanol.engines._engine import Continuations, Engine, WrappedEngine
from hanol.engines._request import Completion, Piece, Request, Scored
from hanol.errors import EngineError
from hanol.rows import JsonLines

T = TypeVar("T")


@cache
def _form(kind: Any) -> Any:
    from pydantic import TypeAdapter  # here: it takes a while to import

    return TypeAdapter(kind)


class CachedEngine(WrappedEngine):
    """Answers what was asked before, by an engine of the same name, from a log of JSON lines.

    Equal requests get one answer: give different seeds where several are wanted. Of a request for
    several answers with a seed each one is kept by its own, so that another number of them, or one
    that was killed, draws only what is missing.

    Args:
        engine: Answers everything else; it is closed with this one.
        path: The log; None remembers calls for the life of this object.
    """

    def __init__(self, engine: Engine, path: str | Path | None = None) -> None:
        super().__init__(engine)
        self._log = None if path is None else JsonLines(path)
        rows = self._log.read() if self._log else []
        for number, row in enumerate(rows, start=1):
            if not row.keys() >= {"request", "answer"}:
                raise EngineError(
                    f"{str(path)!r}, line {number} has no `request` and `answer`: the file is not "
                    "a log of calls. Name another one."
                )
        self._known: dict[str, Any] = {row["request"]: row["answer"] for row in rows}
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()  # of running calls

    async def complete(self, request: Request) -> Completion:
        """The earlier answer, or the engine's."""
        self.check(request)
        if not _is_split(request):
            key = self._key(request)
            return await self._answer(key, Completion, lambda: self.engine.complete(request))
        async with self._lock(self._key(request)):
            for part in self._missing(request):
                self._keep_each(part, await self.engine.complete(part))
        parts = [self._known[self._key(one)] for one in _singles(request, range(request.n))]
        return _joined([_form(Completion).validate_python(part) for part in parts])

    def lacks(self, request: Request) -> int:
        """How many requests to the engine it would take to answer this one; 0 once it is known."""
        return len(self._missing(request))

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The earlier answer at once, or the engine's as it comes."""
        self.check(request)
        key = self._key(request)
        async with self._lock(key):
            if key not in self._known and not _is_split(request):
                async for piece in self.engine.stream(request):
                    if piece.completion is not None:
                        self._keep(key, Completion, piece.completion)
                    yield piece
                return
        async for piece in super().stream(request):
            yield piece

    async def score(self, request: Request, continuations: Continuations) -> list[Scored]:
        """The earlier scores, or the engine's."""
        self.check(request)
        key = self._key(request, continuations)
        return await self._answer(
            key, list[Scored], lambda: self.engine.score(request, continuations)
        )

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()

    def _missing(self, request: Request) -> list[Request]:
        """Requests for what is not known, for runs of answers that follow each other."""
        if not _is_split(request):
            return [] if self._key(request) in self._known else [request]
        gaps: list[list[int]] = []
        for i, one in enumerate(_singles(request, range(request.n))):
            if self._key(one) in self._known:
                continue
            if not gaps or gaps[-1][-1] != i - 1:
                gaps.append([])
            gaps[-1].append(i)
        return [replace(next(_singles(request, gap)), n=len(gap)) for gap in gaps]

    def _keep_each(self, request: Request, completion: Completion) -> None:
        """Keep every answer as that to a request of its own."""
        usage, n = completion.usage, len(completion.choices)
        for one, choice in zip(_singles(request, range(n)), completion.choices, strict=True):
            written = usage.generated_tokens // n if choice.ids is None else len(choice.ids)
            part = replace(
                completion, choices=(choice,), usage=replace(usage, generated_tokens=written)
            )
            self._keep(self._key(one), Completion, part)

    async def _answer(self, key: str, kind: Any, ask: Callable[[], Awaitable[T]]) -> T:
        async with self._lock(key):
            if key not in self._known:
                self._keep(key, kind, await ask())
        return _form(kind).validate_python(self._known[key])

    def _lock(self, key: str) -> Lock:
        """A lock for the calls with this key: the later ones wait for the first one's answer."""
        return self._locks.setdefault(key, Lock())

    def _keep(self, key: str, kind: Any, answer: Any) -> None:
        self._known[key] = _form(kind).dump_python(answer, mode="json")
        if self._log is not None:
            self._log.append({"request": key, "answer": self._known[key]})

    def _key(self, request: Request, continuations: Sequence[Any] | None = None) -> str:
        said = asdict(replace(request, tools=()))
        if not request.keep_stop:  # logs of earlier versions do not have it
            del said["keep_stop"]
        said["tools"] = [described(tool) for tool in request.tools]
        text = json.dumps(
            [self.name, said, continuations], sort_keys=True, default=lambda data: data.hex()
        )
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _is_split(request: Request) -> bool:
    """Whether each of its answers is kept by itself."""
    return request.n > 1 and request.sampling.seed is not None


def _singles(request: Request, places: Iterable[int]) -> Iterator[Request]:
    """The requests for one answer each that a request for several with a seed stands for."""
    for i in places:
        seed = (request.sampling.seed or 0) + i
        yield replace(request, n=1, sampling=replace(request.sampling, seed=seed))


def _joined(parts: Sequence[Completion]) -> Completion:
    """One completion of them; its prompt counts once."""
    # Answers that were drawn together have one time, of which each keeps a copy.
    times = {(one.usage.prompt_seconds, one.usage.generation_seconds) for one in parts}
    usage = replace(
        parts[0].usage,
        generated_tokens=sum(part.usage.generated_tokens for part in parts),
        prompt_seconds=sum(prompt for prompt, _ in times),
        generation_seconds=sum(generation for _, generation in times),
    )
    return replace(parts[0], choices=tuple(part.choices[0] for part in parts), usage=usage)
