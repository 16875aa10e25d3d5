"""`hanol eval answers`: scores of the answers of research batches."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from hanol.cli._command import Result, argument, command, option
from hanol.errors import DataError


@command
def answers(
    results: list[Path] = argument(
        "Batch folders or results.jsonl files; several count as k runs of the same questions.",
        metavar="RESULTS",
    ),
    metric: Literal["exact", "set", "numeric", "judge"] = option(
        "exact", "How answers are compared: equal text, sets or numbers, or by a judge model."
    ),
    judge: str | None = option(
        None, "Model that judges answers with --metric judge. Omitted: none."
    ),
    fail_under: float | None = option(
        None, "Exit with 3 if Avg@k is below this percentage. Omitted: never."
    ),
) -> Result:
    """Score the answers of research batches: Avg@k, Pass@k, citations and effort.

    Example: hanol eval answers run1/results.jsonl run2/results.jsonl --metric exact
    """
    from hanol import evaluation, scoring
    from hanol.engines import open_engine
    from hanol.runs import synchronous

    metrics: dict[str, Any] = {
        "exact": scoring.exact_match,
        "set": scoring.set_match,
        "numeric": scoring.numeric_match,
    }
    with ExitStack() as at_end:
        if metric == "judge":
            if judge is None:
                raise DataError("`--metric judge` needs a model: `--judge MODEL`.")
            metrics["judge"] = evaluation.Judge(open_engine(judge))
            at_end.callback(synchronous(metrics["judge"].engine.aclose))
        result, summary = evaluation.score_batches(results, metrics[metric])
    plain = {**result.to_dict(), "runs_summary": None if summary is None else summary.to_dict()}
    # Compared so that a limit of NaN is not met.
    too_low = fail_under is not None and not 100 * plain["avg_at_k"]["value"] >= fail_under
    return Result(plain, _scores(plain, result.k, result.metric), exit_code=3 if too_low else 0)


def _scores(plain: dict[str, Any], k: int, metric: str) -> Iterator[str]:
    """Scores with their 95 % intervals, then citations and effort."""
    yield f"{plain['questions']} questions, {k} runs, metric {metric}"
    yield _line(f"Avg@{k}", plain["avg_at_k"])
    yield _line(f"Pass@{k}", plain["any_of_k"])
    yield _line("best Pass@1", plain["best_pass_at_1"])
    if plain["unanswered"]:
        yield f"{'unanswered':24}{len(plain['unanswered'])}, counted as wrong"
    if plain["errors"]:
        yield f"{'no verdict':24}{len(plain['errors'])}, left out"
    if (runs := plain["runs_summary"]) is None:
        return
    for name in (name for name in runs if "citation" in name):
        yield _line(name.replace("_", " "), runs[name])
    for name, value in runs["effort"].items():
        yield f"{name.replace('_', ' ') + ' a run':24}{value:,.2f}"
    yield f"{'ended':24}{', '.join(f'{k} {v}' for k, v in runs['terminations'].items())}"


def _line(label: str, interval: dict[str, float] | None) -> str:
    if interval is None:
        return f"{label:24}-"
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return f"{label:24}{value:.2f} %  [{low:.2f}, {high:.2f}]"
