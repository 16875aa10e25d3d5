"""Scores of research batches, one batch a run; and what finished runs show besides right and wrong.

Rates are over all citations, or claims, of all runs together (micro): a long answer counts for more
than a short one; their macro forms are means over the runs that have some. Published figures use
either. Shape suffixes: N runs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from hanol.errors import DataError
from hanol.evaluation._evaluate import Evaluation, Question, evaluate
from hanol.evaluation._judge import Judge
from hanol.rows import read_rows
from hanol.scoring import Interval, bootstrap, bootstrap_ratio

_EFFORT = (
    "model_calls", "tool_calls", "prompt_tokens", "completion_tokens", "seconds", "money"
)  # fmt: skip
_RATES = (
    "citation_precision", "citation_precision_macro", "citation_recall", "citation_recall_macro",
    "invented_citations",
)  # fmt: skip
_Row = dict[str, Any]


class RunSummary(BaseModel, frozen=True):
    """Totals over runs.

    Args:
        citation_precision: Share of citations that support their sentence; None without citations.
        citation_recall: Share of claims that are supported; None without claims.
        citation_precision_macro: Mean of the runs' own precision; None without citations.
        citation_recall_macro: Mean of the runs' own recall; None without claims.
        invented_citations: Share of citations whose number the run never gave out.
        runs_with_invented: Runs with at least one of those.
        unchecked: Runs that ended without an answer to check.
        effort: Mean over runs of calls, tokens, seconds and money.
    """

    runs: int
    terminations: dict[str, int]
    citation_precision: Interval | None
    citation_recall: Interval | None
    citation_precision_macro: Interval | None
    citation_recall_macro: Interval | None
    invented_citations: Interval | None
    runs_with_invented: int
    unchecked: int
    effort: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; shares with four decimals, effort with two."""
        plain = self.model_dump()
        for name in _RATES:
            interval: Interval | None = getattr(self, name)
            plain[name] = interval and interval.rounded()
        plain["effort"] = {name: round(value, 2) for name, value in self.effort.items()}
        return plain


def summarise_runs(ended: Sequence[Mapping[str, Any]]) -> RunSummary:
    """Sum up runs; the intervals are 95 % ones.

    Args:
        ended: `RunEnded` events as plain values; `citations` is what `CitationReport.to_dict` gave,
            or None.

    Raises:
        DataError: There is no run, or one lacks a value.
    """
    if not ended:
        raise DataError("There are no finished runs to sum up.")
    try:
        counted_N = [_count(run["citations"]) for run in ended]
        terminations = dict(Counter(run["termination"] for run in ended).most_common())
        effort = {name: float(np.mean([run[name] for run in ended])) for name in _EFFORT}
    except (KeyError, TypeError) as err:
        raise DataError(f"A finished run lacks {err}, or has it in another form.") from err

    def rate(part: str, whole: str) -> Interval | None:
        parts_N = [counts[part] for counts in counted_N]
        wholes_N = [counts[whole] for counts in counted_N]
        return bootstrap_ratio(parts_N, wholes_N) if sum(wholes_N) else None

    def macro(part: str, whole: str) -> Interval | None:
        shares = [[counts[part] / counts[whole]] for counts in counted_N if counts[whole]]
        return bootstrap(shares)[0] if shares else None

    return RunSummary(
        runs=len(ended),
        terminations=terminations,
        citation_precision=rate("supporting", "citations"),
        citation_recall=rate("supported", "claims"),
        citation_precision_macro=macro("supporting", "citations"),
        citation_recall_macro=macro("supported", "claims"),
        invented_citations=rate("invented", "citations"),
        runs_with_invented=sum(counts["invented"] > 0 for counts in counted_N),
        unchecked=sum(run["citations"] is None for run in ended),
        effort=effort,
    )


def _count(report: Mapping[str, Any] | None) -> Counter[str]:
    counts: Counter[str] = Counter()
    for sentence in report["sentences"] if report else ():
        counts["claims"] += sentence["status"] != "not_a_claim"
        counts["supported"] += sentence["status"] == "supported"
        for citation in sentence["citations"]:
            counts["citations"] += 1
            counts["supporting"] += bool(citation["supports"])
            counts["invented"] += not citation["known"]
    return counts


class BatchScores(NamedTuple):
    """How good the answers of batches are, and what their runs show besides."""

    evaluation: Evaluation
    runs: RunSummary | None  # None if every run failed


def score_batches(paths: Sequence[str | Path], metric: Callable[..., bool] | Judge) -> BatchScores:
    """Score the answers of one batch, or of several with the same questions: runs 1 to k.

    Args:
        paths: Folders of batches, or their `results.jsonl`.

    Raises:
        DataError: A file does not hold results of a batch, is given twice, or a question has no
            reference answer.
    """
    files = [path / "results.jsonl" if path.is_dir() else path for path in map(Path, paths)]
    if len({file.resolve() for file in files}) < len(files):
        raise DataError("A batch is given twice: it would count as two runs.")
    runs = [_rows(file) for file in files]
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
    rows = [row for _, row in read_rows(path)]
    for row in rows:
        if not {"id", "question", "prediction"} <= row.keys():
            raise DataError(f"{str(path)!r} is not a file of batch results: {str(row)[:80]!r}.")
    return rows
