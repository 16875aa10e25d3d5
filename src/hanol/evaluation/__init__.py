"""Evaluation: how good answers are, with intervals.

Answers against references (`evaluate`, by a metric or a model as judge), what citations and effort
a set of research runs shows, readers of question sets, and decoding settings on a task: sampling
with a seed, comparison, the search for the best static setting, and verified samples to train on.
What decodes is imported when it is used: the rest needs no torch.
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

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "BENCHMARKS",
    "JUDGE_PROMPT",
    "BatchScores",
    "Benchmark",
    "Comparison",
    "DecodingTask",
    "Difference",
    "DrawnCompletion",
    "Evaluation",
    "HeadsSetting",
    "Judge",
    "MeteredEngine",
    "Question",
    "RejectionSamples",
    "RunSummary",
    "SearchPoint",
    "SettingResult",
    "StaticSearch",
    "StaticSetting",
    "Verdict",
    "aevaluate",
    "compare",
    "decoding_bits_per_byte",
    "evaluate",
    "read_benchmark",
    "rejection_sample",
    "run_heads",
    "sample",
    "score_batches",
    "summarise_runs",
]
