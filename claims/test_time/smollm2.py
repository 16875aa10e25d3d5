"""What comes out on a real chat model: SmolLM2-135M-Instruct on sums of one-digit numbers.

One seed, few problems: figures beside the verdicts, which small models decide.
"""

import logging
from functools import cache
from typing import Any

import numpy as np

from claims.figures import Figures
from claims.recipes import opened, trained
from claims.test_time.lab import curve, place, scored
from hanol import models
from hanol.errors import CheckpointError
from hanol.sampling import Sampling
from hanol.test_time import ProcessRewardModel, SweepPlan, ThinkSettings, sample_answers, sweep
from hanol.worlds import open_problems

_log = logging.getLogger(__name__)
_MODEL, _WORLD = "smollm2", "sums:terms=2-4,digits=1"
_PROBLEMS, _SAMPLES = 40, 16
_SETTINGS = ThinkSettings(
    Sampling(temperature=0.4, top_p=1.0, max_tokens=96, seed=0), separator="\n"
)
HOW = (
    f" SmolLM2-135M-Instruct beside it, one seed: {_PROBLEMS} sums of 2 to 4 one-digit numbers, "
    "temperature 0.4, a process reward model trained on its own samples "
    "(`recipes/prm/smollm2.yaml`, 100 problems)."
)


@cache
def _is_here() -> bool:
    try:
        models.load_config(_MODEL)
    except CheckpointError as err:
        _log.warning("Left out: %s", err)
        return False
    return True


def _verifier() -> ProcessRewardModel:
    folder = trained(
        place(0, False, "prm-smollm2"), "prm/smollm2.yaml",
        **{"rollouts.problems": _WORLD, "rollouts.count": 100, "rollouts.samples": 4,
           "rollouts.rollouts": 4, "min_rows": 100, "save_dtype": "float32"},
    )  # fmt: skip
    return ProcessRewardModel.from_pretrained(folder)


def _asked() -> list[Any]:
    return open_problems(_WORLD, count=_PROBLEMS, split="test")


def add_aggregation(figures: Figures) -> None:
    """How often each choice among its answers is right."""
    if not _is_here():
        return
    file = place(0, False, "pool-smollm2.jsonl")
    with opened(_MODEL) as engine:
        rows = sample_answers(
            engine, _asked(), samples=_SAMPLES, settings=_SETTINGS, file=file
        )  # fmt: skip
    pool = scored(rows, _SETTINGS, _verifier(), samples=_SAMPLES)
    figures.add("smollm2: one answer, %", 100 * float(np.mean([r["pass_at_1"] for r in pool])))
    for kind in ("last", "min", "prod", "mean", "majority"):
        shares = curve(pool, _SAMPLES, kind)
        figures.add(f"smollm2: {kind}, {_SAMPLES} answers, %", 100 * float(np.mean(shares)))


def add_strategies(figures: Figures) -> None:
    """How often beams and best-of-N are right at equal budgets."""
    if not _is_here():
        return
    plans = [SweepPlan.parse(name) for name in ("greedy", "majority", "best-of-n", "beam:width=4")]
    with opened(_MODEL) as engine:
        rows = sweep(
            _asked(), engine, _verifier(), plans, (1, 4, 16), place(0, False, "sweep-smollm2"),
            settings=_SETTINGS, resume=True,
        )  # fmt: skip
    for name, budget in dict.fromkeys((row.plan, row.budget) for row in rows):
        mine = [row.right for row in rows if (row.plan, row.budget) == (name, budget)]
        if budget > 1 or name == "greedy":
            figures.add(f"smollm2: {name}, budget {budget}, %", 100 * float(np.mean(mine)))
