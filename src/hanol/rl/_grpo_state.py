"""Checkpoints of a run of reinforcement learning: whole or not there, and gone on with exactly.

Seeds are functions of the run's seed and the step, so there are no random states to keep.
"""

import json
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol import models
from hanol.files import whole_folder
from hanol.rl._curation import Curation
from hanol.rl._grpo_settings import FREE, GrpoSettings
from hanol.runs import check_unchanged
from hanol.training import checkpoints, keep_newest, metrics_file

_STATE, _OPTIMIZER = "run.json", "optimizer.pt"


def saved_steps(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return checkpoints(folder, "checkpoints/step-*", _STATE)


def save(
    folder: Path,
    step: int,
    settings: GrpoSettings,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    curation: Curation,
) -> Path:
    """Write a checkpoint, whole or not at all, and drop old ones.

    Returns:
        Its folder, which is also a model that can be loaded.

    Raises:
        WriteError: The disk is full, or the folder cannot be written.
    """
    path = folder / "checkpoints" / f"step-{step}"
    state = {
        "step": step,
        "settings": settings.model_dump(mode="json"),
        "curation": curation.state_dict(),
    }
    hint = "Earlier checkpoints are whole: free some space and start the same run again."
    with whole_folder(path, hint=hint) as part:
        models.save(model, part, tokenizer)
        torch.save(optimizer.state_dict(), part / _OPTIMIZER)
        (part / _STATE).write_text(json.dumps(state), "utf-8")
    keep_newest(saved_steps(folder), settings.keep)
    return path


def load_latest(
    folder: Path,
    settings: GrpoSettings,
    *,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    curation: Curation,
) -> int:
    """Put everything back as it was at the newest checkpoint, and forget what came after it.

    Returns:
        Its step; 0 where there is no checkpoint.

    Raises:
        RunError: The settings have changed since the run was started.
    """
    found = saved_steps(folder)
    step = 0
    if found:
        state = json.loads((found[-1] / _STATE).read_text("utf-8"))
        now = settings.model_dump(mode="json")
        check_unchanged(f"the run in {str(folder)!r}", state["settings"], now, FREE)
        stored = models.load_model(found[-1], dtype=model.dtype)
        model.load_state_dict(stored.state_dict())
        optimizer.load_state_dict(torch.load(found[-1] / _OPTIMIZER, weights_only=True))
        curation.load_state_dict(state["curation"])
        step = state["step"]
    metrics_file(folder).keep(lambda line: line["step"] <= step)
    for rollouts in folder.glob("rollouts/step-*"):
        # Those of the next step were sampled from these very weights: they are gone on with.
        if int(rollouts.name.rpartition("-")[2]) > step + 1:
            shutil.rmtree(rollouts)
    return step
