"""A run as it happens, on standard error; its answer with sources, on standard output."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.text import Text

from hanol.cli._progress import interruptible, printable

if TYPE_CHECKING:
    from hanol.research import RunView
    from hanol.retrieval import Index
    from hanol.runs import Event

_LINES = 3  # of a result


def follow(
    events: "Iterator[Event]",
    run: Path,
    corpus: "Index | None",
    as_json: bool,
    *,
    write: bool = True,
) -> None:
    """Show a run until it ends, then its answer; an interruption says how to continue."""
    from hanol.research import RunView, write_report

    steps = StepPrinter()
    log = []
    again = f"continue with: hanol research resume {run}"
    # They come from a generator, which is to be stopped with its run.
    with interruptible(again), closing(events):  # type: ignore[type-var]
        try:
            for event in events:
                log.append(event)
                if not as_json:
                    steps.show(event)
        except Exception:
            if log and write:
                print(f"The run is kept; {again}", file=sys.stderr)
            raise
    page = write_report(run, index=corpus) if write else run / "report.html"
    view = RunView.of(log)
    if as_json:
        typer.echo(json.dumps(answer_dict(view, str(run), str(page)), ensure_ascii=False))
        return
    print_answer(view)
    print(view.summary, file=sys.stderr)
    if write:
        print(f"report: {page}", file=sys.stderr)


def show_rollout(number: int, event: "Event") -> None:
    """Print an event of one of several rollouts."""
    StepPrinter(f"{number}: ").show(event)


class StepPrinter:
    """Prints events. A pipe gets plain text, a terminal colours and folded results.

    Args:
        prefix: Before each line: which rollout it is.
    """

    def __init__(self, prefix: str = "") -> None:
        self._console = Console(stderr=True, highlight=False)
        self._prefix = prefix

    def show(self, event: "Event") -> None:
        """Print one event: the thought dim, the call in colour, the result in a few lines."""
        from hanol.tools import parse_turn

        if event.type == "model_answered":
            if event.purpose not in ("turn", "forced_answer"):
                self._print(f"({event.purpose})", "dim")
                return
            turn = parse_turn(event.text)
            if turn.think:
                self._print(folded(turn.think, 6), "dim italic")
        elif event.type == "tool_returned":
            from hanol.research import call_title

            self._print(f"→ {call_title(event.name, event.arguments)}", "bold cyan")
            if code := event.arguments.get("code"):
                self._print(folded(str(code), 12), "cyan")
            numbers = "".join(f"[{source.number}]" for source in event.sources)
            text = folded(event.text, _LINES)
            self._print(f"{text}\n{numbers}".strip(), "red" if event.failed else "")
        elif event.type == "turn_rejected":
            self._print(f"refused ({event.error}): {one_line(event.text)}", "yellow")
        elif event.type == "report_updated" and not event.kept:
            self._print(f"report: {folded(event.report, _LINES)}", "magenta")
        elif event.type == "context_restarted":
            self._print("the context was full: continuing from a summary", "yellow")

    def _print(self, text: str, style: str) -> None:
        # `Text`, because brackets in documents are no markup.
        shown = Text(printable(self._prefix + text), style=style)
        self._console.print(shown, soft_wrap=not self._console.is_terminal)


def print_answer(view: "RunView") -> None:
    """The answer, its doubtful sentences and its sources."""
    console = Console(highlight=False)
    answer = view.answer
    if answer is None:
        console.print("No answer was found." if view.ended else "The run is not finished.")
        return
    # Marks first, from the end: the spans are those of the answer as it was.
    marked = answer
    doubts = [sentence for sentence in view.sentences if sentence.symbol]
    for sentence in reversed(doubts):
        marked = f"{marked[: sentence.end]} {sentence.symbol}{marked[sentence.end :]}"
    if console.is_terminal:
        console.print(Padding(Markdown(printable(marked), hyperlinks=False), (1, 0)))
    else:
        console.print(Text(printable(marked)), soft_wrap=True)
        console.print()
    for sentence in doubts:
        line = f"{sentence.symbol} {sentence.verdict}: {one_line(sentence.text)}"
        console.print(Text(printable(f"{line} {sentence.note}"), "yellow"), soft_wrap=True)
    for source in view.cited:
        page = f", page {source.page}" if source.page else ""
        line = f"[{source.number}] {one_line(source.title)}{page}  {source.address}"
        console.print(Text(printable(line)), soft_wrap=True)


def answer_dict(view: "RunView", run: str, page: str) -> dict[str, Any]:
    """The same for a program."""
    ended = view.ended
    return {
        "run": run,
        "run_id": view.started.run_id,
        "question": view.started.question,
        "answer": view.answer,
        "termination": ended.termination if ended else None,
        "citations": ended.citations if ended else None,
        "sources": [source.model_dump() for source in view.sources.values()],
        "spent": view.spent,
        "report": page,
    }


def folded(text: str, lines: int) -> str:
    """The first lines of a text, and how many there are besides."""
    rows = [row for row in text.strip().splitlines() if row.strip()]
    shown = [row if len(row) <= 160 else row[:157] + "..." for row in rows[:lines]]
    more = len(rows) - lines
    return "\n".join(shown + ([f"... {more} more lines"] if more > 0 else []))


def one_line(text: str) -> str:
    """Without line breaks."""
    return " ".join(text.split())
