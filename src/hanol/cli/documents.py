"""`hanol index`, `search`, `documents` and `mcp`: the commands about a folder of documents."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from hanol.cli._command import Result, argument, command, option
from hanol.cli._console import escaped, new_console, say, tell
from hanol.cli._options import FolderArgument, IndexOption
from hanol.cli._progress import progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hanol.retrieval import (
        Document,
        DocumentTable,
        FileProgress,
        Index,
        IndexReport,
        Page,
        Passage,
        Remark,
    )

_SNIPPET = 300  # characters of a passage that are shown
_FIELDS = (
    *("document", "page", "text", "score", "address", "title", "start", "end", "highlights"),
    "doubt",
)
_DRAWN_ROWS = 1000  # a table with more is printed as the lines that are indexed
_COLUMN = 8  # characters that a column of a table needs at least, its border included
_HEADING = re.compile(r"#{1,6} \S")


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
    report: bool = option(
        False,
        "List each file, page and part that was not read or is doubtful: where it is, why, and "
        "what to do.",
    ),
    rebuild: bool = option(False, "Make the index anew, such as one that is damaged."),
) -> Result:
    """Index a folder of documents, or update its index.

    Reads txt, md, html, pdf, docx, pptx, xlsx, odt, ods, odp, csv, ipynb, eml and mbox. Only new
    and changed files are read again; files that cannot be read are listed. An interrupted run can
    be repeated.

    Example: hanol index notes --report
    """
    from hanol.retrieval import Index

    model = None if embedder == "none" else embedder
    corpus = Index.open(folder, index_folder=index_folder, embedder=model, rebuild=rebuild)
    with corpus, _files() as on:
        if embedder == "none":
            corpus.drop_vectors()
        done = corpus.add(on_file=on)
        remarks = corpus.remarks()
    if not report:
        return Result(done, _summary(done, remarks))
    listed = [
        {"document": name, "place": one.place, **asdict(one)}
        for name, found in remarks.items()
        for one in found
    ]
    return Result({**done.model_dump(), "remarks": listed}, lambda: _show_report(done, remarks))


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
        tell(f"{corpus.folder} {what}.")
        with _files() as on_file:
            report = corpus.add(on_file=on_file)
        unread = f", {len(report.failed)} could not be read" if report.failed else ""
        counts = f"{report.documents:,} documents, {report.passages:,} passages"
        tell(f"{counts}{unread}")
    return corpus


@contextmanager
def _files() -> Iterator["Callable[[FileProgress], None]"]:
    """A progress bar over files, with the newest name."""
    with progress("files") as report:

        def on_file(file: "FileProgress") -> None:
            name = file.document if len(file.document) < 40 else f"…{file.document[-39:]}"
            report(file.done, file.total, escaped(name))

        yield on_file


def _counts(report: "IndexReport") -> Iterator[str]:
    counts = ("added", "changed", "removed", "unchanged", "ignored")
    done = ", ".join(f"{getattr(report, name):,} {name}" for name in counts)
    yield f"{done}, {len(report.failed):,} failed in {report.seconds:.1f} s"
    vectors = f", {report.embedded:,} new vectors" if report.embedded else ""
    yield f"The index holds {report.documents:,} documents, {report.passages:,} passages{vectors}."


def _summary(report: "IndexReport", remarks: "Mapping[str, Sequence[Remark]]") -> Iterator[str]:
    yield from _counts(report)
    for file in report.failed:
        tell(escaped(f"failed: {file.document}: {file.reason}"))
    if count := sum(map(len, remarks.values())) - len(report.failed):
        yield f"{count:,} remark{'s' * (count > 1)} on what is unread or doubtful: see --report."


def _show_report(report: "IndexReport", remarks: "Mapping[str, Sequence[Remark]]") -> None:
    from rich.text import Text

    console = new_console()
    for line in _counts(report):
        say(line)
    for name, found in remarks.items():
        for one in found:
            place = escaped(f"{name}, {one.place}" if one.place else name)
            text = Text.assemble((place, "bold"), ": ", _remark_text(one))
            console.print(text, soft_wrap=True)


def _remark_text(one: "Remark") -> "Text":
    """What is the matter and what to do, on one line."""
    from rich.text import Text

    advice = f". To do: {one.advice}" if one.advice else ""
    colour = {"failed": "red", "skipped": "cyan", "doubtful": "yellow"}[one.status]
    return Text.assemble((one.status, colour), escaped(f": {one.reason}{advice}."))


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
    from rich.text import Text

    if not hits:
        tell("No passage has a word of the query.")
    console = new_console()
    for number, hit in enumerate(hits, start=1):
        place = hit.document if hit.page is None else f"{hit.document}, page {hit.page}"
        score = (f"  {hit.score:.4g}", "dim")
        doubt = (f"  doubtful: {escaped(hit.doubt)}" if hit.doubt else "", "yellow")
        line = Text.assemble(f"{number}. ", (escaped(place), "bold"), score, doubt)
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


app = typer.Typer(
    no_args_is_help=True,
    help="Look at documents as hanol reads them.\n\nExample: hanol documents show report.pdf",
)


@app.callback()
def documents() -> None:
    """Keep `show` a command of its own while it is the only one."""


@app.command("show")
@command
def show_document(
    file: Path = argument("Document of any kind that hanol index reads.", readable=False),
    page: int | None = option(
        None, "Number of the page, slide or sheet to print. Omitted: all.", min=1
    ),
) -> Result:
    """Print a document as it is indexed: its text page by page, tables, and remarks.

    A remark says what of a page was not read, or may have been read wrong.

    Example: hanol documents show report.pdf --page 3
    """
    from hanol.errors import DocumentError
    from hanol.retrieval import read_document

    document = read_document(file, tables=True)
    count = len(document.pages)
    if page is not None and page > count:
        raise DocumentError(f"{file.name} has {count} pages: choose --page from 1 to {count}.")
    pages = document.pages if page is None else document.pages[page - 1 : page]
    plain = {
        "file": str(file),
        "title": document.title,
        "kind": document.kind,
        "remarks": [asdict(one) for one in document.remarks if not one.pages],
        "pages": [
            {
                "number": one.number,
                "text": one.text,
                "tables": [asdict(table) for table in one.tables],
                "remarks": [asdict(found) for found in _on_page(document, one)],
            }
            for one in pages
        ],
    }
    return Result(plain, lambda: _show_pages(file.name, document, pages))


def _on_page(document: "Document", page: "Page") -> "list[Remark]":
    return [one for one in document.remarks if page.number in one.pages]


def _show_pages(name: str, document: "Document", pages: "Sequence[Page]") -> None:
    from rich.text import Text

    console = new_console()
    count = len(document.pages)
    size = f", {count:,} page{'s' * (count > 1)}" if pages[0].number is not None else ""
    about = Text.assemble((escaped(document.title), "bold"), f" ({document.kind}{size})")
    console.print(Text.assemble(escaped(name), ": ", about), soft_wrap=True)
    _show_remarks(console, [one for one in document.remarks if not one.pages])
    for page in pages:
        say()
        if page.number is not None:
            console.rule(f"page {page.number}", align="left", characters="-")
            _show_remarks(console, _on_page(document, page))
        last = 0
        for table in page.tables:
            _show_text(console, page.text[last : table.start])
            _show_table(console, page.text, table)
            last = table.end
        _show_text(console, page.text[last:] if page.text else "(no text)")


def _show_remarks(console: "Console", remarks: "Iterable[Remark]") -> None:
    from rich.text import Text

    for one in remarks:
        part = escaped(f"{one.part}: ") if one.part else ""
        console.print(Text.assemble("! ", part, _remark_text(one)), soft_wrap=True)


def _show_text(console: "Console", text: str) -> None:
    from rich.text import Text

    lines = text.strip("\n").split("\n") if text.strip() else []
    for is_heading, some in groupby(lines, lambda line: _HEADING.match(line) is not None):
        if is_heading:
            for line in some:
                console.print(Text(line, "bold underline"), soft_wrap=True)
        else:  # rich takes half a minute for a table of 200,000 rows
            say("\n".join(some))


def _show_table(console: "Console", text: str, table: "DocumentTable") -> None:
    """A table as a grid; its lines where it is too long, or too wide for the terminal."""
    from rich.table import Table
    from rich.text import Text

    width = max(map(len, (table.names, *table.rows)))
    if len(table.rows) > _DRAWN_ROWS or width * _COLUMN > console.width:
        _show_text(console, text[table.start : table.end])
        return
    grid = Table(show_header=bool(table.names))
    for place in range(width):
        grid.add_column(Text(table.names[place] if place < len(table.names) else ""))
    for row in table.rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)


def python_is_isolated(*, unsafe: bool = False) -> bool:
    """Whether a sandbox works here; if not, say on stderr what happens instead, and the cure."""
    from hanol.tools import sandbox_problem

    if problem := sandbox_problem():
        runs = "runs with all of your rights (--unsafe-python)" if unsafe else "is not run"
        told = f"Python code of a model {runs}: {problem} To isolate it: apt install bubblewrap."
        tell(told)
    return problem is None


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
        if python and python_is_isolated():
            tools.append(PythonInterpreter())
        names = ", ".join(tool.name for tool in tools)
        # Standard output belongs to the protocol.
        tell(f"{folder}: serving {names} over MCP; press Ctrl-C to stop")
        asyncio.run(serve_mcp(tools, corpus))
