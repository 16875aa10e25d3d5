"""`hanol autodeco steer`: heads that follow words such as "be more diverse"."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._heads import STDLIB, open_heads, rows_of, spread
from hanol.cli._options import (
    BaseModelOption,
    JsonOption,
    SettingsOption,
)
from hanol.cli._progress import progress
from hanol.cli._report import reported
from hanol.errors import DataError


def steer(
    model: Annotated[str, typer.Argument(help="Checkpoint with trained heads: folder or hub id.")],
    data: Annotated[str, typer.Option(help='JSON lines, or "stdlib". Required.')],
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/steering"),
    base_model: BaseModelOption = None,
    max_prompts: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of rows, spread over the data. Omitted: all."),
    ] = None,
    num_held_out: Annotated[
        int, typer.Option("--held-out", min=1, help="Rows of the report, not trained on.")
    ] = 100,
    settings: SettingsOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train heads to follow words such as "be more diverse", in English and Korean, and report.

    Example: hanol autodeco steer my-heads --data stdlib --set 'template="# {command}\\n{prompt}"'
    """
    with reported(as_json=as_json):
        from hanol import autodeco, training

        recipe = training.with_overrides(
            autodeco.SteeringSettings, {}, settings, "The recipe of the steering"
        )
        rows = spread(rows_of(data, held_out=False), max_prompts)
        if data == STDLIB:
            test = spread(rows_of(data, held_out=True), num_held_out)
        else:
            if len(rows) <= num_held_out:
                raise DataError(
                    f"{data!r} has {len(rows)} rows, of which {num_held_out} are held out: none is "
                    "left to train on. Lower `--held-out`."
                )
            rows, test = rows[:-num_held_out], rows[-num_held_out:]
        wrapped, tokenizer = open_heads(model, base_model, fresh=False)
        with progress("training", quiet=as_json) as report:
            heads = autodeco.train_steering(
                wrapped, tokenizer, rows, recipe, out, resume=resume,
                on_step=lambda line: report(line["step"], recipe.steps, f"loss {line['loss']:.3f}"),
            )  # fmt: skip
        found = autodeco.steering_report(
            wrapped, tokenizer, test, template=recipe.template, max_length=recipe.max_length
        )
    if as_json:
        typer.echo(json.dumps({"heads": str(heads), **found.model_dump(mode="json")}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found.prompts} held-out prompts, held-out words")
    columns = ("", "no words", "less diverse", "moves down", "more diverse", "moves up")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right")
    for name, moved in (("temperature", found.temperature), ("top-p", found.top_p)):
        if moved is not None:
            shares = [
                f"{s.value:.0%} ({s.low:.0%} to {s.high:.0%})"
                for s in (moved.low_moves, moved.high_moves)
            ]
            values = [f"{v:.2f}" for v in (moved.base, moved.low, moved.high)]
            table.add_row(name, values[0], values[1], shares[0], values[2], shares[1])
    Console().print(table)
    typer.echo(f"heads: {heads}")
