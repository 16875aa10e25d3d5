"""`hanol autodeco`: training of heads, until it has recipes."""

import typer

from hanol.cli._steer import steer
from hanol.cli._train_heads import train

app = typer.Typer(no_args_is_help=True, help="Train AutoDeco heads.")
app.command()(train)
app.command()(steer)
