"""Checkpoints of a run of reinforcement learning: whole or not there, and gone on with exactly.

Seeds are functions of the run's seed and the step, so there are no random states to keep.
"""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol import models
from hanol.errors import CheckpointError, TrainingError
from hanol.files import replace_text
from hanol.rl._curation import Curation
from hanol.rl._grpo_settings import FREE, GrpoSettings

_STATE, _OPTIMIZER = "run.json", "optimizer.pt"


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in folder.glob("checkpoints/step-*") if (path / _STATE).exists()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


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
    """Write a checkpoint under another name and rename it when it is complete.

    Returns:
        Its folder, which is also a model that can be loaded.

    Raises:
        TrainingError: The disk is full, or the folder cannot be written.
    """
    path = folder / "checkpoints" / f"step-{step}"
    part = path.with_name(f".writing-{path.name}")
    shutil.rmtree(part, ignore_errors=True)
    state = {
        "step": step,
        "settings": settings.model_dump(mode="json"),
        "curation": curation.state_dict(),
    }
    try:
        models.save(model, part, tokenizer)
        with (part / _OPTIMIZER).open("wb") as file:
            torch.save(optimizer.state_dict(), file)
            file.flush()
            os.fsync(file.fileno())
        (part / _STATE).write_text(json.dumps(state), "utf-8")
        models.replace_folder(part, path)
        for old in checkpoints(folder)[: -settings.keep]:
            shutil.rmtree(old)
    except (OSError, RuntimeError, CheckpointError) as err:
        if isinstance(err, RuntimeError) and "write" not in str(err):
            raise  # torch reports a full disk as one
        shutil.rmtree(part, ignore_errors=True)
        full = isinstance(err, OSError) and err.errno == errno.ENOSPC
        raise TrainingError(
            f"Step {step} could not be saved in {str(folder)!r}: "
            f"{'the disk is full' if full else err}. Earlier checkpoints are whole: free some "
            "space and start the same run again."
        ) from err
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
        TrainingError: The run was begun with other settings.
    """
    found = checkpoints(folder)
    step = 0
    if found:
        state = json.loads((found[-1] / _STATE).read_text("utf-8"))
        _check_settings(state["settings"], settings.model_dump(mode="json"), folder)
        stored = models.load_model(found[-1], dtype=model.dtype)
        model.load_state_dict(stored.state_dict())
        optimizer.load_state_dict(torch.load(found[-1] / _OPTIMIZER, weights_only=True))
        curation.load_state_dict(state["curation"])
        step = state["step"]
    _cut_metrics(folder / "metrics.jsonl", step)
    for rollouts in folder.glob("rollouts/step-*"):
        # Those of the next step were sampled from these very weights: they are gone on with.
        if int(rollouts.name.rpartition("-")[2]) > step + 1:
            shutil.rmtree(rollouts)
    return step


def _check_settings(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    differences = [
        f"{name} was {old.get(name)!r}, now {new[name]!r}"
        for name in new
        if name not in FREE and old.get(name) != new[name]
    ]
    if differences:
        raise TrainingError(
            f"The run in {str(folder)!r} was begun with other settings: {'; '.join(differences)}. "
            "Use the same settings to go on with it, or another folder to begin a new run."
        )


def _cut_metrics(path: Path, step: int) -> None:
    """Drop the lines of steps that are made again, and half a line of a killed process."""
    if not path.exists():
        return
    *lines, _torn = path.read_text("utf-8").split("\n")
    replace_text(path, "".join(f"{x}\n" for x in lines if json.loads(x)["step"] <= step))
