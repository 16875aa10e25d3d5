"""What `hanol research batch` and `eval` print."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hanol.cli._agent import Workshop
from hanol.errors import DataError

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.evaluation import Evaluation, RunSummary
    from hanol.research import Task
    from hanol.retrieval import Library

Row = dict[str, Any]


def run(
    tasks: "Sequence[Task]",
    workshop: Workshop,
    here: "tuple[Library | None, Engine]",
    place: Path,
    options: dict[str, Any],
    concurrency: int,
    ray: int | None,
) -> list[Row]:
    """Run the questions, here or over Ray, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("", total=len(tasks))
            failed = 0

            def on_result(row: Row) -> None:
                nonlocal failed
                failed += row["error"] is not None
                progress.update(bar, advance=1, description=f"{failed} failed" if failed else "")

            common: dict[str, Any] = {"concurrency": concurrency, "on_result": on_result}
            if ray is None:
                from hanol.research import run_batch

                library, engine = here
                return run_batch(tasks, library, engine, place, **common, **options)
            return _over_ray(tasks, workshop, place, ray, common | options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None


def _over_ray(
    tasks: "Sequence[Task]", workshop: Workshop, place: Path, workers: int, options: dict[str, Any]
) -> list[Row]:
    from hanol.research import run_batch_on_ray

    del options["tools"]  # each worker makes its own

    def make() -> tuple[Any, Any, dict[str, Any]]:
        library = workshop.library()
        return library, workshop.engine(), {"tools": workshop.tools(library)}

    return run_batch_on_ray(tasks, make, place, workers=workers, **options)


def print_rows(rows: Sequence[Row], place: Path, as_json: bool) -> None:
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


def scores(
    paths: Sequence[Path], metric: str, judge: str | None
) -> "tuple[Evaluation, RunSummary | None]":
    """Score the rows of batches, one batch a run.

    Raises:
        DataError: A row has no reference answer, or the judge is missing.
    """
    from hanol import evaluation
    from hanol.engines import open_engine

    runs = [_rows(path) for path in paths]
    references: dict[str, evaluation.Question] = {}
    for path, rows in zip(paths, runs, strict=True):
        for row in rows:
            answer = row.get("answer")
            if answer in (None, ""):
                raise DataError(
                    f"{str(path)!r}: question {row['id']!r} has no `answer` to compare with. Add "
                    "it to the questions and run the batch again: nothing is asked twice."
                )
            kept = tuple(map(str, answer)) if isinstance(answer, list) else str(answer)
            references.setdefault(row["id"], evaluation.Question(row["id"], row["question"], kept))
    predictions = [{row["id"]: row["prediction"] for row in rows} for rows in runs]
    metrics: dict[str, Any] = {
        "exact": evaluation.exact_match,
        "set": evaluation.set_match,
        "numeric": evaluation.numeric_match,
    }
    if metric == "judge":
        if judge is None:
            raise DataError("`--metric judge` needs a model: `--judge SPEC`.")
        metrics["judge"] = evaluation.Judge(open_engine(judge))
    result = asyncio.run(
        evaluation.aevaluate(predictions, list(references.values()), metrics[metric])
    )
    ended = [row for rows in runs for row in rows if not row.get("error")]
    return result, evaluation.summarise_runs(ended) if ended else None


def _rows(path: Path) -> list[Row]:
    from hanol.evaluation import read_rows

    path = path / "results.jsonl" if path.is_dir() else path
    rows = [row for _, row in read_rows(path)]
    for row in rows:
        if not {"id", "question", "prediction"} <= row.keys():
            raise DataError(f"{str(path)!r} is no results of a batch: {str(row)[:80]!r}.")
    return rows


def print_scores(result: "Evaluation", summary: "RunSummary | None", as_json: bool) -> None:
    """Scores with their 95 % intervals, then citations and effort."""
    plain = result.to_dict()
    runs = None if summary is None else summary.to_dict()
    if as_json:
        typer.echo(json.dumps({**plain, "runs_summary": runs}, ensure_ascii=False))
        return
    names = {
        "avg_at_k": f"Avg@{result.k}",
        "any_of_k": f"Pass@{result.k}",
        "best_pass_at_1": "best Pass@1",
    }
    typer.echo(f"{plain['questions']} questions, {result.k} runs, metric {result.metric}")
    for name, label in names.items():
        typer.echo(_line(label, plain[name]))
    if result.unanswered:
        typer.echo(f"{'unanswered':20}{len(result.unanswered)}, counted as wrong")
    if result.errors:
        typer.echo(f"{'no verdict':20}{len(result.errors)}, left out")
    if runs is None:
        return
    for name in ("citation_precision", "citation_recall", "invented_citations"):
        typer.echo(_line(name.replace("_", " "), runs[name]))
    for name, value in runs["effort"].items():
        typer.echo(f"{name.replace('_', ' ') + ' a run':20}{value:,.2f}")
    typer.echo(f"{'ended':20}{', '.join(f'{k} {v}' for k, v in runs['terminations'].items())}")


def _line(label: str, interval: dict[str, float] | None) -> str:
    if interval is None:
        return f"{label:20}-"
    return f"{label:20}{interval['value']:.2f} %  [{interval['low']:.2f}, {interval['high']:.2f}]"
