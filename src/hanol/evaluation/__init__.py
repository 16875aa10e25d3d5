"""Evaluation: scores of answers against references, with intervals.

Metrics that need no model, a model as judge, scores of several runs over the same questions,
what citations and effort a set of research runs shows, and readers of question sets.
"""

from hanol.evaluation._benchmarks import BENCHMARKS, Benchmark, read_benchmark, read_questions
from hanol.evaluation._evaluate import Evaluation, Question, aevaluate, evaluate
from hanol.evaluation._judge import JUDGE_PROMPT, Judge, Verdict
from hanol.evaluation._metrics import exact_match, normalise, numeric_match, set_match
from hanol.evaluation._rows import read_rows
from hanol.evaluation._runs import RunSummary, summarise_runs
from hanol.evaluation._scores import (
    Interval,
    any_of_k,
    avg_at_k,
    best_pass_at_1,
    intervals,
    pass_at_k,
    run_scores,
    wilson,
)

__all__ = [
    "BENCHMARKS",
    "JUDGE_PROMPT",
    "Benchmark",
    "Evaluation",
    "Interval",
    "Judge",
    "Question",
    "RunSummary",
    "Verdict",
    "aevaluate",
    "any_of_k",
    "avg_at_k",
    "best_pass_at_1",
    "evaluate",
    "exact_match",
    "intervals",
    "normalise",
    "numeric_match",
    "pass_at_k",
    "read_benchmark",
    "read_questions",
    "read_rows",
    "run_scores",
    "set_match",
    "summarise_runs",
    "wilson",
]
