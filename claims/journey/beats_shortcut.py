"""journey.beats-shortcut: wrong turns and the way back, against right ways alone."""

from collections.abc import Sequence

from claims.figures import Figures, gain
from claims.journey.lab import (
    LARGER,
    PAPER,
    SCALE,
    TREES,
    add_answers,
    answered,
    base,
    grown,
    student,
)
from hanol.claims import Claim, Measurement

_ARMS = ("shortcuts", "journeys", "token-matched", "shuffled", "wrong-answers")
_FEW = 327  # trees, as many as the paper has
_SIZES = ("medium", "small")


def _beats(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        for size in _SIZES:
            found = answered(seed, quick, base(seed, quick, size), f"base-{size}")
            add_answers(figures, f"{size}, before", found)
        runs = [("medium", TREES, _ARMS), ("medium", _FEW, _ARMS[:2]), ("small", TREES, _ARMS[:2])]
        for size, trees, arms in runs[: 1 if quick else None]:
            trees = 4 if quick else trees
            folder = grown(seed, quick, trees=trees)
            by = {}
            for arm in arms:
                name = f"{arm}-{size}-{trees}"
                made = student(seed, quick, folder / f"{arm}.jsonl", name=name, size=size)
                by[arm] = answered(seed, quick, made, name)
                add_answers(figures, f"{size}, {arm}, {trees} trees", by[arm])
            for arm in arms:
                if arm != "journeys":
                    difference = gain(by[arm].right, by["journeys"].right)
                    figures.add_gain(f"{size}, journeys - {arm}, {trees} trees", difference)
    return figures.only_run() if quick else verdict(figures)


def verdict(figures: Figures) -> Measurement:
    """Whether journeys beat the shortcuts, also those of as many tokens."""

    def said(of: str, trees: int = TREES, size: str = "medium") -> str:
        key = f"{size}, journeys - {of}, {trees} trees"
        low, high = (figures[f"{key}, {end}"] for end in ("low", "high"))
        return f"{figures[key]:+.1f} points ({low:+.1f} to {high:+.1f})"

    shown = all(
        min(figures.values[f"medium, journeys - {of}, {TREES} trees, low"]) > 0
        for of in ("shortcuts", "token-matched")
    )
    journeys = f"medium, journeys, {TREES} trees"
    return figures.measurement(
        shown,
        f"1 M parameters, {TREES:,} trees: {figures['medium, before, %']:.1f} % before, journeys "
        f"{figures[f'{journeys}, %']:.1f} % ({figures[f'{journeys}, tokens']:.0f} tokens an "
        f"answer); over shortcuts {said('shortcuts')}, over shortcuts of as many tokens "
        f"{said('token-matched')}, over shuffled lines {said('shuffled')}, over journeys to wrong "
        f"answers {said('wrong-answers')}. {_FEW} trees: over shortcuts "
        f"{said('shortcuts', _FEW)}. 0.27 M parameters: {said('shortcuts', size='small')}.",
    )


BEATS_SHORTCUT = Claim(
    id="journey.beats-shortcut",
    title="A model that learns wrong turns and the way back beats one that learns right ways, "
    "from the same trees.",
    paper=f"+8.4 and +8.0 points on MATH with 327 trees, one run each, without a control of equal "
    f"tokens ({PAPER}, table 6).",
    scale=f"{SCALE}. Wrong steps are judged exactly. {TREES:,} trees (ten times the paper's), and "
    f"{_FEW}; controls: shortcuts of as many tokens, the journeys' lines shuffled, journeys with a "
    "wrong last line.",
    expectation="Shown if, with 1 M parameters, journeys beat both the shortcuts and those of as "
    "many tokens in every seed, with intervals above 0. Others found that long thoughts make small "
    "students worse, so the opposite is as possible; with 0.27 M parameters it is expected.",
    larger=LARGER,
    experiment=_beats,
)
