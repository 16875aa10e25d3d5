"""test-time.beam-vs-best-of-n-by-difficulty: where search helps, and where it does harm."""

from collections.abc import Sequence

import numpy as np

from claims.figures import Figures, gain
from claims.test_time import smollm2
from claims.test_time.lab import (
    BINS,
    BUDGETS,
    LARGER,
    LOOKAHEAD,
    PAPER,
    SCALE,
    add_levels,
    bins_of,
    right_by,
)
from hanol.claims import Claim, Measurement

_BEAM, _BEST = "beam:width=4", "best-of-n"


def _beam(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    budgets = (4,) if quick else BUDGETS[1:]
    pooled: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for seed in seeds:
        add_levels(figures, seed, quick)
        right, bins = right_by(seed, quick), np.array(bins_of(seed, quick))
        for budget in budgets:
            for name in (_BEAM, _BEST, LOOKAHEAD, "dvts:width=4", "particles", "majority"):
                shares = np.array(right[name, budget])
                figures.add(f"{name}, budget {budget}, %", 100 * float(shares.mean()))
            pairs = np.array([right[_BEST, budget], right[_BEAM, budget]]).T
            for number in range(1, BINS + 1):
                mine = pairs[bins == number]
                figures.add(f"beam - best-of-n, budget {budget}, bin {number}",
                            100 * float((mine[:, 1] - mine[:, 0]).mean()))  # fmt: skip
            for name, of in (("easy", (1, 2)), ("medium", (3, 4))):
                pooled.setdefault((budget, name), []).extend(
                    map(tuple, pairs[np.isin(bins, of)].tolist())
                )
    for (budget, name), pairs_of in pooled.items():
        before, after = zip(*pairs_of, strict=True)
        figures.add_gain(f"beam - best-of-n, budget {budget}, {name} bins", gain(before, after))
    if quick:
        return figures.only_run()
    smollm2.add_strategies(figures)
    return verdict(figures)


def verdict(figures: Figures) -> Measurement:
    """Whether beams win on medium problems at 16, and not on easy ones at the largest budget."""
    most = BUDGETS[-1]

    def said(budget: int, name: str) -> str:
        key = f"beam - best-of-n, budget {budget}, {name} bins"
        low, high = (figures[f"{key}, {end}"] for end in ("low", "high"))
        return f"{figures[key]:+.1f} points ({low:+.1f} to {high:+.1f})"

    shown = (
        figures["beam - best-of-n, budget 16, medium bins, low"] > 0
        and figures[f"beam - best-of-n, budget {most}, easy bins"] <= 0
    )
    return figures.measurement(
        shown,
        f"Beams over best-of-N on bins 3 and 4: {said(4, 'medium')} with 4 answers, "
        f"{said(16, 'medium')} with 16, {said(most, 'medium')} with {most}; on bins 1 and 2: "
        f"{said(16, 'easy')} with 16, {said(most, 'easy')} with {most}. On all problems with "
        f"{most}: beams {figures[f'{_BEAM}, budget {most}, %']:.1f} %, best-of-N "
        f"{figures[f'{_BEST}, budget {most}, %']:.1f} %, lookahead "
        f"{figures[f'{LOOKAHEAD}, budget {most}, %']:.1f} %.",
    )


BEAM_BY_DIFFICULTY = Claim(
    id="test-time.beam-vs-best-of-n-by-difficulty",
    title="Beams help on problems of medium difficulty, and do harm on easy ones at large budgets.",
    paper="Beams win at small budgets and on bins 3 and 4; on bins 1 and 2 they get worse with "
    f"the budget; on bin 5 nothing helps ({PAPER}, figure 3, curves only).",
    scale=f"{SCALE}. Budgets of 4, 16 and 64 answers, width 4; bins by the share of right ones "
    f"among 64 other samples.{smollm2.HOW}",
    expectation="Shown if beams of width 4 beat best-of-N on bins 3 and 4 at a budget of 16, with "
    "an interval above 0 over all seeds together, and do not on bins 1 and 2 at 64.",
    larger=LARGER,
    experiment=_beam,
)
