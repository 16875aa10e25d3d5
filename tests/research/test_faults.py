"""What goes wrong outside of a run does not end it: tools that raise, logs that were damaged."""

import asyncio
import errno
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hanol.engines import Completion, Message, Request, Sampling, ScriptedEngine
from hanol.errors import HanolError, WriteError
from hanol.research import Researcher, fork, heavy_research, replay, resume, write_report
from hanol.retrieval import Index
from hanol.runs import Budget, ModelAnswered, RunEnded, RunFolder, ToolReturned
from hanol.tools import SEARCH, Observation, ToolContext, local_tools

Search = Callable[..., str]


class Raising:
    """A search that raises what it is given."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, error: BaseException | None = None, result: Any = None) -> None:
        self.error, self.result = error, result
        self.calls = 0

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("tool", "why"),
    [
        (Raising(OSError(36, "File name too long", "x" * 5000)), "OSError: [Errno 36]"),
        (Raising(RuntimeError("Symlink loop")), "RuntimeError: Symlink loop"),
        (Raising(UnicodeError("label empty")), "UnicodeError: label empty"),
        (Raising(RecursionError()), "RecursionError: "),
        (Raising(MemoryError()), "MemoryError: "),
        (Raising(TimeoutError("its own")), "TimeoutError: its own"),
        (Raising(asyncio.CancelledError()), "CancelledError: "),
        (Raising(result="no observation"), "Error: "),
        (Raising(result=Observation(None)), "Error: "),  # type: ignore[arg-type]
    ],
    ids=lambda value: repr(getattr(value, "error", value))[:30],
)
def test_whatever_a_tool_raises_is_a_failed_observation(
    tool: Raising, why: str, tmp_path: Path, search_turn: Search
) -> None:
    engine = ScriptedEngine([search_turn("a"), "<answer>done</answer>"])
    events = list(Researcher(None, engine, tools=[tool], run_folder=tmp_path).ask("q"))
    [result] = [event for event in events if isinstance(event, ToolReturned)]
    assert result.failed
    assert result.text.startswith("search failed: ")
    assert why in result.text
    assert len(result.text) < 400
    assert isinstance(events[-1], RunEnded)
    assert events[-1].answer == "done"
    assert list(replay(tmp_path)) == events
    assert list(resume(tmp_path, engine, None, tools=[tool])) == events
    assert tool.calls == 1


def test_names_that_no_system_takes_are_failed_observations(tmp_path: Path) -> None:
    loop = tmp_path / "loop.md"
    loop.symlink_to("loop.md")
    (tmp_path / "a.md").write_text("needle")
    with Index.open(tmp_path) as index:
        loop.unlink()
        index.add()
        loop.symlink_to("loop.md")
        names = ["x" * 300, "y/" * 3000, "loop.md", "a\0b", "\ud800", "a.md/b", "~", "doc://", ""]
        calls = [{"name": "parse_file", "arguments": {"files": [name]}} for name in names]
        turns = [f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls]
        engine = ScriptedEngine([*turns, "<answer>done</answer>"])
        events = list(Researcher(index, engine, tools=local_tools(index)).ask("q"))
        results = [event for event in events if isinstance(event, ToolReturned)]
        assert len(results) >= len(names) - 2  # a name of nothing may be refused before
        assert all(result.failed for result in results)
        assert str(tmp_path) not in " ".join(result.text for result in results)
        assert "File name too long" in results[0].text
        both = ScriptedEngine([turns[0].replace("[", '["a.md", '), "<answer>done</answer>"])
        [result] = [
            event
            for event in Researcher(index, both, tools=local_tools(index)).ask("q")
            if isinstance(event, ToolReturned)
        ]
        assert "needle" in result.text  # the others of the call are read


def test_a_full_disk_is_one_line_and_the_run_goes_on_with_room(
    tmp_path: Path, search_turn: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [search_turn("a"), "<answer>done</answer>"]
    tool = Raising(result=Observation("found"))
    write, sizes = os.write, []

    def full(descriptor: int, data: bytes) -> int:
        if not os.readlink(f"/proc/self/fd/{descriptor}").endswith("events.jsonl"):
            return write(descriptor, data)
        sizes.append(len(data))
        if len(sizes) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data if len(sizes) < 3 else data[:40])  # half an event fits

    monkeypatch.setattr(os, "write", full)
    asked = Researcher(None, ScriptedEngine(turns), tools=[tool], run_folder=tmp_path)
    with pytest.raises(WriteError, match=r"events\.jsonl' could not be written: the disk is full"):
        list(asked.ask("q"))
    monkeypatch.undo()
    assert RunFolder(tmp_path).log.read_bytes().endswith(b"}\n")
    assert len(RunFolder(tmp_path).events()) == 2
    events = list(resume(tmp_path, ScriptedEngine(turns), None, tools=[tool]))
    assert isinstance(events[-1], RunEnded)
    assert events[-1].answer == "done"


class Slow(ScriptedEngine):
    """Searches for ever; what takes time is not its calls but the counting of tokens."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        time.sleep(0.05)
        return super().count_tokens(messages)


@pytest.mark.parametrize("heavy", [False, True])
def test_time_between_calls_counts(tmp_path: Path, search_turn: Search, heavy: bool) -> None:
    asked = iter(range(10_000))

    def answer(request: Request) -> str:
        if "no room left" in request.messages[-1].content:
            return "<answer>late</answer>"
        return search_turn(f"topic {next(asked)}")

    options: dict[str, Any] = {
        "tools": [Raising(result=Observation("found"))],
        "budget": Budget(seconds=3),
        "run_folder": tmp_path,
        "mode": "react",
    }
    start = time.monotonic()
    if heavy:
        events = list(heavy_research(None, Slow(answer), "q", n=2, **options))
    else:
        events = list(Researcher(None, Slow(answer), **options).ask("q"))
        assert events[-1].termination == "max_seconds"  # type: ignore[union-attr]
    assert time.monotonic() - start < 5
    assert list(replay(tmp_path)) == events


def test_an_answer_longer_than_was_asked_for_is_cut(tmp_path: Path) -> None:
    """Not every server honours limits, and reading megabytes takes longer than a budget."""

    class Endless(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            return Completion.of("<answer>" + "word [1]. " * 1_000_000)

    engine = Endless([])
    sampling = Sampling(max_tokens=100)
    asked = Researcher(None, engine, tools=[Raising()], run_folder=tmp_path, sampling=sampling)
    events = list(asked.ask("q"))
    assert isinstance(events[1], ModelAnswered)
    assert len(events[1].text) == 1600
    assert list(replay(tmp_path)) == events


VALUES: list[Any] = [None, -1, "x", [], {"a": 1}, 10**30, float("nan")]


def _places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in items:
        found.append((*before, key))
        if isinstance(inner, dict | list):
            found += _places(inner, (*before, key))
    return found


def _refusal(number: int, run: Path, new: Path, turns: list[str]) -> str | None:
    """Why one of the uses of a log refuses it."""
    engine, tools = ScriptedEngine(turns), [Raising(result=Observation("found"))]
    try:
        match number:
            case 0:
                list(replay(run))
            case 1:
                write_report(run)
            case 2:
                list(resume(run, engine, None, tools=tools))
            case _:
                list(fork(run, 1, new, engine, None, seed=1, tools=tools))
    except HanolError as err:
        return str(err)
    return None


def test_a_damaged_log_is_used_or_refused_in_one_line(tmp_path: Path, search_turn: Search) -> None:
    """Each value of the first and the last event is replaced or missing in turn."""
    turns = [search_turn("a"), "<answer>done [1]</answer>"]
    tool = Raising(result=Observation("found"))
    folder = RunFolder(tmp_path / "run")
    list(Researcher(None, ScriptedEngine(turns), tools=[tool], run_folder=folder.path).ask("q"))
    lines = folder.log.read_text().splitlines()
    refused = tried = 0
    for line in (0, -1):
        for place in _places(json.loads(lines[line])):
            event = json.loads(lines[line])
            inner = event
            for key in place[:-1]:
                inner = inner[key]
            tried += 1
            if tried % (len(VALUES) + 1) == 0:
                del inner[place[-1]]
            else:
                inner[place[-1]] = VALUES[tried % len(VALUES)]
            changed = [*lines]
            changed[line] = json.dumps(event)
            text = "".join(f"{line}\n" for line in changed)
            for number in range(4):
                folder.log.write_text(text)
                error = _refusal(number, folder.path, tmp_path / str(tried), turns)
                assert error is None or "\n" not in error, (place, error)
                refused += error is not None
    assert tried > 80
    assert refused > 60
