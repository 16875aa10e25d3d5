"""`hanol think`: more tokens for one problem, spent knowingly."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from hanol.cli._command import Result, command
from hanol.cli.think._compare import compare, fit
from hanol.cli.think._solve import solve


class _ThinkGroup(TyperGroup):
    """Takes a first word that is not a command as the model of `solve`."""

    # `Any`: which click the context comes from depends on typer's version.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            near = get_close_matches(args[0], self.commands, n=1, cutoff=0.75)
            if near and not Path(args[0]).is_dir():
                raise typer.BadParameter(
                    f"{args[0]!r} is neither a command nor a folder. Did you mean {near[0]!r}?"
                )
            args = ["solve", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ThinkGroup,
    no_args_is_help=True,
    help="Spend more tokens on one problem: votes, searches with a verifier, revisions.\n\n"
    "`hanol think MODEL -p PROBLEM` is short for `hanol think solve`.\n\n"
    'Example: hanol think smollm2 -p "What is 7 + 5 + 9?" --strategy majority --budget 16',
)
for function in (solve, fit, compare):
    app.command()(function)


@app.command()
@command
def strategies() -> Result:
    """List the strategies, with what each spends its budget on.

    The budget is the number of complete answers' worth of generated tokens (--max-tokens each), and
    a maximum. Tokens that a verifier reads do not count; they are in the ledger.

    Example: hanol think strategies
    """
    from hanol.test_time import strategy_names

    names = strategy_names()
    plain = {"strategies": [{"name": name, "spends": about} for name, about in names.items()]}
    return Result(plain, [f"{name:11} {about}" for name, about in names.items()])
