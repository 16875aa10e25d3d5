"""What a person sees of a run: the bar, the metrics file, the loss curve."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback

from hanol.training._packing import PackedSteps


class RunLog(TrainerCallback):
    """Shows progress on standard error and appends every logged value to `metrics.jsonl`.

    Args:
        folder: The run's folder.
        plan: Gives the tokens seen at each step.
        quiet: No bar.
    """

    def __init__(self, folder: Path, plan: PackedSteps, *, quiet: bool) -> None:
        self._file = folder / "metrics.jsonl"
        self._plan = plan
        self._quiet = quiet
        self._progress: Progress | None = None
        self._task: Any = None
        self._shown: dict[str, Any] = {"loss": "-", "bpb": "-", "rate": "-"}
        self._clock: tuple[float, int] | None = None
        self.trainer: Any = None
        self.extra: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar; drop metrics of steps that a resumed run makes again."""
        if not state.is_world_process_zero:
            return
        if self._file.exists():
            lines = self._file.read_text("utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= state.global_step]
            self._file.write_text("".join(line + "\n" for line in kept), "utf-8")
        if self._quiet:
            return
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(
                "loss {task.fields[loss]}  bits/byte {task.fields[bpb]}  {task.fields[rate]}"
            ),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )
        self._progress.start()
        self._task = self._progress.add_task(
            "steps", total=state.max_steps, completed=state.global_step, **self._shown
        )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the trainer do its work between steps."""
        self.extra |= self.trainer.after_update()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
    ) -> None:
        """Write one line of metrics."""
        import time

        if not state.is_world_process_zero:
            return
        tokens = self._plan.tokens_before[min(state.global_step, len(self._plan.tokens_before) - 1)]
        line: dict[str, float] = {"step": state.global_step, "tokens": tokens}
        # Its "epoch" is a share of the planned steps: it would mislead.
        line |= {k: v for k, v in logs.items() if isinstance(v, int | float) and k != "epoch"}
        if "loss" in logs:
            now = time.perf_counter()
            if self._clock is not None and tokens > self._clock[1]:
                rate = (tokens - self._clock[1]) / (now - self._clock[0])
                line["tokens_per_second"] = rate
                self._shown["rate"] = f"{rate:,.0f} tokens/s"
            self._clock = (now, tokens)
            self._shown["loss"] = f"{logs['loss']:.3f}"
            line |= self.extra
            self.extra = {}
        if "eval_bits_per_byte" in logs:
            self._shown["bpb"] = f"{logs['eval_bits_per_byte']:.3f}"
            self._clock = None  # the time of the evaluation is not the training's
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._progress is not None:
            self._progress.update(self._task, **self._shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the terminal as it was."""
        self.close()

    def close(self) -> None:
        """Stop the bar, also after an error."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """All lines of a run's `metrics.jsonl`."""
    text = (folder / "metrics.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def plot_loss(folder: Path) -> Path:
    """Draw training loss and held-out bits per byte against tokens into `loss.png`."""
    from hanol.errors import require

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
