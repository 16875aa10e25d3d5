"""Supervised fine-tuning on trajectories: TRL's `SFTTrainer` with what the recipes need besides.

That is Muon, batches of rows of similar length, a rate that is constant and then falls, atomic
checkpoints that a killed run goes on from exactly, and a loss on what the policy wrote alone.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from hanol import models
from hanol.agent_training._recipe import SftSettings
from hanol.errors import DataError
from hanol.rl import TokenSegment, logits_at
from hanol.training import AtomicCheckpoints, MuonAdamW, last_checkpoint, parameter_groups

_SORTED_TOGETHER = 6  # batches: rows of similar length, but not the same rows each epoch
_IGNORED = -100
_LOG_STEPS = 10


@dataclass(frozen=True)
class SftRow:
    """A token sequence to learn from.

    Args:
        input_ids: The tokens.
        action_mask: True where the loss is taken: what the policy should write.
    """

    input_ids: tuple[int, ...]
    action_mask: tuple[bool, ...]


@dataclass(frozen=True)
class SftResult:
    """What a finished stage did."""

    steps: int
    tokens: int
    rows: int
    left_out: int  # too long, or nothing to learn


def rows_of(segments: Sequence[TokenSegment]) -> list[SftRow]:
    """The segments of a rollout as rows."""
    return [SftRow(segment.input_ids, segment.action_mask) for segment in segments]


def train_sft(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[SftRow],
    settings: SftSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    on_step: Callable[[dict[str, Any]], None] = lambda line: None,
    on_eval: Callable[[int], Mapping[str, Any]] | None = None,
) -> SftResult:
    """Train a causal language model in place.

    Args:
        model: On the device that it is trained on.
        tokenizer: Needs a padding token.
        rows: What to learn from.
        settings: How.
        folder: Of the stage: checkpoints and `metrics.jsonl`.
        resume: Go on from the folder's newest checkpoint, if there is one.
        on_step: Told of every line of metrics.
        on_eval: Called with the tokens seen; what it returns becomes a line of metrics.

    Raises:
        DataError: No row fits, none has a token to learn from, or the folder's checkpoints are of
            another run.
        TrainingError: The loss is no number, or a checkpoint could not be written.
    """
    folder = Path(folder)
    fitting = [row for row in rows if len(row.input_ids) <= settings.max_length]
    fitting = [row for row in fitting if any(row.action_mask[1:])]
    if not fitting:
        raise DataError(
            f"None of {len(rows)} rows can be learned from: they are longer than "
            f"`max_length` ({settings.max_length}), or nothing in them was written by "
            "the policy."
        )
    plan = _Plan([len(row.input_ids) for row in fitting], settings)
    saved = _saved(folder, plan, resume)
    trainer = _trainer(model, tokenizer, fitting, plan, folder)
    trainer.add_callback(_Log(folder, plan, on_step, on_eval))
    with models.no_progress_bars():  # one for each file of each checkpoint
        trainer.train(resume_from_checkpoint=None if saved is None else str(saved))
    return SftResult(
        steps=len(plan.batches),
        tokens=plan.tokens_before[-1],
        rows=len(fitting),
        left_out=len(rows) - len(fitting),
    )


class _Plan:
    """Which rows each step trains on, decided beforehand.

    Attributes:
        batches: Indices of rows, one list a step.
        tokens_before: Tokens seen before each step, and at the end.
    """

    def __init__(self, lengths: Sequence[int], settings: SftSettings) -> None:
        self.settings = settings
        self.batches: list[list[int]] = []
        self.tokens_before = [0]
        for batch in _epochs(lengths, settings):
            self.batches.append(batch)
            self.tokens_before.append(self.tokens_before[-1] + sum(lengths[i] for i in batch))
            if self.tokens_before[-1] >= settings.tokens:
                break

    def rate(self, step: int) -> float:
        """Share of the peak rates at a step, from 0."""
        return self.settings.rate(step, len(self.batches))

    def passes(self, every: int, step: int) -> bool:
        """Whether step `step`, from 1, reaches a multiple of `every` tokens, or is the last."""
        before, after = self.tokens_before[step - 1], self.tokens_before[step]
        return before // every < after // every or step == len(self.batches)


def _epochs(lengths: Sequence[int], settings: SftSettings) -> Iterator[list[int]]:
    """Batches without end; rows of similar length together, in a random order."""
    rng = Random(settings.seed)  # noqa: S311 - an order, no secret
    size = settings.batch_size
    # Of few rows no more than there are, or the same row would fill a batch.
    together = max(size, min(size * _SORTED_TOGETHER, len(lengths) // size * size))
    order: list[int] = []
    while True:
        while len(order) < together:
            epoch = list(range(len(lengths)))
            rng.shuffle(epoch)
            order += epoch
        chunk = sorted(order[:together], key=lambda i: lengths[i])
        del order[:together]
        batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        rng.shuffle(batches)
        yield from batches


def _saved(folder: Path, plan: _Plan, resume: bool) -> Path | None:
    """The checkpoint to go on from."""
    saved = last_checkpoint(folder)
    if saved is None:
        return None
    if not resume:
        raise DataError(
            f"{str(folder)!r} has checkpoints of another run. Resume it, or name another folder."
        )
    steps = json.loads((saved / "trainer_state.json").read_text("utf-8"))["max_steps"]
    if steps != len(plan.batches):
        raise DataError(
            f"{str(saved)!r} is of a run of {steps} steps, but these rows and settings give "
            f"{len(plan.batches)}. Use those it was begun with, or another folder."
        )
    return saved


class _InOrder(Sampler[int]):
    def __init__(self, plan: _Plan) -> None:
        self._order = [row for batch in plan.batches for row in batch]

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


class _SftTrainer(AtomicCheckpoints, SFTTrainer):
    """TRL's trainer with the plan's batches and rates."""

    # transformers sets these without declaring them.
    optimizer: Any
    lr_scheduler: Any

    def __init__(self, plan: _Plan, **options: Any) -> None:
        self.plan = plan
        super().__init__(**options)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """As TRL's. Off GPUs that one takes every position through the head: four in five for
        nothing, as the policy did not write them.
        """
        ids_BT = inputs["input_ids"]
        if return_outputs or self.aux_loss_enabled or ids_BT.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels_BL = inputs["labels"][:, 1:]
        learned_BL = labels_BL != _IGNORED
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        logits_NV = logits_at(model, head, ids_BT, learned_BL)
        total = functional.cross_entropy(logits_NV.float(), labels_BL[learned_BL], reduction="sum")
        count = learned_BL.sum() if num_items_in_batch is None else num_items_in_batch
        # Each process counts the tokens of all, and gradients are averaged over processes.
        shares = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return total * shares / torch.as_tensor(count).clamp(min=1)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return _InOrder(self.plan)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Muon for matrices, AdamW for the rest."""
        if self.optimizer is None:
            settings = self.plan.settings
            groups = parameter_groups(
                self.model if model is None else model,
                muon_lr=settings.muon_lr,
                adamw_lr=settings.adamw_lr,
                weight_decay=settings.weight_decay,
            )
            self.optimizer = MuonAdamW(groups, betas=settings.betas)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up, constant, then a linear decay."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, self.plan.rate
            )
        return self.lr_scheduler


def _trainer(
    model: nn.Module, tokenizer: Any, rows: Sequence[SftRow], plan: _Plan, folder: Path
) -> Any:
    settings = plan.settings
    parts = int(os.environ.get("WORLD_SIZE", "1")) * settings.micro_batches
    if settings.batch_size % parts:
        raise DataError(
            f"`batch_size` is {settings.batch_size}: {parts} processes times micro-batches cannot "
            "share it equally."
        )
    cuda = torch.cuda.is_available()
    args = SFTConfig(
        output_dir=str(folder),
        max_steps=len(plan.batches),
        per_device_train_batch_size=settings.batch_size // parts,
        gradient_accumulation_steps=settings.micro_batches,
        max_length=None,
        max_grad_norm=settings.clip_norm,
        logging_steps=_LOG_STEPS,
        logging_nan_inf_filter=False,
        save_strategy="no",  # by tokens: see the log
        seed=settings.seed,
        bf16=settings.dtype == "bfloat16",
        activation_checkpointing=settings.gradient_checkpointing,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        dataset_kwargs={"skip_prepare_dataset": True},  # tokens and labels are made here
    )
    data = Dataset.from_dict(
        {
            "input_ids": [list(row.input_ids) for row in rows],
            "labels": [_labels(row) for row in rows],
        }
    )
    trainer = _SftTrainer(
        plan, model=model, args=args, train_dataset=data, processing_class=tokenizer
    )
    trainer.remove_callback(PrinterCallback)  # it would print to standard output
    return trainer


def _labels(row: SftRow) -> list[int]:
    pairs = zip(row.input_ids, row.action_mask, strict=True)
    return [token if acts else _IGNORED for token, acts in pairs]


class _Log(TrainerCallback):
    """Metrics, evaluations and checkpoints, by tokens."""

    def __init__(
        self,
        folder: Path,
        plan: _Plan,
        on_step: Callable[[dict[str, Any]], None],
        on_eval: Callable[[int], Mapping[str, Any]] | None,
    ) -> None:
        self._file = folder / "metrics.jsonl"
        self._plan = plan
        self._on_step, self._on_eval = on_step, on_eval

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Drop the metrics of steps that a resumed run makes again, and half a line at the end."""
        if state.is_world_process_zero and self._file.exists():
            lines = self._file.read_text("utf-8").splitlines(keepends=True)
            whole = (line for line in lines if line.endswith("\n"))
            kept = [line for line in whole if json.loads(line)["step"] <= state.global_step]
            beside = self._file.with_suffix(".writing")
            beside.write_text("".join(kept), "utf-8")
            beside.replace(self._file)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate and save where it is time."""
        step, settings = state.global_step, self._plan.settings
        if self._on_eval is not None and self._plan.passes(settings.eval_tokens, step):
            model: nn.Module = kwargs["model"]
            model.eval()
            found = dict(self._on_eval(self._plan.tokens_before[step]))
            model.train()
            self._write(state, found)
        control.should_save = self._plan.passes(settings.save_tokens, step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any
    ) -> None:
        """One line of metrics."""
        if "loss" in logs:
            found = {"loss": logs["loss"], "grad_norm": logs.get("grad_norm")}
            self._write(state, found)

    def _write(self, state: Any, found: dict[str, Any]) -> None:
        line = {"step": state.global_step, "tokens": self._plan.tokens_before[state.global_step]}
        line |= found
        if state.is_world_process_zero:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._on_step(line)
