"""What small and free-running models write, read leniently; grammars asked for; time that holds."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hanol.engines import Choice, Completion, Message, Request, ScriptedEngine, ToolCall, Usage
from hanol.errors import CapabilityError, EngineError
from hanol.research import Researcher, RunView, heavy_research, replay
from hanol.research._form import is_echo  # private: a rule, checked by a table
from hanol.retrieval import Index
from hanol.runs import Budget, Event, ModelAnswered, RunEnded, Spent, ToolReturned, TurnRejected
from hanol.tools import agent_tools

Search = Callable[..., str]
FORCED = "no room left"


class Recorder(ScriptedEngine):
    """A scripted engine that keeps its requests."""

    def __init__(self, script: Any, **options: Any) -> None:
        self.requests: list[Request] = []
        super().__init__(script, **options)

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        return await super().complete(request)


def research(engine: Any, index: Index, question: str = "What is it?", **options: Any) -> list[Any]:
    return list(Researcher(index, engine, **options).ask(question))


def end_of(events: Sequence[Event]) -> RunEnded:
    last = events[-1]
    assert isinstance(last, RunEnded)
    return last


# -- grammars


def test_turns_are_constrained_where_the_engine_can(cities: Index, search_turn: Search) -> None:
    script = [search_turn("capital"), search_turn("port"), "<answer>Seoul [1].</answer>"]
    engine = Recorder(script)
    research(engine, cities, budget=Budget(model_calls=2))
    first, second, forced = (request.constraint for request in engine.requests)
    assert first is not None
    assert forced is not None
    assert first == second
    assert '{\\"name\\": \\"search\\"' in first.text
    assert "tool_call" not in forced.text.replace("|tool_call|", "")  # but in what texts may hold
    for options in ({"turns": "free"}, {"strict_official": True}):
        engine = Recorder(script)
        research(engine, cities, **options)
        assert [request.constraint for request in engine.requests] == [None] * 3
    engine = Recorder(script)
    engine.capabilities = frozenset()
    research(engine, cities)
    assert [request.constraint for request in engine.requests] == [None] * 3


def test_reports_and_summaries_have_their_grammars(cities: Index, search_turn: Search) -> None:
    engine = Recorder(["<report>R</report><answer>a</answer>"])
    research(engine, cities, mode="markov")
    assert engine.requests[0].constraint is not None
    assert '"<report>"' in engine.requests[0].constraint.text

    def resum(request: Request) -> str:
        if "inside <summary>" in request.messages[-1].text:
            return "<summary>S</summary>"
        return search_turn(str(len(engine.requests))) if len(engine.requests) < 3 else "<answer>a"

    engine = Recorder(resum)
    research(engine, cities, mode="resum", summary_every=1)
    asked = [r for r in engine.requests if "inside <summary>" in r.messages[-1].text]
    assert asked
    assert all(r.constraint is not None and '"<summary>"' in r.constraint.text for r in asked)


def test_a_run_goes_on_without_a_grammar_that_is_refused(
    cities: Index, search_turn: Search, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(Recorder):
        async def complete(self, request: Request) -> Completion:
            if request.constraint is not None:
                self.requests.append(request)
                raise CapabilityError(f"{self.name} has no grammars.")
            return await super().complete(request)

    script = [search_turn("capital"), "<answer>Seoul [1].</answer>"]
    with caplog.at_level(logging.WARNING):
        engine = Refusing(script, name="refusing-server")
        events = research(engine, cities)
        research(Refusing(script, name="refusing-server"), cities)
    assert end_of(events).answer == "Seoul [1]."
    # Only the first call tried; it is said once, in all runs of the process.
    assert [r.constraint is not None for r in engine.requests] == [True, False, False]
    assert [r.message for r in caplog.records if "refusing-server" in r.message] == [
        "Turns are not constrained, and read leniently instead. refusing-server has no grammars."
    ]
    assert list(replay(events)) == events
    with pytest.raises(CapabilityError, match="has no grammars"):
        research(Refusing(script), cities, turns="constrained")


def test_other_failures_are_not_taken_for_a_refused_grammar(cities: Index) -> None:
    class Down(Recorder):
        async def complete(self, request: Request) -> Completion:
            self.requests.append(request)
            raise EngineError("the server is down")

    engine = Down([])
    with pytest.raises(EngineError, match="down"):
        research(engine, cities)
    assert len(engine.requests) == 1


# -- lenient reading


def test_calls_that_a_server_sends_apart_are_run(cities: Index) -> None:
    def write(request: Request) -> Completion:
        if len(request.messages) > 2:
            return Completion.of("<answer>Seoul [1].</answer>", usage=Usage(1, 1))
        call = ToolCall("search", {"query": ["capital"]}, "id1")
        return Completion((Choice("I will look.", tool_calls=(call,)),), Usage(1, 1))

    events = research(ScriptedEngine(write), cities)
    answered, result = events[1:3]
    assert isinstance(answered, ModelAnswered)
    assert answered.native_calls
    assert answered.text.startswith("I will look.\n<tool_call>")
    assert isinstance(result, ToolReturned)
    assert "Seoul" in result.text
    assert (end_of(events).answer, end_of(events).repaired) == ("Seoul [1].", 1)
    assert list(replay(events)) == events
    assert "1 turn repaired" in RunView.of(events).summary


def test_a_malformed_native_call_is_refused_in_words(cities: Index) -> None:
    def write(request: Request) -> Completion:
        if len(request.messages) > 2:
            return Completion.of("<answer>a</answer>", usage=Usage(1, 1))
        call = ToolCall("search", {}, "id1", malformed='{"query": [')
        return Completion((Choice("", tool_calls=(call,)),), Usage(1, 1))

    events = research(ScriptedEngine(write), cities)
    rejected = [event for event in events if isinstance(event, TurnRejected)]
    assert [event.error for event in rejected] == ["invalid_arguments"]
    assert end_of(events).repaired == 0


def test_repaired_turns_are_counted(cities: Index) -> None:
    call = json.dumps({"name": "search", "arguments": {"query": ["capital"]}})
    script = [f"<tool_call>[{call}]</tool_call>", f"```json\n{call}\n```", "<answer>Seoul [1]."]
    events = research(ScriptedEngine(script), cities)
    assert (end_of(events).answer, end_of(events).repaired) == ("Seoul [1].", 3)
    assert not [event for event in events if isinstance(event, TurnRejected)]


@pytest.mark.parametrize("mode", ["react", "markov"])
def test_the_last_plain_text_is_the_answer_when_the_budget_ends(mode: Any, cities: Index) -> None:
    script = ["Seoul, I think.", "Your answer: Your answer", "<think>hm</think>"]
    replies = iter(script)
    events = research(
        ScriptedEngine(lambda _: next(replies)), cities, mode=mode, budget=Budget(model_calls=2)
    )
    ended = end_of(events)
    assert (ended.termination, ended.answer, ended.repaired) == ("max_calls", "Seoul, I think.", 1)
    assert list(replay(events)) == events


def test_an_echo_of_the_prompt_is_no_answer(cities: Index) -> None:
    echo = "<answer>the most likely answer now, with the numbers of its sources</answer>"
    script = ["<answer>your answer</answer>", "<answer>What is it?</answer>", echo, echo]
    events = research(ScriptedEngine(script), cities)
    rejected = [event for event in events if isinstance(event, TurnRejected)]
    assert [event.error for event in rejected] == ["empty_answer"] * 3
    assert "repeats the instructions" in rejected[0].text
    assert (end_of(events).termination, end_of(events).answer) == ("format_errors", None)


TOLD = (
    "Go over everything found so far and give the most likely answer now, with the numbers of its "
    "sources, in this form:\n<think>your final thoughts</think>\n<answer>your answer</answer>",
    "Answer so: <answer>The bridge opened in 1932 [3].</answer>",
)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("Your answer: Your answer", True),
        ("your final thoughts", True),
        ("The answer is:", True),
        ("The bridge opened in 1932 [3].", True),
        ("give the most likely answer now, with the numbers", True),
        ("Who opened the bridge?", True),
        ("Seoul", False),
        ("A", False),
        ("1932", False),
        ("the final", False),
        ("The answer is 42.", False),
        ("The bridge opened in 1932, after a delay of three years [4][5].", False),
        ("The bridge was opened by the mayor [3].", False),
        ("...", False),
        ("서울", False),
    ],
)
def test_what_is_an_echo(answer: str, wanted: bool) -> None:
    assert is_echo(answer, TOLD, "Who opened the bridge?") is wanted


def test_an_answer_may_say_what_the_tools_descriptions_say(cities: Index) -> None:
    said = "Runs Python code in a sandbox without network and files, and returns what it prints"
    engine = ScriptedEngine([f"<answer>{said}.</answer>"])
    tools = agent_tools(cities, python=True)
    assert end_of(research(engine, cities, tools=tools)).answer == f"{said}."


# -- small windows


def test_small_windows_get_a_short_prompt(cities: Index) -> None:
    tools = agent_tools(cities, python=True)
    engines = {w: ScriptedEngine([], context_window=w) for w in (2048, 8192, 8193)}
    prompts = {w: Researcher(cities, e, tools=tools).system for w, e in engines.items()}
    assert prompts[2048] == prompts[8192]
    count = engines[2048].count_tokens([Message("system", prompts[2048])])
    assert count < 400
    assert count < engines[2048].count_tokens([Message("system", prompts[8193])]) / 3
    for tool in tools:
        assert tool.name in prompts[2048]
    assert "<report>" in Researcher(cities, engines[2048], mode="markov").system
    assert "<report>" not in prompts[2048]


@pytest.mark.parametrize("mode", ["react", "markov", "resum"])
def test_a_full_small_window_answers(mode: Any, tmp_path: Any, search_turn: Search) -> None:
    (tmp_path / "long.md").write_text("# Words\n\n" + "The capital is a word. " * 2000, "utf-8")
    prompts: list[int] = []

    def write(request: Request) -> str:
        prompts.append(engine.count_tokens(request.messages))
        last = request.messages[-1].text
        if "inside <summary>" in last:
            return "<summary>S [1]</summary>"
        return "<answer>A word [1].</answer>" if FORCED in last else search_turn("capital word")

    engine = ScriptedEngine(write, context_window=2048)
    with Index.open(tmp_path) as index:
        index.add()
        events = research(engine, index, mode=mode, budget=Budget(model_calls=12))
    assert end_of(events).answer == "A word [1]."
    assert max(prompts) < 2048


# -- time


def test_slow_calls_leave_the_answer_as_long_as_they_took() -> None:
    def call(seconds: float) -> ModelAnswered:
        return ModelAnswered(
            number=0, time=0, step=1, purpose="turn", request_sha256="", text="", seconds=seconds,
            finish_reason="stop", prompt_tokens=1, completion_tokens=1,
        )  # fmt: skip

    spent = Spent(Budget(seconds=100))
    assert spent.seconds_left(forced=False) == 90
    spent.add(call(20))
    assert spent.seconds_left(forced=False) == 60  # 20 are kept for the answer
    assert spent.reached(1) is None
    spent.add(call(52))
    # A turn would need more than what is left of half of the time.
    assert spent.reached(1) == "max_seconds"
    assert spent.seconds_left(forced=True) == 28


@pytest.mark.parametrize("sampling", ["parallel", "partial"])
@pytest.mark.parametrize("mode", ["react", "markov"])
def test_the_runs_of_heavy_mode_have_one_clock(
    mode: Any, sampling: Any, cities: Index, search_turn: Search
) -> None:
    class Slow(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(0.2)
            return await super().complete(request)

    def write(request: Request) -> str:
        last = request.messages[-1].text
        if "Several assistants" in last or FORCED in last:
            return "<answer>Seoul [1].</answer>"
        if "Write a report on how" in last:
            return "<report>It was Seoul [1].</report>"
        return "<report>R</report>" + search_turn(f"capital {time.monotonic()}")

    began = time.monotonic()
    events = list(
        heavy_research(
            cities, Slow(write), "Which city?", n=3, mode=mode, sampling=sampling,
            budget=Budget(seconds=4.0),
        )
    )  # fmt: skip
    took = time.monotonic() - began
    assert took < 4.6
    assert took > 2.0  # the time is there to be used
    assert end_of(events).answer == "Seoul [1]."
    assert end_of(events).seconds <= 4.4
    assert list(replay(events)) == events
