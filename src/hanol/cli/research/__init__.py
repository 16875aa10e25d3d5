"""`hanol research`: questions about your own documents, answered by an agent you can check."""

import typer

from hanol.cli._command import group_of, option
from hanol.cli.eval import examination
from hanol.cli.research._commands import ask, batch, export, fork, replay, resume

app = typer.Typer(
    cls=group_of("ask", "folder"),
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
