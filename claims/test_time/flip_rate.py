"""test-time.flip-rate: what revisions do to answers that are right already."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from claims.figures import Figures, gain
from claims.test_time.lab import LARGER, PAPER, REVISED, add_levels, revised
from hanol.claims import Claim, Measurement


def _flips(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        add_levels(figures, seed, quick)
        rows = revised(seed, quick, 4)
        pairs = [pair for row in rows for chain in row["chains"] for pair in pairwise(chain)]
        for name, before in (("right answers that became wrong, %", True),
                             ("wrong answers that became right, %", False)):  # fmt: skip
            after = [b for a, b in pairs if a is before] or [before]
            figures.add(name, 100 * float(np.mean([b is not before for b in after])))
        first, last = ([chain[i] for row in rows for chain in row["chains"]] for i in (0, -1))
        figures.add("first answers, %", 100 * float(np.mean(first)))
        figures.add("last answers, %", 100 * float(np.mean(last)))
        ends = [float(np.mean([chain[-1] for chain in row["chains"]])) for row in rows]
        chosen = [float(row["right"]) for row in rows]
        figures.add("chosen answers, %", 100 * float(np.mean(chosen)))
        figures.add_gain("chosen over last", gain(ends, chosen))
    if quick:
        return figures.only_run()
    return flip_verdict(figures)


def flip_verdict(figures: Figures) -> Measurement:
    """Whether revisions spoil right answers, so that the last one is not to be taken."""
    flips = "right answers that became wrong, %"
    low, high = (figures[f"chosen over last, {end}"] for end in ("low", "high"))
    return figures.measurement(
        min(figures.values[flips]) > 5 and min(figures.values["chosen over last, low"]) > 0,
        f"{figures[flips]:.1f} % of the right answers became wrong with the next revision, "
        f"{figures['wrong answers that became right, %']:.1f} % of the wrong ones right. Right "
        f"are {figures['first answers, %']:.1f} % of the first answers of four chains, "
        f"{figures['last answers, %']:.1f} % of the last, {figures['chosen answers, %']:.1f} % of "
        f"those chosen over all ({figures['chosen over last']:+.1f} points, {low:+.1f} to "
        f"{high:+.1f}).",
    )


FLIP_RATE = Claim(
    id="test-time.flip-rate",
    title="Revisions turn right answers into wrong ones, so the last one is not to be taken.",
    paper=f"About 38 % of the right answers become wrong with a naive approach ({PAPER}, "
    "section 6.1).",
    scale=f"{REVISED}. Four chains of four answers each.",
    expectation="Shown if in every seed more than 5 % of the right answers become wrong with the "
    "next revision, and the choice over all chains beats their last answers, with an interval "
    "above 0.",
    larger=LARGER,
    experiment=_flips,
)
