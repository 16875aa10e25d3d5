"""diting.debate-beats-single: is it the debate, or the number of opinions?

Noisy oracles stand for models: they know what people gave and corrupt it. This says what the
protocol makes of independent and of shared errors, and nothing about models.

Shape suffixes: P items, O opinions.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from claims.diting.lab import CRITERIA, items
from claims.figures import Figures
from hanol.claims import Claim, Measurement
from hanol.scoring import spearman

_SCORER, _JUDGE = 0.35, 0.21  # chance that an oracle gives a random level in place of the score
_SHARED = (0.0, 0.5, 1.0)
_DRAWS = 200
_SAME = 0.02  # of rho: less is no difference

Array = NDArray[np.float64]


def _measure(seeds: Sequence[int], quick: bool) -> Measurement:
    people = np.array([item.human() or 0.0 for item in items(quick)])
    figures = Figures()
    for seed in seeds:
        for shared in _SHARED:
            rng = np.random.default_rng([seed, int(10 * shared)])
            found: dict[str, list[float]] = {}
            for _ in range(5 if quick else _DRAWS):
                for name, scores_P in _protocols(people, shared, rng).items():
                    found.setdefault(name, []).append(spearman(people, scores_P) or 0.0)
            for name, rhos in found.items():
                figures.add(f"shared {shared:g}: {name}", float(np.mean(rhos)))
            better = np.array(found["debate"]) > np.array(found["single"])
            figures.add(f"shared {shared:g}: draws in which debate beats single", better.mean())
    wins = all(
        figures[f"shared {shared:g}: debate"] - figures[f"shared {shared:g}: single"] > _SAME
        for shared in (0.0, 0.5)
    )
    often = figures["shared 0: draws in which debate beats single"] >= 0.95
    beside = [
        figures[f"shared {shared:g}: debate"] - figures[f"shared {shared:g}: {panel}"]
        for shared in (0.0, 0.5)
        for panel in ("panel with the judge", "panel of scorers")
    ]
    with_judge = max(beside[0], beside[2])
    gain = (
        "the debate beats a panel of the same models, too"
        if with_judge > _SAME
        else "a gain of averaging and of the better judge, not of debate: a panel of the same "
        "three models without talk does as well"
    )
    by_name = {
        name: figures[f"shared 0: {name}"]
        for name in ("single", "debate", "panel with the judge", "panel of scorers")
    }
    listed = ", ".join(f"{name} {value:.3f}" for name, value in by_name.items())
    return figures.measurement(
        wins and often,
        f"With independent noise: {listed}; with noise that all share, all have "
        f"{figures['shared 1: single']:.3f}. It is {gain}.",
    )


def _protocols(people_P: Array, shared: float, rng: np.random.Generator) -> dict[str, Array]:
    """Scores of each protocol, from the same opinions where it can be."""
    chance = np.array([_SCORER, _SCORER, _JUDGE, _SCORER])
    first_P, second_P, judge_P, third_P = _opinions(people_P, chance, shared, rng)
    agree_P = first_P == second_P
    with_judge = np.stack([first_P, second_P, judge_P])
    return {
        "single": first_P,
        "mean of two": (first_P + second_P) / 2,
        # The scorers agree, or the judge decides: three calls at most, two where they agree.
        "debate": np.where(agree_P, first_P, judge_P),
        "panel with the judge": np.median(with_judge, axis=0),
        "mean with the judge": with_judge.mean(0),
        "panel of scorers": np.median(np.stack([first_P, second_P, third_P]), axis=0),
        "judge alone": judge_P,
    }


def _opinions(
    people_P: Array, chance_O: Array, shared: float, rng: np.random.Generator
) -> list[Array]:
    """What oracles of different reliability give each item.

    An oracle gives all criteria one random level with its chance, else what people gave. A share of
    the items has errors that all oracles make together, as the first one does.
    """
    opinions: list[Array] = []
    is_shared_P = rng.random(len(people_P)) < shared
    for number, chance in enumerate(chance_O):
        is_wrong_P = rng.random(len(people_P)) < chance
        level_P = rng.integers(0, 3, len(people_P))
        given_P = np.where(is_wrong_P, CRITERIA * level_P, people_P)
        opinions.append(np.where(is_shared_P, opinions[0], given_P) if number else given_P)
    return opinions


DEBATE_BEATS_SINGLE = Claim(
    id="diting.debate-beats-single",
    title="A debate of two scorers with a judge agrees better with experts than a single scorer.",
    paper="Spearman with experts 0.669 against 0.655 for DeepSeek-R1 on 300 items, untested (a "
    "standard error is about 0.03); ICC 0.704 against 0.651 for DeepSeek-V3 (arXiv 2510.09116, "
    "tables 5 and 6).",
    scale="No model: noisy oracles over the 105 public items, which replace an item's scores by "
    "one random level with chance 0.35 (scorers) and 0.21 (judge), 200 draws for each seed, with "
    "errors that are independent, shared for half of the items, and all shared.",
    expectation="Shown if the debate is above the single scorer by more than 0.02 with independent "
    "and with half-shared errors, and in at least 95 % of the draws with independent ones. With "
    "independent errors this is true by construction, so it is also compared with panels of the "
    "same number of calls: if a panel of the same models does as well, the gain is one of "
    "averaging and of the better judge, not of debate. With shared errors all are expected to be "
    "equal.",
    larger="Models as scorers: `hanol eval judge --protocol paper`, `single` and `panel` over the "
    "same items with the same number of calls, then `hanol eval meta`.",
    experiment=_measure,
)
