"""`hanol eval sampling`: AutoDeco against static sampling settings on a task."""

from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._options import BaseModelOption, JsonOption, SeedOption, command
from hanol.cli._progress import progress
from hanol.errors import ConfigError


@command
def sampling(
    model: Annotated[
        str, typer.Argument(help="Checkpoint with AutoDeco heads: bundled name, folder or hub id.")
    ],
    task: Annotated[
        str,
        typer.Option(
            help='JSON lines with "prompt" or "messages" (and "answer"), or "stdlib": functions of '
            "the standard library. Required."
        ),
    ],
    verify: Annotated[
        str,
        typer.Option(
            help="What counts as right: arithmetic, python, python:body, regex:PATTERN or "
            "module:function."
        ),
    ] = "python:body",
    base_model: BaseModelOption = None,
    max_prompts: Annotated[
        int | None,
        typer.Option(min=2, help="Maximum number of prompts, spread over the task. Omitted: all."),
    ] = None,
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, help="Completions per prompt and seed.")
    ] = 16,
    num_seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; the paper uses 8.")] = 1,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Maximum number of new tokens per completion.")
    ] = 256,
    step: Annotated[
        float,
        typer.Option(min=0.05, max=1.0, help="Step of the search over temperatures and top-p."),
    ] = 0.1,
    grid: Annotated[
        bool, typer.Option("--grid", help="Search all pairs, not one value after the other.")
    ] = False,
    seed: SeedOption = 0,
    png: Annotated[
        Path | None,
        typer.Option(help="Image of accuracy against diversity to write. Omitted: none."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare AutoDeco's heads with static sampling settings on a task.

    The settings are greedy, the default, the best static one, each head alone and both. The best
    static setting is searched on one half of the prompts and scored on the other. Where the rows
    have completions, their bits per byte under each setting are printed too.

    Example: hanol eval sampling tiny-autodeco --task stdlib --max-prompts 40 -n 4
    """
    from hanol import autodeco, evaluation, scoring

    verifier = scoring.parse_verifier(verify)
    if png is not None and not png.parent.is_dir():
        raise ConfigError(f"There is no folder {str(png.parent)!r} for the image.")
    rows = autodeco.training_rows(task, max_prompts, held_out=True)
    wrapped, tokenizer = autodeco.open_heads(model, base_model)
    temperatures = [round(step * i, 2) for i in range(1, round(1.5 / step) + 1)]
    top_ps = sorted({min(1.0, round(step * i, 2)) for i in range(1, round(1 / step) + 1)} | {1})
    with progress("comparing", quiet=as_json) as report:
        comparison = evaluation.compare(
            wrapped, tokenizer,
            evaluation.DecodingTask.from_rows(
                task, rows, verifier, tokenizer, max_new_tokens=max_tokens
            ),
            method="grid" if grid else "coarse", temperatures=temperatures, top_ps=top_ps,
            samples=num_samples, seeds=num_seeds, seed=seed, rows=rows, on_progress=report,
        )  # fmt: skip
    if png is not None:
        comparison.plot(png)
    if as_json:
        typer.echo(comparison.model_dump_json())
        return
    from rich.console import Console

    Console(width=max(120, Console().width)).print(comparison.table())
