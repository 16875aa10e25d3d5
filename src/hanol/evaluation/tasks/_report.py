"""What a run of a task has shown: scores with intervals, coverage, what it has cost."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from hanol.errors import DataError, EngineError
from hanol.evaluation.tasks._task import EvalTask, Value
from hanol.runs import Ledger
from hanol.scoring import Interval, bootstrap, wilson

if TYPE_CHECKING:
    from hanol.evaluation.tasks._run import Answered


class TaskReport(BaseModel, frozen=True):
    """Scores of a model on a task, with 95 % intervals."""

    task: str
    task_hash: str = Field(description="Reports with another one do not compare.")
    model: str
    solver: str
    scorer: str
    sampling: dict[str, Any]
    items: int = Field(description="Items of the task.")
    runs: tuple[float | None, ...] = Field(description="Score of each repetition.")
    is_share: bool = Field(description="Whether scores are shares of right answers, or figures.")
    score: Interval = Field(description="Mean over repetitions (Avg@k) of what has a score.")
    any_of_k: Interval | None = Field(
        description="Share of the items that at least one repetition got right; None for figures."
    )
    groups: dict[str, Interval] = Field(description="Scores by group of items.")
    scored: int = Field(description="Answers with a score.")
    unscored: int = Field(description="Answers without a verdict; they do not count.")
    failed: dict[str, int] = Field(description="Why items have no answer, with how many.")
    cut: int = Field(description="Answers that a limit of tokens ended.")
    new_answers: int = Field(description="Answers that were asked for now; the others were kept.")
    spent: dict[str, float] = Field(description="What all answers together have cost.")

    @property
    def coverage(self) -> float:
        """Share of all answers that have a score."""
        return self.scored / (self.items * len(self.runs))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; scores with four decimals."""
        plain = self.model_dump()
        plain["runs"] = [None if one is None else round(one, 4) for one in self.runs]
        plain["score"] = self.score.rounded()
        plain["any_of_k"] = self.any_of_k and self.any_of_k.rounded()
        plain["groups"] = {name: one.rounded() for name, one in self.groups.items()}
        return {**plain, "coverage": round(self.coverage, 4)}

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield f"{self.task}: {self.model}, solver {self.solver}, scorer {self.scorer}"
        k = len(self.runs)
        yield f"{f'Avg@{k}' if k > 1 else 'score':24}{self._shown(self.score)}"
        if self.any_of_k is not None and k > 1:
            yield f"{f'Pass@{k}':24}{self._shown(self.any_of_k)}"
        for name, interval in self.groups.items():
            yield f"  {name:22}{self._shown(interval)}"
        yield f"{'scored':24}{self.scored} of {self.items * k} answers, {self.new_answers} new"
        if self.unscored:
            yield f"{'no verdict':24}{self.unscored}, left out"
        for why, count in self.failed.items():
            yield f"{'no answer':24}{count}, left out: {why}"
        if self.cut:
            yield f"{'cut':24}{self.cut} answers ended at the limit of tokens"
        spent = {name: value for name, value in self.spent.items() if value}
        yield f"{'spent':24}" + ", ".join(
            f"{value:,.10g} {name.replace('_', ' ')}" for name, value in spent.items()
        )

    def _shown(self, interval: Interval) -> str:
        if self.is_share:
            return str(interval)
        return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def make_report(
    task: EvalTask, model: str, sampling: Mapping[str, Any], found: Sequence["Answered"]
) -> TaskReport:
    """Sum up the answers of all repetitions.

    Raises:
        EngineError: No item has an answer.
        DataError: No answer has a score.
    """
    failed: dict[str, int] = defaultdict(int)
    for one in found:
        if one.text is None:
            failed[one.problem] += 1
    if sum(failed.values()) == len(found):
        raise EngineError(
            f"None of the {len(task.items)} items of {task.name!r} could be asked: "
            f"{next(iter(failed))}"
        )
    values = [one.value for one in found if one.value is not None]
    if not values:
        raise DataError(f"None of the {len(found)} answers has a score: the scorer "
                        f"{task.scorer.name!r} gave no verdict.")  # fmt: skip
    k = max(one.run for one in found)
    table: dict[str, list[Value]] = {item.id: [None] * k for item in task.items}
    for one in found:
        table[one.item.id][one.run - 1] = one.value
    is_share = all(isinstance(value, bool) for value in values)
    groups: dict[str, list[str]] = defaultdict(list)
    for item in task.items:
        groups[item.group].append(item.id)
    spent = sum((one.spent for one in found), Ledger()).to_dict()
    by_group = {
        name: interval
        for name, ids in sorted(groups.items())
        if len(groups) > 1 and (interval := _mean([table[id] for id in ids], is_share))
    }
    score = _mean(list(table.values()), is_share)
    assert score is not None
    return TaskReport(
        task=task.name,
        task_hash=task.hash,
        model=model,
        solver=task.solver.name.partition("\n")[0][:60],
        scorer=task.scorer.name,
        sampling=dict(sampling),
        items=len(task.items),
        runs=tuple(_run_mean(table, run) for run in range(k)),
        is_share=is_share,
        score=score,
        any_of_k=_any(table) if is_share else None,
        groups=by_group,
        scored=len(values),
        unscored=sum(one.text is not None and one.value is None for one in found),
        failed=dict(failed),
        cut=sum(one.is_cut for one in found),
        new_answers=sum(one.is_new and one.text is not None for one in found),
        spent={name: round(value, 4) for name, value in spent.items()},
    )


def _run_mean(table: Mapping[str, Sequence[Value]], run: int) -> float | None:
    known = [float(value) for row in table.values() if (value := row[run]) is not None]
    return float(np.mean(known)) if known else None


def _mean(rows: Sequence[Sequence[Value]], is_share: bool) -> Interval | None:
    """Mean over items of the mean over repetitions, resampled by items; None without values.

    Where every repetition of an item agrees, right and wrong answers have Wilson's interval, which
    has a width where all or none are right.
    """
    means = [
        float(np.mean(known))
        for row in rows
        if (known := [float(value) for value in row if value is not None])
    ]
    if not means:
        return None
    if is_share and all(mean in (0.0, 1.0) for mean in means):
        return wilson(int(sum(means)), len(means))
    return bootstrap([[mean] for mean in means])[0]


def _any(table: Mapping[str, Sequence[Value]]) -> Interval | None:
    """Share of the items that any repetition got right; undecided ones are left out."""
    decided = [any(row) for row in table.values() if any(row) or None not in row]
    return wilson(sum(decided), len(decided)) if decided else None
