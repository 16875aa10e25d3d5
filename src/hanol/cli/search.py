"""`hanol search`: passages of an indexed folder."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._options import IndexOption, JsonOption
from hanol.cli._report import reported

if TYPE_CHECKING:
    from rich.text import Text

    from hanol.retrieval import Passage

_SNIPPET = 300  # characters of a passage that are shown


class Mode(StrEnum):
    """How to rank."""

    hybrid = "hybrid"
    bm25 = "bm25"
    dense = "dense"


def search(
    folder: Annotated[Path, typer.Argument(help="A folder that was indexed.")],
    query: Annotated[str, typer.Argument(help="Words or a question; nothing in it is syntax.")],
    k: Annotated[int, typer.Option("-k", min=1, help="At most this many passages.")] = 10,
    mode: Annotated[
        Mode, typer.Option(help="By words, by meaning, or both as far as the index has them.")
    ] = Mode.hybrid,
    place: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search an indexed folder: passages with file, page and highlighted text, the best first.

    Example: hanol search notes "how are keys rotated" -k 3
    """
    with reported(as_json=as_json):
        from hanol.retrieval import Index

        with Index.open(folder, index_folder=place) as corpus:
            hits = corpus.search(query, k, mode.value)
    if as_json:
        typer.echo(json.dumps({"hits": [_entry(hit) for hit in hits]}))
    elif not hits:
        typer.echo("No passage has a word of the query.", err=True)
    else:
        _show(hits)


def _entry(hit: "Passage") -> dict[str, object]:
    return {
        "document": hit.document,
        "page": hit.page,
        "text": hit.text,
        "score": hit.score,
        "address": hit.address,
        "title": hit.title,
        "start": hit.start,
        "end": hit.end,
        "highlights": hit.highlights,
    }


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
