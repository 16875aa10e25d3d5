"""What happens in a run, as typed events: streamed to the caller and kept in `events.jsonl`.

The log is the run: everything else (report, export, resumed state, replay) is computed from it.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from hanol.retrieval import Source

Mode = Literal["react", "markov", "resum"]
Purpose = Literal["turn", "forced_answer", "summary", "extract", "condense", "synthesis"]
Termination = Literal[
    "answer", "no_answer", "max_calls", "max_tokens", "max_seconds", "max_money", "format_errors"
]


Count = Annotated[int, Field(ge=0, le=2**53)]
Amount = Annotated[float, Field(ge=0, le=1e15)]  # of seconds or money


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    number: Count = Field(description="Position in the log, from 0.")
    time: float = Field(
        ge=0, le=2.5e11, description="Seconds since the epoch, when it was written."
    )
    token_counts: dict[str, Count] = Field(
        default={},
        description="Tokens of texts that were counted since the last event, by hash: a replay "
        "needs no tokenizer.",
    )

    def content(self) -> dict[str, Any]:
        """Its own fields, without its place in the log."""
        return self.model_dump(exclude={"type", *_Event.model_fields})


class RunStarted(_Event):
    """The first event: everything that decides what the run will do."""

    type: Literal["run_started"] = "run_started"
    run_id: str
    question: str = Field(min_length=1)
    mode: Mode
    model: str
    settings: dict[str, Any] = Field(description="Budget, sampling, limits; what resume compares.")
    system_prompt: str
    tools: list[str]
    index: str | None = Field(description="Folder of the documents.")
    index_version: str | None
    versions: dict[str, str]
    parent: str | None = Field(default=None, description="Run and step that this one forked from.")
    seal: str = Field(default="", description="By which its user's machine knows the run again.")


class ModelAnswered(_Event):
    """One call of the model finished."""

    type: Literal["model_answered"] = "model_answered"
    step: Count = Field(description="Round of the run, from 1.")
    purpose: Purpose
    request_sha256: str = Field(description="SHA-256 of the request: a replay must send the same.")
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: Count
    completion_tokens: Count
    cached_tokens: Count = 0
    seconds: Amount
    money: Amount = 0.0
    native_calls: bool = Field(
        default=False, description="The server sent the calls of `text` apart from its text."
    )
    uncertainty: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Mean surprise of the tool calls' tokens, in nats; None without tool calls or "
        "log-probabilities.",
    )


class ToolReturned(_Event):
    """One tool call finished."""

    type: Literal["tool_returned"] = "tool_returned"
    step: Count
    call: Count = Field(description="Which call of the turn, from 0.")
    name: str
    arguments: dict[str, Any]
    text: str = Field(description="What the model was shown, before escaping.")
    sources: list[Source]
    addresses: list[str] = []
    failed: bool
    seconds: Amount


class TurnRejected(_Event):
    """The model's turn could not be used; it is told why."""

    type: Literal["turn_rejected"] = "turn_rejected"
    step: Count
    error: str = Field(description="One of the parser's error kinds.")
    text: str = Field(description="What the model is told.")


class ReportUpdated(_Event):
    """Markov mode: the report that the next round starts from."""

    type: Literal["report_updated"] = "report_updated"
    step: Count
    report: str
    kept: bool = Field(description="The round wrote none; the last one stays.")


class ContextRestarted(_Event):
    """ReSum mode: the conversation starts again from a summary."""

    type: Literal["context_restarted"] = "context_restarted"
    step: Count
    summary: str


class RunEnded(_Event):
    """The last event."""

    type: Literal["run_ended"] = "run_ended"
    step: Count
    termination: Termination
    answer: str | None
    citations: dict[str, Any] | None = Field(description="What `check_citations` found.")
    model_calls: Count
    tool_calls: Count
    prompt_tokens: Count
    cached_tokens: Count = 0
    completion_tokens: Count
    seconds: Amount
    money: Amount
    repaired: Count = Field(default=0, description="Turns that were read leniently.")


Event = Annotated[
    RunStarted
    | ModelAnswered
    | ToolReturned
    | TurnRejected
    | ReportUpdated
    | ContextRestarted
    | RunEnded,
    Field(discriminator="type"),
]
event_adapter: TypeAdapter[Event] = TypeAdapter(Event)
