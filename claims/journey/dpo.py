"""journey.dpo: preferences on top of journeys."""

from collections.abc import Sequence

from claims.figures import Figures, gain
from claims.journey.lab import (
    LARGER,
    PAPER,
    SCALE,
    TREES,
    add_answers,
    answered,
    grown,
    place,
    student,
)
from claims.recipes import trained
from hanol.claims import Claim, Measurement


def _dpo(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    trees = 4 if quick else TREES
    few = {"batch_size": 2, "data.held_out": 0} if quick else {}
    for seed in seeds:
        folder = grown(seed, quick, trees=trees)
        name = f"journeys-medium-{trees}"
        before = student(seed, quick, folder / "journeys.jsonl", name=name)
        after = trained(
            place(seed, quick, "dpo"), "journey/dpo.yaml", model=before, seed=seed,
            **{"data.path": folder / "preferences.jsonl", **few},
        )  # fmt: skip
        found = [answered(seed, quick, before, name), answered(seed, quick, after, "dpo")]
        for label, one in zip(("journeys", "with DPO"), found, strict=True):
            add_answers(figures, label, one)
        figures.add_gain("gain", gain(found[0].right, found[1].right))
    return figures.only_run() if quick else dpo_verdict(figures)


def dpo_verdict(figures: Figures) -> Measurement:
    """Whether preferences add something small."""
    return figures.measurement(
        figures["gain"] > 0 and min(figures.values["gain, high"]) > 0,
        f"Journeys {figures['journeys, %']:.1f} %, with DPO {figures['with DPO, %']:.1f} % "
        f"({figures['gain']:+.1f} points, {figures['gain, low']:+.1f} to "
        f"{figures['gain, high']:+.1f}); {figures['journeys, tokens']:.0f} and "
        f"{figures['with DPO, tokens']:.0f} tokens an answer.",
    )


DPO = Claim(
    id="journey.dpo",
    title="Preferences between right and wrong ways add a little to journeys.",
    paper=f"+0.2 and +1.2 points ({PAPER}, table 6).",
    scale=f"{SCALE}. Pairs of right and wrong ways through the same {TREES:,} trees, one epoch, "
    "beta 0.1 (`recipes/journey/dpo.yaml`).",
    expectation="Shown if the mean gain over seeds is above 0, and in no seed is the whole "
    "interval below it. The paper's own gain would not be seen with 500 problems.",
    larger=LARGER,
    experiment=_dpo,
)
