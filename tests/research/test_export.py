"""Runs as lines of the official output format."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hanol.engines import ScriptedEngine
from hanol.errors import RunError
from hanol.research import (
    OfficialRun,
    Researcher,
    official_run,
    read_official_runs,
    write_official_runs,
)
from hanol.research._official import TERMINATIONS  # private: the official words for how runs end
from hanol.runs import Budget
from hanol.tools import Observation

CALL = (
    '<think>Look.</think>\n<tool_call>{"name": "search", "arguments": {"query": ["a"]}}</tool_call>'
)
REPORTED = CALL.replace("<tool_call>", "<report>Nothing yet.</report>\n<tool_call>")
OFFICIAL = {
    "answer",
    "answer not found",
    "exceed available llm calls",
    "No answer found after 2h30mins",
    "generate an answer as token limit reached",
    "format error: generate an answer as token limit reached",
}


class Search:
    name = "search"
    description = "Searches."
    parameters = {
        "type": "object",
        "properties": {"query": {"type": "array", "items": {"type": "string"}}},
        "required": ["query"],
    }

    async def run(self, arguments: Any, context: Any) -> Observation:
        source = context.sources.cite("The bridge is red.", address="a", title="t", sha256="0")
        return Observation(f"[{source.number}] The bridge is red. </tool_response>", (source,))


def run(turns: list[str], **options: Any) -> list[Any]:
    engine = ScriptedEngine(lambda request: turns.pop(0))
    return list(Researcher(None, engine, tools=[Search()], **options).ask("Which colour?"))


@pytest.mark.parametrize("mode", ["react", "markov", "resum"])
@pytest.mark.parametrize(
    "turns",
    [
        [CALL, CALL, "<answer>Red [1].</answer>"],
        [CALL + CALL, "no action", "", CALL, "<answer>Red [1].</answer>"],
        ["nonsense", "nonsense", "nonsense", "nonsense"],
    ],
    ids=["plain", "refused", "never"],
)
def test_roles_alternate_after_the_system_prompt(mode: Any, turns: list[str]) -> None:
    line = official_run(run(list(turns), mode=mode), "red")
    roles = [message.role for message in line.messages]
    assert roles[0] == "system"
    assert roles[1:] == ["user", "assistant"] * (len(roles[1:]) // 2)
    assert line.termination in OFFICIAL
    assert line.answer == "red"


def test_a_line_is_read_back_as_it_was(tmp_path: Path) -> None:
    lines = [official_run(run([CALL, "<answer>Red 한글 [1].</answer>"]), "red")]
    lines.append(official_run(run([CALL] * 9, budget=Budget(model_calls=2)), "red"))
    write_official_runs(tmp_path / "iter1.jsonl", lines)
    assert read_official_runs(tmp_path / "iter1.jsonl") == lines
    assert lines[0].prediction == "Red 한글 [1]."
    assert lines[1].termination == "exceed available llm calls"
    raw = json.loads((tmp_path / "iter1.jsonl").read_text("utf-8").splitlines()[0])
    assert list(raw) == ["question", "answer", "messages", "prediction", "termination"]


def test_every_way_to_end_has_an_official_name() -> None:
    from typing import get_args

    from hanol.runs import Termination

    assert set(TERMINATIONS) == set(get_args(Termination))
    assert set(TERMINATIONS.values()) == OFFICIAL


def test_a_run_that_has_not_ended_is_not_exported() -> None:
    with pytest.raises(RunError, match="has not ended"):
        official_run(run([CALL, "<answer>Red.</answer>"])[:-1])
    with pytest.raises(RunError, match="has not ended"):
        official_run([])


def test_exporting_works_inside_a_loop() -> None:
    async def inside() -> OfficialRun:
        return official_run(run([CALL, "<answer>Red [1].</answer>"]))

    assert asyncio.run(inside()).prediction == "Red [1]."
