"""deep-research.merge: the average of two agents trained from one base."""

from collections.abc import Sequence

from claims.deep_research.lab import (
    BENCHMARKS,
    PAPER,
    add_attempts,
    place,
    right,
)
from claims.deep_research.reinforced import BASE, HOW, asked, base, last, reinforced
from claims.figures import Figures, gain
from claims.small import one_thread
from hanol.claims import Claim, Measurement, Verdict
from hanol.training import merge_checkpoints


def _merge(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        with one_thread():
            _one_merge(seed, quick, figures)
    return merge_verdict(figures)


def _one_merge(seed: int, quick: bool, figures: Figures) -> None:
    runs = {
        f"{hops}-hop": reinforced(seed, quick, f"rl-{hops}-hop", (hops,), no_answer="kept")
        for hops in (1, 2)
    }
    checkpoints = {name: last(run, quick) for name, run in runs.items()}
    merged = place(seed, quick, "merged")
    if not merged.exists():
        merge_checkpoints(list(checkpoints.values()), None, merged)
    checkpoints |= {"fine-tuned": base(seed, quick), "merged": merged}
    found = {}
    for name, checkpoint in checkpoints.items():
        file = name if name == "fine-tuned" else f"merge-{name}"
        found[name] = asked(seed, quick, file, checkpoint)
        add_attempts(figures, f"right answers, {name}", found[name])
    for kind in ("1", "2"):
        parent = right(found[f"{kind}-hop"], kind)
        figures.add_gain(f"gain at its own: {kind}", gain(right(found["fine-tuned"], kind), parent))
        better = max((right(found[name], kind) for name in runs), key=sum)
        figures.add_gain(
            f"merged over the better: {kind}", gain(better, right(found["merged"], kind))
        )


def merge_verdict(figures: Figures) -> Measurement:
    """Whether the average keeps what either parent is good at."""
    verdict: bool | Verdict = all(figures[f"merged over the better: {k}"] >= -3 for k in "12")
    if max(figures[f"gain at its own: {kind}"] for kind in "12") < 3:
        verdict = "cannot be shown at this scale"  # the parents are all but their base
    told = "; ".join(
        f"{name} {figures[f'right answers, {name}: 1']:.1f} and "
        f"{figures[f'right answers, {name}: 2']:.1f} %"
        for name in ("fine-tuned", "1-hop", "2-hop", "merged")
    )
    return figures.measurement(
        verdict,
        f"Right answers to questions of 1 and 2 hops: {told}. Against the better parent the "
        f"average has {figures['merged over the better: 1']:+.1f} and "
        f"{figures['merged over the better: 2']:+.1f} points.",
    )


MERGE = Claim(
    id="deep-research.merge",
    title="The average of two agents trained from one base keeps the strengths of both.",
    paper="The released model is a convex average of variants of one base; neither the variants "
    f"nor the weights nor an ablation are published (Tongyi DeepResearch, {PAPER}, equation 6).",
    scale=f"{BASE}; two runs of reinforcement learning from it, one on questions of 1 hop and one "
    f"of 2 hops, {HOW}; their equal average. 200 questions of each number of hops in a world of "
    "other names, drawn as in training.",
    expectation="Shown if the average has at most 3 points fewer than the better parent at 1 hop "
    "and at 2 hops (means over seeds; the better parent of each seed). Cannot be shown at this "
    "scale if neither parent gains 3 points over the base on its own kind of question: then there "
    "is nothing to keep.",
    larger="`hanol merge` over the two last stages of `recipes/researcher/30b-a3b.yaml`. "
    f"{BENCHMARKS}.",
    experiment=_merge,
)
