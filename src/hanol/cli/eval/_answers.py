"""`hanol eval answers`: the scores of batches of research."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hanol.cli._options import JsonOption, command
from hanol.errors import DataError

if TYPE_CHECKING:
    from hanol.evaluation import Evaluation, RunSummary


@command
def answers(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Folders or results.jsonl of one batch, or of several: runs 1 to k.",
        ),
    ],
    metric: Annotated[
        Literal["exact", "set", "numeric", "judge"],
        typer.Option(help="What counts as right: equal text, sets or numbers, or a judge model."),
    ] = "exact",
    judge: Annotated[
        str | None,
        typer.Option(help="Judge model of --metric judge. Omitted: none."),
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option(help="Exit with 3 if Avg@k is below this percentage. Omitted: never."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score the answers of research batches: Avg@k, Pass@k, citations and effort.

    Example: hanol eval answers run1/results.jsonl run2/results.jsonl --metric exact
    """
    from hanol import evaluation, scoring
    from hanol.engines import open_engine

    metrics: dict[str, Any] = {
        "exact": scoring.exact_match,
        "set": scoring.set_match,
        "numeric": scoring.numeric_match,
    }
    if metric == "judge":
        if judge is None:
            raise DataError("`--metric judge` needs a model: `--judge MODEL`.")
        metrics["judge"] = evaluation.Judge(open_engine(judge))
    result, summary = evaluation.score_batches(results, metrics[metric])
    _print_scores(result, summary, as_json)
    if fail_under is not None and 100 * result.to_dict()["avg_at_k"]["value"] < fail_under:
        raise typer.Exit(3)


def _print_scores(result: "Evaluation", summary: "RunSummary | None", as_json: bool) -> None:
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
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return f"{label:20}{value:.2f} %  [{low:.2f}, {high:.2f}]"
