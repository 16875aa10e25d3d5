"""Scoring: whether answers are right, and how sure a score is.

Equality of answers (texts, sets, numbers, formulas), verifiers by name, one answer out of many
(`select`), pass@k, diversity, intervals (that of a column of differences is a paired one) and
McNemar's paired test. Scores are shares in [0, 1]. No model is needed.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.scoring._answers import (
        CITATION,
        Metric,
        exact_match,
        normalise,
        numeric_match,
        set_match,
    )
    from hanol.scoring._checker import AnswerChecker
    from hanol.scoring._countdown import CountdownVerifier, after_step, calculated
    from hanol.scoring._formulas import AnswerCheck, check_answer, last_answer, stated_answer
    from hanol.scoring._intervals import (
        CONFIDENCE,
        Interval,
        bootstrap,
        bootstrap_ratio,
        mcnemar,
        wilson,
    )
    from hanol.scoring._runs import RunScores, score_runs
    from hanol.scoring._samples import Summary, distinct_n, pass_at_k, repetition
    from hanol.scoring._select import (
        Selection,
        SelectMethod,
        StepAggregation,
        StepScorer,
        select,
        step_score,
    )
    from hanol.scoring._verifiers import (
        Problem,
        PythonVerifier,
        Verifier,
        answer_of,
        needs_answer,
        parse_verifier,
    )

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "CITATION",
    "CONFIDENCE",
    "AnswerCheck",
    "AnswerChecker",
    "CountdownVerifier",
    "Interval",
    "Metric",
    "Problem",
    "PythonVerifier",
    "RunScores",
    "SelectMethod",
    "Selection",
    "StepAggregation",
    "StepScorer",
    "Summary",
    "Verifier",
    "after_step",
    "answer_of",
    "bootstrap",
    "bootstrap_ratio",
    "calculated",
    "check_answer",
    "distinct_n",
    "exact_match",
    "last_answer",
    "mcnemar",
    "needs_answer",
    "normalise",
    "numeric_match",
    "parse_verifier",
    "pass_at_k",
    "repetition",
    "score_runs",
    "select",
    "set_match",
    "stated_answer",
    "step_score",
    "wilson",
]
