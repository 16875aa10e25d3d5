"""Simulated faults are repeatable; what hides them keeps results and their numbers right."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from claims.deep_research.unreliable import ResultCache, SteadyTool, UnreliableTool
from hanol.errors import AddressError
from hanol.retrieval import SourceList
from hanol.tools import SEARCH, Observation, Tool, ToolContext


class Notes:
    """A search that cites what it finds, and counts its calls."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, text: str = "note") -> None:
        self.calls: list[str] = []
        self._text = text

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        (query,) = arguments["query"]
        self.calls.append(query)
        text = f"{self._text} on {query}"
        source = context.sources.cite(text, address=f"doc://{query}", title=query, sha256="0")
        return Observation(f"[{source.number}] {text}", (source,), (source.address,))


def ask(tool: Tool, *queries: str, context: ToolContext | None = None) -> list[Observation]:
    async def all_of_them() -> list[Observation]:
        lent = context or ToolContext(SourceList())
        return [await tool.run({"query": [query]}, lent) for query in queries]

    return asyncio.run(all_of_them())


def faults_of(tool: Tool, seed: int, calls: range) -> list[bool]:
    """Which calls of a rollout fail."""
    return [
        ask(tool, "x", context=ToolContext(SourceList(), chance=f"{seed} {n}"))[0].failed
        for n in calls
    ]


def test_a_failure_is_a_plain_message_and_the_tool_is_not_called() -> None:
    notes = Notes()
    (shown,) = ask(UnreliableTool(notes, failures=1.0), "x")
    assert shown.failed
    assert shown.text == "The search failed. Try again."
    assert notes.calls == []


def test_the_share_of_failures_is_as_asked() -> None:
    failed = faults_of(UnreliableTool(Notes(), failures=0.2), 7, range(1000))
    assert 160 <= sum(failed) <= 240  # 200 +- 3 standard deviations
    assert not any(faults_of(UnreliableTool(Notes()), 7, range(50)))


def test_an_outage_is_tried_again_with_another_chance() -> None:
    bare = faults_of(UnreliableTool(Notes(), failures=0.5), 1, range(400))
    steady = [
        faults_of(
            SteadyTool(UnreliableTool(Notes(), failures=0.5), ResultCache()), 1, range(n, n + 1)
        )
        for n in range(400)
    ]
    assert 160 <= sum(bare) <= 240
    assert 25 <= sum(failed for [failed] in steady) <= 75  # an eighth


def test_a_tool_that_stays_broken_degrades() -> None:
    (shown,) = ask(SteadyTool(UnreliableTool(Notes(), failures=1.0), ResultCache()), "x")
    assert shown.failed
    assert "Go on without it" in shown.text


def test_what_a_tool_says_about_the_call_is_its_result() -> None:
    class Refusing(Notes):
        async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
            await super().run(arguments, context)
            raise AddressError("no such page")

    broken = Refusing()
    with pytest.raises(AddressError):  # which the loop shows to the model
        ask(SteadyTool(broken, ResultCache()), "x")
    assert broken.calls == ["x"]


def test_results_are_shared_by_rollouts_and_failures_are_not_kept() -> None:
    class FailsOnce(Notes):
        async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
            found = await super().run(arguments, context)
            first = len(self.calls) == 1
            return Observation("no such page", failed=True) if first else found

    notes = Notes()
    steady = SteadyTool(notes, ResultCache())
    assert ask(steady, "a") == ask(steady, "a")
    assert notes.calls == ["a"]
    context = ToolContext(SourceList())
    ask(steady, "a", context=context)
    assert [source.text for source in context.sources.values()] == ["note on a"]
    shown = ask(SteadyTool(FailsOnce(), ResultCache()), "x", "x")
    assert [observation.failed for observation in shown] == [True, False]


def test_a_kept_result_is_used_only_where_its_numbers_are_right() -> None:
    steady = SteadyTool(Notes(), ResultCache())
    ask(steady, "a")
    context = ToolContext(SourceList())
    shown = ask(steady, "b", "a", context=context)
    assert [observation.text for observation in shown] == ["[1] note on b", "[2] note on a"]
    for observation in shown:
        (source,) = observation.sources
        assert context.sources[source.number].text == source.text


def test_equal_calls_at_one_time_are_one_call() -> None:
    notes = Notes()
    steady = SteadyTool(UnreliableTool(notes, latency_s=0.01), ResultCache())

    async def eight() -> list[Observation]:
        call = {"query": ["a"]}
        return list(
            await asyncio.gather(*(steady.run(call, ToolContext(SourceList())) for _ in range(8)))
        )

    assert {shown.text for shown in asyncio.run(eight())} == {"[1] note on a"}
    assert notes.calls == ["a"]


def test_tools_that_share_a_cache_do_not_get_each_others_results() -> None:
    class Scholar(Notes):
        name = "google_scholar"

    cache = ResultCache()
    first, second = SteadyTool(Notes(), cache), SteadyTool(Scholar("paper"), cache)
    assert [ask(first, "a")[0].text, ask(second, "a")[0].text] == [
        "[1] note on a",
        "[1] paper on a",
    ]


def test_the_model_cannot_tell_the_tools_apart() -> None:
    notes = Notes()
    for tool in (UnreliableTool(notes), SteadyTool(notes, ResultCache())):
        assert (tool.name, tool.description, tool.parameters) == (
            notes.name,
            notes.description,
            notes.parameters,
        )
