"""`hanol research batch`: many questions at once, here or over Ray."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._options import (
    AgentOptions,
    AgentSamplingOptions,
    BudgetOptions,
    ConcurrencyOption,
    FolderArgument,
    JsonOption,
    ModelOptions,
    ToolOptions,
    command,
)
from hanol.cli._progress import interruptible, progress
from hanol.cli.research._agent import Workshop, new_workshop, opened, researcher_options

if TYPE_CHECKING:
    from hanol.runs import Task

_Row = dict[str, Any]


@command
def batch(
    folder: FolderArgument,
    questions: Annotated[
        Path,
        typer.Argument(help='JSON lines with "question", and "id" and "answer" where known.'),
    ],
    model: ModelOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the batch. Omitted: one beside the index, named after QUESTIONS."
        ),
    ] = None,
    concurrency: ConcurrencyOption = 8,
    ray: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of processes of a Ray cluster to spread over. Omitted: this process.",
        ),
    ] = None,
    agent: AgentOptions = AgentOptions(),
    tools: ToolOptions = ToolOptions(),
    budget: BudgetOptions = BudgetOptions(),
    sampling: AgentSamplingOptions = AgentSamplingOptions(),
    as_json: JsonOption = False,
) -> None:
    """Research many questions; repeated after an interruption, it continues.

    Writes `results.jsonl`. Exits with 1 if a question failed; the others are answered all the same.

    Example: hanol research batch notes questions.jsonl --model Qwen/Qwen3-4B --concurrency 4
    """
    from hanol.runs import read_tasks

    tasks = read_tasks(questions)
    place = output or Path(tools.index or folder / ".hanol") / "batches" / questions.stem
    workshop = new_workshop(folder, model, tools, agent.compact)
    with opened(workshop) as workplace:
        options = researcher_options(workplace, agent, budget, sampling)
        options |= {"heavy": agent.heavy, "concurrency": concurrency}
        with interruptible(), progress("questions") as report:
            failed = 0

            def on_result(row: _Row) -> None:
                nonlocal failed
                failed += row["error"] is not None
                report(None, len(tasks), f"{failed} failed" if failed else "")

            options["on_result"] = on_result
            if ray is not None:
                rows = _over_ray(tasks, workshop, place, ray, options)
            else:
                from hanol.research import run_batch

                rows = run_batch(tasks, *workplace[:2], place, **options)
    _print_rows(rows, place, as_json)
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


def _over_ray(
    tasks: "Sequence[Task]", workshop: Workshop, place: Path, workers: int, options: dict[str, Any]
) -> list[_Row]:
    from hanol.research import run_batch_on_ray

    del options["tools"]  # each worker makes its own

    def make() -> tuple[Any, Any, dict[str, Any]]:
        corpus, engine, tools = workshop.open()
        return corpus, engine, {"tools": tools}

    return run_batch_on_ray(tasks, make, place, workers=workers, **options)


def _print_rows(rows: Sequence[_Row], place: Path, as_json: bool) -> None:
    """How many were answered, what failed, where the results lie."""
    path = place / "results.jsonl"
    failed = [row for row in rows if row["error"]]
    answered = sum(row["prediction"] is not None for row in rows)
    if as_json:
        counts = {"questions": len(rows), "answered": answered, "failed": len(failed)}
        typer.echo(json.dumps({"results": str(path), **counts, "rows": rows}, ensure_ascii=False))
        return
    typer.echo(f"{len(rows)} questions, {answered} answered, {len(failed)} failed")
    for row in failed:
        message = " ".join(row["error"]["message"].split())
        print(f"failed: {row['id']}: {row['error']['kind']}: {message}", file=sys.stderr)
    typer.echo(f"results: {path}")
