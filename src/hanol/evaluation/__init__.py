"""Evaluation: how good answers are, with intervals.

Answers against references (`evaluate`, by a metric or a model as judge), what citations and effort
a set of research runs shows, readers of question sets, and decoding settings on a task: sampling
with a seed, comparison, the search for the best static setting, and verified samples to train on.
Any text by rubrics: items, judges that debate, judgements, files of others.
Tasks (items, a solver, a scorer) run on any engine, and under other harnesses.
What decodes is imported when it is used: the rest needs no torch.

Metrics of texts, and judges and metrics judged: agreement with people, means that labels correct,
drift.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.evaluation._batches import BatchScores, RunSummary, score_batches, summarise_runs
    from hanol.evaluation._benchmarks import BENCHMARKS, Benchmark, read_benchmark
    from hanol.evaluation._compare import compare
    from hanol.evaluation._comparison import Comparison, Difference, SettingResult
    from hanol.evaluation._evaluate import Evaluation, Question, aevaluate, evaluate
    from hanol.evaluation._judge import JUDGE_PROMPT, Judge, Verdict
    from hanol.evaluation._likelihood import decoding_bits_per_byte
    from hanol.evaluation._metered import MeteredEngine
    from hanol.evaluation._rejection import RejectionSamples, rejection_sample, run_heads
    from hanol.evaluation._sample import (
        DecodingTask,
        DrawnCompletion,
        HeadsSetting,
        StaticSetting,
        sample,
    )
    from hanol.evaluation._search import SearchPoint, StaticSearch
    from hanol.evaluation.building._build import Suite, SuiteItem, build_suite, suite_lines
    from hanol.evaluation.building._candidates import candidate_rows
    from hanol.evaluation.building._corpora import ParallelText, read_parallel
    from hanol.evaluation.building._label_studio import write_label_studio
    from hanol.evaluation.building._phenomena import (
        PHENOMENA,
        PhenomenonFinder,
        PhenomenonSpan,
        mine_terms,
    )
    from hanol.evaluation.building._write import write_suite
    from hanol.evaluation.judging._formats import (
        read_label_studio,
        read_official,
        read_outputs,
        write_official,
    )
    from hanol.evaluation.judging._item import Item, read_items
    from hanol.evaluation.judging._judge import JudgePlan, JudgeRun, ajudge, judge, stored_rubric
    from hanol.evaluation.judging._page import render_judgements
    from hanol.evaluation.judging._pairs import (
        PairJudgement,
        ajudge_pairs,
        flip_rate,
        judge_pairs,
    )
    from hanol.evaluation.judging._ranking import JudgeReport, judge_report
    from hanol.evaluation.judging._record import Judgement, Scores, Utterance, read_judgements
    from hanol.evaluation.judging._rubric import Rubric, bundled_rubrics
    from hanol.evaluation.judging._settings import JudgeLimits, JudgeSettings
    from hanol.evaluation.judging.agents._oracles import (
        JudgeTurn,
        MetricJudge,
        NoisyOracle,
        OfflineJudge,
    )
    from hanol.evaluation.judging.replies._reply import Reply, parse_reply
    from hanol.evaluation.meta._align import (
        Alignment,
        aalign_judge,
        align_judge,
        num_alignment_calls,
    )
    from hanol.evaluation.meta._bias import PositionReport, partial_spearman, position_probe
    from hanol.evaluation.meta._correct import (
        CorrectedScores,
        LabelPlan,
        correct_scores,
        plan_from,
        plan_labels,
    )
    from hanol.evaluation.meta._drift import DriftReport, find_drift
    from hanol.evaluation.meta._labels import LabelledItem, ScoreTable, read_labels, read_scores
    from hanol.evaluation.meta._meta import meta_evaluate, rater_agreement
    from hanol.evaluation.meta._metrics import (
        EvidenceSpan,
        MetricItem,
        TextMetric,
        metric_scores,
        open_metric,
    )
    from hanol.evaluation.meta._report import MetaReport, MetricReport, RaterAgreement
    from hanol.evaluation.tasks._inspect import (
        InspectEngine,
        InspectLog,
        inspect_model,
        inspect_task,
        read_inspect_log,
        write_inspect_log,
    )
    from hanol.evaluation.tasks._lm_eval import lm_eval_model, lm_eval_task
    from hanol.evaluation.tasks._open import open_task
    from hanol.evaluation.tasks._report import TaskReport
    from hanol.evaluation.tasks._run import Answered, arun_task, run_task
    from hanol.evaluation.tasks._scorers import judge_scorer, open_scorer
    from hanol.evaluation.tasks._solvers import open_solver
    from hanol.evaluation.tasks._task import Ask, EvalTask, TaskItem, TaskScorer, TaskSolver

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "BENCHMARKS",
    "JUDGE_PROMPT",
    "PHENOMENA",
    "Alignment",
    "Answered",
    "Ask",
    "BatchScores",
    "Benchmark",
    "Comparison",
    "CorrectedScores",
    "DecodingTask",
    "Difference",
    "DrawnCompletion",
    "DriftReport",
    "EvalTask",
    "Evaluation",
    "EvidenceSpan",
    "HeadsSetting",
    "InspectEngine",
    "InspectLog",
    "Item",
    "Judge",
    "JudgeLimits",
    "JudgePlan",
    "JudgeReport",
    "JudgeRun",
    "JudgeSettings",
    "JudgeTurn",
    "Judgement",
    "LabelPlan",
    "LabelledItem",
    "MetaReport",
    "MeteredEngine",
    "MetricItem",
    "MetricJudge",
    "MetricReport",
    "NoisyOracle",
    "OfflineJudge",
    "PairJudgement",
    "ParallelText",
    "PhenomenonFinder",
    "PhenomenonSpan",
    "PositionReport",
    "Question",
    "RaterAgreement",
    "RejectionSamples",
    "Reply",
    "Rubric",
    "RunSummary",
    "ScoreTable",
    "Scores",
    "SearchPoint",
    "SettingResult",
    "StaticSearch",
    "StaticSetting",
    "Suite",
    "SuiteItem",
    "TaskItem",
    "TaskReport",
    "TaskScorer",
    "TaskSolver",
    "TextMetric",
    "Utterance",
    "Verdict",
    "aalign_judge",
    "aevaluate",
    "ajudge",
    "ajudge_pairs",
    "align_judge",
    "arun_task",
    "build_suite",
    "bundled_rubrics",
    "candidate_rows",
    "compare",
    "correct_scores",
    "decoding_bits_per_byte",
    "evaluate",
    "find_drift",
    "flip_rate",
    "inspect_model",
    "inspect_task",
    "judge",
    "judge_pairs",
    "judge_report",
    "judge_scorer",
    "lm_eval_model",
    "lm_eval_task",
    "meta_evaluate",
    "metric_scores",
    "mine_terms",
    "num_alignment_calls",
    "open_metric",
    "open_scorer",
    "open_solver",
    "open_task",
    "parse_reply",
    "partial_spearman",
    "plan_from",
    "plan_labels",
    "position_probe",
    "rater_agreement",
    "read_benchmark",
    "read_inspect_log",
    "read_items",
    "read_judgements",
    "read_label_studio",
    "read_labels",
    "read_official",
    "read_outputs",
    "read_parallel",
    "read_scores",
    "rejection_sample",
    "render_judgements",
    "run_heads",
    "run_task",
    "sample",
    "score_batches",
    "stored_rubric",
    "suite_lines",
    "summarise_runs",
    "write_inspect_log",
    "write_label_studio",
    "write_official",
    "write_suite",
]
