"""Strategies that spend a budget on one problem; whoever samples the steps asks and tells."""

from hanol.test_time.searches._beams import DVTS, BeamSearch
from hanol.test_time.searches._confidence import ConfidenceVote, trace_confidence
from hanol.test_time.searches._particles import ParticleFilter
from hanol.test_time.searches._revision import BudgetForcing, SequentialRevision
from hanol.test_time.searches._samples import AdaptiveVote, BestOfN, Greedy, Majority
from hanol.test_time.searches._search import Search, strategy_class
from hanol.test_time.searches._tree import Prefix, Step, TreeNode

__all__ = [
    "DVTS",
    "AdaptiveVote",
    "BeamSearch",
    "BestOfN",
    "BudgetForcing",
    "ConfidenceVote",
    "Greedy",
    "Majority",
    "ParticleFilter",
    "Prefix",
    "Search",
    "SequentialRevision",
    "Step",
    "TreeNode",
    "strategy_class",
    "trace_confidence",
]
