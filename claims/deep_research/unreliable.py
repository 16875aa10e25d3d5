"""Tools that fail as the web does, and the layer that hides it.

Tongyi DeepResearch (arXiv 2510.24701) trains in a simulated environment and puts one layer between
agent and tools that keeps results and tries again, so that a call looks the same whenever it is
made. `UnreliableTool` is the simulated web, `SteadyTool` that layer.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from weakref import WeakValueDictionary

from hanol.retrieval import SourceList
from hanol.tools import Observation, Tool, ToolContext

_TRIES = 3


@dataclass(frozen=True)
class Outage(Observation):
    """A failure that another try may cure; what the model is told of it."""


class _Wrapper:
    """A tool in place of another, which the model cannot tell apart."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self.name, self.description, self.parameters = tool.name, tool.description, tool.parameters


class UnreliableTool(_Wrapper):
    """A tool that sometimes fails and takes its time, both by the chance of the call.

    Args:
        tool: What answers when nothing fails.
        failures: Share of the calls that fail, from 0 to 1.
        latency_s: Mean of the seconds that a call takes besides, drawn from an exponential
            distribution.
        seed: Seed of failures and seconds.
    """

    def __init__(
        self, tool: Tool, *, failures: float = 0.0, latency_s: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(tool)
        self._failures, self._latency_s, self._seed = failures, latency_s, seed

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run the tool, or fail."""
        rng = Random(f"unreliable {self.name} {self._seed} {context.chance}")  # noqa: S311
        fails, wait = rng.random() < self._failures, rng.expovariate(1.0) * self._latency_s
        if wait:
            await asyncio.sleep(wait)
        if fails:
            return Outage(f"The {self.name} failed. Try again.", failed=True)
        return await self._tool.run(arguments, context)


class ResultCache:
    """Results of tools, shared by all rollouts that use them."""

    def __init__(self) -> None:
        self._results: dict[str, Observation] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def get(self, key: str, source_list: SourceList) -> Observation | None:
        """A result, if its numbers mean in this run what they meant in the one that made it."""
        result = self._results.get(key)
        return result if result is not None and _fits(result, source_list) else None

    def put(self, key: str, result: Observation) -> None:
        """Keep a result."""
        self._results[key] = result

    def lock(self, key: str) -> asyncio.Lock:
        """Held while a result is fetched, so that equal calls at one time are one call."""
        return self._locks.setdefault(key, asyncio.Lock())


class SteadyTool(_Wrapper):
    """A tool that tries again after an `Outage`; results are kept in `cache`, failures are not."""

    def __init__(self, tool: Tool, cache: ResultCache) -> None:
        super().__init__(tool)
        self._cache = cache

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run the tool until it has a result, or all tries failed."""
        folder = None if context.index is None else str(context.index.folder)
        key = json.dumps([self.name, dict(arguments), folder], sort_keys=True)
        async with self._cache.lock(key):
            result = self._cache.get(key, context.sources)
            if result is None:
                result = await self._fetch(arguments, context)
                if not result.failed:
                    self._cache.put(key, result)
        for source in result.sources:
            context.sources.add(source)
        return result

    async def _fetch(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        for number in range(_TRIES):
            # What a failed try notes must not reach the next one.
            one = replace(
                context,
                sources=context.sources.copy(),
                addresses=set(context.addresses),
                chance=f"{context.chance} {number}",
            )
            result = await self._tool.run(arguments, one)
            if not isinstance(result, Outage):
                return result
        return Outage(f"The {self.name} does not answer. Go on without it.", failed=True)


def _fits(result: Observation, source_list: SourceList) -> bool:
    """Whether a run with this list of sources would give the result's sources the same numbers."""
    copy = source_list.copy()
    return all(
        copy.cite(
            source.text, address=source.address, title=source.title, sha256=source.sha256
        ).number
        == source.number
        for source in result.sources
    )
