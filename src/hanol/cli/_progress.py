"""Progress on standard error, and what an interrupted command says."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

Report = Callable[..., None]  # takes how many are done (None: one more), of all, and a note


@contextmanager
def progress(title: str, *, quiet: bool = False) -> Iterator[Report]:
    """A progress bar with counts and the time left; none where no terminal is, or if `quiet`."""
    from rich import progress as rich
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
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
        task = bar.add_task(title, total=None, note="")

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
        print(f"\ninterrupted; {advice}", file=sys.stderr)
        raise typer.Exit(130) from None


def printable(text: str) -> str:
    """Text without the control characters by which a document could steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def escaped(name: str) -> str:
    """A file name as it may be printed: line breaks and terminal codes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def one_line(text: str) -> str:
    """Text without line breaks."""
    return " ".join(text.split())
