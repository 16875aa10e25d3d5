"""Runs: the folder, event log and budget of a command that can be resumed.

A run is a stream of typed events. Its log is all there is: everything shown is computed from it.
"""

from hanol.runs._budget import ANSWER_RESERVE, Budget, Spent
from hanol.runs._dialogues import messages_of, placed_rows, text_of
from hanol.runs._events import (
    ContextRestarted,
    Event,
    Mode,
    ModelAnswered,
    Purpose,
    ReportUpdated,
    RunEnded,
    RunStarted,
    Termination,
    ToolReturned,
    TurnRejected,
    event_adapter,
)
from hanol.runs._log import RunFolder
from hanol.runs._stream import stream
from hanol.runs._task import Task, read_tasks

__all__ = [
    "ANSWER_RESERVE",
    "Budget",
    "ContextRestarted",
    "Event",
    "Mode",
    "ModelAnswered",
    "Purpose",
    "ReportUpdated",
    "RunEnded",
    "RunFolder",
    "RunStarted",
    "Spent",
    "Task",
    "Termination",
    "ToolReturned",
    "TurnRejected",
    "event_adapter",
    "messages_of",
    "placed_rows",
    "read_tasks",
    "stream",
    "text_of",
]
