"""Reinforcement learning: rollouts, curation of questions, GRPO.

A trainer asks an `Environment` for rollouts and learns from the token sequences of their turns.
"""

import importlib as _importlib
import typing as _typing

from hanol.rl._environment import Environment
from hanol.rl._grpo import GrpoTrainer
from hanol.rl._grpo_settings import GrpoSettings
from hanol.rl._policy import group_advantages, policy_loss, token_weights
from hanol.rl._rollout import Rollout, SampledTurn, TokenSegment, join_turns

if _typing.TYPE_CHECKING:
    from hanol.rl._trl import TrlRollouts as TrlRollouts

_HEAVY = {
    "TrlRollouts": "hanol.rl._trl",
}


def __getattr__(name: str) -> _typing.Any:
    if name in _HEAVY:
        return getattr(_importlib.import_module(_HEAVY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Environment",
    "GrpoSettings",
    "GrpoTrainer",
    "Rollout",
    "SampledTurn",
    "TokenSegment",
    "TrlRollouts",
    "group_advantages",
    "join_turns",
    "policy_loss",
    "token_weights",
]
