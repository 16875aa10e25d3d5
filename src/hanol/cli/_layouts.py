"""`hanol autodeco merge`, `split` and `inspect`: the official layouts of heads and base."""

from typing import Annotated

import typer

from hanol.cli._options import HeadsArgument, HeadsOutArgument, JsonOption
from hanol.cli._report import reported


def merge(
    heads: Annotated[str, typer.Argument(help="Heads-only folder or hub id.")],
    base: Annotated[str, typer.Argument(help="Folder, bundled name or hub id of their base.")],
    out: HeadsOutArgument,
    as_json: JsonOption = False,
) -> None:
    """Put heads and their base into one checkpoint, as inference engines load it.

    Example: hanol autodeco merge my-heads tiny my-model
    """
    with reported(as_json=as_json):
        from hanol import autodeco

        report = autodeco.inspect(autodeco.merge(heads, base, out))
    if as_json:
        typer.echo(report.model_dump_json())
        return
    typer.echo(f"wrote {out}: {report.base_tensors + len(report.tensors)} tensors")


def split(
    merged: Annotated[str, typer.Argument(help="Merged checkpoint: folder or hub id.")],
    out: HeadsOutArgument,
    as_json: JsonOption = False,
) -> None:
    """Take the heads out of a merged checkpoint, bit for bit.

    Example: hanol autodeco split my-model my-heads
    """
    with reported(as_json=as_json):
        from hanol import autodeco

        report = autodeco.inspect(autodeco.split(merged, out))
    if as_json:
        typer.echo(report.model_dump_json())
        return
    typer.echo(f"wrote {out}: {len(report.tensors)} tensors, {report.num_bytes:,} bytes")


def inspect(
    checkpoint: HeadsArgument,
    as_json: JsonOption = False,
) -> None:
    """Print which heads a checkpoint holds, without loading its weights.

    Example: hanol autodeco inspect my-heads --json
    """
    with reported(as_json=as_json):
        from hanol import autodeco

        report = autodeco.inspect(checkpoint)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(report.path), show_header=False)
    heads = {"temperature": report.temperature_head, "top-p": report.top_p_head}
    rows = {
        "layout": report.layout,
        "heads": ", ".join(name for name, there in heads.items() if there),
        "top-p head reads statistics": {True: "yes", False: "no", None: "-"}[report.enhanced],
        "parameters of the heads": f"{report.parameters:,} ({report.dtype})",
        "hidden width": f"{report.hidden_size:,}",
        "vocabulary": "not stated" if report.vocab_size is None else f"{report.vocab_size:,}",
        "base": f"{report.base_model or 'not named'} ({report.base_model_type or 'unknown type'})",
        "tensors of the base": f"{report.base_tensors:,}",
        "size": f"{report.num_bytes:,} bytes",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))  # a path is no markup
    for name, shape in report.tensors.items():
        table.add_row(Text(name), " x ".join(map(str, shape)))
    Console().print(table)
