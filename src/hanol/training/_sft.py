"""Supervised fine-tuning on token sequences, with a loss on what the policy should write alone."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from hanol.errors import DataError, require
from hanol.files import read_json
from hanol.runs import restoring
from hanol.training._kinds import OnStep
from hanol.training._logits import IGNORED, logits_at
from hanol.training._muon import muon_adamw
from hanol.training._ranking import RankingRow, ranking_inputs, ranking_loss
from hanol.training._recipe import MOST_STEPS, Beta, FloatName, Section, Seed
from hanol.training._run_folder import last_checkpoint
from hanol.training._trainer import Steps, StepTrainer, training_arguments

_SORTED_TOGETHER = 6  # batches: rows of similar length, but not the same rows each epoch
_LOG_STEPS = 10
# Tokens to whose multiple rows are padded: on a CPU every new length of a batch costs memory and
# time for kernels of its own (oneDNN keeps a thousand), 1.1 GB for 90 lengths of 4 small blocks.
_ROUNDED = 32


class LearningSection(Section):
    """How a model learns from rows."""

    max_length: int = Field(1024, gt=1, description="Tokens per row; longer rows are left out.")
    batch_size: int = Field(8, ge=1, le=100_000, description="Rows per optimizer step.")
    micro_batches: int = Field(1, ge=1, description="Parts of a batch; more save memory.")
    muon_lr: float | None = Field(0.01, gt=0, description="Peak rate of Muon; None: AdamW only.")
    adamw_lr: float = Field(0.002, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of matrices.")
    betas: tuple[Beta, Beta] = Field((0.9, 0.98), description="Betas of AdamW.")
    clip_norm: float = Field(1.0, gt=0, description="Maximum norm of the gradient.")
    warmup_steps: int = Field(100, ge=0, description="Optimizer steps of linear warm-up.")
    decay: float = Field(0.5, ge=0, le=1, description="Final share in which rates decay linearly.")
    final: float = Field(0.03, ge=0, le=1, description="Final rate, as a share of the peak.")
    save_tokens: int = Field(500_000, ge=1, description="Tokens between checkpoints.")
    gradient_checkpointing: bool = Field(False, description="Recompute blocks, to save memory.")
    dtype: FloatName = Field("float32", description="Data type used for computation.")
    seed: Seed = Field(0, description="Seed of the row order; that of the recipe is added.")

    @model_validator(mode="after")
    def _whole_parts(self) -> Self:
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"`micro_batches` ({self.micro_batches}) does not divide `batch_size` "
                f"({self.batch_size})"
            )
        return self


class SftSettings(LearningSection):
    """How a model is trained on given rows."""

    tokens: int = Field(gt=0, description="Tokens to train on; rows are read again as needed.")
    eval_tokens: int = Field(1_000_000, ge=1, description="Tokens between evaluations.")

    def rate(self, step: int, steps: int) -> float:
        """Share of the peak rates at step `step`, from 0: warm-up, constant, linear decay.

        Example:
            >>> plan = SftSettings(tokens=1, warmup_steps=2, decay=0.5, final=0.0)
            >>> [plan.rate(step, 8) for step in range(8)]
            [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        left = 1 - step / steps
        if left >= self.decay:
            return warm
        return warm * (self.final + (1 - self.final) * left / self.decay)


class SftRow(NamedTuple):
    """A token sequence to learn from.

    Args:
        input_ids: The tokens.
        action_mask: True where the loss is taken: what the policy should write.
    """

    input_ids: tuple[int, ...]
    action_mask: tuple[bool, ...]

    @property
    def size(self) -> int:
        """Number of tokens that are computed."""
        return len(self.input_ids)

    @property
    def is_learned(self) -> bool:
        """Whether there is something to learn."""
        return any(self.action_mask[1:])


class TrainingRow(Protocol):
    """What an objective learns from: a token sequence, or several."""

    @property
    def size(self) -> int:
        """Number of tokens that are computed."""

    @property
    def is_learned(self) -> bool:
        """Whether there is something to learn."""


class Objective:
    """What a model learns from rows: here what follows in conversations, and rankings.

    Other kinds of training are subclasses.

    Attributes:
        model_class: Class that reads checkpoints of the run; None reads causal language models.
        found: What the last loss says beside its value; it becomes part of the step's metrics.
    """

    model_class: Any = None

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def inputs(self, rows: Sequence[Any], longest: int) -> dict[str, Tensor]:
        """Rows as one batch, whose sequences are padded to at most `longest` tokens.

        Among the tensors is `labels`, [1 + n] or [B, T], with an entry other than -100 behind the
        first for each thing that is learned: the loss is divided by their number.
        """
        if isinstance(rows[0], RankingRow):
            (row,) = rows
            return ranking_inputs(row)
        return _padded(rows, longest)

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """The loss of everything that is learned in a batch, added up."""
        bare: Any = getattr(model, "module", model)
        head = bare.get_output_embeddings()
        if "seen" in inputs:
            return ranking_loss(model, head, inputs)
        labels_BL = inputs["labels"][:, 1:]
        learned_BL = labels_BL != IGNORED
        logits_NV = logits_at(model, head, inputs["input_ids"], learned_BL)
        return functional.cross_entropy(logits_NV.float(), labels_BL[learned_BL], reduction="sum")


class SftResult(NamedTuple):
    """What a finished training did: optimizer steps, tokens in them, different rows.

    Rows that were too long or had nothing to learn are counted in `left_out`.
    """

    steps: int
    tokens: int
    rows: int
    left_out: int


def train_sft(
    model: nn.Module,
    rows: Sequence[TrainingRow],
    settings: SftSettings,
    folder: str | Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_eval: Callable[[int], Mapping[str, Any]] | None = None,
    log_every: int = _LOG_STEPS,
    objective: Objective | None = None,
) -> SftResult:
    """Train a model in place.

    Args:
        model: A model of transformers, on the device that it is trained on.
        rows: Training rows.
        settings: Optimizer, batches and length of the run.
        folder: Folder of checkpoints and `metrics.jsonl`.
        resume: Continue from the folder's newest checkpoint, if there is one.
        on_step: Called with every line of metrics.
        on_eval: Called with the tokens seen; what it returns becomes a line of metrics.
        log_every: Optimizer steps between lines of metrics.
        objective: What is learned; None is what follows in conversations, or which text answers.

    Raises:
        DataError: No row fits, none has a token to learn from, or the folder's checkpoints are
            those of another run.
        TrainingError: The loss is not finite, or a checkpoint could not be written.
    """
    require("accelerate", extra="train", feature="Training")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Rows of other kinds hold several sequences; their readers have compared each.
    fitting = [
        row for row in rows if not isinstance(row, SftRow) or row.size <= settings.max_length
    ]
    fitting = [row for row in fitting if row.is_learned]
    if not fitting:
        raise DataError(
            f"No usable training rows: all {len(rows)} exceed `max_length` "
            f"({settings.max_length}) or contain no assistant tokens."
        )
    objective = objective or Objective()
    steps = SftSteps(fitting, settings, objective)
    args = training_arguments(
        folder,
        steps=len(steps.batches),
        clip_norm=settings.clip_norm,
        seed=settings.seed,
        use_cpu=not torch.cuda.is_available(),
        gradient_accumulation_steps=settings.micro_batches,
        logging_steps=log_every,
        save_strategy="no",  # by tokens
        bf16=settings.dtype == "bfloat16",
        activation_checkpointing=settings.gradient_checkpointing,
    )

    def mean_loss(model: nn.Module, inputs: dict[str, Any], count: Any) -> Tensor:
        """Mean over everything that is learned in the whole batch."""
        total = objective.loss(model, inputs)
        trainer.found |= objective.found
        # `count` is that of all processes, and gradients are averaged over processes.
        return total * args.world_size / torch.as_tensor(count).clamp(min=1)

    def due(step: int) -> tuple[bool, bool]:
        evaluate = on_eval is not None and steps.passes(settings.eval_tokens, step)
        return evaluate, steps.passes(settings.save_tokens, step)

    trainer = StepTrainer(
        model,
        steps,
        args,
        optimizer=lambda model: muon_adamw(model, settings, betas=settings.betas),
        rates=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: settings.rate(step, len(steps.batches))
        ),
        loss=mean_loss,
        model_class=objective.model_class,
        on_step=on_step,
        on_eval=on_eval,
        due=due,
    )
    trainer.run(_saved(folder, steps, resume))
    return SftResult(
        steps=len(steps.batches),
        tokens=steps.tokens_before[-1],
        rows=len(fitting),
        left_out=len(rows) - len(fitting),
    )


class SftSteps(Steps):
    """Which rows each step trains on, decided beforehand."""

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        settings: SftSettings,
        objective: Objective | None = None,
    ) -> None:
        self.settings, self._rows = settings, rows
        self._objective = objective or Objective()
        self.parts = int(os.environ.get("WORLD_SIZE", "1")) * settings.micro_batches
        if settings.batch_size % self.parts:
            raise DataError(
                f"`batch_size` is {settings.batch_size}: {self.parts} processes times "
                "micro-batches cannot share it equally."
            )
        self.batches: list[list[int]] = []  # rows of each step
        self.tokens_before = [0]
        if settings.batch_size > self.parts and any(isinstance(row, RankingRow) for row in rows):
            raise DataError(
                f"`batch_size` is {settings.batch_size}, but there are {self.parts} parts of a "
                "batch, and rankings go through the model one by one: set `micro_batches` to "
                "`batch_size`."
            )
        lengths = [row.size for row in rows]
        if settings.tokens * len(rows) > MOST_STEPS * settings.batch_size * sum(lengths):
            raise DataError(
                f"{settings.tokens:,} tokens of these rows are more than {MOST_STEPS:,} steps: "
                "give fewer `tokens` or `epochs`."
            )
        for batch in _epochs(lengths, settings):
            self.batches.append(batch)
            self.tokens_before.append(self.tokens_before[-1] + sum(lengths[i] for i in batch))
            if self.tokens_before[-1] >= settings.tokens:
                break

    def part(self, step: int, part: int) -> dict[str, Tensor]:
        """A part of the batch of a step."""
        size = self.settings.batch_size // self.parts
        rows = self.batches[step][part * size : (part + 1) * size]
        return self._objective.inputs([self._rows[i] for i in rows], self.settings.max_length)

    def passes(self, every: int, step: int) -> bool:
        """Whether step `step`, from 1, reaches a multiple of `every` tokens, or is the last."""
        before, after = self.tokens_before[step - 1], self.tokens_before[step]
        return before // every < after // every or step == len(self.batches)


@torch.no_grad()
def sft_loss(
    model: nn.Module,
    rows: Sequence[TrainingRow],
    *,
    batch_size: int = 8,
    on_batch: Callable[[int], None] = lambda done: None,
    objective: Objective | None = None,
) -> float:
    """Mean cross-entropy of what the policy should write, in nats per token; of rankings, of what
    answers, in nats per question; of another objective, its mean loss.

    Args:
        model: A causal language model of transformers, in evaluation mode.
        rows: What to score.
        batch_size: Rows that go through the model together.
        on_batch: Called with the rows that are done.
        objective: As in `train_sft`.

    Raises:
        DataError: Nothing in the rows is to be written.
    """
    objective = objective or Objective()
    device = next(model.parameters()).device
    order: list[Any] = sorted(rows, key=lambda row: row.size)
    if any(isinstance(row, RankingRow) for row in rows):
        batch_size = 1
    total, count = 0.0, 0
    for start in range(0, len(order), batch_size):
        inputs = objective.inputs(order[start : start + batch_size], order[-1].size)
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        total += objective.loss(model, inputs).item()
        count += int((inputs["labels"] != IGNORED).sum())
        on_batch(min(start + batch_size, len(order)))
    if not count:
        raise DataError("The rows have nothing that the policy should write.")
    return total / count


def _padded(rows: Sequence[SftRow], longest: int) -> dict[str, Tensor]:
    """Rows as one batch, padded at their ends to at most `longest` tokens."""
    T = max(len(row.input_ids) for row in rows)
    T = max(T, min(longest, -(-T // _ROUNDED) * _ROUNDED))
    # Nothing before the padding sees it, so any token will do.
    ids_BT = torch.zeros(len(rows), T, dtype=torch.long)
    labels_BT = torch.full_like(ids_BT, IGNORED)
    for ids_T, labels_T, row in zip(ids_BT, labels_BT, rows, strict=True):
        ids = torch.tensor(row.input_ids)
        ids_T[: len(ids)] = ids
        labels_T[: len(ids)] = ids.where(torch.tensor(row.action_mask), IGNORED)
    labels_BT[:, 0] = IGNORED  # nothing predicts the first token: it is not counted
    return {"input_ids": ids_BT, "labels": labels_BT}


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


def _saved(folder: Path, steps: SftSteps, resume: bool) -> Path | None:
    """The checkpoint to continue from."""
    saved = last_checkpoint(folder)
    if saved is None:
        return None
    if not resume:
        raise DataError(
            f"{str(folder)!r} has checkpoints of another run. Resume it, or name another folder."
        )
    with restoring(saved):
        stored = read_json(saved / "trainer_state.json")["max_steps"]
    if stored != len(steps.batches):
        raise DataError(
            f"{str(saved)!r} belongs to a run of {stored} steps, but these rows and settings give "
            f"{len(steps.batches)}. Use those of that run, or another folder."
        )
    return saved
