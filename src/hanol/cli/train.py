"""`hanol train`: run a recipe."""

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._command import JsonOption, Result, argument, command, option
from hanol.cli._console import tell
from hanol.cli._options import DryRunOption
from hanol.cli._progress import Report, interruptible, progress

if TYPE_CHECKING:
    from hanol.agent_training import ResearcherRecipe, StageResult
    from hanol.training import Estimate, Recipe, TrainingResult

_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the recipe, such as `optim.adamw_lr=1e-3`; repeatable. "
        "Omitted: the recipe as it is.",
    ),
]


@command
def train(
    recipe: Path = argument("Recipe, a YAML file of any kind."),
    settings: _Settings = None,
    output: Path | None = option(
        None, "Folder of the run. Omitted: runs/NAME, with the name in the recipe."
    ),
    resume: bool = option(False, "Continue from the newest checkpoint in --output."),
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> Result | None:
    """Train a model from a recipe.

    Writes checkpoints, metrics and curves to one folder. The kind of the recipe decides what is
    trained: a language model on text or on conversations, whole or by LoRA adapters, AutoDeco
    heads, heads that follow commands, or a research agent.

    Example: hanol train recipes/tiny/pretrain.yaml --set seed=1 --output runs/second
    """
    from hanol import training

    parsed = training.read_recipe(recipe, settings)
    is_first = os.environ.get("RANK", "0") == "0"  # the one of several processes that speaks
    if dry_run:
        estimate = training.estimate(parsed)
        result = Result(estimate, _estimated(parsed.name, estimate))
    else:
        again = ["hanol", "train", str(recipe)]
        for setting in settings or []:
            again += ["--set", setting]
        again += [] if output is None else ["--output", str(output)]
        quiet = as_json or not is_first
        if not quiet and parsed.kind in ("pretrain", "researcher"):
            for text in _estimated(parsed.name, training.estimate(parsed)):
                tell(text)
        with interruptible(f"continue with: {shlex.join([*again, '--resume'])}"):
            trained = _run(parsed, output, resume, quiet)
        result = Result(trained, trained.summary())
    return result if is_first else None


def _run(recipe: "Recipe", output: Path | None, resume: bool, quiet: bool) -> "TrainingResult":
    from hanol import training

    notes: dict[str, str] = {}
    pace = _Pace(quiet=quiet or sys.stderr.isatty())
    with progress("training", quiet=quiet) as report:
        if recipe.kind == "researcher" and not quiet:
            view = TrainingView(recipe, report, has_bar=sys.stderr.isatty())  # type: ignore[arg-type]
            return training.train(
                recipe, output, resume=resume, on_step=view.on_step, on_stage=view.on_stage
            )

        def on_step(line: Mapping[str, Any]) -> None:
            if "sampled" in line:
                report(line["sampled"], line["of"], "sampling answers")
            if "evaluated" in line:
                report(line["evaluated"], line["of"], "evaluating")
            if text := _counts(line):
                tell(text)
            for key, form in _SHOWN.items():
                if key in line:
                    notes[key] = form.format(line[key])
            if "step" in line and "steps" in line:
                shown = "  ".join(notes[key] for key in _SHOWN if key in notes)
                report(line["step"], line["steps"], shown)
                pace.tell(line["step"], line["steps"], shown)

        return training.train(recipe, output, resume=resume, on_step=on_step)


_SHOWN = {
    "loss": "loss {:,.3f}",
    "eval_loss": "held-out {:,.3f}",
    "eval_bits_per_byte": "bits/byte {:,.3f}",
    "tokens_per_second": "tokens/s {:,.0f}",
}


class _Pace:
    """Where there is no bar: how far a run is and the time left, once a minute."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._first, self._told = quiet, (0.0, 0), time.monotonic()

    def tell(self, step: int, steps: int, note: str) -> None:
        now = time.monotonic()
        if not self._first[0]:
            self._first = now, step
        if self._quiet or now - self._told < _SECONDS:
            return
        self._told = now
        began, before = self._first
        left = _minutes((now - began) / max(step - before, 1) * (steps - step))
        tell(f"  step {step:,} of {steps:,}  {note}  {left} left")


def _counts(line: Mapping[str, Any]) -> str | None:
    """What a run says once about its data."""
    if "held_out" in line:
        left_out = f"\nleft out: {line['left_out']}" if line.get("left_out") else ""
        return "{rows:,} rows to learn from, {held_out:,} held out".format_map(line) + left_out
    if "right_answers" in line:
        return (
            "{right_answers:,} of {answers:,} answers are right, {solved:,} of {prompts:,} prompts "
            "have one".format_map(line)
        )
    if line.get("rows_without_completion") or line.get("rows_too_long"):
        return (
            "left out: {rows_without_completion:,} rows without a completion, {rows_too_long:,} "
            "that are too long".format_map(line)
        )
    return None


def _estimated(name: str, size: "Estimate") -> Iterator[str]:
    trained = "" if size.trained_parameters is None else f", {size.trained_parameters:,} trained"
    if size.rows is not None:
        left_out = "".join(
            f", {n:,} left out ({why.replace('_', ' ')})" for why, n in size.left_out.items()
        )
        yield f"{name}: {size.rows:,} rows{left_out}"
    yield (
        f"{name}: {size.parameters:,} parameters ({size.active_parameters:,} active{trained}), "
        f"{size.steps:,} steps, {size.tokens:,} tokens, {size.train_flops:.2e} FLOP "
        f"({size.hours or 0:,.2f} hours of matrix products here), "
        f"{size.state_gib:,.1f} GiB of weights, gradients and optimizer state"
    )
    for number, stage in enumerate(size.stages, start=1):
        counts = {"tokens": stage.tokens, "steps": stage.steps, "rollouts": stage.rollouts}
        found = [f"{count:,} {unit}" for unit, count in counts.items() if count]
        kind = "" if stage.name == stage.kind else f" ({stage.kind})"
        yield f"  {number} {stage.name}{kind}: {', '.join(found) or 'depends on its data'}"


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
    """Follows the training of an agent with a bar, and a line for each stage and each evaluation.

    Skills of an agent come one after another and some of them in a jump, so every evaluation
    leaves a line with all of them and their changes in percentage points. Where there is no bar, a
    line tells how far the stage is once a minute.
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
        self._skills: Mapping[str, float | None] = {}  # at the last evaluation
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
        self._evaluated: int | None = None
        kind = "" if stage.name == stage.kind else f" ({stage.kind})"
        title = f"stage {self._number + 1} of {len(stages)}, {stage.name}{kind}"
        tell(f"{self._recipe.name}: {title}")
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
            is_news = "skills" in line and done != self._evaluated
            if not is_news and self._rate and total is not None:
                text += f", {_minutes((total - done) / self._rate)} left"
        if is_news:
            text = f"{text}: {', '.join(self._rates(line['skills']))}"
            self._evaluated, self._skills = done, line["skills"]
        self._report(done, total, note)
        if is_news or (not self._has_bar and now - self._told >= _SECONDS):
            self._told = now
            tell(f"  {text}")

    def on_stage(self, result: "StageResult") -> None:
        """Take a finished stage: what it made, and how well its model answers."""
        parts = [f"{result.minutes:.1f} minutes"]
        for key, value in result.facts.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else f"{value:,}"
            parts.append(f"{key.replace('_', ' ')} {shown}")
        tell(f"{result.name}: {', '.join(parts)}")
        if result.accuracy:
            tell(f"  {result.accuracy_text()}")
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

    def _rates(self, skills: Mapping[str, float | None]) -> Iterator[str]:
        for name, rate in skills.items():
            before = self._skills.get(name)
            text = f"{name} -" if rate is None else f"{name} {100 * rate:.0f} %"
            if rate is not None and before is not None:
                text += f" ({round(100 * rate) - round(100 * before):+d})"
            yield text

    def _figures(self) -> Iterator[str]:
        for key, form in _FIGURES.items():
            if key in self._facts:
                yield form.format(self._facts[key])
        if self._rate is not None:
            slow = f"{1 / self._rate:.1f} s a {self._key}"
            yield slow if self._rate < 1 else f"{self._rate:,.0f} {self._unit}/s"


def _minutes(seconds: float) -> str:
    """A span of time in words: 12 min, 3.5 h."""
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def short(number: int) -> str:
    """A count in few letters: 6.0 M, 200 k, 950."""
    if number >= 1_000_000:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.0f} k" if number >= 10_000 else f"{number:,}"
