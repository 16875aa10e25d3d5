"""`hanol research`: questions to one's own documents, answered by an agent that can be checked."""

from typing import Any

import typer
from typer.core import TyperGroup

from hanol.cli._ask import ask
from hanol.cli._batch import batch
from hanol.cli._eval import evaluate
from hanol.cli._runs import export, fork, replay, resume


class _Group(TyperGroup):
    """Takes a first word that is no command for the folder of a question."""

    # `Any`: which click the context comes from depends on typer's version.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["ask", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Research over your own documents, with citations that were checked. "
    '`hanol research FOLDER "question" --model SPEC` asks; a folder that is named like a command '
    "is written ./name.",
)
app.command()(ask)
app.command()(resume)
app.command()(replay)
app.command()(fork)
app.command()(export)
app.command()(batch)
app.command("eval")(evaluate)
