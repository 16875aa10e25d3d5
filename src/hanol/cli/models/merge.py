"""`hanol merge`: several checkpoints into one."""

from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._options import JsonOption, command
from hanol.errors import ConfigError


@command
def merge(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT...",
            help="Two or more checkpoints of one base model, or AutoDeco heads and their base.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the merged checkpoint. Required.")],
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weight of each checkpoint, separated by commas; they add up to 1. "
            "Omitted: equal weights."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Average checkpoints, or put AutoDeco heads into their base.

    Checkpoints that were trained from the same base are averaged. If the first one holds AutoDeco
    heads and the second their base, the result is one checkpoint as inference engines load it.

    Example: hanol merge runs/a/final runs/b/final --weights 0.5,0.5 --output runs/merged

    Example: hanol merge runs/heads/heads tiny --output my-model
    """
    from hanol import models

    if len(checkpoints) == 2 and models.model_type(checkpoints[0]) == "autodeco":
        if weights is not None:
            raise typer.BadParameter("--weights is for averages: heads and base have none.")
        from hanol import autodeco

        heads = autodeco.inspect(autodeco.merge(checkpoints[0], checkpoints[1], output))
        tensors = heads.base_tensors + len(heads.tensors)
        text, plain = f"{output}: {tensors:,} tensors, base and heads", heads.model_dump_json()
    else:
        from hanol import training

        merged = training.merge_checkpoints(checkpoints, _numbers(weights), output)
        shares = ", ".join(f"{weight:g}" for weight in merged.weights)
        text = f"{merged.folder}: {merged.parameters:,} parameters in {merged.tensors:,} tensors"
        text, plain = f"{text}, weights {shares}", merged.model_dump_json()
    typer.echo(plain if as_json else text)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as err:
        raise ConfigError(
            f"--weights is {text!r}, but must be numbers separated by commas, like 0.5,0.5."
        ) from err
