"""`hanol think`: more tokens for one problem, spent knowingly."""

import typer

from hanol.cli._command import Result, command, group_of
from hanol.cli.think._compare import compare, fit
from hanol.cli.think._solve import solve

app = typer.Typer(
    cls=group_of("solve", "model"),
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
