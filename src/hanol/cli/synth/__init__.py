"""`hanol synth`: questions and training data for research agents, from documents or a world."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._options import JsonOption, WorldOptions, command
from hanol.cli.synth._questions import questions
from hanol.cli.synth._trajectories import trajectories

app = typer.Typer(
    no_args_is_help=True,
    help="Generate questions and training data for research agents.\n\n"
    "Example: hanol synth questions encyclopedia:7 --num-questions 200",
)


@app.command()
@command
def pages(
    source: Annotated[str, typer.Argument(help="Generated world: encyclopedia:SEED.")],
    folder: Annotated[Path, typer.Argument(help="New folder for its pages.")],
    world: WorldOptions = WorldOptions(split="test"),
    as_json: JsonOption = False,
) -> None:
    """Write the pages of a generated world as Markdown files.

    Example: hanol synth pages encyclopedia:7 world
    """
    from hanol.errors import DataError
    from hanol.synthesis import world_seed
    from hanol.worlds import Encyclopedia

    if (seed := world_seed(source)) is None:
        raise DataError(f"{source!r} is not a generated world. Write it as encyclopedia:SEED.")
    files = Encyclopedia(seed, world.num_entities, split=world.split).write(folder)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "pages": len(files)}))
        return
    typer.echo(f"{len(files)} pages in {folder}")


app.command()(questions)
app.command()(trajectories)
