"""Runs of judges: resumed by content, bounded in what they spend, the same byte by byte."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hanol.engines import Completion, Request, ScriptedEngine
from hanol.errors import DataError, EngineError, RunError
from hanol.evaluation import (
    Item,
    JudgeLimits,
    JudgeRun,
    JudgeSettings,
    Rubric,
    judge,
    read_judgements,
)
from hanol.runs import alone

RUBRIC = Rubric.load("diting")
ITEMS = [
    Item(id=str(n), task="idiom", source="马马虎虎", candidate=f"So so {n}.", system=f"m{n % 3}")
    for n in range(12)
]


class Judges(ScriptedEngine):
    """Scores that follow from what is asked; counts its calls, and fails for some items."""

    def __init__(self, fails: Callable[[str], bool] = lambda _: False, **options: object) -> None:
        self.calls = 0
        self._fails = fails
        super().__init__(self._reply, **options)

    def _reply(self, request: Request) -> str:
        self.calls += 1
        task = request.messages[1].text
        if self._fails(task):
            raise EngineError("500 for this item")
        draw = random.Random("".join(message.text for message in request.messages))
        verdict = {"judge": draw.choice(["yes", "no", "no"])} if '"judge"' in task else {}
        return json.dumps({**verdict, **{name: draw.randrange(3) for name in RUBRIC.ids}})


def rows(run: Path) -> list[bytes]:
    return sorted((run / "judgements.jsonl").read_bytes().splitlines())


def test_a_second_run_makes_no_call(tmp_path: Path) -> None:
    engine = Judges()
    first = judge(ITEMS, RUBRIC, engine, run=tmp_path / "run")
    assert engine.calls == sum(one.calls for one in first) > 36
    again = judge(ITEMS[::-1], RUBRIC, engine, run=tmp_path / "run")
    assert engine.calls == sum(one.calls for one in first)
    assert [one.to_dict() for one in again[::-1]] == [one.to_dict() for one in first]
    assert [one.id for one in again] == [item.id for item in ITEMS[::-1]]


def test_equal_runs_are_equal_byte_by_byte(tmp_path: Path) -> None:
    for name in "ab":
        judge(ITEMS, RUBRIC, Judges(), run=tmp_path / name, concurrency=4)
    assert (tmp_path / "a/judgements.jsonl").read_bytes() == (
        tmp_path / "b/judgements.jsonl"
    ).read_bytes()
    judge(ITEMS, RUBRIC, Judges(latency=0.001), run=tmp_path / "c", concurrency=1)
    assert rows(tmp_path / "c") == rows(tmp_path / "a")


def test_other_content_is_judged_anew(tmp_path: Path) -> None:
    run, engine = tmp_path / "run", Judges()
    judge(ITEMS[:2], RUBRIC, engine, run=run, protocol="single")
    assert engine.calls == 2
    other = ITEMS[1].model_copy(update={"candidate": "Another."})
    judge([ITEMS[0], other], RUBRIC, engine, run=run, protocol="single")
    assert engine.calls == 3
    judge(ITEMS[:1], RUBRIC, engine, run=run, protocol="single", seed=1)
    judge(ITEMS[:1], RUBRIC, engine, run=run, protocol="single", repeat=2)
    assert engine.calls == 5  # the first of the two is known
    changed = Rubric(**RUBRIC.model_dump() | {"notes": ("Be kind.",)})
    judge(ITEMS[:1], changed, engine, run=run, protocol="single")
    judge(ITEMS[:1], RUBRIC, Judges(name="another"), run=run, protocol="single")
    assert len(read_judgements(run)) == 7


def test_calls_of_an_unfinished_item_are_not_made_again(tmp_path: Path) -> None:
    whole, part = Judges(), Judges()
    expected = judge(ITEMS, RUBRIC, whole, run=tmp_path / "whole", concurrency=3)
    found = judge(ITEMS, RUBRIC, part, run=tmp_path / "run", concurrency=3, max_calls=20)
    assert part.calls == 20
    stopped = [one for one in found if one.status == "unscored"]
    assert stopped
    assert all(one.problem == "stopped at the limit of 20 calls" for one in stopped)
    log = tmp_path / "run/calls.jsonl"
    log.write_bytes(log.read_bytes() + b'{"call": "torn')
    with (tmp_path / "run/judgements.jsonl").open("ab") as file:
        file.write(b'{"schema": 1, "torn')
    again = judge(ITEMS[::-1], RUBRIC, part, run=tmp_path / "run", concurrency=3)
    assert part.calls == whole.calls
    assert [one.to_dict() for one in again[::-1]] == [one.to_dict() for one in expected]
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_runs import ITEMS, RUBRIC, Judges, judge
judge(ITEMS, RUBRIC, Judges(latency=0.02), run={run!r}, concurrency=3)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    run = tmp_path / "run"
    whole = Judges()
    judge(ITEMS, RUBRIC, whole, run=tmp_path / "whole")
    code = SCRIPT.format(tests=str(Path(__file__).parent), run=str(run))
    process = subprocess.Popen([sys.executable, "-c", code])
    log = run / "calls.jsonl"
    while process.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < 15):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = log.read_bytes().count(b"\n")
    engine = Judges()
    judge(ITEMS, RUBRIC, engine, run=run)
    assert engine.calls == whole.calls - kept
    assert rows(run) == rows(tmp_path / "whole")


def test_one_item_that_always_fails_is_the_only_one_unscored(tmp_path: Path) -> None:
    engine = Judges(fails=lambda task: "So so 5." in task)
    found = judge(ITEMS, RUBRIC, engine, run=tmp_path)
    assert [one.id for one in found if one.status == "unscored"] == ["5"]
    assert "500 for this item" in found[5].problem
    assert found[5].scores is None
    # Whoever did not answer is asked again; what is scored by then counts.
    healed = judge(ITEMS, RUBRIC, Judges(), run=tmp_path)
    assert healed[5].scores is not None
    assert [one.status for one in read_judgements(tmp_path)].count("unscored") == 0


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_calls": 7}, "7 calls"),
        ({"max_tokens_total": 3000}, "3000 tokens"),
        ({"max_cost": 0.002, "prompt_price": 1.0}, "0.002 for the cost"),
    ],
)
def test_limits_stop_with_what_is_there(limits: dict, reason: str) -> None:
    engine = Judges()
    run = JudgeRun(RUBRIC, engine, settings=JudgeSettings(protocol="single"),
                   limits=JudgeLimits(concurrency=1, **limits))  # fmt: skip
    found = []
    asyncio.run(run.judge(ITEMS, found.append))
    assert len(found) == len(ITEMS)
    assert 0 < sum(one.status == "ok" for one in found) == engine.calls < len(ITEMS)
    assert all(reason in one.problem for one in found if one.status == "unscored")
    assert run.spent.model_calls == engine.calls
    assert run.spent.prompt_tokens > 0


def test_an_estimate_calls_nothing(tmp_path: Path) -> None:
    engine = Judges()
    run = JudgeRun(RUBRIC, engine, run=tmp_path)
    plan = run.estimate(ITEMS)
    assert (plan.items, plan.done, plan.calls) == (12, 0, (36, 144))
    judge(ITEMS, RUBRIC, engine, run=tmp_path)
    calls = engine.calls
    assert plan.calls[0] <= calls <= plan.calls[1]
    assert run.estimate(ITEMS).done == 12
    assert run.estimate(ITEMS).calls == (0, 0)
    assert engine.calls == calls


def test_repeats_are_separate_judgements() -> None:
    found = judge(ITEMS[:2], RUBRIC, Judges(), repeat=3, protocol="single", temperature=1.0)
    assert [(one.id, one.repeat) for one in found] == [(i, r) for i in "01" for r in range(3)]
    assert len({one.key for one in found}) == 6


def test_calls_are_bounded_and_items_are_not_held_up() -> None:
    class Counting(Judges):
        running = most = 0

        async def complete(self, request: Request) -> Completion:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                return await super().complete(request)
            finally:
                self.running -= 1

    engine = Counting(latency=0.005)
    judge(ITEMS, RUBRIC, engine, concurrency=5)
    assert engine.most == 5


def test_one_process_writes_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    hold = "print(1, flush=True); time.sleep(60)"
    code = f"import time\nfrom hanol.runs import alone\nwith alone({str(run)!r}):\n {hold}"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline()
        with pytest.raises(RunError, match="Another process is writing"):
            judge(ITEMS, RUBRIC, Judges(), run=run)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with alone(run):
        judge(ITEMS[:1], RUBRIC, Judges(), run=run)


def test_damaged_judgements_name_their_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There are no judgements"):
        read_judgements(tmp_path)
    (tmp_path / "judgements.jsonl").write_text('{"schema": 9}\n')
    with pytest.raises(DataError, match=r"line 1: A judgement has the schema 9"):
        read_judgements(tmp_path)
