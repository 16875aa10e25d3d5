"""Runs in the official layout: a line of `iter1.jsonl`, as the inference script writes it.

The format is that of Tongyi DeepResearch (arXiv 2510.24701).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hanol.engines import Message
from hanol.errors import RunError
from hanol.files import replace_text
from hanol.research._replay import transcript
from hanol.runs import Event, RunEnded, RunStarted, Termination
from hanol.tools import located_rows, messages_field, text_field

_NO_ANSWER = "No answer found."
# The official script knows no limit of money: such a run reads as one that used up its calls.
TERMINATIONS: dict[Termination, str] = {
    "answer": "answer",
    "no_answer": "answer not found",
    "max_calls": "exceed available llm calls",
    "max_money": "exceed available llm calls",
    "max_seconds": "No answer found after 2h30mins",
    "max_tokens": "generate an answer as token limit reached",
    "format_errors": "format error: generate an answer as token limit reached",
}


@dataclass(frozen=True)
class OfficialRun:
    """One line of the official inference script's output files (`iter1.jsonl`).

    Args:
        answer: The reference.
        prediction: The answer found, or an official excuse for none.
        termination: Why the run stopped, in the official words ("answer", "answer not found", ...).
    """

    question: str
    answer: str
    messages: tuple[Message, ...]
    prediction: str
    termination: str

    def to_line(self) -> str:
        """The line, without its end."""
        row = {**asdict(self), "messages": [message.to_dict() for message in self.messages]}
        line = json.dumps(row, ensure_ascii=False)
        try:
            line.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate of a model; escaped, it can be written
            return json.dumps(row)
        return line


def official_run(events: Sequence[Event], answer: str = "") -> OfficialRun:
    """The official line of a finished run, whatever its mode.

    Args:
        answer: The reference, which the log does not know.

    Raises:
        RunError: The run has not ended, or its log cannot be replayed.
    """
    first, last = (events[0], events[-1]) if events else (None, None)
    if not isinstance(first, RunStarted) or not isinstance(last, RunEnded):
        raise RunError(
            "The run has not ended, so it has no answer to export. Resume it with `hanol "
            "research resume`."
        )
    return OfficialRun(
        question=first.question,
        answer=answer,
        messages=tuple(transcript(events)),
        prediction=last.answer or _NO_ANSWER,
        termination=TERMINATIONS[last.termination],
    )


def read_official_runs(path: str | Path) -> list[OfficialRun]:
    """Read an official output file.

    Raises:
        DataError: A row lacks one of the five keys.
    """
    return [
        OfficialRun(
            question=text_field(row, "question", place),
            answer=text_field(row, "answer", place),
            messages=messages_field(row, "messages", place),
            prediction=text_field(row, "prediction", place),
            termination=text_field(row, "termination", place),
        )
        for place, row in located_rows(path)
    ]


def write_official_runs(path: str | Path, runs: Iterable[OfficialRun]) -> None:
    """Write an official output file, one line per run."""
    replace_text(path, "".join(run.to_line() + "\n" for run in runs))
