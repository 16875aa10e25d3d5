"""Test-time compute: spending more tokens on one problem, knowingly.

Searches that ask and are told, whatever samples the steps; verifiers that score them; and policies
that choose a strategy by difficulty and budget. Models are reached through engines alone.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.test_time._accounting import flops_multiplier
    from hanol.test_time._chains import HierarchicalSelection, hierarchical_selection
    from hanol.test_time._curves import (
        ForcingMetrics,
        best_of_k,
        budget_ratio,
        forcing_metrics,
    )
    from hanol.test_time._difficulty import difficulty_bins
    from hanol.test_time._engine import ThinkingEngine
    from hanol.test_time._html import render_page
    from hanol.test_time._judge import JudgeVerifier, open_verifier
    from hanol.test_time._policy import (
        PolicyEntry,
        PolicyRecord,
        PolicyTable,
        fit_policy,
        policy_key,
        question_hash,
    )
    from hanol.test_time._prompts import ThinkSettings, revision_messages
    from hanol.test_time._run import arun, run
    from hanol.test_time._sweep import (
        MatchedPoint,
        SweepPlan,
        SweepPoint,
        SweepRow,
        asweep,
        draw_points,
        flops_matched,
        policy_records,
        sweep,
        sweep_points,
    )
    from hanol.test_time._think import athink, make_search, strategy_names, think
    from hanol.test_time._thought import Thought
    from hanol.test_time.rewards._formats import StepInputs
    from hanol.test_time.rewards._labels import (
        amonte_carlo_labels,
        asample_answers,
        monte_carlo_labels,
        sample_answers,
    )
    from hanol.test_time.rewards._model import ProcessRewardModel
    from hanol.test_time.rewards._recipe import PrmRecipe, PrmResult, RevisionRecipe
    from hanol.test_time.rewards._revisions import revision_rows
    from hanol.test_time.rewards._rows import label_entropy
    from hanol.test_time.rewards._train import train_prm, train_revision
    from hanol.test_time.searches import (
        DVTS,
        AdaptiveVote,
        BeamSearch,
        BestOfN,
        BudgetForcing,
        ConfidenceVote,
        Greedy,
        Majority,
        ParticleFilter,
        Prefix,
        Search,
        SequentialRevision,
        Step,
        TreeNode,
        strategy_class,
        trace_confidence,
    )

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "DVTS",
    "AdaptiveVote",
    "BeamSearch",
    "BestOfN",
    "BudgetForcing",
    "ConfidenceVote",
    "ForcingMetrics",
    "Greedy",
    "HierarchicalSelection",
    "JudgeVerifier",
    "Majority",
    "MatchedPoint",
    "ParticleFilter",
    "PolicyEntry",
    "PolicyRecord",
    "PolicyTable",
    "Prefix",
    "PrmRecipe",
    "PrmResult",
    "ProcessRewardModel",
    "RevisionRecipe",
    "Search",
    "SequentialRevision",
    "Step",
    "StepInputs",
    "SweepPlan",
    "SweepPoint",
    "SweepRow",
    "ThinkSettings",
    "ThinkingEngine",
    "Thought",
    "TreeNode",
    "amonte_carlo_labels",
    "arun",
    "asample_answers",
    "asweep",
    "athink",
    "best_of_k",
    "budget_ratio",
    "difficulty_bins",
    "draw_points",
    "fit_policy",
    "flops_matched",
    "flops_multiplier",
    "forcing_metrics",
    "hierarchical_selection",
    "label_entropy",
    "make_search",
    "monte_carlo_labels",
    "open_verifier",
    "policy_key",
    "policy_records",
    "question_hash",
    "render_page",
    "revision_messages",
    "revision_rows",
    "run",
    "sample_answers",
    "strategy_class",
    "strategy_names",
    "sweep",
    "sweep_points",
    "think",
    "trace_confidence",
    "train_prm",
    "train_revision",
]
