"""What makes a function a command: its options, its result, and how every failure is reported."""

import errno
import inspect
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import MISSING, Field, field, fields, is_dataclass
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer
from typer.core import TyperGroup

from hanol.cli._console import escaped, one_line, say, say_json, tell
from hanol.errors import HanolError

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, also when the command fails.")
]


class Result(NamedTuple):
    """What a command prints on standard output."""

    plain: Any  # a pydantic model or a JSON object: the output with --json
    shown: str | Iterable[str] | Callable[[], None]  # the output without; a function prints it
    exit_code: int = 0  # 3 where a threshold was not met


def option(default: Any, help: str, *names: str, **settings: Any) -> Any:
    """An option, as the default of a parameter or of a field; `...` makes it required."""
    return _declared(default, typer.Option(*names, help=help, **settings))


def argument(help: str, default: Any = ..., **settings: Any) -> Any:
    """An argument, as the default of a parameter; without a default it is required."""
    return _declared(default, typer.Argument(help=help, **settings))


def command(function: Callable[..., Result | None]) -> Callable[..., None]:
    """Make a function a command; its `HanolError` is one line, with --json an object, and exit 1.

    Parameters annotated with a dataclass are sets of options: each field becomes an option, and a
    default instance gives the command's own defaults. A command that returns a `Result` has the
    option --json, and a parameter `as_json` only if it needs to know.
    """
    hints = get_type_hints(function, include_extras=True)
    sets: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, default = hints[name], parameter.default
        if not is_dataclass(kind):
            parameters.append(_parameter(name, kind, default))
            continue
        sets[name] = kind
        types = get_type_hints(kind, include_extras=True)
        for one in sorted(fields(kind), key=lambda one: one.default is not MISSING):
            own = getattr(default, one.name, MISSING)
            parameters.append(_parameter(one.name, types[one.name], one, _panel(kind, one), own))
    is_told = "as_json" in hints
    if hints["return"] is Result and not is_told:
        parameters.append(_parameter("as_json", JsonOption, False))

    @wraps(function)
    def run(**values: Any) -> None:
        as_json = values.get("as_json", False) if is_told else values.pop("as_json", False)
        for name, kind in sets.items():
            values[name] = kind(**{one.name: values.pop(one.name) for one in fields(kind)})
        try:
            result = function(**values)
            if result is not None:
                print_result(result, as_json)
        except (HanolError, OSError) as err:
            message = one_line(str(err))
            if not isinstance(err, HanolError):
                # A path that no file can have, wherever it was first looked at.
                if err.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
                    raise
                message = f"{str(err.filename)[:60]!r} is no path: {err.strerror}. Name another."
            if as_json:
                say_json({"error": {"kind": type(err).__name__, "message": message}})
            tell(f"hanol: {escaped(message)}")
            raise typer.Exit(1) from err

    # A help text keeps its paragraphs; the line ends within them are those of the source.
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    run.__doc__ = "\n\n".join(map(one_line, paragraphs))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def group_of(first: str, what: str) -> type[TyperGroup]:
    """A group of commands that takes a first word that is none of them for what `first` is given.

    Args:
        first: The command that is meant then.
        what: What such a word is, for the message on a mistyped command.
    """

    class Group(TyperGroup):
        # `Any`: which click the context comes from depends on typer's version.
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if args and args[0] not in self.commands and args[0] != "--help":
                near = get_close_matches(args[0], self.commands, n=1, cutoff=0.75)
                if near and not Path(args[0]).is_dir():
                    raise typer.BadParameter(
                        f"{args[0]!r} is neither a command nor a {what}. Did you mean {near[0]!r}?"
                    )
                args = [first, *args]
            return super().parse_args(ctx, args)

    return Group


def print_result(result: Result, as_json: bool) -> None:
    """Print what a command returned; it may also do so itself, once for each of many."""
    plain, shown, exit_code = result
    if as_json:
        say_json(plain)
    elif callable(shown):
        shown()
    else:
        for line in [shown] if isinstance(shown, str) else shown:
            say(line)
    if exit_code:
        raise typer.Exit(exit_code)


def _declared(default: Any, info: Any) -> Any:
    return field(default=MISSING if default is ... else default, metadata={"typer": info})


def _panel(options: Any, one: Field[Any]) -> str:
    """Where the help shows an option: each set that a set is made of has its own panel."""
    bases = options.__mro__
    return next(base.panel for base in bases if one.name in inspect.get_annotations(base))


def _parameter(
    name: str, kind: Any, default: Any, panel: str | None = None, own_default: Any = MISSING
) -> inspect.Parameter:
    """A parameter as typer reads it; the default may be what `option` and `argument` return.

    Of a set of options, `panel` is where the help shows it, and `own_default` the command's own.
    """
    if isinstance(default, Field):
        info = copy(default.metadata["typer"])
        default = default.default if own_default is MISSING else own_default
        info.rich_help_panel = panel
        if kind is bool and info.default is ...:  # no name was given
            info.param_decls = (f"--{name.replace('_', '-')}",)  # and none to turn it off
        if default is not None:
            info.help = info.help.partition(" Omitted:")[0]
        kind = Annotated[kind, info]
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=kind,
        default=inspect.Parameter.empty if default is MISSING else default,
    )
