"""`hanol autodeco compare`: AutoDeco against static settings on a task."""

from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._heads import open_heads, rows_of, spread
from hanol.cli._options import BaseModelOption, JsonOption
from hanol.cli._progress import percent_bar
from hanol.cli._report import reported
from hanol.errors import ConfigError


def compare(
    model: Annotated[str, typer.Argument(help="Folder, bundled name or hub id.")],
    task: Annotated[
        str,
        typer.Option(help='JSON lines with "prompt" or "messages" (and "answer"), or "stdlib".'),
    ],
    verify: Annotated[
        str, typer.Option(help="arithmetic, python, python:body, regex:PATTERN or module:function.")
    ] = "python:body",
    base_model: BaseModelOption = None,
    max_prompts: Annotated[
        int | None, typer.Option(min=2, help="Use this many rows, spread over the task.")
    ] = None,
    num_samples: Annotated[
        int, typer.Option("-n", min=1, help="Completions of a prompt with one seed.")
    ] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="How often they are drawn; the paper's 8.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of a completion.")] = 256,
    step: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="Of the search over static settings.")
    ] = 0.1,
    grid: Annotated[
        bool, typer.Option("--grid", help="Search all pairs, not one value after the other.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same comparison.")] = 0,
    png: Annotated[Path | None, typer.Option(help="Also draw accuracy against diversity.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare greedy, default, the best static setting, each head alone and AutoDeco on a task.

    The best static setting is searched on one half of the prompts and scored on the other. Where
    the rows have completions, their bits per byte under each setting are printed too.

    Example: hanol autodeco compare my-heads --task stdlib --max-prompts 40 -n 4
    """
    with reported(as_json=as_json):
        from hanol import evaluation, scoring

        verifier = scoring.parse_verifier(verify)
        if png is not None and not png.parent.is_dir():
            raise ConfigError(f"There is no folder {str(png.parent)!r} for the image.")
        rows = spread(rows_of(task, held_out=True), max_prompts)
        wrapped, tokenizer = open_heads(model, base_model, fresh=False)
        temperatures = [round(step * i, 2) for i in range(1, round(1.5 / step) + 1)]
        top_ps = sorted({min(1.0, round(step * i, 2)) for i in range(1, round(1 / step) + 1)} | {1})
        with percent_bar("comparing", as_json) as report:
            comparison = evaluation.compare(
                wrapped, tokenizer,
                evaluation.Task.from_rows(
                    task, rows, verifier, tokenizer, max_new_tokens=max_new_tokens
                ),
                method="grid" if grid else "coarse", temperatures=temperatures, top_ps=top_ps,
                samples=num_samples, seeds=seeds, seed=seed, rows=rows, on_progress=report,
            )  # fmt: skip
        if png is not None:
            comparison.plot(png)
    if as_json:
        typer.echo(comparison.model_dump_json())
        return
    from rich.console import Console

    Console(width=max(120, Console().width)).print(comparison.table())
