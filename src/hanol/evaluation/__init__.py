"""Evaluation: scores of answers against references, with intervals.

Metrics that need no model, a model as judge, scores of several runs over the same questions,
what citations and effort a set of research runs shows, and readers of question sets.
"""

from hanol.evaluation._benchmarks import BENCHMARKS, Benchmark, read_benchmark, read_questions
from hanol.evaluation._evaluate import Evaluation, Question, aevaluate, evaluate
from hanol.evaluation._judge import JUDGE_PROMPT, Judge, Verdict
from hanol.evaluation._runs import RunSummary, summarise_runs

__all__ = [
    "BENCHMARKS",
    "JUDGE_PROMPT",
    "Benchmark",
    "Evaluation",
    "Judge",
    "Question",
    "RunSummary",
    "Verdict",
    "aevaluate",
    "evaluate",
    "read_benchmark",
    "read_questions",
    "summarise_runs",
]
