"""The best static temperature and top-p for a task, and what a search that picks it may claim.

Source: arXiv 2510.26697, section 4 ("expert-guided tuning"): sweep the temperature with top-p 1,
then top-p at the best temperature. A pair that was picked and scored on the same samples looks
better than it is, so the search is also split in half: picked on one half of the problems, scored
on the other, and the other way round.

Shape suffixes: P problems.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from hanol.errors import ConfigError
from hanol.evaluation._sample import StaticSetting, TaskSampler
from hanol.scoring import distinct_n

Method = Literal["coarse", "grid"]

TEMPERATURES = tuple(round(0.1 * i, 1) for i in range(1, 16))
TOP_PS = tuple(round(0.1 * i, 1) for i in range(1, 11))


class SearchPoint(BaseModel):
    """One static setting and how it did on all problems."""

    temperature: float
    top_p: float
    pass_at_1: float
    distinct_2: float = Field(description="distinct-2; see `SettingResult.distinct`.")


class StaticSearch(BaseModel):
    """What a search over static settings found."""

    method: Method
    samples: int = Field(description="Completions of a problem at each setting.")
    points: list[SearchPoint] = Field(description="All settings that were tried, in that order.")
    best: StaticSetting = Field(description="The best on all problems.")
    oracle: float = Field(
        description="Its pass@1 on the samples that it was picked on: an optimistic bound."
    )
    halves: tuple[list[int], list[int]] = Field(description="Problems of each half, from 0.")
    best_of_halves: tuple[StaticSetting, StaticSetting] = Field(
        description="The best on each half alone; each is scored on the other half."
    )
    split_half: float = Field(description="pass@1 of settings picked on other problems.")


def static_search(
    draws: TaskSampler,
    *,
    method: Method,
    temperatures: Sequence[float],
    top_ps: Sequence[float],
    samples: int,
) -> StaticSearch:
    """The setting with the highest pass@1; of equal ones higher temperature, then higher top-p."""
    if method not in ("coarse", "grid"):
        raise ConfigError(f'`method` is {method!r}, but must be "coarse" or "grid".')
    if not temperatures or not top_ps:
        raise ConfigError("`temperatures` and `top_ps` must not be empty.")
    every = [StaticSetting(t, p) for t in temperatures for p in top_ps]
    task, problems = draws.task, len(draws.task.prompts)
    points: dict[StaticSetting, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def scores_P(setting: StaticSetting) -> NDArray[np.float64]:
        if setting not in points:
            done = draws(setting, samples)
            points[setting] = (
                task.check(done).mean(1),
                np.array([distinct_n([one.token_ids for one in row], 2) for row in done]),
            )
        return points[setting][0]

    half_P = np.random.default_rng(draws.seed).permutation(problems) < problems // 2
    subsets = (half_P, ~half_P, np.ones(problems, dtype=bool))

    def best_of(settings: Sequence[StaticSetting], among_P: NDArray[np.bool_]) -> StaticSetting:
        return max(
            settings,
            # Rounded: sums in another order are no reason to prefer a setting.
            key=lambda s: (round(scores_P(s)[among_P].mean(), 12), s.temperature, s.top_p),
        )

    chosen = []
    for among_P in subsets:
        if method == "grid":
            chosen.append(best_of(every, among_P))
            continue
        first = best_of([StaticSetting(t, 1.0) for t in temperatures], among_P)
        second = [StaticSetting(first.temperature, p) for p in top_ps]
        chosen.append(best_of([first, *second], among_P))
    of_first, of_second, best = chosen
    crossed_P = np.where(half_P, scores_P(of_second), scores_P(of_first))
    return StaticSearch(
        method=method,
        samples=samples,
        points=[
            SearchPoint(**asdict(setting), pass_at_1=right_P.mean(), distinct_2=distinct_P.mean())
            for setting, (right_P, distinct_P) in points.items()
        ],
        best=best,
        oracle=scores_P(best).mean(),
        halves=(np.flatnonzero(half_P).tolist(), np.flatnonzero(~half_P).tolist()),
        best_of_halves=(of_first, of_second),
        split_half=crossed_P.mean(),
    )


def search_parts(method: Method, temperatures: Sequence[float], top_ps: Sequence[float]) -> int:
    """Settings that a search tries at most."""
    if method == "grid":
        return len(temperatures) * len(top_ps)
    # The halves and the whole may each have a best temperature of their own.
    return len(temperatures) + 3 * len(top_ps)
