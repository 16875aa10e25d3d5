"""`hanol train`: run a recipe."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._options import DryRunOption, JsonOption, ResumeOption, SettingsOption, command
from hanol.cli._progress import interruptible

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hanol.agent_training import ResearcherNeeds, RunResult
    from hanol.training import Needs, TrainingResult


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
    trained: a language model or a research agent.

    Example: hanol train recipes/tiny/pretrain.yaml --set seed=1 --output runs/second
    """
    from hanol import training

    is_agent = training.recipe_content(recipe).get("kind") == "researcher"
    run = _agent if is_agent else _language_model
    again = ["hanol", "train", str(recipe)]
    for setting in settings or []:
        again += ["--set", setting]
    again += [] if output is None else ["--output", str(output)]
    with interruptible(f"continue with: {shlex.join([*again, '--resume'])}"):
        result, text = run(recipe, settings, output, resume, dry_run, as_json)
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
    from hanol.cli.train._view import TrainingView

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
    from hanol.cli.train._view import accuracy_text

    minutes = sum(stage.minutes for stage in result.stages)
    judged = [stage for stage in result.stages if stage.accuracy]
    accuracy = f": {accuracy_text(judged[-1])}" if judged else ""
    return f"{result.checkpoint or result.folder}{accuracy} after {minutes:.1f} minutes"
