"""A run's folder: its metrics, its checkpoints, its curve."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hanol.errors import require
from hanol.files import JsonLines, whole_file

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


def checkpoints(
    folder: Path, pattern: str = "checkpoint-*", marker: str = "trainer_state.json"
) -> list[Path]:
    """Complete checkpoints of a run, oldest first.

    Args:
        folder: Folder of the run.
        pattern: Names of checkpoints, with the step behind the last hyphen.
        marker: File that is in each complete one.
    """
    found = [path for path in folder.glob(pattern) if (path / marker).exists()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def keep_newest(found: Sequence[Path], count: int) -> None:
    """Remove all but the last `count` of the checkpoints that `checkpoints` found."""
    for old in found[:-count]:
        shutil.rmtree(old)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = checkpoints(folder)
    return found[-1] if found else None


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
        points = [(line["tokens"], line[key]) for line in lines if key in line]
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
