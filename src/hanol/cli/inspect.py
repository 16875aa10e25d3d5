"""`hanol inspect`: what a model is, without loading its weights."""

from typing import Annotated

import typer

from hanol.cli._options import JsonOption
from hanol.cli._report import reported


def inspect(
    model: Annotated[
        str, typer.Argument(help="Bundled name, preset, checkpoint folder or hub id.")
    ] = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Print parameters, layers, cache sizes and the layout check of a model.

    Example: hanol inspect kimi-linear-48b-a3b --json
    """
    with reported(as_json=as_json):
        from hanol.models import inspect as describe

        report = describe(model)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report.model} ({report.model_type})", show_header=False)
    share = report.active_parameters / report.parameters
    table.add_row("parameters", f"{report.parameters:,}")
    table.add_row("active for a token", f"{report.active_parameters:,} ({share:.1%})")
    for kind, count in report.layers.items():
        table.add_row(f"{kind} layers", str(count))
    table.add_row("vocabulary", f"{report.vocab_size:,}")
    table.add_row("stored as", report.dtype)
    cache = report.cache
    table.add_row("cache per token", f"{cache.bytes_per_token:,} bytes")
    table.add_row("cache, fixed part", f"{cache.fixed_bytes:,} bytes")
    saved = 1 - cache.bytes_per_token / max(cache.twin_bytes_per_token, 1)
    table.add_row(
        "full-attention twin", f"{cache.twin_bytes_per_token:,} bytes per token ({saved:.1%} saved)"
    )
    if report.official_layout is not None:
        wrong = ", ".join((report.missing + report.unexpected)[:3])
        table.add_row("official layout", "yes" if report.official_layout else f"no: {wrong} ...")
    Console().print(table)
