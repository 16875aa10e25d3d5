"""Kill -9 and resume, replay without any call, forks, changed configurations."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hanol.engines import Completion, Request, ScriptedEngine
from hanol.errors import RunError
from hanol.research import Researcher, fork, heavy_research, replay, resume, transcript
from hanol.runs import Budget, Event, RunEnded, RunFolder, RunStarted, ToolReturned
from hanol.tools import SEARCH, Observation, ToolContext

Search = Callable[..., str]


class Notes:
    """A tool named search."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        self.calls += arguments["query"]
        return Observation(f"note on {arguments['query'][0]}")


def without_times(events: Sequence[Event]) -> list[dict[str, Any]]:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in ("time", "seconds")}
        return value

    return [strip(event.model_dump()) for event in events]


# Every event of each mode is reached; "before" and "torn" are the same code in all modes.
@pytest.mark.parametrize(
    ("mode", "when"),
    [
        ("react", "after"),
        pytest.param("react", "before", marks=pytest.mark.slow),
        pytest.param("react", "torn", marks=pytest.mark.slow),
        pytest.param("markov", "after", marks=pytest.mark.slow),
        pytest.param("resum", "after", marks=pytest.mark.slow),
        pytest.param("heavy", "after", marks=pytest.mark.slow),
        pytest.param("heavy", "before", marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_event_a_run_goes_on_without_repeating_a_call(
    mode: str, when: str, tmp_path: Path
) -> None:
    driver = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), mode, when],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total = int(done.stdout)
    assert total >= (12 if mode == "heavy" else 28)
    whole, *folders = [tmp_path / "whole", *sorted(tmp_path.glob("[0-9]*"))]
    assert len(folders) == total
    logs = [log.parent.relative_to(whole) for log in sorted(whole.rglob("events.jsonl"))]
    expected = Counter((whole / "calls.txt").read_text().splitlines())
    assert mode == "heavy" or set(expected.values()) == {1}  # rollouts search for the same
    repeated = 0
    for folder in folders:
        for log in logs:
            events = RunFolder(folder / log).events()
            assert without_times(events) == without_times(RunFolder(whole / log).events())
        calls = Counter((folder / "calls.txt").read_text().splitlines())
        assert calls.keys() == expected.keys()
        again = sum(calls.values()) - sum(expected.values())
        # The one call whose event was not written; in heavy mode other rollouts are under way.
        assert again <= (0 if when == "after" and mode != "heavy" else 2 if mode == "heavy" else 1)
        repeated += again
    if when == "before":
        assert repeated > 0  # the kill did come between a call and its event
    for log in logs:
        assert without_times(list(replay(whole / log))) == without_times(
            RunFolder(whole / log).events()
        )


def test_a_replay_makes_no_call_and_gives_the_same_bytes(
    tmp_path: Path, search_turn: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine([search_turn("가"), search_turn("b"), "<answer>답 [1] é</answer>"])
    notes = Notes()
    first = list(Researcher(None, engine, tools=[notes], run_folder=tmp_path).ask("q"))
    log = RunFolder(tmp_path).log.read_bytes()

    def refuse(*_: Any) -> Any:
        raise AssertionError("a replay calls nothing")

    monkeypatch.setattr(ScriptedEngine, "complete", refuse)
    monkeypatch.setattr(ScriptedEngine, "count_tokens", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    again = list(replay(tmp_path))
    assert again == first
    assert again[-1].answer.encode() == first[-1].answer.encode()  # type: ignore[union-attr]
    assert RunFolder(tmp_path).log.read_bytes() == log
    assert notes.calls == ["가", "b"]
    assert list(replay(first)) == first  # from events, without a folder


def test_a_replay_of_an_unfinished_run_says_so(tmp_path: Path, search_turn: Search) -> None:
    _finished(tmp_path, search_turn)
    lines = RunFolder(tmp_path).log.read_bytes().splitlines(keepends=True)
    for length in range(1, len(lines)):
        RunFolder(tmp_path).log.write_bytes(b"".join(lines[:length]))
        with pytest.raises(RunError, match="a replay makes no calls"):
            list(replay(tmp_path))
    RunFolder(tmp_path).log.write_bytes(b"")
    with pytest.raises(RunError, match="no run to replay"):
        list(replay(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"text":"note on a"', '"text":"note on z"'),
        ('{"query":["a"]}', '{"query":["z"]}'),
        ('"answer":"done"', '"answer":"forged"'),
        ("<answer>done</answer>", "<answer>forged</answer>"),
    ],
    ids=["result", "arguments", "answer", "text"],
)
def test_an_edited_log_does_not_replay(
    tmp_path: Path, search_turn: Search, old: str, new: str
) -> None:
    _finished(tmp_path, search_turn)
    log = RunFolder(tmp_path).log
    assert old in log.read_text()
    log.write_text(log.read_text().replace(old, new))
    with pytest.raises(RunError, match="The log does not fit"):
        list(replay(tmp_path))


def test_resume_with_another_model_or_tools_lists_the_differences(
    tmp_path: Path, search_turn: Search
) -> None:
    _finished(tmp_path, search_turn)

    class Other(Notes):
        description = "Another description."

    engine = ScriptedEngine([], name="other", context_window=9000)
    with pytest.raises(RunError) as err:
        list(resume(tmp_path, engine, None, tools=[Other()]))
    assert "`model` (was 'scripted', now 'other')" in str(err.value)
    assert "`settings.context_window` (was None, now 9000)" in str(err.value)
    assert "settings.schemas" in str(err.value)


def test_how_the_model_was_loaded_is_part_of_a_run(tmp_path: Path, search_turn: Search) -> None:
    engine = ScriptedEngine([search_turn("a"), "<answer>b</answer>", "<answer>c</answer>"])
    options: dict[str, Any] = {"tools": [Notes()], "run_folder": tmp_path / "a"}
    list(Researcher(None, engine, **options, loading={"dtype": "bfloat16"}).ask("q"))
    assert RunFolder(tmp_path / "a").started().settings["loading"] == {"dtype": "bfloat16"}
    with pytest.raises(RunError, match=r"`settings.loading` .* has changed"):
        list(Researcher(None, engine, **options).ask("q"))
    assert list(resume(tmp_path / "a", engine, None, tools=[Notes()]))
    other = ScriptedEngine(["", "<answer>c</answer>"], name="other")
    list(fork(tmp_path / "a", 2, tmp_path / "b", other, None, seed=1, tools=[Notes()]))
    assert "loading" not in RunFolder(tmp_path / "b").started().settings


def test_a_finished_run_is_resumed_without_any_call(tmp_path: Path, search_turn: Search) -> None:
    first = _finished(tmp_path, search_turn)
    notes = Notes()
    assert list(resume(tmp_path, ScriptedEngine([]), None, tools=[notes])) == first
    assert notes.calls == []
    with pytest.raises(RunError, match="no run in"):
        list(resume(tmp_path / "nothing", ScriptedEngine([]), None, tools=[]))


@pytest.mark.parametrize("at_step", [1, 2, 3, 4])
def test_a_fork_keeps_the_first_rounds_and_goes_on_differently(
    at_step: int, tmp_path: Path, search_turn: Search
) -> None:
    engine = ScriptedEngine([search_turn(q) for q in "abc"] + ["<answer>done</answer>"])
    old = list(Researcher(None, engine, tools=[Notes()], run_folder=tmp_path / "old").ask("q"))
    asked: list[Request] = []

    def write(request: Request) -> str:
        asked.append(request)
        return search_turn("new") if len(asked) == 1 else "<answer>other</answer>"

    notes = Notes()
    other = ScriptedEngine(write, name="another model")
    new = list(
        fork(tmp_path / "old", at_step, tmp_path / "new", other, None, seed=9, tools=[notes])
    )
    kept = [event for event in old if 0 < getattr(event, "step", 0) < at_step]
    assert new[1 : 1 + len(kept)] == kept
    first = new[0]
    assert isinstance(first, RunStarted)
    assert first.parent == f"{old[0].run_id}@{at_step}"  # type: ignore[union-attr]
    assert first.run_id != old[0].run_id  # type: ignore[union-attr]
    assert notes.calls == ["new"]
    assert len(asked) == 2
    assert "abc"[at_step - 2 : at_step - 1] in asked[0].messages[-1].content
    assert asked[0].sampling.seed == 9 + at_step - 1
    last = new[-1]
    assert isinstance(last, RunEnded)
    assert last.answer == "other"
    assert list(replay(tmp_path / "new")) == new
    assert list(resume(tmp_path / "new", other, None, tools=[notes])) == new


@pytest.mark.parametrize("at_step", [0, 4])
def test_a_fork_from_no_round_or_into_a_run_is_refused(
    at_step: int, tmp_path: Path, search_turn: Search
) -> None:
    _finished(tmp_path / "old", search_turn)
    engine = ScriptedEngine(["<answer>b</answer>"])
    with pytest.raises(RunError, match=rf"`at_step` is {at_step}.*rounds 1 to 3"):
        list(fork(tmp_path / "old", at_step, tmp_path / "new", engine, None, seed=1, tools=[]))
    with pytest.raises(RunError, match="a run in .* already"):
        list(fork(tmp_path / "old", 1, tmp_path / "old", engine, None, seed=1, tools=[]))


def test_a_heavy_run_is_forked_at_its_synthesis_only(tmp_path: Path) -> None:
    engine = ScriptedEngine(["<answer>done</answer>"])
    options: dict[str, Any] = {"n": 2, "tools": [Notes()], "run_folder": tmp_path / "old"}
    old = list(heavy_research(None, engine, "q", mode="react", **options))
    other = ScriptedEngine(["<answer>other</answer>"], name="another model")
    for at_step in (1, 2):
        with pytest.raises(
            RunError, match=rf"`at_step` is {at_step}, .* only at 3, .*old/rollouts"
        ):
            fork(tmp_path / "old", at_step, tmp_path / "new", other, None, seed=9, tools=[Notes()])
    assert not (tmp_path / "new").exists()
    new = list(fork(tmp_path / "old", 3, tmp_path / "new", other, None, seed=9, tools=[Notes()]))
    results = [event for event in old if isinstance(event, ToolReturned)]
    assert [event for event in new if isinstance(event, ToolReturned)] == results
    assert isinstance(new[-1], RunEnded)
    assert new[-1].answer == "other"


def test_the_time_spent_before_a_kill_counts_after_it(tmp_path: Path, search_turn: Search) -> None:
    _finished(tmp_path, search_turn, budget=Budget(seconds=1000))
    log = RunFolder(tmp_path)
    lines = log.log.read_text().splitlines(keepends=True)[:3]
    record = json.loads(lines[2])
    assert record["type"] == "tool_returned"
    lines[2] = json.dumps(record | {"seconds": 950.0}) + "\n"
    log.log.write_text("".join(lines))
    engine = ScriptedEngine([search_turn("a"), "<answer>hurried</answer>"])
    ended = list(resume(tmp_path, engine, None, tools=[Notes()]))[-1]
    assert isinstance(ended, RunEnded)
    assert (ended.termination, ended.answer) == ("max_seconds", "hurried")


def test_a_call_cut_off_by_time_replays(tmp_path: Path, search_turn: Search) -> None:
    class Hanging(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            if "no room left" not in request.messages[-1].content:
                await asyncio.Event().wait()
            return await super().complete(request)

    researcher = Researcher(
        None,
        Hanging(["<answer>a</answer>"]),
        tools=[Notes()],
        budget=Budget(seconds=1),
        run_folder=tmp_path,
    )
    first = list(researcher.ask("q"))
    assert [event.type for event in first] == ["run_started", "model_answered", "run_ended"]
    assert list(replay(tmp_path)) == first
    assert len(transcript(first)) == 3


def test_sources_of_a_call_that_was_cut_off_leave_no_number(
    tmp_path: Path, search_turn: Search
) -> None:
    class Citing(Notes):
        async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
            (query,) = arguments["query"]
            source = context.sources.cite(query, address=f"doc://{query}", title="t", sha256="0")
            if query == "lost":
                raise RunError("no such page")
            return Observation(f"[{source.number}]", sources=(source,))

    engine = ScriptedEngine([search_turn("lost", "kept"), "<answer>a [1]</answer>"])
    events = list(Researcher(None, engine, tools=[Citing()], run_folder=tmp_path).ask("q"))
    results = [event for event in events if isinstance(event, ToolReturned)]
    assert [[s.number for s in result.sources] for result in results] == [[], [1]]
    assert results[1].text == "[1]"
    assert list(replay(tmp_path)) == events


def _finished(folder: Path, search_turn: Search, **options: Any) -> list[Event]:
    engine = ScriptedEngine([search_turn("a"), search_turn("b"), "<answer>done</answer>"])
    return list(Researcher(None, engine, tools=[Notes()], run_folder=folder, **options).ask("q"))
