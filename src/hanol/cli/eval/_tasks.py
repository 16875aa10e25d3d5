"""`hanol eval run`: a model on a task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanol.cli._command import JsonOption, Result, argument, command, option
from hanol.cli._options import (
    BudgetOptions,
    ConcurrencyOption,
    DryRunOption,
    ModelOptions,
    SamplingOptions,
    is_checkpoint,
    open_engine,
)
from hanol.cli._progress import interruptible, progress

if TYPE_CHECKING:
    from hanol.engines import Engine, Sampling
    from hanol.evaluation import Answered, EvalTask

_NO_LIMIT = 10**12  # calls


@command
def run(
    model: ModelOptions,
    task: str = argument(
        "Problems (sums, countdown, gym:NAME, ...), encyclopedia:SEED, factbook, NAME:FILE for a "
        "published set (gaia, browsecomp, hle, webwalkerqa, frames, simpleqa), a file of rows with "
        "question and answer, or module:function.",
        metavar="TASK",
    ),
    solver: str = option(
        "generate", "How it is asked: generate, steps, vote:N, prompt:FILE or module:function."
    ),
    scorer: str | None = option(
        None,
        "How answers are scored: exact, set, numeric, gaia, choice, contains, row, verify, "
        "verify:SPEC, judge:MODEL, metric:NAME or module:function. Omitted: the task's own.",
    ),
    num_items: int | None = option(
        None, "Number of items. Omitted: 100 of generated ones, all of a file.", min=1
    ),
    num_runs: int = option(1, "Number of runs per item.", min=1),
    task_seed: int = option(0, "Seed of generated items, and of the choice from a file."),
    output: Path | None = option(
        None, "Folder for answers and report; the same command resumes there. Omitted: none."
    ),
    concurrency: ConcurrencyOption = 16,
    fail_under: float | None = option(
        None, "Exit with 3 if the score is below this: a percentage, or a figure. Omitted: never."
    ),
    sampling: SamplingOptions = SamplingOptions(),
    limits: BudgetOptions = BudgetOptions(),
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> Result:
    """Run a model on a task and score its answers, with 95 % intervals.

    Answers are greedy unless sampled. With --output every answer is kept: a second run makes no
    call, another scorer needs none, and outputs.jsonl can be given to `hanol eval judge`.

    Example: hanol eval run sums --model chatml:tiny --num-items 20
    """
    from dataclasses import replace

    from hanol import evaluation
    from hanol.engines import Sampling
    from hanol.runs import Budget, synchronous

    made = evaluation.open_task(task, solver=solver, scorer=scorer, count=num_items, seed=task_seed)
    drawn = replace(sampling.over(Sampling(temperature=0.0, max_tokens=1024)), seed=sampling.seed)
    batched = {"max_batch": concurrency} if is_checkpoint(model.model) else {}
    engine = open_engine(model.model, **model.given, **batched)
    at_end = [engine.aclose, *([made.scorer.aclose] if made.scorer.aclose else [])]
    right, ended = 0.0, 0
    try:
        if dry_run:
            return _plan(made, engine, drawn, num_runs)
        with interruptible() as _, progress("items", quiet=as_json) as report:

            def on_answer(answered: "Answered") -> None:
                nonlocal right, ended
                ended, right = ended + 1, right + float(answered.value or 0)
                report(ended, len(made.items) * num_runs, f"{right / ended:.2f}")

            result = evaluation.run_task(
                made,
                engine,
                sampling=drawn,
                runs=num_runs,
                folder=output,
                budget=limits.budget(Budget(model_calls=_NO_LIMIT, seconds=None)),
                concurrency=concurrency,
                on_answer=on_answer,
            )
    finally:
        for close in at_end:
            synchronous(close)()
    reached = (100 if result.is_share else 1) * result.score.value
    too_low = fail_under is not None and not reached >= fail_under
    return Result(result.to_dict(), result.lines(), exit_code=3 if too_low else 0)


def _plan(task: "EvalTask", engine: "Engine", sampling: "Sampling", runs: int) -> Result:
    """What a run would ask for, at most."""
    from hanol.engines import Message

    calls = len(task.items) * runs * task.solver.calls
    each = [engine.count_tokens([Message("user", item.question)]) for item in task.items]
    plain: dict[str, Any] = {
        "task": task.name,
        "items": len(task.items),
        "runs": runs,
        "calls": calls,
        "prompt_tokens": sum(each) * runs * task.solver.calls,
        "most_generated_tokens": sampling.max_tokens and sampling.max_tokens * calls,
        "judged": len(task.items) * runs if task.scorer.is_costly else 0,
    }
    return Result(plain, (f"{name.replace('_', ' '):24}{value}" for name, value in plain.items()))
