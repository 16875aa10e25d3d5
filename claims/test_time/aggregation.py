"""test-time.aggregation: which score of its steps makes a solution's; steps or outcomes."""

from collections.abc import Sequence

import numpy as np

from claims.figures import Figures, gain
from claims.test_time import smollm2
from claims.test_time.lab import LARGER, PAPER, SAMPLES, SCALE, add_levels, curve, pool
from hanol.claims import Claim, Measurement
from hanol.scoring import StepAggregation

_KINDS: tuple[StepAggregation, ...] = ("last", "min", "prod", "mean")
_SIZES = (4, 16, SAMPLES)


def _aggregation(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        add_levels(figures, seed, quick)
        for k in (2,) if quick else _SIZES:
            answers = pool(seed, quick)
            by = {kind: curve(answers, k, kind) for kind in (*_KINDS, "outcome", "majority")}
            for kind, shares in by.items():
                figures.add(f"{kind}, {k} answers, %", 100 * float(np.mean(shares)))
            for kind in ("min", "prod", "outcome"):
                figures.add_gain(f"last over {kind}, {k} answers", gain(by[kind], by["last"]))
    if quick:
        return figures.only_run()
    smollm2.add_aggregation(figures)
    return verdict(figures)


def verdict(figures: Figures) -> Measurement:
    """Whether the last step's score is no worse than the others, and better than outcomes."""
    most = f"{SAMPLES} answers"
    shown = (
        all(figures[f"last over {kind}, {most}"] >= -0.5 for kind in ("min", "prod"))
        and min(figures.values[f"last over outcome, {most}, low"]) > 0
    )
    parts = [f"{kind} {figures[f'{kind}, {most}, %']:.1f}" for kind in (*_KINDS, "outcome")]
    low, high = (figures[f"last over outcome, {most}, {end}"] for end in ("low", "high"))
    return figures.measurement(
        shown,
        f"Best of {SAMPLES}, weighted: {', '.join(parts)} % right, majority "
        f"{figures[f'majority, {most}, %']:.1f} %. The last step's score over that of outcomes: "
        f"{figures[f'last over outcome, {most}']:+.1f} points ({low:+.1f} to {high:+.1f}), "
        f"{figures['last over outcome, 4 answers']:+.1f} with 4.",
    )


AGGREGATION = Claim(
    id="test-time.aggregation",
    title="A solution is worth what its last step is worth, to a verifier that learned soft "
    "labels; and steps teach more than outcomes.",
    paper=f"The last step's score beats the lowest and the product of all; a process reward model "
    f"beats an outcome model, and by more with more samples ({PAPER}, appendix E, figures only).",
    scale=f"{SCALE}. {SAMPLES} samples of each problem, weighted choice among 4, 16 and all of "
    f"them, means over 200 random subsets.{smollm2.HOW}",
    expectation=f"Shown if among {SAMPLES} answers the last step's score is at most 0.5 points "
    "below the lowest and the product in the mean over seeds, and above the outcome model with an "
    "interval above 0 in every seed.",
    larger=LARGER,
    experiment=_aggregation,
)
