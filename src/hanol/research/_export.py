"""A run as a line of the official output files, and such a line as events.

The format is that of the inference script of Tongyi DeepResearch (arXiv 2510.24701).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from hanol.engines import Message
from hanol.errors import RunError
from hanol.research._official import OfficialRun
from hanol.research._replay import transcript
from hanol.runs import (
    Event,
    ModelAnswered,
    RunEnded,
    RunStarted,
    Termination,
    ToolReturned,
    TurnRejected,
)
from hanol.tools import parse_turn

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


def official_run(events: Sequence[Event], answer: str = "") -> OfficialRun:
    """The official line of a finished run, whatever its mode.

    Args:
        events: Its log.
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


def events_of(run: OfficialRun) -> list[Event]:
    """An official line as events, for reports on runs of the official script.

    What the line does not say is empty: times, tokens, sources. A replay needs what is missing.
    The official script runs the first call of a turn only.
    """
    system = next((m.text for m in run.messages if m.role == "system"), "")
    dialogue = [message for message in run.messages if message.role != "system"][1:]
    run_id = hashlib.sha256(run.to_line().encode("utf-8", "replace")).hexdigest()[:16]
    fields: list[tuple[type[Event], dict[str, Any]]] = [
        (
            RunStarted,
            {
                "run_id": run_id,
                "question": run.question,
                "mode": "react",
                "model": "unknown",
                "settings": {},
                "system_prompt": system,
                "tools": [],
                "index": None,
                "index_version": None,
                "versions": {},
            },
        )
    ]
    step = 0
    for place, message in enumerate(dialogue):
        if message.role == "assistant":
            step += 1
            fields.append((ModelAnswered, _answered(step, message.text)))
        elif place:
            fields.append(_reaction(step, dialogue[place - 1], message.text))
    fields.append((RunEnded, _ended(run, step, [kind for kind, _ in fields])))
    return [kind(number=i, time=0.0, **values) for i, (kind, values) in enumerate(fields)]


def _answered(step: int, text: str) -> dict[str, Any]:
    return {
        "step": step,
        "purpose": "turn",
        "request_sha256": "",
        "text": text,
        "finish_reason": "stop",
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "seconds": 0.0,
    }


def _reaction(step: int, turn: Message, text: str) -> tuple[type[Event], dict[str, Any]]:
    """What followed a turn: the result of its first call, or a format error."""
    parsed = parse_turn(turn.text)
    if not parsed.calls:
        return TurnRejected, {"step": step, "error": parsed.error or "no_action", "text": text}
    inner = text.strip().removeprefix("<tool_response>").removesuffix("</tool_response>")
    call = parsed.calls[0]
    return ToolReturned, {
        "step": step,
        "call": 0,
        "name": call.name,
        "arguments": dict(call.arguments),
        "text": inner.strip("\n"),
        "sources": [],
        "failed": False,
        "seconds": 0.0,
    }


def _ended(run: OfficialRun, step: int, kinds: Sequence[type[Event]]) -> dict[str, Any]:
    words = {official: ours for ours, official in reversed(TERMINATIONS.items())}
    termination = words.get(run.termination, "no_answer")
    found = run.prediction.strip().rstrip(".").casefold() not in ("", "no answer found")
    return {
        "step": step,
        "termination": termination,
        "answer": run.prediction if found else None,
        "citations": None,
        "model_calls": kinds.count(ModelAnswered),
        "tool_calls": kinds.count(ToolReturned),
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "seconds": 0.0,
        "money": 0.0,
    }
