"""A run as it happens, on standard error; its answer with sources, on standard output."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markdown import Markdown
from rich.padding import Padding
from rich.text import Text

from hanol.cli._command import Result
from hanol.cli._console import new_console, one_line, say, tell
from hanol.cli._progress import interruptible

if TYPE_CHECKING:
    from hanol.research import RunView
    from hanol.retrieval import Index, Source
    from hanol.runs import Event

_LINES = 3  # of a result
_PASSAGE = 480  # characters shown of a passage


def follow(
    events: "Iterator[Event]",
    run: Path,
    corpus: "Index | None",
    as_json: bool,
    *,
    write: bool = True,
) -> Result:
    """Show a run until it ends; an interruption says how to continue. Its answer is the result."""
    from hanol.research import RunView, write_report

    log = []
    again = f"continue with: hanol research resume {run}"
    # They come from a generator, which is to be stopped with its run.
    with interruptible(again), closing(events):  # type: ignore[type-var]
        try:
            for event in events:
                log.append(event)
                if not as_json:
                    show_step(event)
        except Exception:
            if log and write:
                tell(f"The run is kept; {again}")
            raise
    page = write_report(run, index=corpus) if write else run / "report.html"
    view = RunView.of(log)

    def show() -> None:
        _print_answer(view)
        _print_passages(passages)
        tell(view.summary)
        if write:
            tell(f"report: {page}")

    ended = view.ended
    passages = view.best_passages(corpus)
    plain = {
        "run": str(run),
        "run_id": view.started.run_id,
        "question": view.started.question,
        "answer": view.answer,
        "termination": ended.termination if ended else None,
        "citations": ended.citations if ended else None,
        "sources": [source.model_dump() for source in view.sources.values()],
        "passages": [source.model_dump() for source in passages],
        "spent": view.spent.to_dict(),
        "report": str(page),
    }
    return Result(plain, show)


def show_step(event: "Event", prefix: str = "") -> None:
    """Print one event: the thought dim, the call in colour, the result in a few lines."""
    from hanol.research import call_title
    from hanol.tools import parse_turn

    console = new_console(stderr=True)

    def show(text: str, style: str) -> None:
        # `Text`, because brackets in documents are no markup.
        shown = Text(prefix + text, style=style)
        console.print(shown, soft_wrap=not console.is_terminal)

    if event.type == "model_answered":
        if event.purpose not in ("turn", "forced_answer"):
            show(f"({event.purpose})", "dim")
        else:
            turn = parse_turn(event.text)
            if turn.think:
                show(_folded(turn.think, 6), "dim italic")
            if turn.repaired or event.native_calls:
                show("(repaired)", "yellow")
    elif event.type == "tool_returned":
        show(f"→ {call_title(event.name, event.arguments)}", "bold cyan")
        if code := event.arguments.get("code"):
            show(_folded(str(code), 12), "cyan")
        numbers = "".join(f"[{source.number}]" for source in event.sources)
        text = _folded(event.text, _LINES)
        show(f"{text}\n{numbers}".strip(), "red" if event.failed else "")
    elif event.type == "turn_rejected":
        show(f"refused ({event.error}): {one_line(event.text)}", "yellow")
    elif event.type == "report_updated" and not event.kept:
        show(f"report: {_folded(event.report, _LINES)}", "magenta")
    elif event.type == "context_restarted":
        show("the context was full: continuing from a summary", "yellow")


def _print_answer(view: "RunView") -> None:
    """The answer, its doubtful sentences and its sources."""
    console = new_console()

    def show(text: str, style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    if (marked := view.answer) is None:
        show("No answer was found." if view.ended else "The run is not finished.")
        return
    doubts = [sentence for sentence in view.sentences if sentence.symbol]
    # Marks first, from the end: the spans are those of the answer as it was.
    for sentence in reversed(doubts):
        marked = f"{marked[: sentence.end]} {sentence.symbol}{marked[sentence.end :]}"
    if console.is_terminal:
        console.print(Padding(Markdown(marked, hyperlinks=False), (1, 0)))
    else:
        show(f"{marked}\n")
    for sentence in doubts:
        text = f"{sentence.symbol} {sentence.verdict}: {one_line(sentence.text)} {sentence.note}"
        show(text, "yellow")
    for source in view.cited:
        page = f", page {source.page}" if source.page else ""
        show(f"[{source.number}] {one_line(source.title)}{page}  {source.address}")


def _print_passages(passages: "Sequence[Source]") -> None:
    """The passages that fit the question best, for a run that found no answer in any."""
    if passages:
        say("Passages that fit the question best:")
    for source in passages:
        page = f", page {source.page}" if source.page else ""
        say(f"- {one_line(source.title)}{page}  {source.address}")
        say(f"  {_shortened(one_line(source.text))}")


def _shortened(text: str) -> str:
    return text if len(text) <= _PASSAGE else text[: _PASSAGE - 3] + "..."


def _folded(text: str, lines: int) -> str:
    """The first lines of a text, and how many there are besides."""
    rows = [row for row in text.strip().splitlines() if row.strip()]
    shown = [row if len(row) <= 160 else row[:157] + "..." for row in rows[:lines]]
    more = len(rows) - lines
    return "\n".join(shown + ([f"... {more} more lines"] if more > 0 else []))
