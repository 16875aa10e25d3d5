"""`hanol synth`: questions, problems and training data, from documents or a world."""

from pathlib import Path

import typer

from hanol.cli._command import Result, argument, command
from hanol.cli._options import WorldOptions
from hanol.cli.synth._journeys import journeys
from hanol.cli.synth._problems import problems
from hanol.cli.synth._questions import questions
from hanol.cli.synth._reading import reading
from hanol.cli.synth._trajectories import trajectories

app = typer.Typer(
    no_args_is_help=True,
    help="Generate questions, problems and training data.\n\n"
    "Example: hanol synth questions encyclopedia:7 --num-questions 200",
)


@app.command()
@command
def pages(
    source: str = argument("World: encyclopedia:SEED, or factbook."),
    folder: Path = argument("New folder for its pages."),
    world: WorldOptions = WorldOptions(),
) -> Result:
    """Write the pages of a world as Markdown files.

    Example: hanol synth pages encyclopedia:7 world
    """
    from hanol.worlds import open_world

    files = open_world(source, **world.given).write(folder)
    plain = {"folder": str(folder), "pages": len(files)}
    return Result(plain, f"{len(files)} pages in {folder}")


app.command()(journeys)
app.command()(problems)
app.command()(questions)
app.command()(reading)
app.command()(trajectories)
