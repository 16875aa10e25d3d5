"""`hanol eval`: scores of answers, of a model on a generated world, of sampling settings."""

import typer

from hanol.cli.eval._answers import answers
from hanol.cli.eval._sampling import sampling
from hanol.cli.eval._world import world

app = typer.Typer(
    no_args_is_help=True,
    help="Score answers, models and sampling settings, with 95 % intervals.\n\n"
    "Example: hanol eval answers notes/.hanol/batches/questions",
)
app.command()(answers)
app.command()(world)
app.command()(sampling)
