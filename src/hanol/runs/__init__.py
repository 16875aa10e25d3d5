"""Runs: what every long command shares, so that it can be resumed and its cost is known.

The event log and its folder (`RunFolder`), one writer a folder (`alone`), the guards against other
settings (`ResumeGuard`) and other data (`can_reuse`), limits and costs (`Budget`, `Ledger`), the
questions of a batch (`Task`), a bounded `gather`, and `synchronous` versions of async functions.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.runs._budget import ANSWER_RESERVE, Budget, Spent
    from hanol.runs._concurrency import gather, in_thread, leave, synchronous
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
    )
    from hanol.runs._ledger import Ledger
    from hanol.runs._lock import alone
    from hanol.runs._log import RunFolder
    from hanol.runs._origin import is_begun_here, seal
    from hanol.runs._resume import (
        ResumeGuard,
        can_reuse,
        check_unchanged,
        environment,
        note_sources,
        restoring,
    )
    from hanol.runs._task import Task, read_tasks

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "ANSWER_RESERVE",
    "Budget",
    "ContextRestarted",
    "Event",
    "Ledger",
    "Mode",
    "ModelAnswered",
    "Purpose",
    "ReportUpdated",
    "ResumeGuard",
    "RunEnded",
    "RunFolder",
    "RunStarted",
    "Spent",
    "Task",
    "Termination",
    "ToolReturned",
    "TurnRejected",
    "alone",
    "can_reuse",
    "check_unchanged",
    "environment",
    "gather",
    "in_thread",
    "is_begun_here",
    "leave",
    "note_sources",
    "read_tasks",
    "restoring",
    "seal",
    "synchronous",
]
