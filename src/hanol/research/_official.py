"""Lines of the official inference script's output files (`iter1.jsonl`)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hanol.engines import Message
from hanol.tools import located_rows, messages_field, text_field


@dataclass(frozen=True)
class OfficialRun:
    """One line of the official inference script's output files (`iter1.jsonl`).

    Args:
        question: What was asked.
        answer: The reference.
        messages: The whole dialogue.
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
        row = {
            "question": self.question,
            "answer": self.answer,
            "messages": [message.to_dict() for message in self.messages],
            "prediction": self.prediction,
            "termination": self.termination,
        }
        # A lone surrogate of a model cannot be written in UTF-8, but it can be escaped.
        line = json.dumps(row, ensure_ascii=False)
        return line if _is_utf8(line) else json.dumps(row)


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
    Path(path).write_text("".join(run.to_line() + "\n" for run in runs), "utf-8")


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
