"""Trajectories: questions asked several times, right runs kept as training data.

Source: rejection sampling by the answer as in arXiv 2505.22648 (WebDancer) and 2510.24701.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanol.engines import Engine
from hanol.errors import ConfigError
from hanol.research import OfficialRun, Segment, fixed_date, official_run, run_task, segments
from hanol.retrieval import Index
from hanol.runs import Event, RunFolder, Task, gather
from hanol.worlds import GraphQuestion

_SEEDS = 1_000  # between two attempts: each call of a run takes the next seed
IsRight = Callable[[GraphQuestion, str], bool]


@dataclass(frozen=True)
class Attempt:
    """One run at a question.

    Args:
        question: The question.
        number: Number of the attempt, from 0.
        prediction: The answer, if there is one.
        is_right: Whether the answer is right.
        error: Why the run failed; None if it ended.
        events: Reads its log.
    """

    question: GraphQuestion
    number: int
    prediction: str | None
    is_right: bool
    error: str | None
    events: Callable[[], Sequence[Event]] = field(compare=False)

    def name(self, number: int) -> str:
        """Id of one of the rows that are made from it."""
        return f"{self.question.id}.{self.number}.{number}"


async def asynthesize_trajectories(
    questions: Sequence[GraphQuestion],
    index: Index | None,
    engine: Engine,
    folder: str | os.PathLike[str],
    *,
    attempts: int = 1,
    is_right: IsRight | None = None,
    concurrency: int = 8,
    seed: int = 0,
    on_attempt: Callable[[Attempt], None] = lambda attempt: None,
    **options: Any,
) -> list[Attempt]:
    """Run every question several times; runs that have ended are not run again.

    Args:
        questions: The questions.
        index: The documents.
        engine: The model.
        folder: Gets the run folders, `runs/<id>.<attempt>/`.
        attempts: Runs per question, at least 1.
        is_right: Judges an answer; None compares it with the right ones.
        concurrency: Runs at once, at least 1.
        seed: Seed of the first attempt.
        on_attempt: Called with each run when it has ended or failed.
        options: Options of `Researcher`.

    Returns:
        All attempts, in the order of the questions.

    Raises:
        ConfigError: A number is below 1.
    """
    if attempts < 1:
        raise ConfigError(f"`attempts` is {attempts}, but must be at least 1.")
    options = fixed_date(folder, options)
    judge = is_right or (lambda question, text: question.is_right(text))
    jobs = [(question, number) for question in questions for number in range(attempts)]

    async def attempt_of(job: tuple[GraphQuestion, int]) -> Attempt:
        question, number = job
        task = Task(f"{question.id}.{number}", question.text, question.answer)
        settings = {**options, "seed": seed + _SEEDS * number}
        row = await run_task(task, index, engine, folder, settings)
        text, error = row["prediction"], row["error"]
        problem = None if error is None else f"{error['kind']}: {error['message']}"
        right = text is not None and judge(question, text)
        events = RunFolder(Path(folder) / row["run"]).events
        attempt = Attempt(question, number, text, right, problem, events)
        on_attempt(attempt)
        return attempt

    return await gather(attempt_of, jobs, concurrency=concurrency)


def official_lines(attempts: Sequence[Attempt]) -> list[OfficialRun]:
    """The right attempts as lines of the official output files."""
    kept = [attempt for attempt in attempts if attempt.is_right]
    return [official_run(attempt.events(), ", ".join(attempt.question.answers)) for attempt in kept]


def trajectory_rows(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """The right attempts as conversations to learn from, every turn in exactly one of them."""
    return [
        chat_row(segment, "trajectory", attempt.name(number))
        for attempt in attempts
        if attempt.is_right
        for number, segment in enumerate(segments(attempt.events()))
    ]


def chat_row(segment: Segment, kind: str, name: str) -> dict[str, Any]:
    """A conversation with what the model wrote at its end: what it teaches, and its id."""
    messages = [message.to_dict() for message in segment.messages]
    said = {"role": "assistant", "content": segment.completion}
    return {"messages": [*messages, said], "kind": kind, "id": name}
