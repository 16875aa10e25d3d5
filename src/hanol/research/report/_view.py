"""A run arranged for display: rounds with thoughts, calls and results, computed from the log.

What the HTML page, the Markdown report and the terminal all show.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hanol.errors import HanolError, RunError
from hanol.retrieval import Index, Source, SourceList, citation_numbers
from hanol.runs import (
    Event,
    Ledger,
    ModelAnswered,
    Purpose,
    ReportUpdated,
    RunEnded,
    RunStarted,
    Spent,
    Termination,
    ToolReturned,
)
from hanol.scoring import CITATION
from hanol.tools import parse_turn

_CONTEXT_CHARS = 700  # of the page, before and after a passage
ENDINGS: dict[Termination, str] = {
    "answer": "answered",
    "no_answer": "ended without an answer",
    "max_calls": "stopped at its limit of calls",
    "max_tokens": "stopped at its limit of tokens",
    "max_seconds": "stopped at its limit of time",
    "max_money": "stopped at its limit of money",
    "format_errors": "stopped after turns that could not be used",
}
PURPOSES: dict[Purpose, str] = {
    "turn": "thought",
    "forced_answer": "told to answer now",
    "summary": "summary of the conversation",
    "extract": "reading a page",
    "condense": "condensing a rollout",
    "synthesis": "synthesis of the reports",
}

SYMBOLS = {"unsupported": "≠", "invented": "✗", "uncited": "○"}  # of the sentences to look at
MEANINGS = {
    "supported": "its words, numbers and names occur in the passages it cites",
    "unsupported": "something in it does not occur in the passages it cites",
    "invented": "it cites a number that stands for nothing in this run",
    "uncited": "a statement without a source",
}


@dataclass(frozen=True)
class AnswerSentence:
    """One sentence of an answer and the verdict on its citations.

    Args:
        start: Where it begins in the answer, in characters.
        end: Where it ends, exclusive.
        verdict: "supported", "unsupported", "invented" or "uncited".
        note: Why, for a reader.
    """

    text: str
    start: int
    end: int
    verdict: str
    note: str

    @property
    def symbol(self) -> str:
        """Its mark, "" for a supported one."""
        return SYMBOLS.get(self.verdict, "")


@dataclass(frozen=True)
class RunStep:
    """One round of a run: what the model wrote and what its calls gave."""

    number: int
    events: tuple[Event, ...]

    @property
    def title(self) -> str:
        """What the round did, in one line: its calls, or what was written."""
        calls = [call_title(e.name, e.arguments) for e in self.events if e.type == "tool_returned"]
        if calls:
            return " · ".join(calls)
        if any(event.type == "turn_rejected" for event in self.events):
            return "a turn that could not be used"
        written = [e for e in self.events if e.type == "model_answered"]
        if any(parse_turn(event.text).answer is not None for event in written):
            return "answer"
        return PURPOSES[written[-1].purpose] if written else "no call of the model"

    @property
    def seconds(self) -> float:
        """Time of its calls, of the model and of tools."""
        return sum(e.seconds for e in self.events if isinstance(e, ModelAnswered | ToolReturned))

    @property
    def failed(self) -> bool:
        """Whether a call failed or the turn could not be parsed."""
        return any(
            e.type == "turn_rejected" or (e.type == "tool_returned" and e.failed)
            for e in self.events
        )


@dataclass(frozen=True)
class RunView:
    """A whole run, finished or not.

    Args:
        ended: Last event; None while the run is not finished.
        sources: Everything that was retrieved, by number.
    """

    started: RunStarted
    steps: tuple[RunStep, ...]
    ended: RunEnded | None
    sources: dict[int, Source]

    @classmethod
    def of(cls, events: Iterable[Event]) -> "RunView":
        """Arrange the events of a log.

        Raises:
            RunError: The first event is not the start of a run.
        """
        log = list(events)
        if not log or not isinstance(log[0], RunStarted):
            raise RunError("The log is empty or does not begin with the start of a run.")
        steps: dict[int, list[Event]] = {}
        sources: dict[int, Source] = {}
        for event in log:
            if isinstance(event, RunStarted | RunEnded):
                continue
            steps.setdefault(event.step, []).append(event)
            if isinstance(event, ToolReturned):
                sources.update({source.number: source for source in event.sources})
        ended = next((event for event in reversed(log) if isinstance(event, RunEnded)), None)
        return cls(
            log[0], tuple(RunStep(n, tuple(part)) for n, part in steps.items()), ended, sources
        )

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Everything between start and end."""
        return tuple(event for step in self.steps for event in step.events)

    @property
    def answer(self) -> str | None:
        """The answer, if there is one."""
        return self.ended.answer if self.ended else None

    @cached_property
    def sentences(self) -> list[AnswerSentence]:
        """The sentences of the answer with the verdicts of the citation check, if there was one."""
        return _checked(self.ended.citations if self.ended else None)

    @cached_property
    def cited(self) -> list[Source]:
        """Sources that the answer cites, in its order."""
        numbers = dict.fromkeys(cited_numbers(self.answer or ""))
        return [self.sources[number] for number in numbers if number in self.sources]

    def best_passages(self, index: Index | None = None, k: int = 3) -> list[Source]:
        """Where no statement of the answer is supported: the passages to read instead.

        Args:
            index: Is searched for the question; None takes the first that the run retrieved.
            k: Passages at most.
        """
        counts = ((self.ended and self.ended.citations) or {}).get("counts", {})
        if self.ended is None or counts.get("supported"):
            return []
        if index is None:
            return list(self.sources.values())[:k]
        found = SourceList()
        with suppress(HanolError):  # as where nothing is indexed
            for passage in index.search(self.started.question, k):
                found.cite_passage(passage)
        return list(found.values())

    @property
    def reports(self) -> list[ReportUpdated]:
        """Markov mode: the report after each round that wrote a new one."""
        return [e for e in self.events if isinstance(e, ReportUpdated) and not e.kept]

    @property
    def summary(self) -> str:
        """Calls, tokens, seconds and how it ended, in one line."""
        spent = self.spent
        parts = [
            ENDINGS[self.ended.termination] if self.ended else "not finished",
            counted(spent.model_calls, "model call"),
            counted(spent.tool_calls, "tool call"),
            f"{spent.prompt_tokens:,} tokens read, {spent.generated_tokens:,} written",
            duration(spent.seconds),
        ]
        repaired = self.ended.repaired if self.ended else 0
        parts += [f"{counted(repaired, 'turn')} repaired"] * (repaired > 0)
        return " · ".join(parts + [f"{spent.money:,.4f} money"] * (spent.money > 0))

    @property
    def spent(self) -> Ledger:
        """What it has cost; so far, while the run is not finished."""
        if self.ended:
            return Ledger.of_run(self.ended.content())
        return Spent.of(self.events).ledger


def call_title(name: str, arguments: dict[str, Any]) -> str:
    """A short title of a call: the tool and its main argument."""
    for key in ("query", "url", "files"):
        value = arguments.get(key)
        if value:
            return f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
    return name


def counted(number: int, word: str) -> str:
    """'1 call', '2 calls'."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A duration as text: "0.3 s", "2 min 5 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def surroundings(sources: Iterable[Source], index: Index) -> dict[int, tuple[str, str]]:
    """The text of the page before and after each passage, of documents that have not changed."""
    places = [source for source in sources if source.address.startswith("doc://")]
    found = {source.number: _around(source, index) for source in places}
    return {number: around for number, around in found.items() if any(around)}


def _around(source: Source, index: Index) -> tuple[str, str]:
    if source.start is None or source.end is None:
        return "", ""
    try:
        pieces = index.read(source.address)
    except HanolError:  # the document has changed or is gone; the passage itself is in the log
        return "", ""
    if any(piece.sha256 != source.sha256 for piece in pieces):
        return "", ""
    page = "".join(_joined((p.start, p.text) for p in pieces if p.page == source.page))
    if page[source.start : source.end] != source.text:
        return "", ""
    before = page[max(0, source.start - _CONTEXT_CHARS) : source.start]
    return before.lstrip(), page[source.end : source.end + _CONTEXT_CHARS].rstrip()


def _joined(pieces: Iterable[tuple[int, str]]) -> Iterator[str]:
    """The text of a page from its overlapping passages; what none holds is white space."""
    end = 0
    for start, text in sorted(pieces):
        if start > end:
            yield " " * (start - end)
        yield text[max(0, end - start) :]
        end = max(end, start + len(text))


def _checked(citations: Mapping[str, Any] | None) -> list[AnswerSentence]:
    if not citations:
        return []
    try:
        return [
            AnswerSentence(str(one["text"]), int(one["start"]), int(one["end"]), status, _note(one))
            for one in citations["sentences"]
            if (status := one["status"]) in MEANINGS
        ]
    except (KeyError, TypeError, ValueError) as err:
        raise RunError(
            "The citations in the last line of the run's log are damaged: delete this line, and "
            "resume the run."
        ) from err


def _note(entry: Mapping[str, Any]) -> str:
    unknown = sorted({str(c["number"]) for c in entry["citations"] if not c["known"]})
    notes = []
    if unknown:
        notes.append(f"This run retrieved no source {', '.join(unknown)}.")
    if entry["missing"]:
        quoted = ", ".join(f"“{text}”" for text in entry["missing"])
        notes.append(f"Not in the passages it cites: {quoted}.")
    elif entry["status"] == "unsupported":
        share = entry["overlap"] or 0.0
        notes.append(f"Only {share:.0%} of its words occur in the passages it cites.")
    if entry["status"] == "uncited":
        notes.append("No source is given.")
    return " ".join(notes) or f"Here {MEANINGS[entry['status']]}."


def cited_numbers(answer: str) -> list[int]:
    """Numbers in brackets, in order of appearance, repeated ones too."""
    return [number for found in CITATION.finditer(answer) for number in citation_numbers(found[1])]
