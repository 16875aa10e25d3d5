"""`hanol train`: run a recipe."""

import os
from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._report import reported


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value that replaces a value of the recipe; repeatable."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; runs/<name>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe and print what it takes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a model from a recipe: checkpoint, metrics and loss curve in one folder.

    Example: hanol train recipes/tiny/pretrain.yaml --set seed=1 --output runs/second
    """
    with reported(as_json=as_json):
        from hanol import training

        parsed = training.read_recipe(recipe, settings)
        if dry_run:
            size = training.needs(parsed)
            if as_json:
                typer.echo(size.model_dump_json())
                return
            typer.echo(
                f"{parsed.name}: {size.parameters:,} parameters "
                f"({size.active_parameters:,} active), "
                f"{size.steps:,} steps, {size.tokens:,} tokens, {size.train_flops:.2e} FLOP, "
                f"{size.state_gib:,.1f} GiB of weights, gradients and optimizer state"
            )
            return
        result = training.train(parsed, output, resume=resume, quiet=as_json)
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes speaks
    if as_json:
        typer.echo(result.model_dump_json())
        return
    typer.echo(
        f"{result.checkpoint}: {result.bits_per_byte:.4f} bits per byte on "
        f"{result.held_out_bytes:,} held-out bytes after {result.tokens:,} tokens "
        f"and {result.minutes:.1f} minutes"
    )
