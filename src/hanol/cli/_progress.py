"""Progress on standard error, and what an interrupted command says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from hanol.cli._console import new_console, tell

Report = Callable[..., None]  # takes how many are done (None: one more), of all, and a note


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Report]:
    """A progress bar with counts and the time left; none where no terminal is, or if `quiet`."""
    from rich import progress as rich
    from rich.markup import escape

    console = new_console(stderr=True)
    bar = rich.Progress(
        "{task.description}",
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        "{task.fields[note]}",
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
        console=console,
        transient=True,  # the result follows in its place
        disable=quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task(escape(title), total=None, note="")

        def report(done: int | None, total: int | None, note: str = "", /) -> None:
            moved = {"advance": 1} if done is None else {"completed": done}
            bar.update(task, total=total, note=escape(note), **moved)  # type: ignore[arg-type]

        yield report


@contextmanager
def interruptible(advice: str = "the same command continues where it stopped") -> Iterator[None]:
    """On Ctrl-C, say on standard error how to continue, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"\ninterrupted; {advice}")
        raise typer.Exit(130) from None
