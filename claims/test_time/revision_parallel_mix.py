"""test-time.revision-parallel-mix: revisions one after another, side by side, or mixed."""

from collections.abc import Sequence

import numpy as np

from claims.figures import Figures, gain
from claims.test_time.lab import (
    BINS,
    CHAINS,
    LARGER,
    PAPER,
    REVISED,
    add_levels,
    bins_of,
    revised,
)
from hanol.claims import Claim, Measurement

_MIXES = (1, 4, CHAINS)  # chains beside each other; as many as answers are parallel


def _mix(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    mixes = (1, 4) if quick else _MIXES
    for seed in seeds:
        add_levels(figures, seed, quick)
        bins = np.array(bins_of(seed, quick))
        right = {n: np.array([r["right"] for r in revised(seed, quick, n)], float) for n in mixes}
        for chains, shares in right.items():
            figures.add(f"{chains} chains, %", 100 * float(shares.mean()))
            for number in range(1, BINS + 1):
                figures.add(f"{chains} chains, bin {number}, %",
                            100 * float(shares[bins == number].mean()))  # fmt: skip
        figures.add_gain("one chain over parallel", gain(right[mixes[-1]], right[1]))
        figures.add_gain("mix over one chain", gain(right[1], right[4]))
    if quick:
        return figures.only_run()
    return mix_verdict(figures)


def mix_verdict(figures: Figures) -> Measurement:
    """Whether one chain is best on easy problems, and a mix on hard ones."""
    parallel = f"{CHAINS} chains"

    def easy(name: str) -> float:
        return float(np.mean([figures[f"{name}, bin {number}, %"] for number in (1, 2)]))

    def hard(name: str) -> float:
        return float(np.mean([figures[f"{name}, bin {number}, %"] for number in (4, 5)]))

    low, high = (figures[f"one chain over parallel, {end}"] for end in ("low", "high"))
    shown = (
        figures["one chain over parallel"] > 0
        and easy("1 chains") >= easy("4 chains")
        and hard("4 chains") > max(hard("1 chains"), hard(parallel))
    )
    return figures.measurement(
        shown,
        f"{CHAINS} answers: one chain {figures['1 chains, %']:.1f} %, four chains "
        f"{figures['4 chains, %']:.1f} %, all parallel {figures[f'{parallel}, %']:.1f} %; one "
        f"chain over parallel {figures['one chain over parallel']:+.1f} points ({low:+.1f} to "
        f"{high:+.1f}). Bins 1 and 2: {easy('1 chains'):.1f}, {easy('4 chains'):.1f}, "
        f"{easy(parallel):.1f} %; bins 4 and 5: {hard('1 chains'):.1f}, {hard('4 chains'):.1f}, "
        f"{hard(parallel):.1f} %.",
    )


REVISION_MIX = Claim(
    id="test-time.revision-parallel-mix",
    title="Revisions one after another beat answers side by side; hard problems want a mix.",
    paper="Sequential revisions narrowly beat parallel ones at equal numbers; easy bins want them "
    f"fully sequential, hard bins a ratio in between ({PAPER}, figures 6 and 7).",
    scale=f"{REVISED}. {CHAINS} answers in 1, 4 and {CHAINS} chains: best of each chain, then of "
    "all chains.",
    expectation="Shown if, in the mean over seeds, one chain beats all side by side, is no worse "
    "than four chains on bins 1 and 2, and four chains are best on bins 4 and 5.",
    larger=LARGER,
    experiment=_mix,
)
