"""`hanol research`: questions about your own documents, answered by an agent you can check."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from hanol.cli._command import option
from hanol.cli.eval import examination
from hanol.cli.research._commands import ask, batch, export, fork, replay, resume


class _Group(TyperGroup):
    """Takes a first word that is not a command as the folder of a question."""

    # `Any`: which click the context comes from depends on typer's version.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            near = get_close_matches(args[0], self.commands, n=1, cutoff=0.75)
            if near and not Path(args[0]).is_dir():
                raise typer.BadParameter(
                    f"{args[0]!r} is neither a command nor a folder. Did you mean {near[0]!r}?"
                )
            args = ["ask", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Answer questions from your own documents, with checked citations.\n\n"
    "`hanol research FOLDER QUESTION --model MODEL` is short for `hanol research ask`. A folder "
    "named like a command is written as ./name.\n\n"
    'Example: hanol research notes "How are keys rotated?" --model Qwen/Qwen3-4B',
)
for function in (ask, resume, replay, fork, export, batch):
    app.command()(function)
app.command("eval")(
    examination(
        option("factbook", "The world.", "--world"),
        "research eval --world factbook --model smollm2 --max-calls 8 --num-questions 50",
    )
)
