"""transformers' Trainer with what it lacks: stages by tokens, Muon, checks, atomic checkpoints."""

import errno
import math
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from hanol import attention, models
from hanol.errors import TrainingError
from hanol.training._data import Corpus
from hanol.training._evaluate import nats
from hanol.training._muon import MuonAdamW, parameter_groups, sharded_like, whole
from hanol.training._packing import PackedSteps
from hanol.training._recipe import Recipe, ScheduleSection

_WRITING = ".writing"


def learning_rate(schedule: ScheduleSection, tokens: int, total: int) -> float:
    """Share of the peak rate after `tokens` of `total` tokens: warm-up, stable, decay.

    Example:
        >>> plan = ScheduleSection(warmup_tokens=10, decay_tokens=20, decay="linear")
        >>> [learning_rate(plan, n, 100) for n in (0, 5, 50, 90, 100)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if tokens < schedule.warmup_tokens:
        return tokens / schedule.warmup_tokens
    left = max(total - tokens, 0)
    if left >= schedule.decay_tokens:
        return 1.0
    share = left / schedule.decay_tokens
    if schedule.decay == "cosine":
        share = 0.5 - 0.5 * math.cos(math.pi * share)
    return schedule.final + (1 - schedule.final) * share


class AtomicCheckpoints(Trainer):
    """A Trainer whose checkpoints are there whole or not at all, with the official names.

    Attributes:
        keep: Checkpoints that are kept.
    """

    keep: int = 1
    _staging = False

    def write_more(self, checkpoint: Path) -> None:
        """Add files to a checkpoint while it is being written; called on every process."""

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
                _sync(folder / _WRITING / name)
                shutil.rmtree(folder / name, ignore_errors=True)
                (folder / _WRITING / name).rename(folder / name)
                for old in checkpoints(folder)[: -self.keep]:
                    shutil.rmtree(old)
        except OSError as err:
            shutil.rmtree(folder / _WRITING, ignore_errors=True)
            raise _not_written(name, folder, err) from err
        except RuntimeError as err:  # torch.save reports a full disk this way
            if "write" not in str(err) and "file" not in str(err):
                raise
            shutil.rmtree(folder / _WRITING, ignore_errors=True)
            raise _not_written(name, folder, OSError(errno.ENOSPC, str(err))) from err
        finally:
            self._staging = False

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load weights by their names on disk, which are the official ones.

        transformers' own method compares them with the names in the model and skips what it does
        not find.
        """
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        loaded = models.load_model(resume_from_checkpoint, dtype=torch.float32)
        (model if model is not None else self.model).load_state_dict(loaded.state_dict())

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        """One forward and backward pass; a loss that is no number ends the run."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not bool(torch.isfinite(loss)):
            saved = last_checkpoint(Path(self.args.output_dir))
            where = f"resume from {str(saved)!r}" if saved else "nothing was saved yet: start again"
            raise TrainingError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}. Lower the rates "
                f"or `clip_norm`, then {where}."
            )
        return loss


class RecipeTrainer(AtomicCheckpoints):
    """Runs the stages of a recipe.

    Args:
        model: Causal language model.
        recipe: The whole recipe.
        args: Made by `training_arguments`.
        train: Packed steps; item i belongs to step i // parts.
        held_out: Documents of the evaluation.
        callbacks: Of transformers.
    """

    # transformers sets these without declaring them.
    optimizer: Any
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        args: TrainingArguments,
        train: PackedSteps,
        held_out: Corpus,
        callbacks: list[Any],
    ) -> None:
        self.recipe = recipe
        self.held_out = held_out
        self.keep = recipe.keep
        self._mean: dict[str, Tensor] | None = None
        self._mean_count = 0
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=train,
            data_collator=lambda items: items[0],
            callbacks=callbacks,
        )
        self.plan = train
        self.remove_callback(PrinterCallback)  # it would print to standard output
        if recipe.qk_clip is not None:
            for layer in model.modules():
                if hasattr(layer, "record_max_logit"):
                    layer.record_max_logit = True  # type: ignore[assignment]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.plan)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon and AdamW as the recipe says."""
        if self.optimizer is None:
            optim = self.recipe.optim
            groups = parameter_groups(
                model if model is not None else self.model,
                muon_lr=optim.muon_lr,
                adamw_lr=optim.adamw_lr,
                weight_decay=optim.weight_decay,
            )
            self.optimizer = MuonAdamW(
                groups,
                momentum=optim.momentum,
                betas=optim.betas,
                dtype=None if optim.muon_dtype is None else getattr(torch, optim.muon_dtype),
            )
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule in tokens, looked up by optimizer step."""
        if self.lr_scheduler is None:
            before = self.plan.tokens_before
            # The rate in the middle of its batch: the first update's is not zero.
            shares = [
                learning_rate(self.recipe.schedule, (a + b) // 2, before[-1])
                for a, b in pairwise(before)
            ]
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: shares[min(step, len(shares) - 1)]
            )
        return self.lr_scheduler

    def after_update(self) -> dict[str, float]:
        """What the recipe does between optimizer steps; returns what is worth logging."""
        found = {}
        model = self.accelerator.unwrap_model(self.model)
        if self.recipe.qk_clip is not None:
            found["clipped_heads"] = float(attention.qk_clip(model, self.recipe.qk_clip))
        if self.recipe.router_bias_rate > 0:
            worst = attention.update_router_bias(model, self.recipe.router_bias_rate)
            if worst:
                found["expert_load"] = worst
        if self.recipe.schedule.polyak:
            self._average(model)
        return found

    @torch.no_grad()
    def _average(self, model: nn.Module) -> None:
        seen = self.plan.tokens_before[
            min(self.state.global_step + 1, len(self.plan.tokens_before) - 1)
        ]
        if self.plan.tokens_before[-1] - seen > self.recipe.schedule.decay_tokens:
            return
        self._mean_count += 1
        if self._mean is None:
            self._mean = {n: p.detach().float().clone() for n, p in model.named_parameters()}
            return
        for name, parameter in model.named_parameters():
            if type(self._mean[name]) is not type(parameter.data):  # read from a checkpoint
                self._mean[name] = sharded_like(self._mean[name], parameter)
            self._mean[name].lerp_(parameter.detach().float(), 1 / self._mean_count)

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the mean of the decay phase's weights into the model, if the recipe asks for it."""
        if self._mean is None:
            return
        for name, parameter in self.accelerator.unwrap_model(self.model).named_parameters():
            parameter.copy_(sharded_like(self._mean[name], parameter))

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Bits per byte of the held-out text, as much of it as the recipe evaluates on the way."""
        metrics = {"eval_bits_per_byte": self.bits_per_byte(self.recipe.eval_bytes)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    @torch.no_grad()
    def bits_per_byte(self, max_bytes: int | None = None) -> float:
        """Negative log likelihood of held-out documents in bits, divided by their bytes.

        Args:
            max_bytes: Stop after this many bytes, taken from documents spread over the whole; None
                takes all.
        """
        T = max(stage.sequence_length for stage in self.recipe.stages)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = _spread(self.held_out, max_bytes)[rank::world]
        summed = nats(self.model, (self.held_out.document(i) for i in mine), T)
        num_bytes = float(self.held_out.bytes_of[mine].sum())
        total = torch.tensor([summed, num_bytes], dtype=torch.float64)
        total = self.accelerator.reduce(total.to(self.args.device), reduction="sum")
        return (total[0] / total[1] / math.log(2)).item()

    def write_more(self, checkpoint: Path) -> None:
        """The running mean of the weights."""
        if self._mean is None:
            return
        mean = {n: whole(tensor) for n, tensor in self._mean.items()}
        if self.args.should_save:
            torch.save({"mean": mean, "count": self._mean_count}, checkpoint / "average.pt")

    def restore_average(self, checkpoint: Path) -> None:
        """Read the running mean of the weights from a checkpoint, if there is one."""
        file = checkpoint / "average.pt"
        if file.exists():
            stored = torch.load(file, weights_only=True)
            self._mean, self._mean_count = stored["mean"], stored["count"]


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = checkpoints(folder)
    return found[-1] if found else None


def _not_written(name: str, folder: Path, err: OSError) -> TrainingError:
    reason = "the disk is full" if err.errno == errno.ENOSPC else err.strerror or str(err)
    return TrainingError(
        f"{name} could not be written to {str(folder)!r}: {reason}. Earlier checkpoints are whole: "
        "free some space and run again with --resume."
    )


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def _spread(corpus: Corpus, max_bytes: int | None) -> list[int]:
    """Documents of about `max_bytes` in all, evenly spread over the corpus."""
    order = np.random.default_rng(0).permutation(len(corpus.ends))
    if max_bytes is not None:
        order = order[: int(np.searchsorted(corpus.bytes_of[order].cumsum(), max_bytes)) + 1]
    return sorted(order.tolist())
