"""The root command: puts the commands together."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import hanol
from hanol.cli._console import say, say_json, tame_libraries
from hanol.cli._fault import report_fault
from hanol.cli.ask import ask
from hanol.cli.chat import chat
from hanol.cli.checkpoints import convert, inspect, merge
from hanol.cli.claims import app as claims
from hanol.cli.documents import app as documents
from hanol.cli.documents import index, mcp, search
from hanol.cli.eval import app as evaluate
from hanol.cli.generate import generate, show
from hanol.cli.models import app as models
from hanol.cli.research import app as research
from hanol.cli.synth import app as synth
from hanol.cli.think import app as think
from hanol.cli.train import train
from hanol.cli.vision import app as vision
from hanol.files import without_codes


class _Root(TyperGroup):
    """With --json, wrong usage is a JSON object on standard output too."""

    # `Any`: which click the context comes from depends on typer's version.
    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        self._as_json = "--json" in args
        return self._told(lambda: super(_Root, self).make_context(info_name, args, *rest, **extra))

    def invoke(self, ctx: Any) -> Any:
        return self._told(lambda: super(_Root, self).invoke(ctx))

    def _told(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as err:
            if isinstance(message := getattr(err, "message", None), str):
                err.message = without_codes(message)  # type: ignore[attr-defined]
            if self._as_json and getattr(err, "exit_code", None) == 2:
                message = err.format_message() if hasattr(err, "format_message") else str(err)
                say_json({"error": {"kind": "UsageError", "message": message}})
            raise


app = typer.Typer(
    name="hanol",
    cls=_Root,
    help="The language-model techniques of the 2025 papers on Hugging Face checkpoints.\n\n"
    'Example: hanol generate tiny -p "def mean(values):"',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_MODELS, _DOCUMENTS, _MORE = "Models", "Documents and agents", "More"
for function in (chat, generate, show, inspect, train, merge, convert):
    app.command(rich_help_panel=_MODELS)(function)
app.add_typer(models, name="models", rich_help_panel=_MODELS)
app.add_typer(think, name="think", rich_help_panel=_MODELS)
app.add_typer(evaluate, name="eval", rich_help_panel=_MODELS)
app.add_typer(vision, name="vision", rich_help_panel=_MODELS)
for function in (index, search, ask, mcp):
    app.command(rich_help_panel=_DOCUMENTS)(function)
app.add_typer(documents, name="documents", rich_help_panel=_DOCUMENTS)
app.add_typer(research, name="research", rich_help_panel=_DOCUMENTS)
app.add_typer(synth, name="synth", rich_help_panel=_DOCUMENTS)
app.add_typer(claims, name="claims", rich_help_panel=_MORE)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"hanol {hanol.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 an error with its cure, 2 wrong usage, 3 a threshold was not met, 70 an
    error that nobody foresaw, 130 interrupted.
    """
    try:
        tame_libraries()
        app()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException as err:  # also what is no `Exception`: a panic of a library in Rust
        code = report_fault(err)
    if (runs := sys.modules.get("hanol.runs")) is not None:  # else there are no such threads
        runs.leave(code)
    sys.exit(code)
