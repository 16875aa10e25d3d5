"""Heavy mode: rollouts, their reports with common source numbers, one answer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hanol.engines import Completion, Request, ScriptedEngine, Usage
from hanol.errors import EngineError, RunError
from hanol.research import Researcher, heavy_research, replay, resume, synthesize
from hanol.research._run_log import call_uncertainty  # private: a formula, checked by hand
from hanol.research.modes._heavy import uncertain_steps  # private: its order, ties included
from hanol.runs import Budget, Event, ModelAnswered, RunEnded, RunFolder, RunStarted, ToolReturned
from hanol.tools import SEARCH, Observation, ToolContext

Search = Callable[..., str]
SYNTHESIS = "Several assistants worked"


class Notes:
    """A search that finds one passage for each query, numbered by the run's list of sources."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        texts, sources = [], []
        for query in arguments["query"]:
            source = context.sources.cite(
                f"fact about {query}", address=f"doc://{query}", title=query, sha256="0"
            )
            sources.append(source)
            texts.append(f"[{source.number}] {source.text}")
        return Observation("\n".join(texts), tuple(sources))


class Model:
    """Each rollout searches for its own word first, then for one that all share."""

    def __init__(self, answers: Mapping[int, str] | None = None, choice: str | None = None) -> None:
        self.requests: list[Request] = []
        self.engine = ScriptedEngine(self._write)
        self._answers = answers or {}
        self._choice = choice

    def _write(self, request: Request) -> str:
        self.requests.append(request)
        last = request.messages[-1].content
        if SYNTHESIS in last:
            return self._choice or "<think>2 is sound</think><answer>two [2]</answer>"
        if "Write a report on how" in last:
            return "<report>condensed [1]</report>"
        rollout, turn = divmod(request.sampling.seed or 0, 10_000)
        if turn >= 2:
            answer = self._answers.get(rollout, f"answer {rollout} [1][2]")
            return f"<report>report {rollout}: [1], [2], [9]</report><answer>{answer}</answer>"
        query = f"own{rollout}" if turn == 0 else "shared"
        return (
            f"<report>r</report><tool_call>\n"
            f'{{"name": "search", "arguments": {{"query": ["{query}"]}}}}\n</tool_call>'
        )


def heavy(model: Model, **options: Any) -> list[Event]:
    options = {"tools": [Notes()], **options}
    return list(heavy_research(None, model.engine, "What?", **options))


def end_of(events: list[Event]) -> RunEnded:
    assert isinstance(events[-1], RunEnded)
    return events[-1]


def rollouts(events: list[Event]) -> list[ToolReturned]:
    return [event for event in events if isinstance(event, ToolReturned)]


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_n_rollouts_with_their_own_seeds_and_one_synthesis(n: int, tmp_path: Path) -> None:
    model = Model()
    events = heavy(model, n=n, run_folder=tmp_path)
    folders = sorted(path.name for path in (tmp_path / "rollouts").iterdir())
    assert folders == [f"{number:02d}" for number in range(1, n + 1)]
    starts = [RunFolder(tmp_path / "rollouts" / name).started() for name in folders]
    assert len({start.settings["seed"] for start in starts}) == n
    assert len({request.sampling.seed for request in model.requests[:-1]}) == 3 * n
    assert [request for request in model.requests if SYNTHESIS in request.messages[-1].content] == [
        model.requests[-1]
    ]
    assert end_of(events).answer == "two [2]"
    assert end_of(events).model_calls == 3 * n + 1
    assert end_of(events).tool_calls == 2 * n + n  # the rollouts count as calls of the synthesis
    assert list(replay(tmp_path)) == events


def test_sources_have_common_numbers_and_invented_ones_none(tmp_path: Path) -> None:
    model = Model()
    events = heavy(model, n=2, run_folder=tmp_path)
    first, second = rollouts(events)
    assert first.text == "report 1: [1], [2], [?]"
    assert second.text == "report 2: [3], [2], [?]"
    assert [s.text for s in first.sources] == ["fact about own1", "fact about shared"]
    assert [s.number for s in second.sources] == [3, 2]
    assert second.arguments["answer"] == "answer 2 [3][2]"
    prompt = model.requests[-1].messages[-1].content
    for report in (first, second):
        assert report.text in prompt
        assert report.arguments["answer"] in prompt
    assert end_of(events).citations is not None


def test_modes_without_report_are_condensed(tmp_path: Path) -> None:
    model = Model()
    events = heavy(model, n=3, mode="react", run_folder=tmp_path)
    # [2] is the page that all rollouts found.
    assert [event.text for event in rollouts(events)] == [
        "condensed [1]",
        "condensed [3]",
        "condensed [4]",
    ]
    purposes = [event.purpose for event in events if isinstance(event, ModelAnswered)]
    assert purposes == ["condense"] * 3 + ["synthesis"]
    assert list(replay(tmp_path)) == events
    condense = next(r for r in model.requests if "Write a report on how" in str(r.messages))
    assert "fact about own" in condense.messages[-1].content


def test_a_synthesis_that_does_not_choose_takes_what_most_found() -> None:
    answers = {1: "Seoul", 2: "Busan", 3: "Busan"}
    events = heavy(Model(answers, choice="<tool_call>nonsense"), n=3)
    assert (end_of(events).answer, end_of(events).termination) == ("Busan", "answer")


def test_no_rollouts_or_an_unknown_sampling_are_refused() -> None:
    for n in (0, -1):
        with pytest.raises(RunError, match=rf"`n` is {n}"):
            heavy(Model(), n=n)
    with pytest.raises(RunError, match="`sampling` is 'best'"):
        heavy(Model(), sampling="best")


def test_rollouts_report_their_events_as_they_happen() -> None:
    seen: list[tuple[int, str]] = []
    heavy(Model(), n=2, on_rollout=lambda number, event: seen.append((number, event.type)))
    for number in (1, 2):
        own = [kind for rollout, kind in seen if rollout == number]
        assert own[0] == "run_started"
        assert own[-1] == "run_ended"


def test_a_failed_engine_leaves_finished_rollouts_finished(tmp_path: Path) -> None:
    class Down(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            if (request.sampling.seed or 0) // 10_000 == 2:
                raise EngineError("out of memory")
            return await super().complete(request)

    model = Model()
    with pytest.raises(EngineError, match="out of memory"):
        list(
            heavy_research(
                None, Down(model._write), "What?", n=2, tools=[Notes()], run_folder=tmp_path
            )
        )
    again = Model()
    events = list(resume(tmp_path, again.engine, None, tools=[Notes()]))
    assert end_of(events).answer == "two [2]"
    assert {(request.sampling.seed or 0) // 10_000 for request in again.requests[:-1]} == {2}


def test_partial_rollouts_branch_where_the_model_was_unsure(tmp_path: Path) -> None:
    class Unsure(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            answer = await super().complete(request)
            if request.top_logprobs is None:
                return answer
            surprise = [1.0, 3.0, 2.0][min((request.sampling.seed or 0) % 10_000, 2)]
            return Completion.of(
                answer.text, usage=Usage(1, 1), tokens=(answer.text,), logprobs=(-surprise,)
            )

    def run(model: Model) -> list[Event]:
        model.engine = Unsure(model._write)
        return heavy(model, n=8, sampling="partial", run_folder=tmp_path)

    events = run(Model())
    starts = [RunFolder(path).started() for path in sorted((tmp_path / "rollouts").iterdir())]
    parents = [start.parent and start.parent.partition("@")[2] for start in starts]
    # 1 + 2 * 3 * 1, and the rest from the start (ParallelMuse). The answer calls no tool.
    assert parents == [None, "2", "2", "2", "1", "1", "1", None]
    assert len({start.settings["seed"] for start in starts}) == 8
    assert len(rollouts(events)) == 8
    assert list(replay(tmp_path)) == events
    RunFolder(tmp_path).log.unlink()
    again = Model()  # finished rollouts, also those that branched off, are not made again
    assert end_of(run(again)).answer == end_of(events).answer
    assert len(again.requests) == 1


def test_without_logprobs_the_first_rounds_are_branched_from() -> None:
    events = heavy(Model(), n=4, sampling="partial")
    assert len(rollouts(events)) == 4


def test_the_uncertainty_of_a_turn_is_that_of_its_calls() -> None:
    def completion(tokens: list[str], logprobs: list[float]) -> Completion:
        return Completion.of("", usage=Usage(1, 1), tokens=tuple(tokens), logprobs=tuple(logprobs))

    call = ["<tool_call>", "{}", "</tool_call>"]
    assert call_uncertainty(completion(["<think>", "x", *call], [-9, -9, -1, -2, -3])) == 2
    assert call_uncertainty(completion(["<tool_call>?</think>", *call], [-9, -1, -2, -3])) == 2
    assert call_uncertainty(completion(["hm"], [-1])) is None
    assert call_uncertainty(Completion.of("<tool_call>", usage=Usage(1, 1))) is None


def test_the_least_sure_rounds_come_first() -> None:
    def turn(step: int, unsure: float | None) -> ModelAnswered:
        return ModelAnswered(
            number=step,
            time=0,
            step=step,
            purpose="turn",
            request_sha256="",
            text="",
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=1,
            seconds=0,
            uncertainty=unsure,
        )

    assert uncertain_steps([turn(1, 0.5), turn(2, None), turn(3, 2.0), turn(4, 2.0)], 3) == [
        3,
        4,
        1,
    ]


def test_saved_runs_are_synthesised_without_their_documents(
    tmp_path: Path, cities: Any, search_turn: Search
) -> None:
    for number, query in enumerate(["capital", "port"]):
        engine = ScriptedEngine([search_turn(query), f"<answer>answer {number} [1]</answer>"])
        list(Researcher(cities, engine, run_folder=tmp_path / str(number)).ask("Which city?"))
    model = Model()
    events = list(synthesize([tmp_path / "0", tmp_path / "1"], model.engine))
    assert end_of(events).answer == "two [2]"
    assert [event.arguments["answer"] for event in rollouts(events)] == [
        "answer 0 [1]",
        "answer 1 [2]",
    ]
    assert isinstance(events[0], RunStarted)
    assert events[0].index is None
    assert list(replay(events)) == events


def test_a_synthesis_that_broke_off_goes_on_with_the_same_runs(
    tmp_path: Path, cities: Any, search_turn: Search
) -> None:
    engine = ScriptedEngine([search_turn("capital"), "<answer>a [1]</answer>"])
    saved, place = [tmp_path / "saved"], tmp_path / "chosen"
    list(Researcher(cities, engine, run_folder=saved[0]).ask("Which city?"))
    with pytest.raises(EngineError):
        list(synthesize(saved, ScriptedEngine([]), run_folder=place))
    model = Model()
    with pytest.raises(RunError, match="call `synthesize` with these runs"):
        list(resume(place, model.engine, None))
    assert end_of(list(synthesize(saved, model.engine, run_folder=place))).answer is not None


def test_a_synthesis_wants_ended_runs_of_one_question(
    tmp_path: Path, cities: Any, search_turn: Search
) -> None:
    engine = ScriptedEngine([search_turn("capital"), "<answer>a</answer>"])
    for question in ("One?", "Two?"):
        list(Researcher(cities, engine, run_folder=tmp_path / question).ask(question))
    with pytest.raises(RunError, match="2 runs of 2 questions"):
        list(synthesize([tmp_path / "One?", tmp_path / "Two?"], Model().engine))
    with pytest.raises(RunError, match="`runs` is empty"):
        list(synthesize([], Model().engine))
    log = RunFolder(tmp_path / "One?").log
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match="a replay makes no calls"):
        list(synthesize([tmp_path / "One?"], Model().engine))


def test_the_budget_is_each_rollouts() -> None:
    events = heavy(Model(), n=4, budget=Budget(model_calls=1, tool_calls=1))
    assert end_of(events).answer == "two [2]"
    assert [event.arguments["termination"] for event in rollouts(events)] == ["max_calls"] * 4
