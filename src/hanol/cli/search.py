"""`hanol search`: passages of an indexed folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hanol.cli._options import IndexOption, JsonOption, command

if TYPE_CHECKING:
    from rich.text import Text

    from hanol.retrieval import Passage

_SNIPPET = 300  # characters of a passage that are shown


@command
def search(
    folder: Annotated[Path, typer.Argument(help="Indexed folder of documents.")],
    query: Annotated[
        str, typer.Argument(help="Search text. Taken literally: there are no operators.")
    ],
    num_results: Annotated[
        int, typer.Option("--num-results", "-k", min=1, help="Maximum number of passages.")
    ] = 10,
    mode: Annotated[
        Literal["hybrid", "bm25", "dense"],
        typer.Option(help="Search by words, by meaning, or by both where the index has vectors."),
    ] = "hybrid",
    index_folder: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search an indexed folder and print the best passages.

    Example: hanol search notes "how are keys rotated" -k 3
    """
    from hanol.retrieval import Index

    with Index.open(folder, index_folder=index_folder) as corpus:
        hits = corpus.search(query, num_results, mode)
    if as_json:
        typer.echo(json.dumps({"hits": [_entry(hit) for hit in hits]}))
    elif not hits:
        typer.echo("No passage has a word of the query.", err=True)
    else:
        _show(hits)


def _entry(hit: "Passage") -> dict[str, object]:
    names = (
        "document", "page", "text", "score", "address", "title", "start", "end", "highlights",
    )  # fmt: skip
    return {name: getattr(hit, name) for name in names}


def _show(hits: "list[Passage]") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for number, hit in enumerate(hits, start=1):
        place = hit.document if hit.page is None else f"{hit.document}, page {hit.page}"
        line = Text(f"{number}. ")
        line.append(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in place), "bold"
        )
        line.append(f"  {hit.score:.4g}", "dim")
        console.print(line, soft_wrap=True)
        console.print(_snippet(hit), soft_wrap=not console.is_terminal)


def _snippet(hit: "Passage") -> "Text":
    """The stretch of the passage with the most matches, on one line."""
    from rich.text import Text

    starts = [max(0, start - 40) for start, _ in hit.highlights] or [0]
    best = max(
        starts,
        key=lambda at: sum(at <= start and end <= at + _SNIPPET for start, end in hit.highlights),
    )
    best = max(0, min(best, len(hit.text) - _SNIPPET))
    shown = hit.text[best : best + _SNIPPET]
    # One character for one, so that the spans stay right: no line breaks, no terminal codes.
    text = Text("   " + "".join(c if c.isprintable() else " " for c in shown))
    for start, end in hit.highlights:
        if best <= start and end <= best + _SNIPPET:
            text.stylize("bold yellow", start - best + 3, end - best + 3)
    return text
