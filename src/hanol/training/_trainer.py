"""The one Trainer: transformers' with what it lacks for the recipes of all kinds.

Batches and rates that are decided beforehand, any loss, any optimizer, checkpoints that are there
whole or not at all and continue to the last bit, and a metrics file.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from hanol import models
from hanol.errors import TrainingError, WriteError
from hanol.files import replace_folder, write_failure, write_sums
from hanol.runs import alone, restoring
from hanol.training._run_folder import (
    checkpoint_size,
    checkpoints,
    keep_metrics,
    keep_newest,
    metrics_file,
)
from hanol.training.finetuning._lora import is_adapted, read_adapter_into, write_adapter

_WRITING = ".writing"
_HINT = "Earlier checkpoints are whole: free some space and run again with --resume."
Loss = Callable[[nn.Module, dict[str, Any], Any], Tensor]
Rates = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


class Steps(Dataset[dict[str, Tensor]]):
    """A data source: item i is one part of the batch of an optimizer step."""

    tokens_before: Sequence[int]  # tokens seen before each step, and after the last
    parts: int  # of the batch of a step: processes times micro-batches

    def __len__(self) -> int:
        return (len(self.tokens_before) - 1) * self.parts

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.part(*divmod(index, self.parts))

    def part(self, step: int, part: int) -> dict[str, Tensor]:
        """A part of the batch of a step, both from 0."""
        raise NotImplementedError


def training_arguments(
    folder: Path, *, steps: int, clip_norm: float, seed: int, use_cpu: bool, **options: Any
) -> TrainingArguments:
    """Arguments of transformers' Trainer for a run whose steps are decided beforehand.

    `use_cpu` keeps the model on the CPU where there is a GPU; options are `TrainingArguments`'.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    defaults = {
        "per_device_train_batch_size": 1,  # an item is a whole part of a batch
        "logging_steps": 1,
        "save_strategy": "steps",
        "report_to": [],
    }
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        max_grad_norm=clip_norm,
        logging_nan_inf_filter=False,
        save_total_limit=None,  # the trainer removes old checkpoints itself, after the rename
        seed=seed,
        data_seed=seed,
        use_cpu=use_cpu,
        ddp_backend="gloo" if use_cpu and several else None,
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not use_cpu,
        disable_tqdm=True,
        label_names=["labels"],
        **(defaults | options),
    )


class StepTrainer(Trainer):
    """transformers' Trainer over steps that are decided beforehand.

    Args:
        model: What is trained.
        steps: The data.
        args: Made by `training_arguments`.
        optimizer: Makes the optimizer of a model.
        rates: Makes the schedule of an optimizer, looked up by step.
        loss: Called with the model, an item of `steps` and the number of labels in the whole batch
            (None where items have no `labels`); None takes the model's own loss. What it puts into
            `found` becomes part of the step's metrics.
        keep: Checkpoints that are kept; should the newest be damaged, the one before it is whole.
        on_step: Called with each line of metrics and, as `steps`, the number of all steps.
        on_eval: Called with the tokens seen; what it returns becomes a line of metrics.
        due: Called with a step that is done: whether to evaluate, and whether to save. Without it,
            `args` say when.
        model_class: Class that reads the checkpoints; None reads causal language models.
    """

    # transformers sets these without declaring them.
    optimizer: Any
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        model: nn.Module,
        steps: Steps,
        args: TrainingArguments,
        *,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        rates: Rates,
        loss: Loss | None = None,
        keep: int = 2,
        on_step: Callable[[Mapping[str, Any]], None] = lambda line: None,
        on_eval: Callable[[int], Mapping[str, Any]] | None = None,
        due: Callable[[int], tuple[bool, bool]] | None = None,
        model_class: Any = None,
    ) -> None:
        self._model_class = model_class
        self.steps, self.keep, self.found = steps, keep, dict[str, float]()
        self._make_optimizer, self._make_rates, self._loss = optimizer, rates, loss
        self._on_eval, self.due = on_eval, due
        self._staging = False
        self.steps_made = 0  # by this process
        super().__init__(
            model=model,
            args=args,
            train_dataset=steps,
            eval_dataset=steps if args.eval_strategy != "no" else None,
            data_collator=lambda items: items[0],
            # transformers divides losses by the number of micro-batches without one.
            compute_loss_func=loss,
        )
        self.remove_callback(PrinterCallback)  # it would print to standard output
        self.add_callback(_Log(self, on_step))

    def run(self, saved: Path | None) -> None:
        """Make the steps that are left.

        Args:
            saved: Checkpoint to continue from.

        Raises:
            TrainingError: The loss or its gradient is not finite, or the checkpoint is not what a
                training like this one wrote.
            RunError: Another process is writing the folder.
            WriteError: The disk is full, or the folder cannot be written.
        """
        folder = Path(self.args.output_dir)
        # With several processes, the first one writes.
        with alone(folder) if self.args.should_save else nullcontext():
            if self.args.should_save:  # what a killed run was writing
                shutil.rmtree(folder / _WRITING, ignore_errors=True)
            with models.no_progress_bars():  # one for each file of each checkpoint
                if saved is None:
                    self.train()
                    return
                # A state that does not fit shows in the first step only.
                with restoring(saved, is_done=lambda: self.steps_made > 0):
                    self._check_state(saved)
                    self.read_more(saved)
                    self.train(resume_from_checkpoint=str(saved))

    def _check_state(self, saved: Path) -> None:
        """Refuse a state of the trainer with which it would end at once, or fail later."""
        state = TrainerState.load_from_json(str(saved / "trainer_state.json"))
        step, steps = state.global_step, self.args.max_steps
        if saved.name != f"checkpoint-{step}" or step > steps:
            raise ValueError(f"trainer_state.json is of step {step!r:.20} of {steps}")
        if "TrainerControl" not in state.stateful_callbacks:
            raise ValueError("trainer_state.json lacks `TrainerControl`")

    # -- what kinds of training add

    def after_update(self) -> dict[str, float]:
        """What is done between optimizer steps; returns what is worth logging."""
        return {}

    def write_more(self, checkpoint: Path) -> None:
        """Add files to a checkpoint while it is being written; called on every process."""

    def read_more(self, checkpoint: Path) -> None:
        """Read what `write_more` wrote."""

    # -- data, loss, optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.steps)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The given loss, or the model's own."""
        if self._loss is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return self._loss(model, inputs, num_items_in_batch)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What `on_eval` finds, as a line of metrics."""
        assert self._on_eval is not None
        self.model.eval()
        found = dict(self._on_eval(self.steps.tokens_before[self.state.global_step]))
        self.model.train()
        self.log(found)
        # Otherwise the end of the epoch evaluates once more after the last step.
        self.control.should_evaluate = False
        return found

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that was given."""
        if self.optimizer is None:
            self.optimizer = self._make_optimizer(self.model if model is None else model)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule that was given."""
        if self.lr_scheduler is None:
            self.lr_scheduler = self._make_rates(optimizer or self.optimizer)
        return self.lr_scheduler

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        """One forward and backward pass; a loss that is not finite ends the run."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not bool(torch.isfinite(loss)):
            raise self._not_finite("loss", loss.item())
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        if norm is not None and not math.isfinite(float(norm)):
            raise self._not_finite("norm of the gradient", float(norm))
        return norm

    def _not_finite(self, what: str, value: float) -> TrainingError:
        saved = checkpoints(Path(self.args.output_dir))
        where = f"resume from {str(saved[-1])!r}" if saved else "nothing was saved yet: start again"
        return TrainingError(
            f"The {what} is {value} at step {self.state.global_step + 1}. Lower the learning "
            f"rates or the largest norm of the gradient, then {where}."
        )

    # -- checkpoints, whole or not at all

    def _get_output_dir(self, trial: Any) -> str:
        folder = str(self.args.output_dir)
        return os.path.join(folder, _WRITING) if self._staging else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write under a temporary name, then rename."""
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)
            self.write_more(folder / _WRITING / name)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                write_sums(folder / _WRITING / name)
                replace_folder(folder / _WRITING / name, folder / name)
                keep_newest(checkpoints(folder), self.keep)
        except Exception as err:  # safetensors and torch report a full disk as their own
            if (reason := write_failure(err)) is None:
                raise
            needed = checkpoint_size(self.model, self.optimizer)
            raise WriteError(folder / name, reason, f"{needed} {_HINT}") from err
        finally:
            self._staging = False
            if self.args.should_save:
                shutil.rmtree(folder / _WRITING, ignore_errors=True)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        model = self.accelerator.unwrap_model(self.model)
        if is_adapted(model):
            write_adapter(model, Path(str(output_dir)))
        else:
            super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if is_adapted(self.model):
            read_adapter_into(self.model, Path(resume_from_checkpoint))
            return
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # transformers' own method skips official names that differ from those in the model.
        loaded = models.load_model(
            resume_from_checkpoint, dtype=torch.float32, model_class=self._model_class
        )
        (model if model is not None else self.model).load_state_dict(loaded.state_dict())


class _Log(TrainerCallback):
    """Appends what is logged to `metrics.jsonl`, and tells it."""

    def __init__(self, trainer: StepTrainer, on_step: Callable[[Mapping[str, Any]], None]) -> None:
        self._trainer, self._on_step = trainer, on_step
        self._metrics = metrics_file(Path(trainer.args.output_dir))
        self._clock: tuple[float, int] | None = None
        self._more: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:  # steps that a resumed run makes again
            keep_metrics(args.output_dir, state.global_step)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._more |= self._trainer.after_update()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.steps_made += 1
        if self._trainer.due is not None:
            control.should_evaluate, control.should_save = self._trainer.due(state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or "train_runtime" in logs:  # the last is a summary
            return
        before = self._trainer.steps.tokens_before
        tokens = before[min(state.global_step, len(before) - 1)]
        line: dict[str, Any] = {"step": state.global_step, "tokens": tokens}
        # Its "epoch" is a share of the planned steps: it would mislead.
        line |= {k: v for k, v in logs.items() if not isinstance(v, str) and k != "epoch"}
        if "loss" in logs:
            now = time.perf_counter()
            if self._clock is not None and tokens > self._clock[1]:
                line["tokens_per_second"] = (tokens - self._clock[1]) / (now - self._clock[0])
            self._clock = (now, tokens)
            line |= self._more | self._trainer.found
            self._more, self._trainer.found = {}, {}
        else:
            self._clock = None  # the time of an evaluation is not the training's
        self._metrics.append(line)
        self._on_step({**line, "steps": state.max_steps})
