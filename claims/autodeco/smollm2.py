"""autodeco.smollm2-*: what heads reach on a real chat model, on tasks that a program checks.

SmolLM2-135M-Instruct with the heads that `recipes/autodeco/smollm2.yaml` trained answers held-out
tasks of `hanol.worlds.small_tasks` under every setting; every seed draws tasks of its own.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from claims.autodeco.world import LARGER, add_settings
from claims.figures import Figures
from hanol import autodeco, evaluation
from hanol.claims import Claim
from hanol.evaluation import Comparison, DecodingTask
from hanol.scoring import parse_verifier

MODEL = "smollm2-autodeco"
KINDS = ("sum", "story", "capital", "instruction")
_TASKS = 48  # of every seed, a quarter of each kind
_SAMPLES = 4
_TOKENS = 48
_GRID: dict[str, Any] = {
    "temperatures": (0.2, 0.4, 0.6, 0.8, 1.0), "top_ps": (0.5, 0.8, 0.95, 1.0)
}  # fmt: skip


@cache
def tasks_run(seed: int, quick: bool) -> Comparison:
    """Compare all settings on held-out tasks; once a process."""
    model, tokenizer = autodeco.open_heads("tiny-autodeco" if quick else MODEL)
    number = 4 if quick else _TASKS
    rows = autodeco.training_rows("tasks", number, held_out=True, seed=seed)
    if quick:  # that model has no chat template
        rows = [replace(row, prompt=row.messages[0]["content"], messages=()) for row in rows]
    task = DecodingTask.from_rows(
        "tasks", rows, parse_verifier("hanol.worlds:check_task"), tokenizer,
        max_new_tokens=4 if quick else _TOKENS,
    )  # fmt: skip
    grid = {"temperatures": (0.5, 1.0), "top_ps": (0.5, 1.0)} if quick else _GRID
    return evaluation.compare(
        model, tokenizer, task, samples=2 if quick else _SAMPLES, seed=seed, batch_size=32, **grid
    )


def add_tasks(figures: Figures, comparison: Comparison, names: Sequence[str]) -> None:
    """Add the figures of some settings, the share of right replies of each kind of task too."""
    add_settings(figures, comparison, names)
    for name in names:
        right_P = np.array(comparison.result(name).right) / comparison.samples
        for place, kind in enumerate(KINDS):  # they come in turn
            figures.add(f"{kind}: {name} pass@1", float(right_P[place :: len(KINDS)].mean()))


# A claim that is read off the runs of this module.
tasks_claim = partial(
    Claim,
    scale="SmolLM2-135M-Instruct with the heads of `recipes/autodeco/smollm2.yaml`, on "
    f"{_TASKS} held-out tasks drawn for every seed (sums, word problems, capitals, instructions; "
    f"`hanol.worlds.small_tasks`), {_SAMPLES} replies of up to {_TOKENS} tokens each; the static "
    "pair by the paper's search, temperature first, over T = 0.2 to 1 and P = 0.5 to 1; intervals "
    "from resampling tasks.",
    larger=LARGER,
)
