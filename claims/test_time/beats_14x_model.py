"""test-time.beats-14x-model: thinking, or being larger, at equal FLOPs."""

from collections.abc import Sequence

import numpy as np

from claims.figures import Figures
from claims.test_time.lab import (
    BINS,
    BUDGETS,
    LARGER,
    PAPER,
    SCALE,
    add_levels,
    bins_of,
    large_once,
    optimal,
    pool,
    scale_of,
)
from hanol.claims import Claim, Measurement
from hanol.test_time import flops_multiplier

_RATIOS = (0.16, 0.79, 22)  # of the paper: tokens of inference over those of training


def _beats_larger(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    budgets = (1, 4) if quick else BUDGETS
    for seed in seeds:
        add_levels(figures, seed, quick)
        larger = large_once(seed, quick)
        once = [larger[row["id"]] for row in pool(seed, quick)]
        bins, scale = np.array(bins_of(seed, quick)), scale_of(seed, quick)
        figures.add("times the parameters", scale)
        figures.add("larger model, one answer, %", 100 * float(np.mean(once)))
        found = optimal(seed, quick)  # by bin, the easiest first
        for number in range(1, BINS + 1):
            figures.add(f"larger model, bin {number}, %",
                        100 * float(np.array(once)[bins == number].mean()))  # fmt: skip
        for ratio in _RATIOS:
            most = flops_multiplier(scale, ratio)
            budget = max(b for b in budgets if b <= most)
            shares = np.array(found[budget])
            figures.add(f"budget that is paid for, R = {ratio:g}", budget)
            figures.add(f"small model, R = {ratio:g}, %", 100 * float(shares.mean()))
            for number in range(1, BINS + 1):
                mine = shares[np.sort(bins) == number]
                figures.add(f"small model, R = {ratio:g}, bin {number}, %", 100 * mine.mean())
    if quick:
        return figures.only_run()
    return larger_verdict(figures)


def larger_verdict(figures: Figures) -> Measurement:
    """Whether the small model wins on easy bins where inference is rare, and loses on hard ones."""

    def ahead(ratio: float, number: int) -> float:
        small = figures[f"small model, R = {ratio:g}, bin {number}, %"]
        return small - figures[f"larger model, bin {number}, %"]

    easy = [ahead(_RATIOS[0], number) for number in (1, 2, 3)]
    hard = ahead(_RATIOS[-1], BINS)
    parts = [
        f"R = {ratio:g} ({figures[f'budget that is paid for, R = {ratio:g}']:.0f} answers): "
        + ", ".join(f"{ahead(ratio, number):+.1f}" for number in range(1, BINS + 1))
        for ratio in _RATIOS
    ]
    return figures.measurement(
        min(easy) >= 0 and max(easy) > 0 and hard < 0,
        f"The larger model ({figures['times the parameters']:.1f} times the parameters) answers "
        f"{figures['larger model, one answer, %']:.1f} % at once. The small one's points above it "
        f"at equal FLOPs, by bin from easy to hard: {'; '.join(parts)}.",
    )


BEATS_LARGER = Claim(
    id="test-time.beats-14x-model",
    title="At equal FLOPs a small model that thinks beats one of 14 times the size on easy "
    "problems, and loses on hard ones.",
    paper="Test-time compute wins on bins 1 to 3 or where R is small; the larger model wins on "
    f"bins 4 and 5 or where R is large ({PAPER}, figure 9).",
    scale=f"{SCALE}. The larger model (`recipes/think/large.yaml`) has 14 times the blocks and "
    "saw the same tokens. The small one takes the best strategy of each bin, as in "
    "test-time.compute-optimal-4x; its largest budget is 64, where R = 0.16 would pay for 258.",
    expectation="Shown if at R = 0.16 the small model is nowhere below the larger one's likeliest "
    "answer on bins 1 to 3 and above it on one of them, and below it on bin 5 at R = 22, in the "
    "mean over seeds.",
    larger=LARGER,
    experiment=_beats_larger,
)
