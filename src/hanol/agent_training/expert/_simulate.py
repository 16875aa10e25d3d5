"""Tools that fail as the web does, and the sandbox that hides it.

Tongyi DeepResearch (arXiv 2510.24701) trains in a simulated environment before the
real one, and puts one layer between agent and tools that limits rates, keeps results, tries again,
goes over to a second provider and degrades, so that a call looks the same whenever it is made.

`UnreliableTool` is the simulated web, `SteadyTool` that layer; each wraps any tool, also the other.
"""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from weakref import WeakValueDictionary

from hanol.errors import ConfigError
from hanol.retrieval import SourceList
from hanol.runs import Spent
from hanol.tools import Observation, Tool, ToolContext


@dataclass(frozen=True)
class Outage(Observation):
    """A failure that another try may cure; what the model is told of it."""


@dataclass
class LentContext(ToolContext):
    """What a rollout lends to its tools.

    Args:
        chance: Seed of what tools leave to chance: of the rollout, the call and the try.
    """

    chance: str = ""


class _Wrapper:
    """A tool in place of another, which the model cannot tell apart."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool

    @property
    def name(self) -> str:
        """Of the tool inside."""
        return self._tool.name

    @property
    def description(self) -> str:
        """Of the tool inside."""
        return self._tool.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Of the tool inside."""
        return self._tool.parameters


class LentTool(_Wrapper):
    """A tool as one rollout uses it: chance is that of the rollout's seed and its count of calls.

    The count comes from the log, so a run that is gone on with has the failures that it would have
    had, and rollouts that share a tool do not change each other's.

    Args:
        tool: The tool.
        seed: Of the rollout.
    """

    def __init__(self, tool: Tool, seed: int) -> None:
        super().__init__(tool)
        self._seed = seed
        self.spent: Spent | None = None  # of the run, once it has begun

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run the tool."""
        assert self.spent is not None
        chance = f"{self._seed} {self.spent.ledger.tool_calls}"
        return await self._tool.run(arguments, LentContext(**vars(context), chance=chance))


class UnreliableTool(_Wrapper):
    """A tool that sometimes fails and takes its time.

    In a rollout both follow from the rollout's seed and the number of the call; elsewhere from the
    number of calls that this object has had.

    Args:
        tool: What answers when nothing fails.
        failures: Share of the calls that fail, from 0 to 1.
        latency_s: Mean of the seconds that a call takes besides; single ones are drawn from an
            exponential distribution, so some take several times as long.
        seed: Of the chance.

    Raises:
        ConfigError: A value is out of its range.
    """

    def __init__(
        self, tool: Tool, *, failures: float = 0.0, latency_s: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(tool)
        if not 0 <= failures <= 1:
            raise ConfigError(f"`failures` is {failures}, but must be a share from 0 to 1.")
        if latency_s < 0:
            raise ConfigError(f"`latency_s` is {latency_s}, but must not be negative.")
        self._failures, self._latency_s, self._seed = failures, latency_s, seed
        self._calls = 0

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run the tool, or fail."""
        self._calls += 1
        call = context.chance if isinstance(context, LentContext) else str(self._calls)
        rng = Random(f"unreliable {self.name} {self._seed} {call}")  # noqa: S311 - not for secrets
        fails, wait = rng.random() < self._failures, rng.expovariate(1.0) * self._latency_s
        if wait:
            await asyncio.sleep(wait)
        if fails:
            return Outage(f"The {self.name} failed. Try again.", failed=True)
        return await self._tool.run(arguments, context)


class ResultCache:
    """Results of tools, shared by all rollouts that use them; the oldest unused go first.

    Args:
        size: Results to keep, at least 1.

    Raises:
        ConfigError: `size` is below 1.
    """

    def __init__(self, size: int = 10_000) -> None:
        if size < 1:
            raise ConfigError(f"`size` of the cache is {size}, but must be at least 1.")
        self._size = size
        self._results: OrderedDict[str, Observation] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def get(self, key: str, source_list: SourceList) -> Observation | None:
        """A result, if its numbers mean in this run what they meant in the one that made it."""
        result = self._results.get(key)
        if result is None or not _fits(result, source_list):
            return None
        self._results.move_to_end(key)
        return result

    def put(self, key: str, result: Observation) -> None:
        """Keep a result."""
        self._results[key] = result
        self._results.move_to_end(key)
        if len(self._results) > self._size:
            self._results.popitem(last=False)

    def lock(self, key: str) -> asyncio.Lock:
        """Held while a result is fetched, so that equal calls at one time are one call."""
        return self._locks.setdefault(key, asyncio.Lock())


class SteadyTool(_Wrapper):
    """A tool with everything that keeps its faults from the agent.

    A try fails by taking too long, by an `OSError`, or by an `Outage`. What a tool says about the
    call itself (no such page) is a result. Results are kept in `cache`, failures are not.

    Args:
        tool: The tool.
        fallback: Asked when all tries have failed; it takes the same arguments.
        timeout_s: Seconds for one try; None for no limit.
        tries: At least 1.
        calls_per_s: Most tries a second, spread evenly over all rollouts; None for no limit.
        cache: May be shared with other tools; None keeps nothing.
        critical: What to do when the fallback has failed too: True raises, which breaks the
            rollout, so that the policy is not punished; False lets the model go on without.

    Raises:
        ConfigError: A value is out of its range.
    """

    def __init__(
        self,
        tool: Tool,
        *,
        fallback: Tool | None = None,
        timeout_s: float | None = None,
        tries: int = 3,
        calls_per_s: float | None = None,
        cache: ResultCache | None = None,
        critical: bool = False,
    ) -> None:
        super().__init__(tool)
        if tries < 1:
            raise ConfigError(f"`tries` is {tries}, but must be at least 1.")
        for name, value in [("timeout_s", timeout_s), ("calls_per_s", calls_per_s)]:
            if value is not None and value <= 0:
                raise ConfigError(f"`{name}` is {value}, but must be positive, or None.")
        self._fallback, self._timeout_s, self._tries = fallback, timeout_s, tries
        self._interval_s = 0.0 if calls_per_s is None else 1 / calls_per_s
        self._next_start = 0.0
        self._cache, self._critical = cache, critical

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run the tool until it has a result.

        Raises:
            TimeoutError, OSError: It is critical, and every try failed.
        """
        result = await self._result(arguments, context)
        for source in result.sources:
            context.sources.add(source)
        return result

    async def _result(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        if self._cache is None:
            return await self._fetch(arguments, context)
        folder = None if context.index is None else str(context.index.folder)
        key = json.dumps([self.name, dict(arguments), folder], sort_keys=True)
        async with self._cache.lock(key):
            if (kept := self._cache.get(key, context.sources)) is not None:
                return kept
            result = await self._fetch(arguments, context)
            if not result.failed:
                self._cache.put(key, result)
            return result

    async def _fetch(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        failure: Exception | None = None
        tools = [self._tool] * self._tries + ([] if self._fallback is None else [self._fallback])
        for number, tool in enumerate(tools):
            try:
                result = await self._try(tool, arguments, _copy(context, number))
            except OSError as err:  # a TimeoutError is one
                failure = err
                continue
            if not isinstance(result, Outage):
                return result
            failure = ConnectionError(result.text)
        if self._critical and failure is not None:
            raise failure
        return Outage(f"The {self.name} does not answer. Go on without it.", failed=True)

    async def _try(
        self, tool: Tool, arguments: Mapping[str, Any], context: ToolContext
    ) -> Observation:
        start = max(time.monotonic(), self._next_start)
        self._next_start = start + self._interval_s
        await asyncio.sleep(start - time.monotonic())
        async with asyncio.timeout(self._timeout_s):
            return await tool.run(arguments, context)


def _copy(context: ToolContext, number: int) -> ToolContext:
    """The context for one try: what an abandoned one notes must not reach the next."""
    context = replace(context, sources=context.sources.copy(), addresses=set(context.addresses))
    if isinstance(context, LentContext):
        return replace(context, chance=f"{context.chance} {number}")
    return context


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
