"""The ReAct loop: turn structure, budgets, failures, and each fault of the official loop."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hanol.engines import Completion, Message, Request, ScriptedEngine, Usage
from hanol.errors import EngineError, RunError, SearchIndexError
from hanol.research import Researcher, transcript
from hanol.research.modes._react import OFFICIAL_ORDER  # private: the official order of messages
from hanol.retrieval import Index
from hanol.runs import (
    Budget,
    Event,
    ModelAnswered,
    RunEnded,
    RunFolder,
    RunStarted,
    ToolReturned,
    TurnRejected,
)
from hanol.tools import SEARCH, Observation, ToolContext

Search = Callable[..., str]
FORCED = "no room left for further tool calls"


class Recorder:
    """A scripted engine that keeps its requests."""

    def __init__(self, script: Any, **options: Any) -> None:
        self.requests: list[Request] = []
        self.engine = ScriptedEngine(self._answer, **options)
        replies = ScriptedEngine(script, **options)
        self._reply = replies._answer

    def _answer(self, request: Request) -> str | Completion:
        self.requests.append(request)
        return self._reply(request)[0]

    @property
    def prompts(self) -> list[tuple[Message, ...]]:
        return [request.messages for request in self.requests]


class Notes:
    """A tool named search that gives numbered notes of any length."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, sizes: Sequence[int] = (), text: str | None = None) -> None:
        self.calls: list[str] = []
        self._sizes = list(sizes)
        self._text = text

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        self.calls += arguments["query"]
        size = self._sizes[len(self.calls) % len(self._sizes)] if self._sizes else 3
        return Observation(self._text or f"note-{len(self.calls)}- " + "word " * size)


def research(engine: Any, tools: Sequence[Any] = (), **options: Any) -> list[Event]:
    question = options.pop("question", "What is asked?")
    options = {"today": date(2025, 1, 2), "tools": tools, **options}
    return list(Researcher(options.pop("index", None), engine, **options).ask(question))


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


def end_of(events: Sequence[Event]) -> RunEnded:
    last = events[-1]
    assert isinstance(last, RunEnded)
    return last


def assert_alternate(messages: Sequence[Message]) -> None:
    roles = [message.role for message in messages]
    assert roles[0] == "system"
    assert roles[1:] == (["user", "assistant"] * len(roles))[: len(roles) - 1]


def test_a_run_over_real_documents(cities: Index, search_turn: Search) -> None:
    script = Recorder(
        [search_turn("capital"), "<think>ok</think><answer>Seoul had 9,386,000 [1].</answer>"]
    )
    events = research(script.engine, None, index=cities, question="How many people has Seoul?")
    assert kinds(events) == [
        "run_started",
        "model_answered",
        "tool_returned",
        "model_answered",
        "run_ended",
    ]
    assert [event.number for event in events] == list(range(5))
    started, _, result, _, ended = events
    assert isinstance(started, RunStarted)
    assert started.index_version == cities.version
    assert isinstance(result, ToolReturned)
    assert "9,386,000" in result.sources[0].text
    assert isinstance(ended, RunEnded)
    assert ended.answer == "Seoul had 9,386,000 [1]."
    assert ended.citations is not None
    assert ended.citations["counts"]["supported"] == 1
    assert (ended.model_calls, ended.tool_calls) == (2, 1)


def test_requests_have_the_official_sampling_and_stops(search_turn: Search) -> None:
    script = Recorder([search_turn("a"), "<answer>b</answer>"])
    research(script.engine, [Notes()], seed=5)
    first, second = script.requests
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.presence_penalty) == (
        0.85,
        0.95,
        1.1,
    )
    assert first.sampling.max_tokens == 10_000
    assert first.sampling.stop == ("\n<tool_response>", "<tool_response>")
    assert (first.sampling.seed, second.sampling.seed) == (5, 6)
    assert "Current date: 2025-01-02" in first.messages[0].content


def test_invented_citations_are_marked(cities: Index, search_turn: Search) -> None:
    engine = ScriptedEngine([search_turn("capital"), "<answer>Seoul has 12 dams [7].</answer>"])
    citations = end_of(research(engine, None, index=cities)).citations
    assert citations is not None
    assert citations["counts"]["supported"] == 0
    assert citations["invented"]


def test_files_are_announced_as_in_the_released_data() -> None:
    script = Recorder(["<answer>a</answer>"])
    list(Researcher(None, script.engine, tools=[]).ask("Sum it up.", files=["a.pdf", "b.md"]))
    question = script.prompts[0][1].content
    assert question == "(Uploaded 2 files: ['a.pdf', 'b.md'])\n\nSum it up."


# The faults of the official loop, by their number in the list of what must not come back.


def test_fault_1_python_in_a_query_is_a_search(cities: Index, search_turn: Search) -> None:
    engine = ScriptedEngine([search_turn("Monty Python"), "<answer>1969 [1]</answer>"])
    (result,) = [
        event for event in research(engine, None, index=cities) if isinstance(event, ToolReturned)
    ]
    assert result.name == "search"
    assert not result.failed
    assert "comedy group" in result.text


def test_fault_2_actions_that_are_only_thought_of_do_nothing(search_turn: Search) -> None:
    notes = Notes()
    thought = search_turn("not this").replace("<think>Look it up.</think>", "")
    script = [
        f"<think>I could write {thought} or <answer>guess</answer>.</think>{search_turn('this')}",
        "<think><answer>no</answer></think><answer>yes</answer>",
    ]
    events = research(ScriptedEngine(script), [notes])
    assert notes.calls == ["this"]
    assert end_of(events).answer == "yes"


def test_fault_3_a_call_with_an_answer_is_a_call(search_turn: Search) -> None:
    notes = Notes(text="<answer>the page's</answer>")
    script = [search_turn("a") + "<answer>too early</answer>", "<answer>mine</answer>"]
    events = research(ScriptedEngine(script), [notes])
    assert notes.calls == ["a"]
    assert end_of(events).answer == "mine"
    assert end_of(events).termination == "answer"


def test_fault_4_the_last_result_stays_when_the_calls_are_spent(search_turn: Search) -> None:
    script = Recorder([search_turn("a"), search_turn("b"), "<answer>late</answer>"])
    events = research(script.engine, [Notes()], budget=Budget(model_calls=2))
    assert len(script.requests) == 3
    last = script.prompts[-1]
    assert_alternate(last)
    assert "note-2-" in last[-1].content
    assert last[-1].content.index("note-2-") < last[-1].content.index(FORCED)
    assert (end_of(events).termination, end_of(events).answer) == ("max_calls", "late")


def test_fault_4_the_last_result_stays_when_the_context_is_full(search_turn: Search) -> None:
    def answer(request: Request) -> str:
        text = request.messages[-1].content
        return (
            "<answer>full</answer>" if FORCED in text else search_turn(str(len(request.messages)))
        )

    script = Recorder(answer)
    budget = Budget(context_tokens=4000, observation_tokens=900)
    events = research(script.engine, [Notes([600])], budget=budget)
    assert (end_of(events).termination, end_of(events).answer) == ("max_tokens", "full")
    newest = sum(isinstance(event, ToolReturned) for event in events)
    assert f"note-{newest}-" in script.prompts[-1][-1].content
    assert all(script.engine.count_tokens(prompt) <= 4000 for prompt in script.prompts)


def test_fault_5_a_turn_without_action_is_told_so() -> None:
    script = Recorder(["I wonder.", "<answer>a</answer>"])
    events = research(script.engine, [Notes()])
    assert kinds(events)[1:4] == ["model_answered", "turn_rejected", "model_answered"]
    assert isinstance(events[2], TurnRejected)
    assert events[2].error == "no_action"
    assert_alternate(script.prompts[1])
    assert events[2].text in script.prompts[1][-1].content


def test_fault_5_a_failed_server_ends_the_run_and_is_no_turn(
    tmp_path: Path, search_turn: Search
) -> None:
    class Down(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            if len(request.messages) > 2:
                raise EngineError("connection refused")
            return await super().complete(request)

    with pytest.raises(EngineError, match="refused"):
        research(Down([search_turn("a")]), [Notes()], run_folder=tmp_path)
    log = RunFolder(tmp_path).events()
    assert kinds(log) == ["run_started", "model_answered", "tool_returned"]
    engine = ScriptedEngine([search_turn("a"), "<answer>b</answer>"])
    notes = Notes()
    assert end_of(research(engine, [notes], run_folder=tmp_path)).answer == "b"
    assert notes.calls == []  # the search had finished


def test_fault_6_all_calls_run_in_order(search_turn: Search) -> None:
    script, notes = Recorder([search_turn("a", "b", "c"), "<answer>d</answer>"]), Notes()
    events = research(script.engine, [notes])
    assert notes.calls == ["a", "b", "c"]
    assert [e.call for e in events if isinstance(e, ToolReturned)] == [0, 1, 2]
    told = script.prompts[1][-1].content
    assert told.count("<tool_response>") == told.count("</tool_response>") == 3
    assert told.index("note-1-") < told.index("note-2-") < told.index("note-3-")


def test_fault_6_the_corrected_answer_counts_and_an_empty_one_does_not() -> None:
    script = Recorder(["<answer> </answer>", "<answer>first</answer> no: <answer>last</answer>"])
    events = research(script.engine, [Notes()])
    assert [e.error for e in events if isinstance(e, TurnRejected)] == ["empty_answer"]
    assert end_of(events).answer == "last"


def test_fault_7_texts_are_counted_once_and_arguments_are_plain(search_turn: Search) -> None:
    counted: list[str] = []

    class Counting(ScriptedEngine):
        def count_tokens(self, messages: Sequence[Message]) -> int:
            return super().count_tokens(messages)

    engine = Counting([search_turn(str(n)) for n in range(20)] + ["<answer>a</answer>"])
    count = engine.count_tokens
    engine.count_tokens = lambda m: (counted.append(m[-1].content), count(m))[1]  # type: ignore
    complete = engine.complete

    async def quiet(request: Request) -> Completion:
        seen = len(counted)
        result = await complete(request)
        del counted[seen:]  # the engine's own
        return result

    engine.complete = quiet  # type: ignore[method-assign]
    events = research(engine, [Notes()])
    assert len(counted) == len(set(counted))
    result = next(event for event in events if isinstance(event, ToolReturned))
    assert result.arguments == {"query": ["0"]}


def test_fault_7_time_is_limited_inside_a_call(search_turn: Search) -> None:
    class Hanging(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            if FORCED not in request.messages[-1].content and len(request.messages) > 2:
                await asyncio.Event().wait()
            return await super().complete(request)

    engine = Hanging([search_turn("a"), "<answer>in time</answer>"])
    ended = end_of(research(engine, [Notes()], budget=Budget(seconds=20.0 / 10)))
    assert (ended.termination, ended.answer) == ("max_seconds", "in time")


def test_time_is_limited_inside_a_tool_and_inside_the_forced_answer(search_turn: Search) -> None:
    class Stuck(Notes):
        async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
            return await asyncio.Event().wait()  # type: ignore[return-value]

    class Slow(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            if FORCED in request.messages[-1].content:
                await asyncio.Event().wait()
            return await super().complete(request)

    events = research(Slow([search_turn("a")]), [Stuck()], budget=Budget(seconds=1))
    result = next(event for event in events if isinstance(event, ToolReturned))
    assert result.failed
    assert "time" in result.text
    assert (end_of(events).termination, end_of(events).answer) == ("max_seconds", None)


def test_fault_10_equal_questions_do_not_collide_and_changes_are_noticed(tmp_path: Path) -> None:
    engine = ScriptedEngine(["<answer>a</answer>"])
    other = ScriptedEngine(["<answer>b</answer>"], name="other")
    first = research(engine, [Notes()], run_folder=tmp_path / "1")
    second = research(other, [Notes()], run_folder=tmp_path / "2")
    assert (end_of(first).answer, end_of(second).answer) == ("a", "b")
    assert first[0].run_id != second[0].run_id  # type: ignore[union-attr]
    with pytest.raises(RunError) as err:
        research(other, [Notes()], run_folder=tmp_path / "1", budget=Budget(model_calls=7), seed=3)
    for difference in (
        "`model` (was 'scripted', now 'other')",
        "model_calls` (was 100, now 7)",
        "seed",
    ):
        assert difference in str(err.value)
    with pytest.raises(RunError, match="`question` "):
        research(engine, [Notes()], run_folder=tmp_path / "1", question="Another?")


def test_fault_10_results_are_on_the_disk_while_the_run_goes_on(
    tmp_path: Path, search_turn: Search
) -> None:
    def answer(request: Request) -> str:
        seen.append(len(RunFolder(tmp_path).events()))
        return search_turn(str(len(seen))) if len(seen) < 4 else "<answer>a</answer>"

    seen: list[int] = []
    research(ScriptedEngine(answer), [Notes()], run_folder=tmp_path)
    assert seen == [1, 3, 5, 7]


# Limits and refusals.


def test_three_unusable_turns_in_a_row_end_in_a_forced_answer(search_turn: Search) -> None:
    script = Recorder(["x", "y", search_turn("a"), "x", "", "z", "<answer>at last</answer>"])
    events = research(script.engine, [Notes()])
    assert [e.type for e in events].count("turn_rejected") == 5
    assert (end_of(events).termination, end_of(events).answer) == ("format_errors", "at last")
    assert FORCED in script.prompts[-1][-1].content
    for prompt in script.prompts:
        assert_alternate(prompt)
    assert_alternate(transcript(events))


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<think>t</think>Probably 7.", "Probably 7."),
        ("t</think>Probably 7.", "Probably 7."),
        ("<answer>7</answer>", "7"),
        ("<tool_call>\n{bad", None),
        ("<answer></answer>", None),
        ("", None),
    ],
)
def test_the_forced_answer_without_tags_is_what_is_not_thought(
    reply: str, answer: str | None, search_turn: Search
) -> None:
    engine = ScriptedEngine([search_turn("a"), reply])
    assert end_of(research(engine, [Notes()], budget=Budget(model_calls=1))).answer == answer


def test_an_unknown_tool_and_bad_arguments_are_observations() -> None:
    script = Recorder(
        [
            '<tool_call>\n{"name": "searches", "arguments": {"query": ["a"]}}\n</tool_call>',
            '<tool_call>\n{"name": "search", "arguments": {"query": []}}\n</tool_call>',
            "<answer>a</answer>",
        ]
    )
    events = research(script.engine, [Notes()])
    assert [e.error for e in events if isinstance(e, TurnRejected)] == [
        "unknown_tool",
        "invalid_arguments",
    ]
    assert "search" in script.prompts[1][-1].content


def test_a_repeated_call_is_served_from_the_run(search_turn: Search) -> None:
    notes = Notes()
    script = Recorder([search_turn("a"), search_turn("b"), search_turn("a"), "<answer>c</answer>"])
    events = research(script.engine, [notes])
    assert notes.calls == ["a", "b"]
    results = [event for event in events if isinstance(event, ToolReturned)]
    assert "before" in results[2].text
    assert results[0].text in results[2].text
    assert "note-1-" in script.prompts[3][-1].content


def test_a_failed_call_may_be_repeated(search_turn: Search) -> None:
    class Flaky(Notes):
        async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
            await super().run(arguments, context)
            if len(self.calls) == 1:
                raise SearchIndexError("the index is locked")
            return Observation("fine")

    flaky = Flaky()
    events = research(
        ScriptedEngine([search_turn("a"), search_turn("a"), "<answer>c</answer>"]), [flaky]
    )
    first, second = [event for event in events if isinstance(event, ToolReturned)]
    assert (first.failed, second.failed) == (True, False)
    assert "the index is locked" in first.text
    assert flaky.calls == ["a", "a"]


def test_tool_calls_have_a_budget(search_turn: Search) -> None:
    notes = Notes()
    script = Recorder([search_turn("a", "b", "c"), "<answer>d</answer>"])
    events = research(script.engine, [notes], budget=Budget(tool_calls=2))
    assert notes.calls == ["a", "b"]
    assert end_of(events).termination == "max_calls"
    assert end_of(events).answer == "d"


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_a_cap_of_c_calls_gives_at_most_c_and_the_forced_one(cap: int, search_turn: Search) -> None:
    script = Recorder([search_turn(str(n)) for n in range(20)])
    events = research(script.engine, [Notes()], budget=Budget(model_calls=cap))
    assert len(script.requests) == cap + 1
    assert end_of(events).model_calls == cap + 1
    assert end_of(events).answer is None


@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    window=st.integers(3000, 12_000),
    max_tokens=st.sampled_from([64, 500, 10_000]),
    thoughts=st.lists(st.integers(0, 800), min_size=1, max_size=6),
    mode=st.sampled_from(["react", "markov", "resum"]),
    calls=st.integers(1, 3),
)
@example(  # the newest result, then turns that were refused
    sizes=[0], window=3000, max_tokens=500, thoughts=[0, 641], mode="react", calls=1
)
@settings(max_examples=60, deadline=None)
def test_no_prompt_exceeds_the_window_and_the_newest_result_is_in_it(
    sizes: list[int],
    window: int,
    max_tokens: int,
    thoughts: list[int],
    mode: Any,
    calls: int,
) -> None:
    from dataclasses import replace

    from hanol.research import AGENT_SAMPLING

    rng = random.Random(0)
    state = {"n": 0}

    def answer(request: Request) -> str:
        state["n"] += 1
        if "inside <summary></summary>" in request.messages[-1].content:
            return f"<summary>{'found ' * rng.choice(thoughts)}</summary>"
        blocks = [
            '<tool_call>\n{"name": "search", "arguments": {"query": ["'
            f'{state["n"]}-{call}"]}}}}\n</tool_call>'
            for call in range(calls)
        ]
        think = "<think>" + "hm " * thoughts[state["n"] % len(thoughts)] + "</think>"
        report = "<report>" + "Known so far. " * thoughts[0] + "</report>"
        return think + (report if mode == "markov" else "") + "\n".join(blocks)

    script = Recorder(answer, context_window=window)  # which refuses longer prompts
    notes = Notes(sizes)
    events = research(
        script.engine,
        [notes],
        mode=mode,
        budget=Budget(model_calls=12),
        sampling=replace(AGENT_SAMPLING, max_tokens=max_tokens),
    )
    assert len(script.requests) <= 13
    last: int | None = None
    turns = iter(script.requests)
    for event in events:
        if isinstance(event, ModelAnswered):
            request = next(turns)
            tokens = script.engine.count_tokens(request.messages)
            assert request.sampling.max_tokens is not None
            assert tokens + request.sampling.max_tokens <= window
            if last is not None and event.purpose in ("turn", "forced_answer"):
                shown = "".join(message.content for message in request.messages)
                assert f"note-{last}-" in shown or any(
                    e.type == "context_restarted" for e in events
                )
        if isinstance(event, ToolReturned):
            last = int(event.text.partition("note-")[2].partition("-")[0])


def test_tokens_and_money_are_never_overspent(search_turn: Search) -> None:
    for tokens in (3000, 6000, 20_000):
        script = Recorder([search_turn(str(n)) for n in range(50)])
        events = research(script.engine, [Notes([300])], budget=Budget(tokens=tokens))
        ended = end_of(events)
        assert ended.termination == "max_tokens"
        assert ended.prompt_tokens + ended.completion_tokens <= tokens
    budget = Budget(money=0.05, prompt_price=1.0, completion_price=10.0)
    script = Recorder([search_turn(str(n)) for n in range(50)])
    ended = end_of(research(script.engine, [Notes([300])], budget=budget))
    assert ended.termination == "max_money"
    assert 0.02 < ended.money <= 0.05


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_calls": 0}, "`model_calls` of the budget is 0"),
        ({"model_calls": 1.5}, r"`model_calls` of the budget is 1\.5, but .* whole number"),
        ({"model_calls": float("inf")}, "`model_calls` of the budget is inf"),
        ({"seconds": -1.0}, "`seconds` of the budget is -1.0"),
        ({"seconds": float("nan")}, "`seconds` of the budget is nan"),
        ({"prompt_price": float("nan")}, "`prompt_price` of the budget is nan"),
        ({"money": 1.0}, "no prices"),
    ],
)
def test_impossible_budgets_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        Budget(**values)


def test_half_a_character_in_a_question_is_replaced(tmp_path: Path) -> None:
    engine = ScriptedEngine(["<answer>a</answer>"])
    researcher = Researcher(None, engine, tools=[Notes()], run_folder=tmp_path / "run")
    assert researcher.plan("\ud83d red")["prompt_tokens"] > 0
    first, *_, last = researcher.ask("\ud83d red")
    assert first.question == "? red"  # type: ignore[union-attr]
    assert last.answer == "a"  # type: ignore[union-attr]


def test_a_window_smaller_than_the_prompt_is_an_error_before_any_call(tmp_path: Path) -> None:
    script = Recorder([], context_window=200)
    with pytest.raises(RunError, match="System prompt and question have .* tokens"):
        research(script.engine, [Notes()], run_folder=tmp_path)
    assert script.requests == []
    assert not RunFolder(tmp_path).exists


def test_an_unknown_mode_and_a_missing_index_are_errors() -> None:
    with pytest.raises(RunError, match="No mode is named 'loop'"):
        Researcher(None, ScriptedEngine([]), tools=[], mode="loop")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="Without an index"):
        Researcher(None, ScriptedEngine([]))


def test_tools_that_cannot_be_told_apart_or_described_are_errors() -> None:
    with pytest.raises(RunError, match="Two tools are named 'search'"):
        Researcher(None, ScriptedEngine([]), tools=[Notes(), Notes()])
    broken = Notes()
    broken.parameters = {"type": "text"}
    with pytest.raises(RunError, match="parameters of the tool 'search' are no JSON schema"):
        Researcher(None, ScriptedEngine([]), tools=[broken])


def test_text_that_no_file_can_keep_is_replaced(tmp_path: Path, search_turn: Search) -> None:
    script = [search_turn("a", think="half \ud800"), "<answer>done \udfff</answer>"]
    engine = ScriptedEngine(
        lambda r: Completion.of(script[len(r.messages) // 2 - 1], usage=Usage(1, 1))
    )
    events = research(engine, [Notes(text="half \ud800 pair")], run_folder=tmp_path)
    assert end_of(events).answer == "done ?"
    assert RunFolder(tmp_path).events() == events
    result = next(event for event in events if isinstance(event, ToolReturned))
    assert result.text == "half ? pair"


def test_stopping_to_read_stops_the_run(tmp_path: Path, search_turn: Search) -> None:
    script = Recorder([search_turn(str(n)) for n in range(50)])
    stream = Researcher(None, script.engine, tools=[Notes()], run_folder=tmp_path).ask("q")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    with RunFolder(tmp_path):  # nobody holds the lock
        pass


def test_ask_works_where_a_loop_already_runs() -> None:
    async def notebook() -> list[Event]:
        return research(ScriptedEngine(["<answer>a</answer>"]), [Notes()])

    assert end_of(asyncio.run(notebook())).answer == "a"


# The official order.


def test_strict_official_keeps_order_and_limits_of_the_official_code(search_turn: Search) -> None:
    script = Recorder([search_turn("a", "b"), "no action", "<answer>c</answer>"])
    notes = Notes()
    events = research(script.engine, [notes], strict_official=True)
    assert notes.calls == ["a"]
    roles = [message.role for message in script.prompts[2]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert script.prompts[1][3].content == (
        "<tool_response>\nnote-1- word word word \n</tool_response>"
    )
    assert end_of(events).answer == "c"


def test_strict_official_gives_no_answer_when_the_calls_are_spent(search_turn: Search) -> None:
    script = Recorder([search_turn("a"), search_turn("b")])
    events = research(script.engine, [Notes()], strict_official=True, budget=Budget(model_calls=2))
    assert len(script.requests) == 2
    assert (end_of(events).termination, end_of(events).answer) == ("max_calls", None)


def test_strict_official_overwrites_the_last_message_at_the_limit(search_turn: Search) -> None:
    def answer(request: Request) -> str:
        last = request.messages[-1].content
        done = last == OFFICIAL_ORDER
        return "<answer>c</answer>" if done else search_turn(str(len(request.messages)))

    script = Recorder(answer)
    budget = Budget(context_tokens=3000, observation_tokens=700)
    events = research(script.engine, [Notes([400])], strict_official=True, budget=budget)
    assert (end_of(events).termination, end_of(events).answer) == ("max_tokens", "c")
    assert script.prompts[-1][-1].content == OFFICIAL_ORDER
    assert len(script.prompts[-1]) == len(script.prompts[-2]) + 2


def test_the_log_is_json_that_any_language_reads(tmp_path: Path, search_turn: Search) -> None:
    engine = ScriptedEngine([search_turn("a"), "<answer>b</answer>"])
    research(engine, [Notes()], run_folder=tmp_path)
    lines = [json.loads(line) for line in RunFolder(tmp_path).log.read_text("utf-8").splitlines()]
    assert [line["type"] for line in lines] == [
        "run_started",
        "model_answered",
        "tool_returned",
        "model_answered",
        "run_ended",
    ]
