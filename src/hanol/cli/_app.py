"""The root command: puts the groups together and maps interruption to exit code 130."""

import sys

import typer

import hanol
from hanol.cli.autodeco import app as autodeco
from hanol.cli.claims import app as claims
from hanol.cli.generate import generate
from hanol.cli.index import index
from hanol.cli.inspect import inspect
from hanol.cli.mcp import mcp
from hanol.cli.merge import merge
from hanol.cli.research import app as research
from hanol.cli.search import search
from hanol.cli.synth import app as synth
from hanol.cli.train import train

app = typer.Typer(
    name="hanol",
    help="The language-model techniques of the 2025 papers on Hugging Face checkpoints.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(generate)
app.command()(index)
app.command()(inspect)
app.command()(mcp)
app.command()(merge)
app.command()(search)
app.command()(train)
app.add_typer(autodeco, name="autodeco")
app.add_typer(claims, name="claims")
app.add_typer(research, name="research")
app.add_typer(synth, name="synth")


@app.command()
def version() -> None:
    """Print the installed version.

    Example: hanol version
    """
    typer.echo(hanol.__version__)


def main() -> None:
    """Run the command line; Ctrl-C exits with 130 and no traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
