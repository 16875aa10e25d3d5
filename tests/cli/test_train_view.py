"""What `hanol train` shows of an agent that learns."""

import io
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from hanol.agent_training import StageResult
from hanol.cli.train._stage import percent, short, trend
from hanol.cli.train._view import TrainingView

SKILLS = ["call format", "query copy", "right page", "extraction", "next hop", "right answer"]
STAGES = [
    SimpleNamespace(kind="sft", name="sft", tokens=1_000_000),
    SimpleNamespace(kind="reject", name="reject", attempts=4),
    SimpleNamespace(kind="grpo", name="hops", steps=40),
    SimpleNamespace(kind="merge", name="merge"),
]


class Watched:
    """A view with a clock that is set and a screen that is read."""

    def __init__(self, *, terminal: bool, width: int = 90) -> None:
        self.now = 0.0
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=terminal, force_interactive=terminal, width=width,
            color_system=None, legacy_windows=False, _environ={},
        )  # fmt: skip
        recipe: Any = SimpleNamespace(name="agent", stages=STAGES)
        self.view = TrainingView(recipe, self.console, lambda: self.now)

    def step(self, seconds: float, **line: Any) -> None:
        self.now += seconds
        self.view.on_step(line)

    def screen(self) -> str:
        with self.console.capture() as captured:
            self.console.print(self.view._render())
        return captured.get()


def rates(*values: float | None) -> dict[str, float | None]:
    return dict(zip(SKILLS, values, strict=True))


def stage_result(name: str, **facts: Any) -> StageResult:
    found = {"value": 0.925, "low": 0.88, "high": 0.954, "n": 200}
    return StageResult(
        name=name, kind=name, folder=name, start=[], minutes=1.25, facts=facts,
        accuracy={"1": found, "2 described": found},
    )  # fmt: skip


def train_a_little(watched: Watched) -> None:
    watched.step(0, total=1_000_000)
    watched.step(10, step=10, tokens=40_000, loss=6.5)
    watched.step(10, step=20, tokens=80_000, loss=5.25)
    watched.step(30, step=50, tokens=200_000, skills=rates(0.5, 0.25, 0, 0, None, 0))
    watched.step(100, step=100, tokens=400_000, skills=rates(1, 1, 0.5, 0, 0, 0.1))


def test_the_terminal_shows_progress_loss_and_every_skill() -> None:
    watched = Watched(terminal=True)
    with watched.view:
        assert "stage 1 of 4, sft" in watched.screen()
        assert "making the data" in watched.screen()
        train_a_little(watched)
        screen = watched.screen()
    assert "400 k of 1.0 M tokens" in screen
    # 400,000 tokens took 150 seconds, evaluations and all: 600,000 are left.
    assert "3:45 left" in screen
    assert "loss 5.250" in screen
    assert "4,000 tokens/s" in screen, "without the time of the evaluations"
    lines = {line[:13].strip(): line for line in screen.splitlines()}
    assert lines["skill"].split() == ["skill", "200", "k", "400", "k"]
    assert "▅█" in lines["call format"]
    assert "50 %  100 %" in lines["call format"]
    assert "▁▅" in lines["right page"]
    assert "-    0 %" in lines["next hop"]
    order = [name for name in lines if name in SKILLS]
    assert order == SKILLS


def test_every_stage_leaves_its_accuracy_and_counts_its_own() -> None:
    watched = Watched(terminal=True)
    with watched.view as view:
        train_a_little(watched)
        watched.step(1, judged=30, of=120)
        assert "30 of 120  answering unseen questions" in watched.screen()
        view.on_stage(stage_result("sft", tokens=1_000_123, left_out=2))
        shown = watched.file.getvalue()
        assert "sft: 1.2 minutes, tokens 1,000,123, left out 2" in shown
        assert "1 hop 92.5 % [88.0, 95.4]   2 hops described 92.5 % [88.0, 95.4]" in shown
        assert "right answer" in shown, "the last table stays"

        watched.step(0, attempts=1, right=1, total=400)
        watched.step(99, attempts=100, right=45, total=400)
        assert "100 of 400 attempts  5:00 left" in watched.screen()
        assert "45 right" in watched.screen()
        view.on_stage(stage_result("reject"))

        assert "stage 3 of 4, hops (grpo)" in watched.screen()
        watched.step(9, step=1, reward=0.25, no_answer=0.125, tokens=90.0)
        watched.step(4, step=2, reward=0.5, no_answer=0.125, tokens=80.0)
        assert "2 of 40 steps  2:32 left" in watched.screen()
        assert "reward 0.500   without answer 0.12   4.0 s a step" in watched.screen()
        view.on_stage(stage_result("hops"))
        assert "averaging" in watched.screen()
        view.on_stage(stage_result("merge"))
        assert "stage" not in watched.screen()


def test_without_a_terminal_lines_are_few_and_plain() -> None:
    watched = Watched(terminal=False)
    with watched.view as view:
        for step in range(1, 61):
            watched.step(2, step=10 * step, tokens=10_000 * step, loss=1.0)
        watched.step(1, step=600, tokens=600_000, skills=rates(1, 1, 0.5, 0, None, 0.1))
        watched.step(1, step=610, tokens=610_000, loss=0.5)
        for judged in range(1, 101):
            watched.step(1, judged=judged, of=100)
        view.on_stage(stage_result("sft"))
    lines = watched.file.getvalue().splitlines()
    assert "\x1b" not in watched.file.getvalue()
    assert lines == [
        "agent: stage 1 of 4, sft",
        "  300 k of 1.0 M tokens, loss 1.000, 5,000 tokens/s",
        "  600 k of 1.0 M tokens, loss 1.000, 5,000 tokens/s",
        "  600 k of 1.0 M tokens, loss 1.000, 5,000 tokens/s: call format 100 %, "
        "query copy 100 %, right page 50 %, extraction 0 %, next hop -, right answer 10 %",
        "  answering unseen questions: 59 of 100",
        "sft: 1.2 minutes",
        "  1 hop 92.5 % [88.0, 95.4]   2 hops described 92.5 % [88.0, 95.4]",
        "agent: stage 2 of 4, reject",
    ]


def test_what_was_reached_stays_on_the_screen_when_a_run_breaks() -> None:
    watched = Watched(terminal=True)
    watched.view.__enter__()
    train_a_little(watched)
    watched.view.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    last = watched.file.getvalue().split("\x1b[2K")[-1]
    assert "400 k of 1.0 M tokens" in last
    assert "right page" in last


def test_a_terminal_without_utf8_gets_ascii() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    recipe: Any = SimpleNamespace(name="agent", stages=STAGES)
    console = Console(file=file, force_terminal=True, force_interactive=True, _environ={})
    with TrainingView(recipe, console) as view:
        view.on_step({"tokens": 400_000, "skills": rates(1, 1, 0.5, 0, 0, 0.1)})
        view.on_stage(stage_result("sft"))
    file.flush()
    assert b"right page" in raw.getvalue()


def test_counts_shares_and_trends_in_few_letters() -> None:
    assert [short(n) for n in (0, 9_999, 10_000, 999_499, 1_000_000, 6_049_000)] == [
        "0", "9,999", "10 k", "999 k", "1.0 M", "6.0 M"
    ]  # fmt: skip
    assert [percent(x) for x in (None, 0.0, 0.995, 1.0)] == ["-", "0 %", "100 %", "100 %"]
    assert trend([0.0, 0.5, None, 1.0]) == "▁▅ █"
