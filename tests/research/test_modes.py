"""Markov and ReSum modes: short prompts, reports and summaries, segments to learn from."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest

from hanol.engines import Message, Request, ScriptedEngine
from hanol.research import Researcher, segments, transcript
from hanol.runs import (
    Budget,
    ContextRestarted,
    Event,
    ModelAnswered,
    ReportUpdated,
    RunEnded,
    TurnRejected,
)
from hanol.tools import SEARCH, Observation, ToolContext

Search = Callable[..., str]


class Notes:
    """A tool named search that gives numbered notes."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, size: int = 5) -> None:
        self.count = 0
        self._size = size

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        self.count += 1
        return Observation(f"note-{self.count}- " + "word " * self._size)


class Model:
    """Answers by a function of the round and keeps the requests."""

    def __init__(self, answer: Callable[[int, Request], str]) -> None:
        self.requests: list[Request] = []
        self._answer = answer
        self.engine = ScriptedEngine(self._reply)

    def _reply(self, request: Request) -> str:
        self.requests.append(request)
        return self._answer(len(self.requests), request)


def research(
    model: Model, mode: Literal["react", "markov", "resum"], size: int = 5, **options: Any
) -> list[Event]:
    researcher = Researcher(None, model.engine, mode=mode, tools=[Notes(size)], **options)
    return list(researcher.ask("What is asked?"))


def turn(report: str, call: str) -> str:
    action = call.rpartition("</think>")[2]
    return f"<think>secret thought</think>\n<report>{report}</report>\n{action}"


def end_of(events: list[Event]) -> RunEnded:
    assert isinstance(events[-1], RunEnded)
    return events[-1]


def test_markov_prompts_do_not_grow(search_turn: Search) -> None:
    def answer(number: int, request: Request) -> str:
        if number > 50:
            return "<report>all</report><answer>done</answer>"
        # A report that grows as long as it may.
        return turn("fact. " * min(number * 60, 2600), search_turn(str(number)))

    model = Model(answer)
    events = research(model, "markov", size=3000)
    prompts = [e.prompt_tokens for e in events if isinstance(e, ModelAnswered)]
    assert len(prompts) == 51
    assert prompts[50] <= prompts[1] + 4096
    assert max(prompts) <= prompts[1] + 4096
    assert end_of(events).answer == "done"


def test_markov_prompts_have_question_report_and_the_last_step_only(search_turn: Search) -> None:
    script = [
        turn("R1", search_turn("first")),
        turn("R2", search_turn("second")),
        turn("R3", "<answer>a</answer>"),
    ]
    model = Model(lambda number, _: script[number - 1])
    events = research(model, "markov")
    assert all([m.role for m in r.messages] == ["system", "user"] for r in model.requests)
    third = model.requests[2].messages[1].content
    for shown in ("What is asked?", "R2", '"second"', "note-2-"):
        assert shown in third
    for hidden in ("R1", '"first"', "note-1-", "secret thought"):
        assert hidden not in third
    reports = [event for event in events if isinstance(event, ReportUpdated)]
    assert [(event.report, event.kept) for event in reports] == [
        ("R1", False),
        ("R2", False),
        ("R3", False),
    ]


def test_markov_keeps_the_report_of_a_round_that_writes_none(search_turn: Search) -> None:
    script = [turn("R1", search_turn("a")), search_turn("b"), "<answer>c</answer>"]
    model = Model(lambda number, _: script[number - 1])
    events = research(model, "markov")
    reports = [(e.report, e.kept) for e in events if isinstance(e, ReportUpdated)]
    assert reports == [("R1", False), ("R1", True), ("R1", True)]
    assert "R1" in model.requests[2].messages[1].content


@pytest.mark.parametrize("obeys", [True, False])
def test_markov_refuses_a_long_report_once_and_then_cuts_it(
    obeys: bool, search_turn: Search
) -> None:
    long = "A fact of some length. " * 100

    def answer(number: int, request: Request) -> str:
        told = "may have 100" in request.messages[1].content
        if number == 1 or (told and not obeys):
            return turn(long, search_turn("a"))
        return turn("short", search_turn("a")) if told else "<answer>b</answer>"

    model = Model(answer)
    events = research(model, "markov", report_tokens=100)
    rejected = [event for event in events if isinstance(event, TurnRejected)]
    assert [event.error for event in rejected] == ["report_too_long"]
    first = next(event for event in events if isinstance(event, ReportUpdated))
    if obeys:
        assert first.report == "short"
    else:
        assert long.startswith(first.report)
        assert first.report.endswith("length.")
        assert 50 < model.engine.count_tokens([Message("user", first.report)]) <= 100
    assert len(model.requests) == 3


def test_markov_tells_what_was_wrong_and_keeps_the_last_result(search_turn: Search) -> None:
    script = [turn("R1", search_turn("a")), "<report>R2</report> hm", "<answer>c</answer>"]
    model = Model(lambda number, _: script[number - 1])
    events = research(model, "markov")
    third = model.requests[2].messages[1].content
    assert "note-1-" in third
    assert "R2" in third
    assert "no_action" in third
    assert end_of(events).answer == "c"


def test_markov_answers_when_its_calls_are_spent(search_turn: Search) -> None:
    def answer(number: int, request: Request) -> str:
        forced = "no room left" in request.messages[1].content
        return "<answer>late</answer>" if forced else turn(f"R{number}", search_turn(str(number)))

    model = Model(answer)
    events = research(model, "markov", budget=Budget(model_calls=3))
    assert len(model.requests) == 4
    assert "note-3-" in model.requests[3].messages[1].content
    assert "R3" in model.requests[3].messages[1].content
    assert (end_of(events).termination, end_of(events).answer) == ("max_calls", "late")


def test_every_round_of_markov_is_a_segment(search_turn: Search) -> None:
    script = [turn("R1", search_turn("a")), turn("R2", search_turn("b")), "<answer>c</answer>"]
    model = Model(lambda number, _: script[number - 1])
    parts = segments(research(model, "markov"))
    assert [part.messages for part in parts] == [request.messages for request in model.requests]
    assert [part.completion for part in parts] == script


def summarising(search_turn: Search, rounds: int) -> Callable[[int, Request], str]:
    def answer(number: int, request: Request) -> str:
        last = request.messages[-1].content
        if "inside <summary></summary>" in last:
            return f"<think><summary>no</summary></think><summary>SUMMARY {number}</summary>"
        return search_turn(str(number)) if number < rounds else "<answer>done</answer>"

    return answer


def test_resum_starts_again_before_the_context_is_full(search_turn: Search) -> None:
    model = Model(summarising(search_turn, 30))
    events = research(model, "resum", size=2000, budget=Budget(context_tokens=9000))
    restarts = [event for event in events if isinstance(event, ContextRestarted)]
    assert len(restarts) >= 3
    assert end_of(events).answer == "done"
    prompts = [event for event in events if isinstance(event, ModelAnswered)]
    assert max(event.prompt_tokens for event in prompts) <= 9000
    after = model.requests[prompts.index(_next_turn(events, restarts[1]))]
    assert [message.role for message in after.messages] == ["system", "user"]
    assert restarts[1].summary in after.messages[1].content
    assert "What is asked?" in after.messages[1].content
    order = model.requests[prompts.index(_next_turn(events, restarts[1])) - 1]
    assert restarts[0].summary in order.messages[-1].content
    assert "note-" in order.messages[-1].content
    assert (order.sampling.temperature, order.sampling.top_p, order.sampling.presence_penalty) == (
        0.6,
        0.95,
        0.0,
    )


def _next_turn(events: list[Event], restart: Event) -> ModelAnswered:
    return next(event for event in events[restart.number :] if isinstance(event, ModelAnswered))


def test_resum_starts_again_every_k_rounds(search_turn: Search) -> None:
    model = Model(summarising(search_turn, 9))
    events = research(model, "resum", summary_every=3)
    assert [e.step for e in events if isinstance(e, ContextRestarted)] == [4, 7]


@pytest.mark.parametrize("summary", ["", "<summary> </summary>", "no tags", "<summary>torn"])
def test_resum_goes_on_when_the_summary_fails(summary: str, search_turn: Search) -> None:
    def answer(number: int, request: Request) -> str:
        if "inside <summary></summary>" in request.messages[-1].content:
            return summary
        return search_turn(str(number)) if number < 8 else "<answer>done</answer>"

    model = Model(answer)
    events = research(model, "resum", summary_every=3)
    assert not [event for event in events if isinstance(event, ContextRestarted)]
    assert end_of(events).answer == "done"


def test_segments_of_resum_are_cut_at_restarts(search_turn: Search) -> None:
    model = Model(summarising(search_turn, 9))
    events = research(model, "resum", summary_every=3)
    parts = segments(events)
    assert len(parts) == 3
    assert all(
        [m.role for m in part.messages[1:]]
        == ["user", "assistant"] * (len(part.messages) // 2 - 1) + ["user"]
        for part in parts
    )
    turns = [m.content for part in parts for m in part.messages if m.role == "assistant"]
    turns += [part.completion for part in parts]
    written = [e.text for e in events if isinstance(e, ModelAnswered) and e.purpose == "turn"]
    assert sorted(turns) == sorted(written)  # every turn once
    assert parts[-1].completion == "<answer>done</answer>"


def test_a_react_run_is_one_segment(search_turn: Search) -> None:
    model = Model(lambda n, _: search_turn(str(n)) if n < 4 else "<answer>d</answer>")
    (part,) = segments(research(model, "react"))
    assert part.messages == model.requests[-1].messages
    assert part.completion == "<answer>d</answer>"


@pytest.mark.parametrize("mode", ["react", "markov", "resum"])
def test_roles_alternate_in_every_transcript(mode: Any, search_turn: Search) -> None:
    def answer(number: int, request: Request) -> str:
        if "inside <summary></summary>" in request.messages[-1].content:
            return "<summary>S</summary>"
        if number in (3, 4):
            return "nothing to do"
        return turn("long " * 400 if number == 6 else "R", search_turn(str(number)))

    model = Model(answer)
    events = research(
        model,
        mode,
        budget=Budget(model_calls=9),
        report_tokens=100,
        summary_every=3,
    )
    messages = transcript(events)
    roles = [message.role for message in messages]
    assert roles[0] == "system"
    assert roles[1:] == (["user", "assistant"] * len(roles))[: len(roles) - 1]
    assert messages[1].content == "What is asked?"
    written = [
        event.text
        for event in events
        if isinstance(event, ModelAnswered) and event.purpose in ("turn", "forced_answer")
    ]
    shown = "\n".join(message.content for message in messages)
    assert all(text in shown for text in written)
