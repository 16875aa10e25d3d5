"""test-time.aggregation: which score of its steps makes a solution's; steps or outcomes."""

from collections.abc import Sequence

import numpy as np

from claims.figures import Figures, gain
from claims.test_time.lab import LARGER, PAPER, SAMPLES, SCALE, add_levels, pool
from hanol.claims import Claim, Measurement
from hanol.scoring import StepAggregation, step_score
from hanol.test_time import best_of_k

_KINDS: tuple[StepAggregation, ...] = ("last", "min", "prod", "mean")
_SIZES = (4, 16, SAMPLES)


def _aggregation(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        add_levels(figures, seed, quick)
        for k in (2,) if quick else _SIZES:
            by = {kind: _curve(seed, quick, k, kind) for kind in (*_KINDS, "outcome", "majority")}
            for kind, shares in by.items():
                figures.add(f"{kind}, {k} answers, %", 100 * float(np.mean(shares)))
            for kind in ("min", "prod", "outcome"):
                figures.add_gain(f"last over {kind}, {k} answers", gain(by[kind], by["last"]))
    if quick:
        return figures.only_run()
    return verdict(figures)


def _curve(seed: int, quick: bool, k: int, kind: str) -> list[float]:
    """How often the weighted choice among k answers is right, for each problem."""
    shares = []
    for row in pool(seed, quick):
        if kind == "outcome":
            scores = row["outcome"]
        elif kind == "majority":
            scores = [1.0] * len(row["right"])
        else:
            scores = [step_score(of, kind) for of in row["steps"]]  # type: ignore[arg-type]
        answers = [text.strip().rpartition("\n")[2] for text in row["answers"]]
        # Samples that were cut off are none of its answers: a pool may be smaller than k.
        size = min(k, len(answers))
        shares.append(best_of_k(answers, scores, row["right"], size) if size else 0.0)
    return shares


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
    "them, means over 200 random subsets.",
    expectation=f"Shown if among {SAMPLES} answers the last step's score is at most 0.5 points "
    "below the lowest and the product in the mean over seeds, and above the outcome model with an "
    "interval above 0 in every seed.",
    larger=LARGER,
    experiment=_aggregation,
)
