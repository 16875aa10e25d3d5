"""`hanol merge`: several checkpoints of one base into one."""

from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._options import JsonOption
from hanol.cli._report import reported


def merge(
    checkpoints: Annotated[
        list[str], typer.Argument(help="Bundled names, folders or hub ids, two or more.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the result; must not exist.")],
    weights: Annotated[
        str | None, typer.Option(help="One for each, like 0.5,0.5; they add up to 1.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Average the weights of checkpoints that were trained from the same one.

    Example: hanol merge runs/a/final runs/b/final --weights 0.5,0.5 --output runs/merged
    """
    with reported(as_json=as_json):
        from hanol import training

        merged = training.merge_checkpoints(checkpoints, _numbers(weights), output)
    if as_json:
        typer.echo(merged.model_dump_json())
        return
    typer.echo(
        f"{merged.folder}: {merged.parameters:,} parameters in {merged.tensors:,} tensors, weights "
        f"{', '.join(f'{weight:g}' for weight in merged.weights)}"
    )


def _numbers(text: str | None) -> list[float] | None:
    from hanol.errors import ConfigError

    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as err:
        raise ConfigError(
            f"--weights {text!r} is not a list of numbers with commas between, like 0.5,0.5."
        ) from err
