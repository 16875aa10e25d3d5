"""`hanol research eval`: the scores of batches, or of a model on a generated world."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hanol.cli import _examine
from hanol.cli._options import JsonOption, Mode, OwnSamplingOption
from hanol.cli._report import reported
from hanol.errors import DataError

if TYPE_CHECKING:
    from hanol.evaluation import Evaluation, RunSummary


def evaluate(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="results.jsonl of one batch, or of several: runs 1 to k."),
    ] = None,
    metric: Annotated[
        Literal["exact", "set", "numeric", "judge"],
        typer.Option(help="Of RESULTS: what counts as right."),
    ] = "exact",
    judge: Annotated[
        str | None, typer.Option(help="Model that judges, for --metric judge.")
    ] = None,
    world: Annotated[
        Literal["encyclopedia"] | None,
        typer.Option(help="Instead of RESULTS: ask about a generated world that nobody has seen."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Of --world: checkpoint or endpoint.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the world and its questions.")] = 12345,
    n: Annotated[int, typer.Option("--n", min=1, help="Questions of each kind.")] = 200,
    hops: Annotated[str, typer.Option(help="Facts to follow: 1 to 5, with commas.")] = "1,2,3",
    mode: Annotated[Mode, typer.Option(help="How the context is kept.")] = "react",
    max_calls: Annotated[int, typer.Option(min=1, help="Most calls of the model, a question.")] = (
        16
    ),
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 64,
    fillers: Annotated[
        int, typer.Option(min=0, help="Sentences a page that state no fact; 7 make 120 words.")
    ] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of the sampling; left out, the likeliest token.")
    ] = None,
    own_sampling: OwnSamplingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score the answers of a batch, or a model on a generated world.

    RESULTS give Avg@k, Pass@k with intervals, citations and effort; --world gives accuracy by
    number of hops, format errors and skills.

    Example: hanol research eval run1/results.jsonl run2/results.jsonl --metric exact

    Example: hanol research eval --world encyclopedia --seed 12345 --n 200 --model tiny-researcher
    """
    if bool(results) == (world is not None):
        raise typer.BadParameter(
            "give either RESULTS, files of batches, or --world encyclopedia --model SPEC"
            + (", not both." if results else ".")
        )
    if world is not None and model is None:
        raise typer.BadParameter("--world needs a model to ask: --model SPEC.")
    if results and model is not None:
        raise typer.BadParameter("--model is for --world: RESULTS have their answers already.")
    if own_sampling and (results or temperature is not None):
        raise typer.BadParameter("--own-sampling is for --world, without --temperature.")
    with reported(as_json=as_json):
        if results:
            _print_scores(*_scores(results, metric, judge), as_json)
            return
        assert model is not None
        exam = _examine.Exam(
            model,
            seed,
            n,
            hops,
            mode,
            max_calls,
            concurrency,
            fillers,
            temperature,
            own_sampling,
        )
        _examine.print_result(exam, *_examine.run(exam), as_json)


def _scores(
    paths: Sequence[Path], metric: str, judge: str | None
) -> "tuple[Evaluation, RunSummary | None]":
    """Score the rows of batches, one batch a run.

    Raises:
        DataError: A row has no reference answer, or the judge is missing.
    """
    from hanol import evaluation, scoring
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
        "exact": scoring.exact_match,
        "set": scoring.set_match,
        "numeric": scoring.numeric_match,
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


def _rows(path: Path) -> list[dict[str, Any]]:
    from hanol.files import read_rows

    path = path / "results.jsonl" if path.is_dir() else path
    rows = [row for _, row in read_rows(path)]
    for row in rows:
        if not {"id", "question", "prediction"} <= row.keys():
            raise DataError(f"{str(path)!r} is no results of a batch: {str(row)[:80]!r}.")
    return rows


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
