"""Trainings by the recipes of the repository, and engines of what they made."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hanol import training
from hanol.claims import claims_folder
from hanol.engines import CheckpointEngine
from hanol.runs import synchronous

AT_ONCE = 64  # answers that are decoded together

_log = logging.getLogger(__name__)

# Of a pre-training of which nothing but the run is looked at.
SMALLEST: dict[str, Any] = {
    "stages": "[{tokens: 2048, sequence_length: 128, batch_tokens: 512}]",
    "data.num_problems": 300, "schedule.warmup_tokens": 512, "schedule.decay_tokens": 512,
    "eval_every": 1_000,
}  # fmt: skip


def trained(folder: Path, recipe: str, **changed: Any) -> Path:
    """Train by a recipe; what its folder has is gone on with.

    Args:
        folder: Of the run.
        recipe: Under `recipes`, as "think/small.yaml".
        changed: Values that are set, as by `hanol train --set`.

    Returns:
        The checkpoint.
    """
    if not (folder / "final").exists():
        _log.info("%s: %s", folder, recipe)
        given = [f"{key}={value}" for key, value in changed.items()]
        parsed = training.read_recipe(claims_folder().parent / "recipes" / recipe, given)
        training.train(parsed, folder, resume=True, on_step=_Told(folder.name))
    return folder / "final"


@contextmanager
def opened(model: str | Path) -> Iterator[CheckpointEngine]:
    """A model as an engine that decodes many answers together."""
    engine = CheckpointEngine.load(str(model), max_batch=AT_ONCE)
    try:
        yield engine
    finally:
        synchronous(engine.aclose)()


class _Told:
    """Notes each tenth of a training in the log."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, {"sampled": 0, "step": 0}

    def __call__(self, line: Mapping[str, Any]) -> None:
        for done, of in (("sampled", "of"), ("step", "steps")):
            if done in line and of in line:
                tenth = 10 * line[done] // max(1, line[of])
                if tenth > self._last[done]:
                    self._last[done] = tenth
                    loss = f", loss {line['loss']:.3f}" if "loss" in line else ""
                    _log.info("%s: %s %d of %d%s", self._name, done, line[done], line[of], loss)
