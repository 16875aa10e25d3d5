"""Scoring: whether answers are right, and how sure a score is.

Equality of answers (texts, sets, numbers, formulas), verifiers by name, one answer out of many
(`select`), pass@k, diversity, intervals (that of a column of differences is a paired one) and
McNemar's paired test. Scores are shares in [0, 1]. No model is needed.

Judges and metrics against people: correlations, accuracy on pairs, agreement of raters, permutation
tests, and means of judges that labels correct. What is undefined is None, with the reason in the
log and from `explain_undefined`; it is never 0.
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
    from hanol.scoring.agreement._corrected import (
        CorrectedMean,
        prediction_powered_mean,
        rogan_gladen,
    )
    from hanol.scoring.agreement._correlation import kendall, pearson, spearman
    from hanol.scoring.agreement._pairs import (
        TieAccuracy,
        acc_eq,
        chance_level,
        pairwise_accuracy,
        soft_pairwise_accuracy,
    )
    from hanol.scoring.agreement._permutation import (
        benjamini_hochberg,
        paired_permutation,
        spearman_test,
    )
    from hanol.scoring.agreement._raters import (
        cohen_kappa,
        icc31,
        krippendorff_alpha,
        simple_agreement,
    )
    from hanol.scoring.agreement._undefined import explain_undefined

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "CITATION",
    "CONFIDENCE",
    "AnswerCheck",
    "AnswerChecker",
    "CorrectedMean",
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
    "TieAccuracy",
    "Verifier",
    "acc_eq",
    "after_step",
    "answer_of",
    "benjamini_hochberg",
    "bootstrap",
    "bootstrap_ratio",
    "calculated",
    "chance_level",
    "check_answer",
    "cohen_kappa",
    "distinct_n",
    "exact_match",
    "explain_undefined",
    "icc31",
    "kendall",
    "krippendorff_alpha",
    "last_answer",
    "mcnemar",
    "needs_answer",
    "normalise",
    "numeric_match",
    "paired_permutation",
    "pairwise_accuracy",
    "parse_verifier",
    "pass_at_k",
    "pearson",
    "prediction_powered_mean",
    "repetition",
    "rogan_gladen",
    "score_runs",
    "select",
    "set_match",
    "simple_agreement",
    "soft_pairwise_accuracy",
    "spearman",
    "spearman_test",
    "stated_answer",
    "step_score",
    "wilson",
]
