"""Engines on the machines of a Ray cluster, behind one."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from inspect import isawaitable
from typing import Any

from hanol.engines._engine import Continuations, Engine
from hanol.engines._open import open_engine
from hanol.engines._request import Capability, Completion, Message, Piece, Request, Scored
from hanol.errors import EngineError, HanolError, require
from hanol.sampling import Sampling

_MANY = 10_000  # requests that an actor takes at once; its engine bounds what it does with them
_DEATHS = 3  # of actors under one request


class _Member:
    """An engine in an actor, opened when it is first used: again after a restart."""

    def __init__(self, spec: str, options: dict[str, Any]) -> None:
        self._spec, self._options = spec, options

    @cached_property
    def _engine(self) -> Engine:
        return open_engine(self._spec, **self._options)

    async def about(self) -> tuple[int | None, frozenset[Capability], Sampling]:
        engine = self._engine
        return engine.context_window, engine.capabilities, engine.default_sampling

    def encode(self, prompt: str | Sequence[Message], begins: bool) -> tuple[int, ...]:
        return self._engine.encode(prompt, begins=begins)

    async def call(self, method: str, *arguments: Any) -> Any:
        result = getattr(self._engine, method)(*arguments)
        return await result if isawaitable(result) else result

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        async for piece in self._engine.stream(request):
            yield piece


class RayEngine(Engine):
    """Many engines of one specification; each request goes to the one with the fewest.

    A request whose actor dies goes to another one; Ray starts the dead one again. Joins the
    cluster that the process is connected to or that RAY_ADDRESS names, else starts one on this
    machine, which listens on loopback alone.

    Args:
        spec: What each actor opens. Checkpoints and scripts must be readable on every machine.
        count: Number of actors.
        num_cpus: CPUs that each actor reserves.
        num_gpus: GPUs that each actor reserves.
        start_seconds: Seconds in which machines must be found and models loaded.
        options: Options of the engines, as for `open_engine`.

    Raises:
        EngineError: `count` is below 1, the specification cannot be understood, or the cluster has
            no room.
        CheckpointError: The checkpoint cannot be loaded.
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        spec: str,
        count: int,
        *,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        start_seconds: float = 600.0,
        **options: Any,
    ) -> None:
        if count < 1:
            raise EngineError(f"A fleet of {count} engines: give at least 1, as in ray:2:{spec}.")
        self.name = f"ray:{count}:{spec}"
        self._ray = connect_ray("A fleet of engines", int(count * num_cpus))
        member = self._ray.remote(_Member).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_restarts=-1,
            max_concurrency=_MANY,
            scheduling_strategy="SPREAD",
        )
        self._members = [member.remote(spec, options) for _ in range(count)]
        self._in_flight = [0] * count
        about = self._opened(start_seconds)
        self.context_window, self.capabilities, self.default_sampling = about

    def _opened(self, seconds: float) -> tuple[int | None, frozenset[Capability], Sampling]:
        exceptions = self._ray.exceptions
        try:
            told = self._ray.get([m.about.remote() for m in self._members], timeout=seconds)
        except exceptions.GetTimeoutError:
            self._kill()
            have = self._ray.cluster_resources()
            raise EngineError(
                f"{self.name!r} was not open within {seconds:g} seconds. The cluster has "
                f"{have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs: ask for fewer "
                "engines, or for less with `num_cpus` and `num_gpus`."
            ) from None
        except exceptions.RayError as err:
            self._kill()
            raise _cause(err, self.name) from err
        return told[0]

    async def complete(self, request: Request) -> Completion:
        """Answer one request by the member with the fewest.

        Raises:
            EngineError: The engine failed, or three actors died under the request.
        """
        return await self._ask("complete", request)

    async def score(self, request: Request, continuations: Continuations) -> list[Scored]:
        """The scores of a member; raises what `complete` raises."""
        return await self._ask("score", request, continuations)

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The answer as a member writes it; one that dies on the way is an error."""
        with self._least_busy() as member:
            pieces = member.stream.options(num_returns="streaming").remote(request)
            try:
                async for piece in pieces:
                    yield await piece
            except BaseException:
                self._ray.cancel(pieces)
                raise

    @contextmanager
    def _least_busy(self) -> Iterator[Any]:
        """The member with the fewest requests, for one more; its failures are the engine's own."""
        i = min(range(len(self._members)), key=self._in_flight.__getitem__)
        self._in_flight[i] += 1
        try:
            yield self._members[i]
        except self._ray.exceptions.RayError as err:
            raise _cause(err, self.name) from err
        finally:
            self._in_flight[i] -= 1

    async def _ask(self, method: str, *arguments: Any) -> Any:
        for death in range(1, _DEATHS + 1):
            with self._least_busy() as member:
                call = member.call.remote(method, *arguments)
                try:
                    return await call
                except self._ray.exceptions.RayActorError as err:
                    if death == _DEATHS:
                        raise EngineError(
                            f"{self.name!r}: the actors died under a request {_DEATHS} times, at "
                            f"last with: {str(err).strip().splitlines()[0]} Is the model too large "
                            "for the memory of the machines?"
                        ) from err
                except BaseException:
                    self._ray.cancel(call)  # the engine frees its place
                    raise
        raise AssertionError

    def encode(self, prompt: str | Sequence[Message], *, begins: bool = True) -> tuple[int, ...]:
        """The tokens that one of the engines finds; see `Engine.encode`."""
        with self._least_busy() as member:
            return tuple(self._ray.get(member.encode.remote(prompt, begins)))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """The count of one of the engines."""
        with self._least_busy() as member:
            return int(self._ray.get(member.call.remote("count_tokens", tuple(messages))))

    async def aclose(self) -> None:
        """Stop the actors; the connection to the cluster stays."""
        self._kill()

    def _kill(self) -> None:
        for member in self._members:
            self._ray.kill(member)


def connect_ray(feature: str, cpus: int = 0) -> Any:
    """Ray, connected: to the cluster of this process or of RAY_ADDRESS, else to one of its own.

    Its own listens on loopback alone: whoever reaches Ray's ports could run code.

    Args:
        feature: What needs Ray, as the start of a sentence.
        cpus: Places that a cluster of its own has at least.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray: Any = require("ray", extra="ray", feature=feature)
    if ray.is_initialized():
        return ray
    local: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        # On Linux, Ray takes 127.0.0.1 for the machine's address in the network and binds to all,
        # unless clusters are switched off: in this process, and in those that it starts.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        constants: Any = import_module("ray._private.ray_constants")
        constants.ENABLE_RAY_CLUSTER = False
        local = {
            "num_cpus": max(cpus, os.cpu_count() or 1),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    ray.init(log_to_driver=False, logging_level="warning", **local)
    return ray


def _cause(err: Any, name: str) -> HanolError:
    """The engine's own error out of Ray's."""
    cause = getattr(err, "cause", None)
    if isinstance(cause, HanolError):
        return cause
    first = str(cause or err).strip().splitlines()
    return EngineError(f"{name!r} failed: {first[0] if first else type(err).__name__}")
