"""Claims: headline claims of the papers as runnable experiments with recorded verdicts.

This room holds what a claim is, the runner and the renderer. The experiments lie in the folder
`claims/` of the repository, each beside its recorded result; they are found in a clone only.
"""

from hanol.claims._claim import (
    Claim,
    ClaimResult,
    Measurement,
    Verdict,
    clone_commit,
    render,
    run_claim,
    write_result,
)
from hanol.claims._clone import (
    all_claims,
    claims_folder,
    find_claim,
    find_claims,
    load_experiments,
    read_results,
)

__all__ = [
    "Claim",
    "ClaimResult",
    "Measurement",
    "Verdict",
    "all_claims",
    "claims_folder",
    "clone_commit",
    "find_claim",
    "find_claims",
    "load_experiments",
    "read_results",
    "render",
    "run_claim",
    "write_result",
]
