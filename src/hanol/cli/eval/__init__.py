"""`hanol eval`: scores of answers, texts, models and sampling settings."""

import typer

from hanol.cli._command import argument
from hanol.cli.eval._align import align
from hanol.cli.eval._answers import answers
from hanol.cli.eval._build import build
from hanol.cli.eval._judge import judge, rescore
from hanol.cli.eval._meta import correct, drift, meta, plan
from hanol.cli.eval._sampling import sampling
from hanol.cli.eval._tasks import run
from hanol.cli.eval._world import examination

__all__ = ["app", "examination"]

app = typer.Typer(
    no_args_is_help=True,
    help="Score answers, texts, models and sampling settings, with 95 % intervals.\n\n"
    "Example: hanol eval answers notes/.hanol/batches/questions",
)
for function in (answers, judge, rescore):
    app.command()(function)
app.command()(
    examination(
        argument("The world.", "encyclopedia", metavar="WORLD"),
        "eval world --model tiny-researcher --num-questions 200",
    )
)
for function in (sampling, run, build, meta, correct, plan, drift, align):
    app.command()(function)
