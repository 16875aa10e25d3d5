"""A run's folder: its metrics, its checkpoints, its curve."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel

from hanol.errors import TrainingError, require
from hanol.files import (
    damage,
    read_text,
    whole_file,
)
from hanol.rows import JsonLines

_log = logging.getLogger(__name__)
Result = TypeVar("Result", bound=BaseModel)

# Settings that never change what a run computes. `data.keep` of heads is no number of checkpoints.
FREE = frozenset(
    {"record", "threads", "tensorboard", "log_every", "eval_every", "final_eval_bytes"}
    | {"save_every", "recipe.keep", "recipe.min_rows", "recipe.min_tokens"}
)


def metrics_file(folder: str | Path) -> JsonLines:
    """A run's `metrics.jsonl`: one line for each logged step."""
    return JsonLines(Path(folder) / "metrics.jsonl")


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """All lines of a run's `metrics.jsonl`."""
    return metrics_file(folder).read()


def keep_metrics(folder: str | Path, last: int) -> None:
    """Drop the lines of steps after `last`, which a resumed run makes again."""
    metrics_file(folder).keep(lambda line: isinstance(n := line.get("step"), int) and n <= last)


def read_result(kind: type[Result], folder: Path) -> Result | None:
    """What a finished run made; None if it has not finished, or its `result.json` is damaged."""
    final, report = folder / "final", folder / "result.json"
    try:
        made = kind.model_validate_json(read_text(report))
    except (OSError, ValueError):
        return None
    paths = {"folder": str(folder), "checkpoint": str(final)}
    return made.model_copy(update=paths) if final.exists() else None


def checkpoints(folder: str | Path, pattern: str = "checkpoint-*") -> list[Path]:
    """The checkpoints of a run, oldest first; whether they are whole, `last_checkpoint` says.

    Args:
        folder: Folder of the run.
        pattern: Names of checkpoints, with the step behind a hyphen; what has another name is none.
    """
    found = (path for path in Path(folder).glob(pattern) if _step(path).isdecimal())
    return sorted(filter(Path.is_dir, found), key=lambda path: int(_step(path)))


def keep_newest(found: Sequence[Path], count: int) -> None:
    """Remove all but the last `count` of the checkpoints that `checkpoints` found."""
    for old in found[:-count]:
        shutil.rmtree(old)


def last_checkpoint(folder: str | Path, pattern: str = "checkpoint-*") -> Path | None:
    """The newest whole checkpoint of a run, or None where there is none.

    Newer ones that are damaged get the ending ".damaged", which is logged in a line each.

    Raises:
        TrainingError: There are checkpoints, but none is whole; the message names what is wrong.
    """
    problems: dict[Path, str] = {}
    for path in reversed(checkpoints(folder, pattern)):
        problem = damage(path)
        if problem is None:
            for other, found in problems.items():
                _put_aside(other)
                _log.warning("%s is damaged (%s): resuming from %s.", other, found, path)
            return path
        problems[path] = problem
    if not problems:
        return None
    path, problem = next(iter(problems.items()))
    raise TrainingError(
        f"Cannot resume from {str(path)!r}: {problem}, and there is no older checkpoint that is "
        "whole. Put it back as it was, or start again with another --output."
    )


def checkpoint_size(model: Any, optimizer: torch.optim.Optimizer | None) -> str:
    """What a checkpoint of a model and its optimizer needs on the disk, as a sentence."""
    state = [] if optimizer is None else optimizer.state.values()
    held = (x for values in state for x in values.values() if isinstance(x, torch.Tensor))
    size = sum(x.numel() * x.element_size() for x in (*model.parameters(), *held))
    return f"A checkpoint needs about {size / 1e6:,.1f} MB."


def _step(path: Path) -> str:
    return path.name.partition("-")[2]


def _put_aside(path: Path) -> None:
    """Its step is made again, under its name."""
    if os.environ.get("RANK", "0") == "0":  # the one of several processes that writes
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)


def plot_loss(folder: Path) -> Path:
    """Draw training loss and what evaluations found against tokens into `loss.png`."""
    require("matplotlib", extra="train", feature="The loss curve")
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    lines = read_metrics(folder)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("tokens")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(alpha=0.3)
    handles: list[Any] = []
    for key, label, style in (
        ("loss", "training loss (nats per token)", {"color": "tab:blue", "linewidth": 1}),
        ("eval_loss", "held-out loss (nats per token)", {"color": "tab:orange", "marker": "."}),
        ("eval_bits_per_byte", "held-out bits per byte", {"color": "tab:orange", "marker": "."}),
    ):
        points = [(line["tokens"], line[key]) for line in lines if {"tokens", key} <= line.keys()]
        if points:
            side = axes.twinx() if handles and key != "eval_loss" else axes  # one unit, one axis
            handles += side.plot(*zip(*points, strict=True), label=label, **style)
            if not side.get_ylabel():
                side.set_ylabel(label)
    axes.legend(handles=handles, loc="upper right")
    path = folder / "loss.png"
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
    return path
