"""`hanol ask`: a question to a folder of documents, answered in a sentence with its source."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import typer

from hanol.cli._command import JsonOption, Result, argument, command, option, print_result
from hanol.cli._console import escaped, new_console, one_line, say, tell
from hanol.cli._options import FolderArgument, IndexOption, LoadOptions, open_engine
from hanol.cli._progress import interruptible
from hanol.cli.documents import open_indexed

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.research import Answer
    from hanol.retrieval import Index

_SHOWN = 240  # characters of a source's sentence


@command
def ask(
    folder: FolderArgument,
    loading: LoadOptions,
    question: str | None = argument(
        "Question, in plain words. Omitted: read from standard input, one per line.", None
    ),
    model: str | None = option(
        None,
        "Model that reads: bundled name, checkpoint folder, hub id, or http://host:port/v1#name. "
        "Omitted: sentences are ranked by words and meaning alone.",
        "--model",
        "-m",
    ),
    num_passages: int = option(
        5, "Maximum number of passages to read.", "--num-passages", "--k", "-k", min=1
    ),
    write: bool = option(
        False,
        "Let a model of this machine answer in its own words. Omitted: it ranks the sentences of "
        "the documents, and the best are quoted; endpoints always write.",
        "--write",
    ),
    embedder: str | None = option(
        None,
        "Model for search by meaning, as in hanol index; the index gets its vectors. "
        "Omitted: the model of the index, if it has one.",
    ),
    index_folder: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from a folder of documents, each sentence with its source.

    Searches once, reads the best passages and checks what it says against them. Says "Not in these
    documents." where that is so. Several questions print one answer each; with --json, one object
    per line.

    Example: hanol ask notes "How are keys rotated?" --model smollm2
    """
    from hanol.research import ask as ask_documents

    questions = [question] if question is not None else list(_lines())
    if not any(map(str.strip, questions)):
        raise typer.BadParameter("there is no question: give one, or one per line of the input.")
    if write and model is None:
        raise typer.BadParameter("--write needs --model: without one, documents are quoted.")
    with (
        interruptible("ask again to start over"),
        _opened(model, loading) as engine,  # before the documents: its name may be mistyped
        closing(open_indexed(folder, index_folder, embedder)) as corpus,
    ):
        told = set[str]()
        for asked in questions:
            with _streamed(engine is not None and not as_json) as on_text:
                answer = ask_documents(
                    corpus, asked, engine, k=num_passages, write=write, on_text=on_text
                )
            note = answer.note or _foreign(answer, corpus)
            if note and note not in told:
                tell(one_line(note))
            told.add(note)
            result = Result(answer.to_dict(), partial(_show, answer, question is None))
            print_result(result, as_json)


def _foreign(answer: "Answer", corpus: "Index") -> str:
    """What a question in another language than the documents needs; empty for other questions."""
    if answer.found or corpus.search(answer.question, 1, "bm25"):
        return ""
    return "No word of the question is in these documents: ask in their words and language."


def _lines() -> Iterator[str]:
    if sys.stdin.isatty():
        return
    yield from (line.strip() for line in sys.stdin if line.strip())


@contextmanager
def _opened(model: str | None, loading: LoadOptions) -> "Iterator[Engine | None]":
    if model is None:
        yield None
        return
    from hanol.runs import synchronous

    engine = open_engine(model, **loading.given)
    try:
        yield engine
    finally:
        synchronous(engine.aclose)()


@contextmanager
def _streamed(wanted: bool) -> Iterator[Callable[[str], None] | None]:
    """Show what a model writes on the terminal; the checked answer takes its place."""
    from rich.live import Live
    from rich.text import Text

    console = new_console(stderr=True)
    if not (wanted and console.is_terminal):
        yield None
        return
    text = Text(style="dim")
    with Live(text, console=console, transient=True, auto_refresh=False) as live:

        def on_text(piece: str) -> None:
            text.append(piece)
            live.update(text, refresh=True)

        yield on_text


def _show(answer: "Answer", with_question: bool) -> None:
    """The answer, its marks coloured, with its sources under it."""
    from rich.text import Text

    console = new_console()

    def show(text: Text) -> None:
        console.print(text, soft_wrap=True)

    if with_question:
        show(Text(one_line(answer.question), style="dim"))
    shown = Text(answer.text)
    shown.highlight_regex(r"\[\d+\]", "underline cyan")
    show(shown)
    if answer.doubt:
        show(Text(f"Doubtful: {answer.doubt}", style="yellow"))
    for sentence in answer.sentences:
        if not sentence.supported:
            text = f"Not held by these documents: {one_line(sentence.text)}"
            show(Text(text, style="yellow"))
    for number, source in enumerate(answer.sources, start=1):
        page = "" if source.page is None else f", page {source.page}"
        text = one_line(source.text)
        text = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        place = (f"{escaped(source.document)}{page}", "bold")
        doubt = (f" (doubtful: {escaped(source.doubt)})" if source.doubt else "", "yellow")
        show(Text.assemble((f"[{number}]", "underline cyan"), " ", place, doubt, f": {text}"))
    if with_question:
        say()
