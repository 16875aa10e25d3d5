"""`hanol index`: make a folder of documents searchable."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._options import IndexOption, JsonOption
from hanol.cli._report import reported

if TYPE_CHECKING:
    from hanol.retrieval import FileProgress, IndexReport


def index(
    folder: Annotated[Path, typer.Argument(help="Folder with the documents.")],
    place: IndexOption = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Also search by meaning: a sentence-transformers model, its folder, or minilm."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Index a folder of documents, or bring its index up to date.

    Reads txt, md, html, pdf, docx, pptx, xlsx, csv, ipynb and eml. Only new and changed files are
    read again; files that cannot be read are named. It may be stopped and started at any time.

    Example: hanol index notes
    """
    with reported(as_json=as_json):
        from hanol.retrieval import Index

        with Index.open(folder, index_folder=place, embedder=embedder) as corpus, _bar() as on_file:
            report = corpus.add(on_file=on_file)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _summary(report)


@contextmanager
def _bar() -> Iterator["Callable[[FileProgress], None]"]:
    """A progress bar on standard error: files, rate, time left."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    # `transient`: the summary follows in its place.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=None, rate="")

        def on_file(file: "FileProgress") -> None:
            speed = progress.tasks[0].speed
            name = escape(file.document if len(file.document) < 40 else f"…{file.document[-39:]}")
            progress.update(
                task,
                completed=file.done,
                total=file.total,
                description=name,
                rate="" if speed is None else f"{speed:,.0f} files/s",
            )

        yield on_file


def _summary(report: "IndexReport") -> None:
    counts = ("added", "changed", "removed", "unchanged", "ignored")
    done = ", ".join(f"{getattr(report, name):,} {name}" for name in counts)
    typer.echo(f"{done}, {len(report.failed):,} failed in {report.seconds:.1f} s")
    vectors = f", {report.embedded:,} new vectors" if report.embedded else ""
    typer.echo(
        f"The index holds {report.documents:,} documents, {report.passages:,} passages{vectors}."
    )
    for file in report.failed:
        typer.echo(f"failed: {_one_line(file.document)}: {file.reason}", err=True)


def _one_line(name: str) -> str:
    """A file name as it may be printed: it may hold line breaks and terminal codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
