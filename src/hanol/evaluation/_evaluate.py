"""Scoring the answers of one or more runs."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from hanol.errors import DataError
from hanol.evaluation._judge import Judge, Verdict
from hanol.runs import Ledger, gather, synchronous
from hanol.scoring import Metric, RunScores, score_runs

Answers = Mapping[str, str | None]


@dataclass(frozen=True)
class Question:
    """One question with what counts as its answer.

    Args:
        id: Unique in its set; the text need not be.
        answer: The reference; several are alternatives (for `set_match`, the members).
    """

    id: str
    question: str
    answer: str | tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """Scores of k runs over the same questions.

    Args:
        metric: Name of the metric, or "judge".
        outcomes: By question id, one entry per run: right, wrong, or None without a verdict.
        unanswered: (id, run from 1) of answers that are missing or empty; they count as wrong.
        errors: (id, run from 1) of answers without a verdict of the judge; they do not count.
        verdicts: What the judge said, by id, one entry per run; None where there was no answer.
        spent: What the judge has cost.
    """

    metric: str
    outcomes: Mapping[str, tuple[bool | None, ...]]
    scores: RunScores
    unanswered: tuple[tuple[str, int], ...]
    errors: tuple[tuple[str, int], ...]
    judge: str | None = None
    prompt_sha256: str | None = None
    verdicts: Mapping[str, tuple[Verdict | None, ...]] | None = None
    spent: Ledger = field(default_factory=Ledger)

    @property
    def k(self) -> int:
        """Number of runs."""
        return len(self.scores.runs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; shares with four decimals."""
        plain, scores = asdict(self), self.scores
        del plain["scores"]
        plain |= {
            "questions": len(self.outcomes),
            "k": self.k,
            "avg_at_k": scores.avg_at_k.rounded(),
            "any_of_k": scores.any_of_k.rounded(),
            "best_pass_at_1": scores.best_pass_at_1.rounded(),
            "runs": [round(score, 4) for score in scores.runs],
        }
        return cast(dict[str, Any], json.loads(json.dumps(plain)))


async def aevaluate(
    predictions: Sequence[Answers],
    references: Sequence[Question],
    metric: Metric | Judge,
    *,
    concurrency: int = 16,
) -> Evaluation:
    """Score answers.

    Args:
        predictions: One mapping a run, from question id to answer. A missing, None or empty answer
            counts as wrong.
        metric: `exact_match`, `set_match`, `numeric_match` or the like, or a judge.
        concurrency: Answers before the judge at once.

    Raises:
        DataError: An id occurs twice or has no question, there is nothing to score, or the judge
            gave no verdict on a whole run.
    """
    _check_ids(predictions, references)
    answers = {
        item.id: [(run.get(item.id) or "").strip() for run in predictions] for item in references
    }
    unanswered = _places(answers, lambda answer: not answer)
    outcomes: dict[str, tuple[bool | None, ...]]
    judged: dict[str, Any] = {}
    if isinstance(metric, Judge):
        metric.engine.spent = Ledger()  # of this evaluation alone
        verdicts = await _judge_all(metric, references, answers, concurrency)
        outcomes = {name: tuple(map(_outcome, row)) for name, row in verdicts.items()}
        judged = {"judge": metric.name, "prompt_sha256": metric.prompt_sha256}
        judged |= {"verdicts": verdicts, "spent": metric.engine.spent}
    else:
        outcomes = {
            item.id: tuple(bool(answer) and metric(answer, item.answer) for answer in row)
            for item, row in zip(references, answers.values(), strict=True)
        }
    return Evaluation(
        metric=_name(metric),
        outcomes=outcomes,
        scores=score_runs(outcomes),
        unanswered=unanswered,
        errors=_places(outcomes, lambda outcome: outcome is None),
        **judged,
    )


evaluate = synchronous(aevaluate)


async def _judge_all(
    judge: Judge, references: Sequence[Question], answers: Mapping[str, list[str]], concurrency: int
) -> dict[str, tuple[Verdict | None, ...]]:
    async def one(pair: tuple[Question, str]) -> Verdict | None:
        item, answer = pair
        return await judge.judge(item.question, answer, item.answer) if answer else None

    pairs = [(item, answer) for item in references for answer in answers[item.id]]
    verdicts = iter(await gather(one, pairs, concurrency=concurrency))
    return {item.id: tuple(next(verdicts) for _ in answers[item.id]) for item in references}


def _name(metric: Metric | Judge) -> str:
    if isinstance(metric, Judge):
        return "judge"
    # `functools.partial`, which sets a tolerance, has no name of its own.
    return getattr(getattr(metric, "func", metric), "__name__", type(metric).__name__)


def _outcome(verdict: Verdict | None) -> bool | None:
    if verdict is None:  # nothing to judge: no answer
        return False
    return None if verdict.status == "error" else verdict.status == "correct"


def _places(
    table: Mapping[str, Sequence[Any]], wanted: Callable[[Any], bool]
) -> tuple[tuple[str, int], ...]:
    return tuple(
        (name, run)
        for name, row in table.items()
        for run, value in enumerate(row, start=1)
        if wanted(value)
    )


def _check_ids(predictions: Sequence[Answers], references: Sequence[Question]) -> None:
    known = Counter(item.id for item in references)
    if twice := [name for name, count in known.items() if count > 1]:
        raise DataError(f"Two questions have the id {twice[0]!r}; ids must be unique.")
    for number, run in enumerate(predictions, start=1):
        if strangers := set(run) - known.keys():
            raise DataError(
                f"Run {number} answers {len(strangers)} questions that are not in the set, for "
                f"example {min(strangers)!r}. Were the runs made from another file?"
            )
