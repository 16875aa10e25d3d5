"""Simulated faults are repeatable; what hides them keeps results, rates and numbers right."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hanol.agent_training.expert._simulate import (
    LentTool,
    Outage,
    ResultCache,
    SteadyTool,
    UnreliableTool,
)
from hanol.errors import AddressError, ConfigError
from hanol.retrieval import SourceList
from hanol.runs import Budget, Ledger, Spent
from hanol.tools import Observation, Tool, ToolContext
from hanol.tools._schemas import SEARCH


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


class Broken:
    """A search that does something else the first `times`, then finds."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, fail: Callable[[], Any], times: int = 10**9) -> None:
        self._fail, self._times = fail, times
        self.calls = 0

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        self.calls += 1
        if self.calls > self._times:
            return Observation("found")
        return await self._fail()


async def hang() -> Observation:
    await asyncio.sleep(3600)
    return Observation("too late")


async def refuse_connection() -> Observation:
    raise ConnectionRefusedError("nobody listens")


def ask(tool: Tool, *queries: str, context: ToolContext | None = None) -> list[Observation]:
    async def all_of_them() -> list[Observation]:
        lent = context or ToolContext(SourceList())
        return [await tool.run({"query": [query]}, lent) for query in queries]

    return asyncio.run(all_of_them())


def faults_of(tool: Tool, seed: int, calls: range) -> list[bool]:
    """Which calls of a rollout fail."""
    lent = LentTool(tool, seed)
    failed = []
    for number in calls:
        lent.spent = Spent(Budget(), Ledger(tool_calls=number))
        failed.append(ask(lent, "x")[0].failed)
    return failed


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


def test_rollouts_have_failures_of_their_own_that_others_do_not_shift() -> None:
    shared = UnreliableTool(Notes(), failures=0.5)
    alone = faults_of(UnreliableTool(Notes(), failures=0.5), 3, range(40))
    faults_of(shared, 4, range(17))  # another rollout has used the same object
    assert faults_of(shared, 3, range(40)) == alone
    assert faults_of(shared, 4, range(40)) != alone
    # A run that is gone on with after 25 calls has the failures that it would have had.
    assert faults_of(UnreliableTool(Notes(), failures=0.5), 3, range(25, 40)) == alone[25:]


def test_latency_is_waited_for() -> None:
    began = time.monotonic()
    ask(UnreliableTool(Notes(), latency_s=0.01), *"abcdefghij")
    assert time.monotonic() - began > 0.02  # ten times 0.01 on average, drawn from a fixed seed


def test_an_outage_is_tried_again() -> None:
    steady = SteadyTool(UnreliableTool(Notes(), failures=0.5), tries=12)
    assert faults_of(steady, 1, range(60)) == [False] * 60
    assert any(faults_of(SteadyTool(UnreliableTool(Notes(), failures=0.5), tries=1), 1, range(60)))


@pytest.mark.parametrize("fail", [hang, refuse_connection], ids=["hang", "refused"])
def test_what_hangs_or_is_refused_is_tried_again(fail: Callable[[], Any]) -> None:
    broken = Broken(fail, times=2)
    (shown,) = ask(SteadyTool(broken, timeout_s=0.02, tries=3), "x")
    assert (shown.text, broken.calls) == ("found", 3)


def test_a_tool_that_stays_broken_degrades_or_breaks_the_rollout() -> None:
    (shown,) = ask(SteadyTool(Broken(refuse_connection), tries=2), "x")
    assert isinstance(shown, Outage)
    assert shown.failed
    assert "Go on without it" in shown.text
    with pytest.raises(ConnectionRefusedError):
        ask(SteadyTool(Broken(refuse_connection), tries=2, critical=True), "x")
    with pytest.raises(ConnectionError, match="search failed"):
        ask(SteadyTool(UnreliableTool(Notes(), failures=1.0), critical=True), "x")


def test_a_second_tool_takes_over_and_the_first_leaves_no_trace() -> None:
    class HalfDone(Notes):
        async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
            await super().run(arguments, context)  # cites, then breaks
            raise OSError("gone")

    first, second = HalfDone("lost"), Notes("second")
    context = ToolContext(SourceList())
    shown = ask(SteadyTool(first, fallback=second, tries=2), "a", "b", context=context)
    assert [observation.text for observation in shown] == ["[1] second on a", "[2] second on b"]
    assert first.calls == ["a", "a", "b", "b"]
    assert [source.text for source in context.sources] == ["second on a", "second on b"]


def test_what_a_tool_says_about_the_call_is_its_result() -> None:
    async def refuse() -> Observation:
        raise AddressError("no such page")

    broken = Broken(refuse)
    with pytest.raises(AddressError):  # which the loop shows to the model
        ask(SteadyTool(broken, tries=3), "x")
    assert broken.calls == 1


def test_results_are_shared_by_rollouts_and_failures_are_not_kept() -> None:
    notes = Notes()
    steady = SteadyTool(notes, cache=ResultCache())
    assert ask(steady, "a") == ask(steady, "a")
    assert notes.calls == ["a"]
    context = ToolContext(SourceList())
    ask(steady, "a", context=context)
    assert [source.text for source in context.sources] == ["note on a"]

    async def fail() -> Observation:
        return Observation("no such page", failed=True)

    broken = Broken(fail, times=1)
    steady = SteadyTool(broken, cache=ResultCache())
    assert [shown.text for shown in ask(steady, "x", "x")] == ["no such page", "found"]


def test_a_kept_result_is_used_only_where_its_numbers_are_right() -> None:
    notes = Notes()
    steady = SteadyTool(notes, cache=ResultCache())
    ask(steady, "a")
    context = ToolContext(SourceList())
    shown = ask(steady, "b", "a", context=context)
    assert [observation.text for observation in shown] == ["[1] note on b", "[2] note on a"]
    for observation in shown:
        (source,) = observation.sources
        assert context.sources[source.number].text == source.text


def test_equal_calls_at_one_time_are_one_call() -> None:
    notes = Notes()
    steady = SteadyTool(UnreliableTool(notes, latency_s=0.01), cache=ResultCache())

    async def eight() -> list[Observation]:
        call = {"query": ["a"]}
        return list(
            await asyncio.gather(*(steady.run(call, ToolContext(SourceList())) for _ in range(8)))
        )

    assert {shown.text for shown in asyncio.run(eight())} == {"[1] note on a"}
    assert notes.calls == ["a"]


def test_the_cache_is_bounded_and_forgets_what_was_not_used() -> None:
    notes = Notes()
    steady = SteadyTool(notes, cache=ResultCache(2))
    for query in ["a", "b", "a", "c", "a", "b"]:  # "c" drives "b" out, not "a"
        ask(steady, query)
    assert notes.calls == ["a", "b", "c", "b"]


def test_tools_that_share_a_cache_do_not_get_each_others_results() -> None:
    class Scholar(Notes):
        name = "google_scholar"

    cache = ResultCache()
    first, second = SteadyTool(Notes(), cache=cache), SteadyTool(Scholar("paper"), cache=cache)
    assert [ask(first, "a")[0].text, ask(second, "a")[0].text] == [
        "[1] note on a",
        "[1] paper on a",
    ]


def test_the_rate_holds_for_all_rollouts_together() -> None:
    steady = SteadyTool(Notes(), calls_per_s=100)

    async def eleven() -> float:
        began = time.monotonic()
        calls = ({"query": [str(n)]} for n in range(11))
        await asyncio.gather(*(steady.run(call, ToolContext(SourceList())) for call in calls))
        return time.monotonic() - began

    assert asyncio.run(eleven()) >= 0.1  # ten intervals of 10 ms, however busy the machine is


def test_the_model_cannot_tell_the_tools_apart() -> None:
    notes = Notes()
    for tool in (UnreliableTool(notes), SteadyTool(notes), LentTool(notes, 0)):
        assert (tool.name, tool.description, tool.parameters) == (
            notes.name,
            notes.description,
            notes.parameters,
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UnreliableTool(Notes(), failures=1.2), "failures.*1.2"),
        (lambda: UnreliableTool(Notes(), failures=float("nan")), "failures.*nan"),
        (lambda: UnreliableTool(Notes(), latency_s=-1), "latency_s.*-1"),
        (lambda: SteadyTool(Notes(), tries=0), "tries.*0"),
        (lambda: SteadyTool(Notes(), timeout_s=0), "timeout_s.*0"),
        (lambda: SteadyTool(Notes(), calls_per_s=-2), "calls_per_s.*-2"),
        (lambda: ResultCache(0), "size.*0"),
    ],
    ids=["share", "nan", "latency", "tries", "timeout", "rate", "size"],
)
def test_impossible_values_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
