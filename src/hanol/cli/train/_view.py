"""What a person sees while a research agent is trained: the stage, its loss, its skills.

Skills of an agent come one after another and some of them in a jump, so every evaluation leaves a
line with all of them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from hanol.cli._progress import Report

if TYPE_CHECKING:
    from hanol.agent_training import ResearcherRecipe, StageResult

_SECONDS = 60.0  # between two lines where there is no bar
# What is counted: tokens that are learned, batches of rollouts, attempts at questions.
_COUNTED = {"grpo": "step", "reject": "attempts"}
_FIGURES = {
    "loss": "loss {:.3f}",
    "reward": "reward {:.3f}",
    "no_answer": "without answer {:.2f}",
    "error_turns": "error turns {:.2f} a rollout",
    "right": "{:,} right",
}


class TrainingView:
    """Follows a run with a bar, and with a line for each stage and each evaluation.

    Args:
        recipe: Recipe of the run.
        report: Moves the bar.
        has_bar: Whether there is one; without, a line tells how far the stage is once a minute.
        clock: Tells seconds.
    """

    def __init__(
        self,
        recipe: "ResearcherRecipe",
        report: Report,
        *,
        has_bar: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recipe, self._report, self._has_bar, self._clock = recipe, report, has_bar, clock
        self._number = 0
        self._begin_stage()

    def _begin_stage(self) -> None:
        stages = self._recipe.stages
        stage: Any = stages[self._number]
        self._key = _COUNTED.get(stage.kind, "tokens")
        self._unit = "steps" if self._key == "step" else self._key
        # `attempts` of a stage of the kind `reject` are those at one question.
        self._total = None if stage.kind == "reject" else getattr(stage, self._unit, None)
        self._done = 0
        self._facts: dict[str, Any] = {}
        self._mark: tuple[float, int] | None = None
        self._rate: float | None = None
        self._told = self._clock()
        self._told_skills: tuple[int, Any] | None = None
        kind = "" if stage.name == stage.kind else f" ({stage.kind})"
        title = f"stage {self._number + 1} of {len(stages)}, {stage.name}{kind}"
        _say(f"{self._recipe.name}: {title}")
        self._report(0, self._total, "")

    def on_step(self, line: Mapping[str, Any]) -> None:
        """Take a line of metrics."""
        now = self._clock()
        is_news = False
        if "judged" in line:
            done, total, note = line["judged"], line["of"], "answering unseen questions"
            text = f"{note}: {done:,} of {total:,}"
        else:
            self._total = total = line.get("total", self._total)
            self._done = done = line.get(self._key, self._done)
            self._facts |= line
            self._time(now, evaluated="skills" in line)
            note = ", ".join(self._figures())
            of = "" if total is None else f" of {short(total)}"
            text = ", ".join(filter(None, (f"{short(done)}{of} {self._unit}", note)))
            # The last evaluation of a stage comes once more with its last line.
            is_news = "skills" in line and (done, line["skills"]) != self._told_skills
        if is_news:
            self._told_skills = done, line["skills"]
            rates = (f"{name} {percent(rate)}" for name, rate in line["skills"].items())
            text = f"{text}: {', '.join(rates)}"
        self._report(done, total, note)
        if is_news or (not self._has_bar and now - self._told >= _SECONDS):
            self._told = now
            _say(f"  {text}")

    def on_stage(self, result: "StageResult") -> None:
        """Take a finished stage: what it made, and how well its model answers."""
        parts = [f"{result.minutes:.1f} minutes"]
        for key, value in result.facts.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else f"{value:,}"
            parts.append(f"{key.replace('_', ' ')} {shown}")
        _say(f"{result.name}: {', '.join(parts)}")
        if result.accuracy:
            _say(f"  {result.accuracy_text()}")
        self._number += 1
        if self._number < len(self._recipe.stages):
            self._begin_stage()

    def _time(self, now: float, *, evaluated: bool) -> None:
        """Measure the pace from line to line, without the time of evaluations."""
        if not evaluated and self._mark is not None:
            seconds, count = now - self._mark[0], self._done - self._mark[1]
            if seconds > 0 and count > 0:
                self._rate = count / seconds
        self._mark = None if evaluated else (now, self._done)

    def _figures(self) -> Iterator[str]:
        for key, form in _FIGURES.items():
            if key in self._facts:
                yield form.format(self._facts[key])
        if self._rate is not None:
            slow = f"{1 / self._rate:.1f} s a {self._key}"
            yield slow if self._rate < 1 else f"{self._rate:,.0f} {self._unit}/s"


def short(number: int) -> str:
    """A count in few letters: 6.0 M, 200 k, 950."""
    if number >= 1_000_000:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.0f} k" if number >= 10_000 else f"{number:,}"


def percent(share: float | None) -> str:
    """A share as a figure; "-" without trials."""
    return "-" if share is None else f"{100 * share:.0f} %"


def _say(text: str) -> None:
    typer.echo(text, err=True)
