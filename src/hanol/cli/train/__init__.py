"""`hanol train`: run a recipe."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._options import DryRunOption, JsonOption, ResumeOption, SettingsOption, command
from hanol.cli._progress import interruptible

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hanol.training import Estimate, Recipe, TrainingResult


@command
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file of any kind.")],
    settings: SettingsOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run. Omitted: runs/NAME, as in the recipe.")
    ] = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model from a recipe.

    Writes checkpoints, metrics and curves to one folder. The kind of the recipe decides what is
    trained: a language model, AutoDeco's heads, heads that follow words, or a research agent.

    Example: hanol train recipes/tiny/pretrain.yaml --set seed=1 --output runs/second
    """
    from hanol import training

    parsed = training.read_recipe(recipe, settings)
    result: BaseModel
    if dry_run:
        result = estimate = training.estimate(parsed)
        text = _estimated(parsed.name, estimate)
    else:
        again = ["hanol", "train", str(recipe)]
        for setting in settings or []:
            again += ["--set", setting]
        again += [] if output is None else ["--output", str(output)]
        with interruptible(f"continue with: {shlex.join([*again, '--resume'])}"):
            result = trained = _run(parsed, output, resume, as_json)
        text = trained.summary()
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        typer.echo(result.model_dump_json() if as_json else text)


def _run(recipe: "Recipe", output: Path | None, resume: bool, quiet: bool) -> "TrainingResult":
    from hanol import training
    from hanol.cli._progress import progress
    from hanol.cli.train._view import TrainingView

    quiet = quiet or os.environ.get("RANK", "0") != "0"
    if recipe.kind == "researcher" and not quiet:
        with TrainingView(recipe) as view:  # type: ignore[arg-type]
            return training.train(
                recipe, output, resume=resume, on_step=view.on_step, on_stage=view.on_stage
            )
    shown = {"loss": "-", "bits/byte": "-", "tokens/s": "-"}
    with progress("training", quiet=quiet) as report:

        def on_step(line: Mapping[str, Any]) -> None:
            if "sampled" in line:
                report(line["sampled"], line["of"], "sampling answers")
            if text := _counts(line):
                typer.echo(text, err=True)
            for name, key, digits in _SHOWN:
                if key in line:
                    shown[name] = f"{line[key]:,.{digits}f}"
            if "step" in line and "steps" in line:
                note = "  ".join(f"{name} {value}" for name, value in shown.items() if value != "-")
                report(line["step"], line["steps"], note)

        return training.train(recipe, output, resume=resume, on_step=on_step)


_SHOWN = (
    ("loss", "loss", 3),
    ("bits/byte", "eval_bits_per_byte", 3),
    ("tokens/s", "tokens_per_second", 0),
)


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


def _estimated(name: str, size: "Estimate") -> str:
    lines = [
        f"{name}: {size.parameters:,} parameters ({size.active_parameters:,} active), "
        f"{size.steps:,} steps, {size.tokens:,} tokens, {size.train_flops:.2e} FLOP "
        f"({size.hours or 0:,.2f} hours of matrix products here), "
        f"{size.state_gib:,.1f} GiB of weights, gradients and optimizer state"
    ]
    for number, stage in enumerate(size.stages, start=1):
        counts = {"tokens": stage.tokens, "steps": stage.steps, "rollouts": stage.rollouts or None}
        found = [f"{count:,} {unit}" for unit, count in counts.items() if count]
        kind = "" if stage.name == stage.kind else f" ({stage.kind})"
        lines.append(f"  {number} {stage.name}{kind}: {', '.join(found) or 'as its data'}")
    return "\n".join(lines)
