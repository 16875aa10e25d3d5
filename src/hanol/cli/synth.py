"""`hanol synth`: questions and training data for research agents, from documents or a world."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._options import EntitiesOption, JsonOption, SplitOption
from hanol.cli._questions import questions
from hanol.cli._report import reported
from hanol.cli._trajectories import trajectories

app = typer.Typer(no_args_is_help=True, help="Make questions and training data for agents.")


@app.command()
def pages(
    source: Annotated[str, typer.Argument(help="encyclopedia:SEED, a generated world.")],
    folder: Annotated[Path, typer.Argument(help="New folder for its pages.")],
    entities: EntitiesOption = 300,
    split: SplitOption = "test",
    as_json: JsonOption = False,
) -> None:
    """Write the pages of a generated world as Markdown files, to search and to ask.

    Example: hanol synth pages encyclopedia:7 world
    """
    with reported(as_json=as_json):
        from hanol.errors import DataError
        from hanol.synthesis import world_seed
        from hanol.worlds import Encyclopedia

        if (seed := world_seed(source)) is None:
            raise DataError(f"{source!r} is no world. Write it as encyclopedia:SEED.")
        files = Encyclopedia(seed, entities, split=split).write(folder)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "pages": len(files)}))
        return
    typer.echo(f"{len(files)} pages in {folder}")


app.command()(questions)
app.command()(trajectories)
