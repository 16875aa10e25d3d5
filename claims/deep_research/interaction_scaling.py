"""deep-research.interaction-scaling: right answers against the calls that are allowed.

The bundled model is asked; nothing is trained. Seeds are worlds.
"""

from collections.abc import Sequence
from itertools import pairwise

from claims.deep_research import lab
from claims.deep_research.lab import (
    BENCHMARKS,
    PAPER,
    Attempt,
    add_attempts,
    attempted,
    place,
    right,
    unseen,
)
from claims.figures import Figures, gain
from claims.small import one_thread
from hanol.claims import Claim, Measurement

_CAPS = (1, 2, 4, 8)


def _interaction(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        world, kinds = unseen(seed, quick, (1, 2, 3, 4, 5), 40)
        found: list[Attempt] = []
        for cap in _CAPS:
            file = place(seed, quick, "interaction") / f"{cap}.jsonl"
            with one_thread():
                attempts = attempted(lab.MODEL, world, kinds, file, max_calls=cap)
            add_attempts(figures, f"{cap} calls", attempts)
            if cap == _CAPS[0]:
                found = attempts
            else:
                figures.add_gain(f"{cap} calls over 1", gain(right(found), right(attempts)))
    return interaction_verdict(figures)


def interaction_verdict(figures: Figures) -> Measurement:
    """Whether more calls give more right answers."""
    means = [figures[f"{cap} calls"] for cap in _CAPS]
    rises = all(after >= before - 2 for before, after in pairwise(means))
    most = f"{_CAPS[-1]} calls over 1"
    shown = rises and figures[most] >= 40 and min(figures.values[f"{most}, low"]) > 0
    return figures.measurement(
        shown,
        f"With at most 1, 2, 4 and 8 calls {', '.join(f'{value:.1f}' for value in means)} % of the "
        f"questions of 1 to 5 hops are right; 8 calls give {figures[most]:+.1f} points over 1 "
        f"({figures[f'{most}, low']:+.1f} to {figures[f'{most}, high']:+.1f}).",
    )


INTERACTION_SCALING = Claim(
    id="deep-research.interaction-scaling",
    title="The more the agent may interact, the more questions it answers.",
    paper="BrowseComp with contexts of 8, 16, 32, 64 and 128 K: about 0.5, 4, 21, 39 and 43.4 "
    f"(Tongyi DeepResearch, {PAPER}, read off a plot); 3.5 to 42.5 % from 2 to 2,048 interactions "
    "(IterResearch, arXiv 2511.07327).",
    scale=f"The bundled `{lab.MODEL}`, greedy, at most 1, 2, 4 or 8 calls, and one more in which "
    "it is told to answer with what it has; 40 questions of each number of hops from 1 to 5 in an "
    "unseen world of 1,000 pages, one world a seed. A question needs as many calls as it has hops, "
    "one to search and one to answer. Intervals of paired differences from resampling questions.",
    expectation="Shown if no doubling of the calls loses more than 2 points (means over seeds), "
    "and 8 calls give at least 40 points more than 1, with a 95 % interval above 0 in every seed. "
    "One call is expected to give nothing.",
    larger="`hanol research batch` with `--max-calls` 2 to 2,048 on BrowseComp, and a chat model. "
    f"{BENCHMARKS}.",
    experiment=_interaction,
)
