"""`hanol train`: run a recipe."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._command import JsonOption, Result, argument, command, option
from hanol.cli._options import DryRunOption
from hanol.cli._progress import interruptible, progress
from hanol.cli.train._view import TrainingView

if TYPE_CHECKING:
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
    trained: a language model, AutoDeco heads, heads that follow commands, or a research agent.

    Example: hanol train recipes/tiny/pretrain.yaml --set seed=1 --output runs/second
    """
    from hanol import training

    parsed = training.read_recipe(recipe, settings)
    if dry_run:
        estimate = training.estimate(parsed)
        result = Result(estimate, _estimated(parsed.name, estimate))
    else:
        again = ["hanol", "train", str(recipe)]
        for setting in settings or []:
            again += ["--set", setting]
        again += [] if output is None else ["--output", str(output)]
        with interruptible(f"continue with: {shlex.join([*again, '--resume'])}"):
            trained = _run(parsed, output, resume, as_json)
        result = Result(trained, trained.summary())
    return result if _is_first() else None


def _is_first() -> bool:
    """Whether this is the one of several processes that speaks."""
    return os.environ.get("RANK", "0") == "0"


def _run(recipe: "Recipe", output: Path | None, resume: bool, as_json: bool) -> "TrainingResult":
    from hanol import training

    quiet = as_json or not _is_first()
    notes: dict[str, str] = {}
    with progress("training", quiet=quiet) as report:
        if recipe.kind == "researcher" and not quiet:
            view = TrainingView(recipe, report, has_bar=sys.stderr.isatty())  # type: ignore[arg-type]
            return training.train(
                recipe, output, resume=resume, on_step=view.on_step, on_stage=view.on_stage
            )

        def on_step(line: Mapping[str, Any]) -> None:
            if "sampled" in line:
                report(line["sampled"], line["of"], "sampling answers")
            if text := _counts(line):
                typer.echo(text, err=True)
            for key, form in _SHOWN.items():
                if key in line:
                    notes[key] = form.format(line[key])
            if "step" in line and "steps" in line:
                shown = (notes[key] for key in _SHOWN if key in notes)
                report(line["step"], line["steps"], "  ".join(shown))

        return training.train(recipe, output, resume=resume, on_step=on_step)


_SHOWN = {
    "loss": "loss {:,.3f}",
    "eval_bits_per_byte": "bits/byte {:,.3f}",
    "tokens_per_second": "tokens/s {:,.0f}",
}


def _counts(line: Mapping[str, Any]) -> str | None:
    """What a run says once about its data."""
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
    yield (
        f"{name}: {size.parameters:,} parameters ({size.active_parameters:,} active), "
        f"{size.steps:,} steps, {size.tokens:,} tokens, {size.train_flops:.2e} FLOP "
        f"({size.hours or 0:,.2f} hours of matrix products here), "
        f"{size.state_gib:,.1f} GiB of weights, gradients and optimizer state"
    )
    for number, stage in enumerate(size.stages, start=1):
        counts = {"tokens": stage.tokens, "steps": stage.steps, "rollouts": stage.rollouts}
        found = [f"{count:,} {unit}" for unit, count in counts.items() if count]
        kind = "" if stage.name == stage.kind else f" ({stage.kind})"
        yield f"  {number} {stage.name}{kind}: {', '.join(found) or 'depends on its data'}"
