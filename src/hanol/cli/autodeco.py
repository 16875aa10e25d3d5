"""`hanol autodeco`: models that choose their temperature and top-p for every token."""

import typer

from hanol.cli._compare import compare
from hanol.cli._layouts import inspect, merge, split
from hanol.cli._show import show
from hanol.cli._steer import steer
from hanol.cli._train_heads import train

app = typer.Typer(
    no_args_is_help=True,
    help="Models that choose temperature and top-p for every token (arXiv 2510.26697).",
)
app.command()(merge)
app.command()(split)
app.command()(inspect)
app.command()(show)
app.command()(train)
app.command()(compare)
app.command()(steer)
