"""Reinforcement learning: rollouts, curation of questions, GRPO, rewards that programs verify.

A trainer asks an `Environment` for rollouts and learns from the token sequences of their turns.
"""

from hanol.rl._grpo import GrpoTrainer
from hanol.rl._grpo_settings import GrpoSettings
from hanol.rl._policy import group_advantages, policy_loss, token_weights
from hanol.rl._rlvr import RlvrRecipe, RlvrResult, train_rlvr
from hanol.rl._rollout import Environment, Rollout, SampledTurn, TokenSegment, join_turns
from hanol.rl._trl import TrlRollouts
from hanol.rl._verified import VerifiedEnvironment

__all__ = [
    "Environment",
    "GrpoSettings",
    "GrpoTrainer",
    "RlvrRecipe",
    "RlvrResult",
    "Rollout",
    "SampledTurn",
    "TokenSegment",
    "TrlRollouts",
    "VerifiedEnvironment",
    "group_advantages",
    "join_turns",
    "policy_loss",
    "token_weights",
    "train_rlvr",
]
