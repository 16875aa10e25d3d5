"""`hanol convert`: a checkpoint in another layout."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from hanol.cli._options import JsonOption, command


@command
def convert(
    source: Annotated[
        str, typer.Argument(help="Bundled name, folder or hub id; a folder in Meta's layout too.")
    ],
    to: Annotated[
        Literal["transformers", "meta", "gguf", "heads"],
        typer.Option(
            "--to",
            help="Layout to write: a transformers folder (Kimi Linear with the official names), "
            "Meta's Llama files, a GGUF file, or the AutoDeco heads of a merged checkpoint alone.",
        ),
    ] = "transformers",
    *,
    output: Annotated[Path, typer.Option(help="Folder or GGUF file to write. Required.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Data type of the weights; GGUF takes float32 or float16. Omitted: float32."
        ),
    ] = None,
    rope_factor: Annotated[
        float,
        typer.Option(help="Rope scaling of a Meta source: 8 for Llama 3.1 and 3.3, 32 for 3.2."),
    ] = 8.0,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint in another layout.

    The heads of a merged checkpoint, and tensors whose data type stays, are copied bit for bit.

    Example: hanol convert tiny --to gguf --output tiny.gguf

    Example: hanol convert my-model --to heads --output my-heads
    """
    if to == "heads":
        from hanol import autodeco

        autodeco.split(source, output)
    else:
        from hanol import models

        models.convert(source, output, to=to, dtype=dtype, rope_factor=rope_factor)
    result = {"source": source, "layout": to, "output": str(output)}
    typer.echo(json.dumps(result) if as_json else f"{output}: {source} in the layout {to}")
