"""What `hanol train` shows of an agent that learns."""

from types import SimpleNamespace
from typing import Any

import pytest

from hanol.agent_training import StageResult
from hanol.cli.train import TrainingView, short

Capture = pytest.CaptureFixture[str]
SKILLS = ["call format", "query copy", "right page", "extraction", "next hop", "right answer"]
STAGES = [
    SimpleNamespace(kind="sft", name="sft", tokens=1_000_000),
    SimpleNamespace(kind="reject", name="reject", attempts=4),
    SimpleNamespace(kind="grpo", name="hops", steps=40),
    SimpleNamespace(kind="merge", name="merge"),
]


class Watched:
    """A view with a clock that is set, a bar and lines that are read."""

    def __init__(self, *, has_bar: bool) -> None:
        self.now = 0.0
        self.bar: tuple[object, ...] = ()
        recipe: Any = SimpleNamespace(name="agent", stages=STAGES)

        def report(*state: object) -> None:
            self.bar = state

        self.view = TrainingView(recipe, report, has_bar=has_bar, clock=lambda: self.now)

    def step(self, seconds: float, **line: Any) -> None:
        self.now += seconds
        self.view.on_step(line)


def rates(*values: float | None) -> dict[str, float | None]:
    return dict(zip(SKILLS, values, strict=True))


def stage_result(name: str, **facts: Any) -> StageResult:
    found = {"value": 0.925, "low": 0.88, "high": 0.954, "n": 200}
    return StageResult(
        name=name, kind=name, folder=name, start=[], minutes=1.25, facts=facts,
        accuracy={"1": found, "described": found},
    )  # fmt: skip


def test_the_bar_moves_and_each_evaluation_leaves_a_line(capsys: Capture) -> None:
    watched = Watched(has_bar=True)
    assert watched.bar == (0, 1_000_000, "")
    watched.step(0, total=1_000_000)
    watched.step(10, step=10, tokens=40_000, loss=6.5)
    watched.step(10, step=20, tokens=80_000, loss=5.25)
    assert watched.bar == (80_000, 1_000_000, "loss 5.250, 4,000 tokens/s")
    watched.step(30, step=50, tokens=200_000, skills=rates(0.5, 0.25, 0, 0, None, 0))
    watched.step(100, step=100, tokens=400_000, loss=5.0)
    assert watched.bar[2] == "loss 5.000, 4,000 tokens/s", "without the time of the evaluation"
    watched.step(1, judged=30, of=120)
    assert watched.bar == (30, 120, "answering unseen questions")
    watched.view.on_stage(stage_result("sft", tokens=1_000_123, left_out=2))

    watched.step(0, attempts=1, right=1, total=400)
    watched.step(99, attempts=100, right=45, total=400)
    assert watched.bar == (100, 400, "45 right, 1 attempts/s")
    watched.view.on_stage(stage_result("reject"))
    watched.step(9, step=1, reward=0.25, no_answer=0.125, tokens=90.0)
    watched.step(4, step=2, reward=0.5, no_answer=0.125, tokens=80.0)
    assert watched.bar == (2, 40, "reward 0.500, without answer 0.12, 4.0 s a step")
    watched.view.on_stage(stage_result("hops"))
    watched.view.on_stage(stage_result("merge"))
    accuracy = "  1 hop 92.5 % [88.0, 95.4]   described 92.5 % [88.0, 95.4]"
    assert capsys.readouterr().err.splitlines() == [
        "agent: stage 1 of 4, sft",
        "  200 k of 1.0 M tokens, loss 5.250, 4,000 tokens/s: call format 50 %, query copy 25 %, "
        "right page 0 %, extraction 0 %, next hop -, right answer 0 %",
        "sft: 1.2 minutes, tokens 1,000,123, left out 2",
        accuracy,
        "agent: stage 2 of 4, reject",
        "reject: 1.2 minutes",
        accuracy,
        "agent: stage 3 of 4, hops (grpo)",
        "hops: 1.2 minutes",
        accuracy,
        "agent: stage 4 of 4, merge",
        "merge: 1.2 minutes",
        accuracy,
    ]


def test_without_a_bar_lines_are_few_and_plain(capsys: Capture) -> None:
    watched = Watched(has_bar=False)
    for step in range(1, 61):
        watched.step(2, step=10 * step, tokens=10_000 * step, loss=1.0)
    watched.step(1, step=600, tokens=600_000, skills=rates(1, 1, 0.5, 0, None, 0.1))
    watched.step(0, step=600, tokens=600_000, skills=rates(1, 1, 0.5, 0, None, 0.1))
    watched.step(1, step=605, tokens=605_000, skills=rates(1, 0.9, 0.75, 0, 0.5, 0.1))
    watched.step(1, step=610, tokens=610_000, loss=0.5)
    for judged in range(1, 101):
        watched.step(1, judged=judged, of=100)
    watched.view.on_stage(stage_result("sft"))
    assert capsys.readouterr().err.splitlines() == [
        "agent: stage 1 of 4, sft",
        "  300 k of 1.0 M tokens, loss 1.000, 5,000 tokens/s, 2 min left",
        "  600 k of 1.0 M tokens, loss 1.000, 5,000 tokens/s, 1 min left",
        "  600 k of 1.0 M tokens, loss 1.000, 5,000 tokens/s: call format 100 %, "
        "query copy 100 %, right page 50 %, extraction 0 %, next hop -, right answer 10 %",
        "  605 k of 1.0 M tokens, loss 1.000, 5,000 tokens/s: call format 100 % (+0), "
        "query copy 90 % (-10), right page 75 % (+25), extraction 0 % (+0), next hop 50 %, "
        "right answer 10 % (+0)",
        "  answering unseen questions: 59 of 100",
        "sft: 1.2 minutes",
        "  1 hop 92.5 % [88.0, 95.4]   described 92.5 % [88.0, 95.4]",
        "agent: stage 2 of 4, reject",
    ]


def test_counts_in_few_letters() -> None:
    assert [short(n) for n in (0, 9_999, 10_000, 999_499, 1_000_000, 6_049_000)] == [
        "0", "9,999", "10 k", "999 k", "1.0 M", "6.0 M"
    ]  # fmt: skip
