"""A run's folder: its metrics, its checkpoints, its curve."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hanol.errors import require
from hanol.files import JsonLines

METRICS = "metrics.jsonl"
# Settings that never change what a run computes.
FREE = frozenset(
    {"record", "threads", "tensorboard", "log_every", "eval_every", "save_every", "keep"}
)


def plain(model: BaseModel) -> Any:
    """Values as YAML and JSON hold them."""
    return json.loads(model.model_dump_json())


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """All lines of a run's `metrics.jsonl`."""
    return JsonLines(Path(folder) / METRICS).read()


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


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = checkpoints(folder)
    return found[-1] if found else None


def plot_loss(folder: Path) -> Path:
    """Draw training loss and held-out bits per byte against tokens into `loss.png`."""
    require("matplotlib", extra="train", feature="The loss curve")
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    lines = read_metrics(folder)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.subplots()
    loss = [(line["tokens"], line["loss"]) for line in lines if "loss" in line]
    bits = [
        (line["tokens"], line["eval_bits_per_byte"])
        for line in lines
        if "eval_bits_per_byte" in line
    ]
    left.plot(*zip(*loss, strict=True), color="tab:blue", linewidth=1, label="training loss")
    left.set(xlabel="tokens", ylabel="training loss (nats per token)")
    left.xaxis.set_major_formatter(EngFormatter())
    handles = left.get_lines()
    if bits:
        right = left.twinx()
        right.plot(
            *zip(*bits, strict=True), color="tab:orange", marker="o", markersize=3,
            label="held-out bits per byte",
        )  # fmt: skip
        right.set_ylabel("held-out bits per byte")
        handles = [*handles, *right.get_lines()]
    left.legend(handles=handles, loc="upper right")
    left.grid(alpha=0.3)
    path = folder / "loss.png"
    figure.savefig(path, dpi=120)
    return path
