"""journey.distillation: a larger model's long thoughts, learned by a small one."""

from collections.abc import Sequence

from claims.figures import Figures, gain
from claims.journey.lab import (
    LARGER,
    SCALE,
    TREES,
    add_answers,
    answered,
    base,
    grown,
    student,
)
from hanol.claims import Claim, Measurement


def _distillation(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    trees = 4 if quick else TREES
    for seed in seeds:
        folder = grown(seed, quick, trees=trees, by="teacher")
        teacher = student(
            seed, quick, folder / "journeys.jsonl", name="taught-teacher", size="teacher"
        )
        by = {"teacher": answered(seed, quick, teacher, "teacher")}
        by["before"] = answered(seed, quick, base(seed, quick, "small"), "base-small")
        for arm in ("journeys", "shortcuts"):
            made = student(
                seed, quick, folder / f"{arm}.jsonl", name=f"distilled-{arm}", size="small"
            )
            by[arm] = answered(seed, quick, made, f"distilled-{arm}")
        for name, found in by.items():
            add_answers(figures, name, found)
        figures.add_gain("journeys - shortcuts", gain(by["shortcuts"].right, by["journeys"].right))
        figures.add_gain("student - teacher", gain(by["teacher"].right, by["journeys"].right))
    return figures.only_run() if quick else distillation_verdict(figures)


def distillation_verdict(figures: Figures) -> Measurement:
    """Whether a larger model's thoughts help more than its right ways, up to its own level."""
    shown = (
        min(figures.values["journeys - shortcuts, low"]) > 0 and figures["student - teacher"] <= 2
    )
    low, high = (figures[f"journeys - shortcuts, {end}"] for end in ("low", "high"))
    return figures.measurement(
        shown,
        f"Student of 0.27 M parameters: {figures['before, %']:.1f} % before, "
        f"{figures['shortcuts, %']:.1f} % after its teacher's right ways, "
        f"{figures['journeys, %']:.1f} % after its journeys ({figures['journeys - shortcuts']:+.1f}"
        f" points, {low:+.1f} to {high:+.1f}); the teacher of 3.6 M has "
        f"{figures['teacher, %']:.1f} %.",
    )


DISTILLATION = Claim(
    id="journey.distillation",
    title="A small model that learns a larger one's long thoughts comes near it, not beyond.",
    paper="A model of 72 B that learned tens of thousands of thoughts: 13 of 30 AIME problems, its "
    "teacher's family 12 to 21 (arXiv 2411.16489, table 1); the teacher is the bound.",
    scale=f"{SCALE}. The teacher has 3.6 M parameters; {TREES:,} of its trees, as journeys and as "
    "shortcuts, to a student of 0.27 M.",
    expectation="Shown if the student of journeys beats that of shortcuts in every seed, with "
    "intervals above 0, and is at most 2 points above its teacher in the mean.",
    larger=LARGER,
    experiment=_distillation,
)
