"""Running a task: every answer is kept as it comes, so that no second run asks for it again.

A folder of a run holds `answers.jsonl` (answers by what decides them: item, solver, engine and
sampling), `verdicts.jsonl` (those of models), and at the end `outputs.jsonl`, items as `hanol eval
judge` reads them, and `report.json`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from hanol.engines import Engine, Sampling
from hanol.errors import CapabilityError, ConfigError, EngineError
from hanol.evaluation._metered import MeteredEngine
from hanol.evaluation.tasks._report import TaskReport, make_report
from hanol.evaluation.tasks._task import Ask, EvalTask, TaskItem, Value, digest, said
from hanol.files import refuse_links, replace_json
from hanol.rows import JsonLines, replace_rows
from hanol.runs import Budget, Ledger, alone, gather, synchronous

_APART = 10_007  # between the seeds of repetitions: a vote draws several from each


class Answered(NamedTuple):
    """An answer of a model to an item.

    Args:
        run: Repetition, from 1.
        text: What was answered; None where the engine failed or a limit came first.
        problem: Why there is no answer; empty where there is one.
        is_cut: Whether a limit of tokens ended it.
        spent: What it has cost.
        is_new: Whether it was asked for now.
    """

    item: TaskItem
    run: int
    text: str | None
    problem: str = ""
    is_cut: bool = False
    spent: Ledger = Ledger()
    is_new: bool = False
    value: Value = None


async def arun_task(
    task: EvalTask,
    engine: Engine,
    *,
    sampling: Sampling | None = None,
    runs: int = 1,
    folder: str | Path | None = None,
    budget: Budget | None = None,
    concurrency: int = 16,
    on_answer: Callable[[Answered], None] | None = None,
) -> TaskReport:
    """Ask an engine all items of a task and score its answers.

    A failed call leaves its item without an answer: the report counts it, and the same command asks
    again. The second run of a finished one makes no call.

    Args:
        sampling: How answers are drawn; greedy by default. Repetition r has its seed + 10,007 r.
        runs: Repetitions; above 1 there is Avg@k and Pass@k.
        folder: Where answers are kept; None keeps them for this call.
        budget: Limits on calls, tokens, seconds and money of this call, which ends with what there
            is when one is met; None is no limit.
        concurrency: Items at once.
        on_answer: Called with each answer, also with those that were kept.

    Raises:
        ConfigError: `runs` or `concurrency` is below 1.
        CapabilityError: The engine cannot do what the solver asks for.
        EngineError: No item could be asked.
        RunError: Another process writes the folder.
    """
    if runs < 1:
        raise ConfigError(f"`runs` is {runs}, but must be at least 1.")
    sampling = Sampling(temperature=0.0, seed=0) if sampling is None else sampling
    with ExitStack() as at_end:
        if folder is not None:
            folder = Path(folder)
            refuse_links(folder)
            at_end.enter_context(alone(folder))
        run = _TaskRun(task, engine, sampling, folder, budget)
        left = len(task.items) * runs

        async def one(pair: tuple[TaskItem, int]) -> Answered:
            nonlocal left
            try:
                answered = await run.answered(*pair)
            finally:
                left -= 1
                engine.expect(min(concurrency, left))
            answered = answered._replace(value=await run.value(answered))
            if on_answer is not None:
                on_answer(answered)
            return answered

        pairs = ((item, number) for number in range(1, runs + 1) for item in task.items)
        try:
            engine.expect(min(concurrency, left))
            found = await gather(one, pairs, concurrency=concurrency)
        finally:
            engine.expect(0)
        report = make_report(task, engine.name, asdict(sampling), found)
        if folder is not None:
            replace_rows(folder / "outputs.jsonl", _outputs(task, engine.name, found))
            replace_json(folder / "report.json", report.to_dict())
    return report


run_task = synchronous(arun_task)


class _TaskRun:
    """What a run of a task knows: the answers and verdicts that are kept, and what it has spent."""

    def __init__(
        self,
        task: EvalTask,
        engine: Engine,
        sampling: Sampling,
        folder: Path | None,
        budget: Budget | None,
    ) -> None:
        self._task, self._engine, self._sampling, self._budget = task, engine, sampling, budget
        self._spent, self._asked = Ledger(), 0
        self._answers = _KeptAnswers(folder and folder / "answers.jsonl")
        is_kept = folder is not None and task.scorer.is_costly
        self._verdicts = _KeptAnswers(folder / "verdicts.jsonl" if folder and is_kept else None)

    async def answered(self, item: TaskItem, run: int) -> Answered:
        seed = self._sampling.seed
        sampling = replace(self._sampling, seed=None if seed is None else seed + _APART * (run - 1))
        key = self._key(item, sampling, run)
        if (row := self._answers.get(key)) is not None:
            spent = Ledger(**row["spent"])
            return Answered(item, run, row["text"], "", row["is_cut"], spent)
        if problem := self._limit():
            return Answered(item, run, None, problem)
        # Counted before the call: calls that run at once must not pass a limit together.
        self._asked += self._task.solver.calls
        engine = MeteredEngine(self._engine)
        ask = Ask(engine, sampling)
        try:
            text = await self._task.solver(item, ask)
        except CapabilityError:
            raise
        except EngineError as err:
            self._spent += engine.spent
            return Answered(item, run, None, str(err), spent=engine.spent, is_new=True)
        spent = self._priced(engine.spent)
        self._spent += spent
        row = {"id": item.id, "run": run, "text": text, "is_cut": ask.is_cut}
        self._answers.keep(key, {**row, "spent": spent.to_dict()})
        return Answered(item, run, text, "", ask.is_cut, spent, is_new=True)

    async def value(self, answered: Answered) -> Value:
        """The score of an answer; None where there is none."""
        if answered.text is None:
            return None
        scorer = self._task.scorer
        key = digest([answered.item.hash, answered.text, scorer.name])
        if scorer.is_costly and (row := self._verdicts.get(key)) is not None:
            value: Value = row["value"]
            return value
        found = await scorer(answered.item, answered.text)
        if scorer.is_costly and found is not None:
            self._verdicts.keep(key, {"id": answered.item.id, "value": found})
        return found

    def _key(self, item: TaskItem, sampling: Sampling, run: int) -> str:
        # Without a seed, repetitions differ by chance alone.
        drawn = [asdict(sampling), run if sampling.seed is None else 0]
        return digest([item.hash, self._task.solver.name, self._engine.name, drawn])

    def _priced(self, spent: Ledger) -> Ledger:
        if self._budget is None:
            return spent
        money = self._budget.cost(spent.prompt_tokens, spent.generated_tokens)
        return replace(spent, money=money)

    def _limit(self) -> str:
        """The limit that is met; empty where none is."""
        if (budget := self._budget) is None:
            return ""
        met = {
            "calls": self._asked + self._task.solver.calls > budget.model_calls,
            "tokens": budget.tokens is not None and self._spent.tokens >= budget.tokens,
            "seconds": budget.seconds is not None and self._spent.seconds >= budget.seconds,
            "money": budget.money is not None and self._spent.money >= budget.money,
        }
        return next((f"the limit of {name} was met" for name, is_met in met.items() if is_met), "")


class _KeptAnswers:
    """Rows by key, in a file where one is given."""

    def __init__(self, path: Path | None) -> None:
        self._log = None if path is None else JsonLines(path)
        rows = self._log.read() if self._log is not None else []
        self._rows: dict[str, Mapping[str, Any]] = {row["key"]: row for row in rows}

    def get(self, key: str) -> Mapping[str, Any] | None:
        return self._rows.get(key)

    def keep(self, key: str, row: Mapping[str, Any]) -> None:
        self._rows[key] = row
        if self._log is not None:
            self._log.append({"key": key, **row, "time": round(time.time(), 3)})


def _outputs(task: EvalTask, model: str, found: list[Answered]) -> Iterator[dict[str, Any]]:
    """Answers as items to judge."""
    for one in found:
        if one.text is None:
            continue
        item, is_repeated = one.item, any(other.run > 1 for other in found)
        meta = {"value": one.value, "run": one.run, "group": item.group}
        yield {
            "id": f"{item.id}#{one.run}" if is_repeated else item.id,
            "suite": task.name,
            "source": item.source or item.question,
            "candidate": said(one.text),
            "candidate_raw": one.text,
            "reference": item.answer,
            "system": model,
            "meta": meta,
        }
