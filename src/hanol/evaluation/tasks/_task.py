"""What a task is: items, a solver that asks a model about one, a scorer of what it answers."""

import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from hanol.engines import Completion, Engine, Message, Request, Sampling
from hanol.errors import DataError

Value = bool | float | None  # right or wrong, a figure of a metric, or no verdict


@dataclass(frozen=True)
class TaskItem:
    """One item of a task; a `hanol.scoring.Problem`.

    Args:
        id: Unique in its task.
        question: What the model is asked.
        answers: References; several are alternatives (for sets, the members).
        verifier: What checks an answer, for `hanol.scoring.parse_verifier`; None where scorers
            compare with the references.
        group: What results are broken down by, such as a level; empty for nothing.
        source: Text that the answer is about, for metrics; None where there is none.
        extra: Further keys of the item's row, which some verifiers read.
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    verifier: str | None = None
    group: str = ""
    source: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answer(self) -> str | None:
        """The first reference."""
        return self.answers[0] if self.answers else None

    @property
    def where(self) -> str:
        """Its name in messages."""
        return f"the item {self.id!r}"

    @property
    def hash(self) -> str:
        """SHA-256 of its content."""
        return digest(asdict(self))


class Ask:
    """How a solver asks the model: with the sampling of the run, every call counted.

    Args:
        engine: The model.
        sampling: How answers are drawn; its seed is that of the run and of the repetition.
    """

    def __init__(self, engine: Engine, sampling: Sampling) -> None:
        self.engine, self.sampling = engine, sampling
        self.is_cut = False  # whether a limit ended an answer

    async def __call__(
        self, asked: str | Sequence[Message], *, n: int = 1, **request: Any
    ) -> Completion:
        """Answers to a question or a conversation; `request` are other fields of `Request`.

        An engine that draws one answer at a time is asked `n` times, with seeds that follow each
        other.

        Raises:
            EngineError: The model did not answer.
        """
        messages = (Message("user", asked),) if isinstance(asked, str) else tuple(asked)
        if n > 1 and "n" not in self.engine.capabilities:
            parts = []
            for i in range(n):
                seed = None if self.sampling.seed is None else self.sampling.seed + i
                drawn = replace(self.sampling, seed=seed)
                parts.append(await self.engine.complete(Request(messages, drawn, **request)))
            done = replace(parts[0], choices=tuple(part.choices[0] for part in parts))
        else:
            done = await self.engine.complete(Request(messages, self.sampling, n=n, **request))
        self.is_cut |= any(choice.finish_reason == "length" for choice in done.choices)
        return done


class TaskSolver(Protocol):
    """Finds the answer to an item.

    Attributes:
        name: The specification that opens it again.
        calls: Calls of the model for one item, for estimates.
    """

    name: str
    calls: int

    async def __call__(self, item: TaskItem, ask: Ask) -> str:
        """The answer as text."""


@dataclass(frozen=True)
class TaskScorer:
    """Says how good an answer is.

    Args:
        name: The specification that opens it again.
        score: True or False, a figure (higher is better), or None without a verdict; perhaps as an
            awaitable.
        is_costly: Whether it asks a model, so that its verdicts are kept.
        aclose: Releases what it holds.
    """

    name: str
    score: Callable[[TaskItem, str], Value | Awaitable[Value]]
    is_costly: bool = False
    aclose: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, item: TaskItem, text: str) -> Value:
        """The score of an answer; an empty one is wrong, and no judge is asked."""
        if not said(text):
            return False
        made = self.score(item, text)
        found: Value = await made if inspect.isawaitable(made) else made
        return found


@dataclass(frozen=True)
class EvalTask:
    """Items, what solves them and what scores them.

    Args:
        name: The specification that opens it again.
        items: What is asked.
        solver: Asks the model.
        scorer: Scores what it answered.

    Raises:
        DataError: There are no items, or two have one id.
    """

    name: str
    items: Sequence[TaskItem]
    solver: TaskSolver
    scorer: TaskScorer

    def __post_init__(self) -> None:
        if not self.items:
            raise DataError(f"The task {self.name!r} has no items.")
        seen: set[str] = set()
        for item in self.items:
            if item.id in seen:
                raise DataError(f"The task {self.name!r} has two items with the id {item.id!r}.")
            seen.add(item.id)

    @property
    def hash(self) -> str:
        """Changes with the items, the solver or the scorer: only equal ones compare."""
        return digest([[item.hash for item in self.items], self.solver.name, self.scorer.name])


def digest(content: Any) -> str:
    """SHA-256 of something as JSON."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def said(text: str) -> str:
    """What a model says behind its thoughts."""
    return text.rpartition("</think>")[2].strip()
