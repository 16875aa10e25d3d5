"""Scores of research batches, one batch a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hanol.errors import DataError
from hanol.evaluation._evaluate import Evaluation, Question, evaluate
from hanol.evaluation._judge import Judge
from hanol.evaluation._runs import RunSummary, summarise_runs
from hanol.files import read_rows

_Row = dict[str, Any]


class BatchScores(NamedTuple):
    """How good the answers of batches are, and what their runs show besides."""

    evaluation: Evaluation
    runs: RunSummary | None  # None if every run failed


def score_batches(paths: Sequence[str | Path], metric: Callable[..., bool] | Judge) -> BatchScores:
    """Score the answers of one batch, or of several with the same questions: runs 1 to k.

    Args:
        paths: Folders of batches, or their `results.jsonl`.
        metric: As for `evaluate`.

    Raises:
        DataError: A file does not hold results of a batch, or a question has no reference answer.
    """
    runs = [_rows(Path(path)) for path in paths]
    references: dict[str, Question] = {}
    for path, rows in zip(paths, runs, strict=True):
        for row in rows:
            answer = row.get("answer")
            if answer in (None, ""):
                raise DataError(
                    f"{str(path)!r}: question {row['id']!r} has no `answer` to compare with. Add "
                    "it to the questions and run the batch again: nothing is asked twice."
                )
            kept = tuple(map(str, answer)) if isinstance(answer, list) else str(answer)
            references.setdefault(row["id"], Question(row["id"], row["question"], kept))
    predictions = [{row["id"]: row["prediction"] for row in rows} for rows in runs]
    ended = [row for rows in runs for row in rows if not row.get("error")]
    return BatchScores(
        evaluate(predictions, list(references.values()), metric),
        summarise_runs(ended) if ended else None,
    )


def _rows(path: Path) -> list[_Row]:
    path = path / "results.jsonl" if path.is_dir() else path
    rows = [row for _, row in read_rows(path)]
    for row in rows:
        if not {"id", "question", "prediction"} <= row.keys():
            raise DataError(f"{str(path)!r} is not a file of batch results: {str(row)[:80]!r}.")
    return rows
