"""Claims: headline claims of the papers as runnable experiments with recorded verdicts.

One module a claim. Each holds the paper's figure, the scale at which it is run here, and an
expectation that was written before the run.
"""

from hanol.claims._autodeco import WORLD_CLAIMS as _WORLD_CLAIMS
from hanol.claims._autodeco_fixed_points import TRAINING_FIXED_POINTS as _TRAINING_FIXED_POINTS
from hanol.claims._autodeco_overhead import OVERHEAD as _OVERHEAD
from hanol.claims._autodeco_steering import STEERING as _STEERING
from hanol.claims._claim import (
    Claim,
    ClaimResult,
    Measurement,
    read_results,
    render,
    run_claim,
    write_result,
)
from hanol.claims._deep_research_learning import MID_TRAINING as _MID_TRAINING
from hanol.claims._deep_research_learning import SHORT_CONVOLUTION as _SHORT_CONVOLUTION
from hanol.claims._deep_research_rl import MERGE as _MERGE
from hanol.claims._deep_research_rl import RL_IMPROVES as _RL_IMPROVES
from hanol.claims._deep_research_rl import SIMULATED_TRANSFERS as _SIMULATED_TRANSFERS
from hanol.claims._deep_research_use import HEAVY_MODE as _HEAVY_MODE
from hanol.claims._deep_research_use import INTERACTION_SCALING as _INTERACTION_SCALING
from hanol.claims._deep_research_use import MARKOV_CONTEXT as _MARKOV_CONTEXT
from hanol.claims._hybrid_ratio import HYBRID_RATIO as _HYBRID_RATIO
from hanol.claims._kv_cache import KV_CACHE as _KV_CACHE
from hanol.claims._nope import NOPE_EXTRAPOLATION as _NOPE_EXTRAPOLATION
from hanol.claims._scaling import SCALING_MACHINERY as _SCALING_MACHINERY
from hanol.claims._synthetic_tasks import SYNTHETIC_TASKS as _SYNTHETIC_TASKS
from hanol.claims._timing import DECODE_FLAT as _DECODE_FLAT
from hanol.claims._timing import PREFILL_LINEAR as _PREFILL_LINEAR
from hanol.errors import UnknownNameError as _UnknownNameError

_CLAIMS = (
    *_WORLD_CLAIMS,
    _DECODE_FLAT,
    _HEAVY_MODE,
    _HYBRID_RATIO,
    _INTERACTION_SCALING,
    _KV_CACHE,
    _MARKOV_CONTEXT,
    _MERGE,
    _MID_TRAINING,
    _NOPE_EXTRAPOLATION,
    _OVERHEAD,
    _PREFILL_LINEAR,
    _RL_IMPROVES,
    _SCALING_MACHINERY,
    _SHORT_CONVOLUTION,
    _SIMULATED_TRANSFERS,
    _STEERING,
    _SYNTHETIC_TASKS,
    _TRAINING_FIXED_POINTS,
)


def all_claims() -> list[Claim]:
    """Every claim, by id."""
    return sorted(_CLAIMS, key=lambda claim: claim.id)


def find_claim(claim_id: str) -> Claim:
    """The claim of this id.

    Raises:
        UnknownNameError: There is none; the message names the nearest.
    """
    by_id = {claim.id: claim for claim in all_claims()}
    if claim_id not in by_id:
        raise _UnknownNameError("claim", claim_id, by_id)
    return by_id[claim_id]


def find_claims(name: str) -> list[Claim]:
    """The claim of this id, or all claims of this system ("autodeco").

    Raises:
        UnknownNameError: There is none; the message names the nearest.
    """
    of_system = [claim for claim in all_claims() if claim.id.startswith(f"{name}.")]
    return of_system or [find_claim(name)]


__all__ = [
    "Claim",
    "ClaimResult",
    "Measurement",
    "all_claims",
    "find_claim",
    "find_claims",
    "read_results",
    "render",
    "run_claim",
    "write_result",
]
