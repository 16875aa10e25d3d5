"""test-time.compute-optimal-4x: what the strategy that suits the difficulty saves."""

from collections.abc import Sequence

import numpy as np

from claims.figures import Figures
from claims.test_time.lab import BUDGETS, LARGER, PAPER, SCALE, add_levels, optimal, right_by
from hanol.claims import Claim, Measurement
from hanol.test_time import budget_ratio


def _compute_optimal(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    budgets = (1, 4) if quick else BUDGETS
    for seed in seeds:
        add_levels(figures, seed, quick)
        right = right_by(seed, quick)
        best = {b: float(np.mean(right["best-of-n", b])) for b in budgets}
        for name, share in best.items():
            figures.add(f"best-of-n, budget {name}, %", 100 * share)
        for kind in ("oracle", "predicted"):
            found = optimal(seed, quick, predicted=kind == "predicted")
            shares = {b: float(np.mean(found[b])) for b in budgets}
            for budget in budgets:
                figures.add(f"policy, {kind} bins, budget {budget}, %", 100 * shares[budget])
            for budget in budgets[1:]:
                ratio = budget_ratio([*best.items()], [(budget, shares[budget])], shares[budget])
                # Best-of-N never gets there: it needs more than the largest budget.
                least = budgets[-1] / budget if ratio is None else ratio
                figures.add(f"times the budget, {kind} bins, at {budget}", least)
    if quick:
        return figures.only_run()
    return optimal_verdict(figures)


def optimal_verdict(figures: Figures) -> Measurement:
    """Whether best-of-N needs twice the budget of the policy, in every seed."""
    at = "times the budget, oracle bins, at 16"
    return figures.measurement(
        min(figures.values[at]) >= 2,
        f"For what the policy reaches with 16 answers ("
        f"{figures['policy, oracle bins, budget 16, %']:.1f} %; bins predicted "
        f"{figures['policy, predicted bins, budget 16, %']:.1f} %), best-of-N needs "
        f"{figures[at]:.1f} times as many ({min(figures.values[at]):.1f} to "
        f"{max(figures.values[at]):.1f} over seeds; 4 is counted where 64 do not reach it; bins "
        f"predicted: {figures['times the budget, predicted bins, at 16']:.1f}). Best-of-N: "
        f"{figures['best-of-n, budget 16, %']:.1f} % with 16, "
        f"{figures['best-of-n, budget 64, %']:.1f} % with 64.",
    )


COMPUTE_OPTIMAL = Claim(
    id="test-time.compute-optimal-4x",
    title="The strategy that suits the difficulty needs a quarter of best-of-N's budget.",
    paper=f"Up to about 4 times fewer generations, 16 against 64 ({PAPER}, figure 4).",
    scale=f"{SCALE}. Best-of-N, majority, beams, DVTS and particles at 1, 4, 16 and 64 answers; "
    "the best of each bin is chosen on one half of its problems and counted on the other. Four "
    "samples that tell the difficulty are not charged, as in the paper.",
    expectation="Shown if best-of-N needs at least twice the budget for what the policy reaches "
    "with 16, in every seed, with bins by the true share of right answers; predicted bins are "
    "reported.",
    larger=LARGER,
    experiment=_compute_optimal,
)
