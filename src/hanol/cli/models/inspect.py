"""`hanol inspect`: what a checkpoint is, without loading its weights."""

from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._options import JsonOption, command

if TYPE_CHECKING:
    from hanol.autodeco import HeadsReport
    from hanol.models import ModelReport


@command
def inspect(
    checkpoint: Annotated[
        str, typer.Argument(help="Bundled name, preset, checkpoint folder or hub id.")
    ] = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Describe a checkpoint without loading its weights.

    Prints parameters, layers, cache sizes and the check of the official layout; for a checkpoint
    with AutoDeco heads, the heads and their base.

    Example: hanol inspect kimi-linear-48b-a3b --json
    """
    from hanol import models

    report: ModelReport | HeadsReport
    if checkpoint in models.preset_names() or models.model_type(checkpoint) != "autodeco":
        report = models.inspect(checkpoint)
        rows = _model_rows(report)
        title = f"{report.model} ({report.model_type})"
    else:
        from hanol import autodeco

        report = autodeco.inspect(checkpoint)
        rows, title = _heads_rows(report), report.path
    if as_json:
        typer.echo(report.model_dump_json())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), show_header=False)
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))  # a path is no markup
    Console().print(table)


def _model_rows(report: "ModelReport") -> dict[str, str]:
    cache = report.cache
    saved = 1 - cache.bytes_per_token / max(cache.twin_bytes_per_token, 1)
    share = report.active_parameters / report.parameters
    rows = {
        "parameters": f"{report.parameters:,}",
        "active for a token": f"{report.active_parameters:,} ({share:.1%})",
        **{f"{kind} layers": str(count) for kind, count in report.layers.items()},
        "vocabulary": f"{report.vocab_size:,}",
        "stored as": report.dtype,
        "cache per token": f"{cache.bytes_per_token:,} bytes",
        "cache, fixed part": f"{cache.fixed_bytes:,} bytes",
        "full-attention twin": f"{cache.twin_bytes_per_token:,} bytes per token "
        f"({saved:.1%} saved)",
    }
    if report.official_layout is not None:
        wrong = ", ".join((report.missing + report.unexpected)[:3])
        rows["official layout"] = "yes" if report.official_layout else f"no: {wrong} ..."
    return rows


def _heads_rows(report: "HeadsReport") -> dict[str, str]:
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
    return rows | {name: " x ".join(map(str, shape)) for name, shape in report.tensors.items()}
