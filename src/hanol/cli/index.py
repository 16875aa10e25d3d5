"""`hanol index`: make a folder of documents searchable."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._options import FolderArgument, IndexOption, JsonOption, command
from hanol.cli._progress import escaped, progress

if TYPE_CHECKING:
    from hanol.retrieval import FileProgress, IndexReport


@command
def index(
    folder: FolderArgument,
    index_folder: IndexOption = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Sentence-transformers model for search by meaning: hub id, folder or minilm. "
            "Omitted: search by words only."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Index a folder of documents, or update its index.

    Reads txt, md, html, pdf, docx, pptx, xlsx, csv, ipynb and eml. Only new and changed files are
    read again; files that cannot be read are listed. An interrupted run can be repeated.

    Example: hanol index notes
    """
    from hanol.retrieval import Index

    with Index.open(folder, index_folder=index_folder, embedder=embedder) as corpus, files() as on:
        report = corpus.add(on_file=on)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _summary(report)


@contextmanager
def files() -> Iterator["Callable[[FileProgress], None]"]:
    """A progress bar over files, with the newest name."""
    with progress("files") as report:

        def on_file(file: "FileProgress") -> None:
            name = file.document if len(file.document) < 40 else f"…{file.document[-39:]}"
            report(file.done, file.total, escaped(name))

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
        typer.echo(f"failed: {escaped(file.document)}: {file.reason}", err=True)
