"""`hanol index`, `search` and `mcp`: the commands about a folder of documents."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from hanol.cli._command import Result, argument, command, option
from hanol.cli._options import FolderArgument, IndexOption
from hanol.cli._progress import escaped, progress

if TYPE_CHECKING:
    from rich.text import Text

    from hanol.retrieval import FileProgress, Index, IndexReport, Passage

_SNIPPET = 300  # characters of a passage that are shown
_FIELDS = ("document", "page", "text", "score", "address", "title", "start", "end", "highlights")


@command
def index(
    folder: FolderArgument,
    index_folder: IndexOption = None,
    embedder: str | None = option(
        None,
        "Model for search by meaning: a pulled one such as e5-small or minilm, or the hub id or "
        "folder of a sentence-transformers model. none: drop the vectors. Omitted: the model of "
        "the index, if it has one.",
        "--embedder",
        "--dense",
    ),
) -> Result:
    """Index a folder of documents, or update its index.

    Reads txt, md, html, pdf, docx, pptx, xlsx, odt, ods, odp, csv, ipynb, eml and mbox. Only new
    and changed files are read again; files that cannot be read are listed. An interrupted run can
    be repeated.

    Example: hanol index notes
    """
    from hanol.retrieval import Index

    model = None if embedder == "none" else embedder
    with Index.open(folder, index_folder=index_folder, embedder=model) as corpus, _files() as on:
        if embedder == "none":
            corpus.drop_vectors()
        report = corpus.add(on_file=on)
    return Result(report, _summary(report))


def open_indexed(
    folder: str | Path, index_folder: Path | None, embedder: str | None = None
) -> "Index":
    """Open a folder of documents; one that was never indexed is indexed first.

    With an embedder, passages that have no vector get one.
    """
    from hanol.retrieval import Index

    corpus = Index.open(folder, index_folder=index_folder, embedder=embedder)
    is_new = not corpus.documents()
    if is_new or embedder is not None:
        what = "is not indexed yet: indexing it first" if is_new else "is brought up to date"
        typer.echo(f"{corpus.folder} {what}.", err=True)
        with _files() as on_file:
            report = corpus.add(on_file=on_file)
        unread = f", {len(report.failed)} could not be read" if report.failed else ""
        counts = f"{report.documents:,} documents, {report.passages:,} passages"
        typer.echo(f"{counts}{unread}", err=True)
    return corpus


@contextmanager
def _files() -> Iterator["Callable[[FileProgress], None]"]:
    """A progress bar over files, with the newest name."""
    with progress("files") as report:

        def on_file(file: "FileProgress") -> None:
            name = file.document if len(file.document) < 40 else f"…{file.document[-39:]}"
            report(file.done, file.total, escaped(name))

        yield on_file


def _summary(report: "IndexReport") -> Iterator[str]:
    counts = ("added", "changed", "removed", "unchanged", "ignored")
    done = ", ".join(f"{getattr(report, name):,} {name}" for name in counts)
    yield f"{done}, {len(report.failed):,} failed in {report.seconds:.1f} s"
    vectors = f", {report.embedded:,} new vectors" if report.embedded else ""
    yield f"The index holds {report.documents:,} documents, {report.passages:,} passages{vectors}."
    for file in report.failed:
        typer.echo(f"failed: {escaped(file.document)}: {file.reason}", err=True)


@command
def search(
    folder: Path = argument("Indexed folder of documents."),
    query: str = argument("Search text. Taken literally: there are no operators."),
    num_results: int = option(10, "Maximum number of passages.", "--num-results", "-k", min=1),
    mode: Literal["hybrid", "bm25", "dense"] = option(
        "hybrid", "Search by words (bm25), by meaning (dense), or by both if there are vectors."
    ),
    index_folder: IndexOption = None,
) -> Result:
    """Search an indexed folder and print the best passages.

    Example: hanol search notes "how are keys rotated" -k 3
    """
    from hanol.retrieval import Index

    with Index.open(folder, index_folder=index_folder) as corpus:
        hits = corpus.search(query, num_results, mode)
    plain = [{name: getattr(hit, name) for name in _FIELDS} for hit in hits]
    return Result({"hits": plain}, lambda: _show(hits))


def _show(hits: "list[Passage]") -> None:
    from rich.console import Console
    from rich.text import Text

    if not hits:
        print("No passage has a word of the query.", file=sys.stderr)
    console = Console(highlight=False)
    for number, hit in enumerate(hits, start=1):
        place = hit.document if hit.page is None else f"{hit.document}, page {hit.page}"
        score = (f"  {hit.score:.4g}", "dim")
        line = Text.assemble(f"{number}. ", (escaped(place), "bold"), score)
        console.print(line, soft_wrap=True)
        console.print(_snippet(hit), soft_wrap=not console.is_terminal)


def _snippet(hit: "Passage") -> "Text":
    """The part of the passage with the most matches, on one line."""
    from rich.text import Text

    first, last = hit.excerpt(_SNIPPET)
    # One character for one, so that the spans stay right: no line breaks, no terminal codes.
    text = Text("   " + "".join(c if c.isprintable() else " " for c in hit.text[first:last]))
    for start, end in hit.highlights:
        if first <= start and end <= last:
            text.stylize("bold yellow", start - first + 3, end - first + 3)
    return text


@command
def mcp(
    folder: FolderArgument,
    index_folder: IndexOption = None,
    python: bool = option(False, "Also serve the sandboxed Python interpreter."),
) -> None:
    """Serve the search tools of an indexed folder over MCP.

    The tools are search, visit, google_scholar and parse_file, on standard input and output.

    Example: hanol mcp notes
    """
    import asyncio

    from hanol.retrieval import Index
    from hanol.tools import PythonInterpreter, local_tools, serve_mcp

    with Index.open(folder, index_folder=index_folder) as corpus:
        tools = local_tools(corpus)
        if python:
            tools.append(PythonInterpreter())
        names = ", ".join(tool.name for tool in tools)
        # Standard output belongs to the protocol.
        typer.echo(f"{folder}: serving {names} over MCP; press Ctrl-C to stop", err=True)
        asyncio.run(serve_mcp(tools, corpus))
