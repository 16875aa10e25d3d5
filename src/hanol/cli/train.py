"""`hanol train`: run a recipe."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._options import JsonOption, ResumeOption, SettingsOption
from hanol.cli._report import reported

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hanol.agent_training import ResearcherNeeds, RunResult
    from hanol.training import Needs, TrainingResult


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    settings: SettingsOption = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; runs/<name>.")] = None,
    resume: ResumeOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe and print what it takes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model from a recipe: checkpoint, metrics and curves in one folder.

    Research agents (kind: researcher) are shown while they learn, skill by skill.

    Example: hanol train recipes/tiny/pretrain.yaml --set seed=1 --output runs/second

    Example: hanol train recipes/researcher/tiny.yaml
    """
    with reported(as_json=as_json):
        from hanol import training

        is_agent = training.recipe_content(recipe).get("kind") == "researcher"
        run = _agent if is_agent else _language_model
        try:
            result, text = run(recipe, settings, output, resume, dry_run, as_json)
        except KeyboardInterrupt:
            command = ["hanol", "train", str(recipe)]
            for setting in settings or []:
                command += ["--set", setting]
            command += [] if output is None else ["--output", str(output)]
            print(
                f"\ninterrupted; go on with: {shlex.join([*command, '--resume'])}", file=sys.stderr
            )
            raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        typer.echo(result.model_dump_json() if as_json else text)


def _language_model(
    recipe: Path,
    settings: list[str] | None,
    output: Path | None,
    resume: bool,
    dry_run: bool,
    quiet: bool,
) -> "tuple[BaseModel, str]":
    from hanol import training

    parsed = training.read_recipe(recipe, settings)
    if dry_run:
        size = training.needs(parsed)
        return size, _needs(parsed.name, size)
    result = training.train(parsed, output, resume=resume, quiet=quiet)
    return result, _trained(result)


def _agent(
    recipe: Path,
    settings: list[str] | None,
    output: Path | None,
    resume: bool,
    dry_run: bool,
    quiet: bool,
) -> "tuple[BaseModel, str]":
    from hanol import agent_training
    from hanol.cli._training_view import TrainingView

    parsed = agent_training.read_researcher_recipe(recipe, settings)
    if dry_run:
        size = agent_training.researcher_needs(parsed)
        return size, _agent_needs(parsed.name, size)
    if quiet or os.environ.get("RANK", "0") != "0":
        result = agent_training.train_researcher(parsed, output, resume=resume)
    else:
        with TrainingView(parsed) as view:
            result = agent_training.train_researcher(
                parsed, output, resume=resume, on_step=view.on_step, on_stage=view.on_stage
            )
    return result, _trained_agent(result)


def _needs(name: str, size: "Needs | ResearcherNeeds") -> str:
    steps = f"{size.steps:,} steps, {size.tokens:,} tokens, {size.train_flops:.2e} FLOP"
    return (
        f"{name}: {size.parameters:,} parameters ({size.active_parameters:,} active), {steps}, "
        f"{size.state_gib:,.1f} GiB of weights, gradients and optimizer state"
    )


def _agent_needs(name: str, size: "ResearcherNeeds") -> str:
    lines = [_needs(name, size)]
    for number, stage in enumerate(size.stages, start=1):
        counts = {"tokens": stage.tokens, "steps": stage.steps, "rollouts": stage.rollouts or None}
        shown = [f"{count:,} {unit}" for unit, count in counts.items() if count]
        kind = "" if stage.name == stage.kind else f" ({stage.kind})"
        lines.append(f"  {number} {stage.name}{kind}: {', '.join(shown) or 'as its data'}")
    return "\n".join(lines)


def _trained(result: "TrainingResult") -> str:
    return (
        f"{result.checkpoint}: {result.bits_per_byte:.4f} bits per byte on "
        f"{result.held_out_bytes:,} held-out bytes after {result.tokens:,} tokens "
        f"and {result.minutes:.1f} minutes"
    )


def _trained_agent(result: "RunResult") -> str:
    from hanol.cli._training_view import accuracy_text

    minutes = sum(stage.minutes for stage in result.stages)
    judged = [stage for stage in result.stages if stage.accuracy]
    accuracy = f": {accuracy_text(judged[-1])}" if judged else ""
    return f"{result.checkpoint or result.folder}{accuracy} after {minutes:.1f} minutes"
