"""The recipe of pre-training: text in, a language model out.

Every field says its unit; where a value comes from a paper, the recipe file says which.
"""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from hanol import models
from hanol.training._recipe import (
    MOST_STEPS,
    Beta,
    Estimate,
    FloatName,
    Recipe,
    Section,
    state_gib,
)


class ModelSection(Section):
    """What is trained."""

    preset: str | None = Field(None, description="Preset to build with random weights.")
    checkpoint: str | None = Field(None, description="Bundled name, folder or hub id of weights.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.preset is None) == (self.checkpoint is None):
            raise ValueError("give either `preset` or `checkpoint`")
        return self


class TokenizerSection(Section):
    """How text becomes tokens."""

    vocab_size: int | None = Field(
        None, ge=260, le=10_000_000, description="Train a byte-level BPE of this size."
    )
    checkpoint: str | None = Field(None, description="Checkpoint whose tokenizer is used.")

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.vocab_size is not None and self.checkpoint is not None:
            raise ValueError("give `vocab_size` or `checkpoint`, not both")
        return self


class DataSection(Section):
    """Where the text comes from and what is held out."""

    source: Literal["stdlib", "folder", "jsonl", "parquet", "datasets", "problems"] = Field(
        description="Kind of source; `stdlib` is the standard library and language reference of "
        "this Python, `problems` those of a world with their solutions."
    )
    path: str | None = Field(
        None,
        description="Folder, file, name of a `datasets` dataset, or problems such as chains or "
        "countdown:numbers=3.",
    )
    num_problems: int | None = Field(
        None, ge=1, description="Number of problems; with `source: problems` only."
    )
    split: str = Field("train", description="Split of a `datasets` dataset.")
    revision: str | None = Field(None, description="Commit of a `datasets` dataset.")
    text_column: str = Field("text", description="Column or key that holds the text.")
    held_out: float = Field(0.05, gt=0, lt=1, description="Share of documents held out.")

    @model_validator(mode="after")
    def _has_path(self) -> Self:
        if self.source != "stdlib" and self.path is None:
            raise ValueError(f"`source: {self.source}` needs a `path`")
        if (self.source == "problems") != (self.num_problems is not None):
            raise ValueError("`num_problems` belongs to `source: problems`, which needs it")
        return self


class Stage(Section):
    """A part of the run with one batch size and sequence length."""

    tokens: int = Field(gt=0, description="Number of tokens in this stage.")
    sequence_length: int = Field(gt=1, description="Tokens per row.")
    batch_tokens: int = Field(gt=0, description="Tokens per optimizer step.")

    @model_validator(mode="after")
    def _whole_rows(self) -> Self:
        if self.batch_tokens % self.sequence_length:
            raise ValueError(
                f"`batch_tokens` ({self.batch_tokens}) is not a multiple of `sequence_length` "
                f"({self.sequence_length})"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps, rounded up."""
        return -(-self.tokens // self.batch_tokens)


class OptimSection(Section):
    """Muon for matrices inside the blocks, AdamW for everything else."""

    muon_lr: float | None = Field(None, gt=0, description="Peak rate of Muon; None: AdamW only.")
    adamw_lr: float = Field(gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay of matrices.")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's Nesterov momentum.")
    muon_dtype: FloatName | None = Field(
        None,
        description="Data type of Muon's iteration; None is float32 on CPU and bfloat16 elsewhere. "
        "bfloat16 is faster on CPUs with units for it.",
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="Betas of AdamW.")
    clip_norm: float = Field(1.0, gt=0, description="Maximum norm of the gradient.")


class ScheduleSection(Section):
    """Warm-up, stable phase, decay."""

    warmup_tokens: int = Field(ge=0, description="Tokens of linear warm-up.")
    decay_tokens: int = Field(ge=0, description="Tokens of decay at the end.")
    decay: Literal["linear", "cosine"] = Field("linear", description="Shape of the decay.")
    final: float = Field(0.0, ge=0, le=1, description="Final rate, as a share of the peak.")
    polyak: bool = Field(False, description="End with mean weights of the decay (Llama 3, 3.4.3).")

    def rate(self, tokens: int, total: int) -> float:
        """Share of the peak rate after `tokens` of `total` tokens: warm-up, stable, decay.

        Example:
            >>> plan = ScheduleSection(warmup_tokens=10, decay_tokens=20, decay="linear")
            >>> [plan.rate(n, 100) for n in (0, 5, 50, 90, 100)]
            [0.0, 0.5, 1.0, 0.5, 0.0]
        """
        if tokens < self.warmup_tokens:
            return tokens / self.warmup_tokens
        left = max(total - tokens, 0)
        if left >= self.decay_tokens:
            return 1.0
        share = left / self.decay_tokens
        if self.decay == "cosine":
            share = 0.5 - 0.5 * math.cos(math.pi * share)
        return self.final + (1 - self.final) * share


class PretrainRecipe(Recipe):
    """A complete training run on text."""

    kind: Literal["pretrain"] = "pretrain"
    model: ModelSection = Field(
        description="What is trained; a plain name, folder or hub id is a checkpoint with its own "
        "tokenizer, to train further."
    )
    tokenizer: TokenizerSection = TokenizerSection()
    data: DataSection
    stages: list[Stage] = Field(min_length=1)
    optim: OptimSection
    schedule: ScheduleSection
    micro_batches: int = Field(1, ge=1, description="Parts of a batch; more save memory.")
    gradient_checkpointing: bool = Field(False, description="Recompute blocks, to save memory.")
    qk_clip: float | None = Field(
        None, gt=0, description="Maximum attention logit (MuonClip); None does not clip."
    )
    router_bias_rate: float = Field(0.001, ge=0, description="Step size of expert balancing.")
    eval_every: int = Field(100, ge=1, description="Optimizer steps between evaluations.")
    eval_bytes: int = Field(
        200_000, ge=1, description="Held-out bytes scored at each evaluation, at most."
    )
    final_eval_bytes: int | None = Field(
        1_000_000, ge=1, description="Held-out bytes scored at the end, at most; None scores all."
    )
    save_every: int = Field(100, ge=1, description="Optimizer steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Number of checkpoints kept.")
    log_every: int = Field(10, ge=1, description="Optimizer steps between log lines.")
    dtype: FloatName = Field("float32", description="Data type used for computation.")
    save_dtype: FloatName = Field("float32", description="Data type of the saved checkpoint.")
    tensorboard: bool = Field(False, description="Also write TensorBoard files.")

    @model_validator(mode="before")
    @classmethod
    def _checkpoint(cls, values: Any) -> Any:
        """`--set model=NAME` continues the training of a checkpoint, tokenizer included."""
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            return values
        tokenizer = values.get("tokenizer")
        if isinstance(tokenizer, dict):  # one that would be trained does not fit its weights
            tokenizer = {key: x for key, x in tokenizer.items() if key != "vocab_size"}
            values = {**values, "tokenizer": tokenizer}
        return {**values, "model": {"checkpoint": values["model"]}}

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.steps > MOST_STEPS:
            raise ValueError(
                f"the stages have {self.steps:,} steps, more than {MOST_STEPS:,}: raise "
                "`batch_tokens`, or lower `tokens`"
            )
        total = sum(stage.tokens for stage in self.stages)
        used = self.schedule.warmup_tokens + self.schedule.decay_tokens
        if used > total:
            raise ValueError(
                f"warm-up and decay take {used} tokens, but the stages have only {total}"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def estimate(self) -> Estimate:
        """What the run will take, computed without allocating the model."""
        report = models.inspect(str(self.model.preset or self.model.checkpoint))
        tokens = sum(stage.steps * stage.batch_tokens for stage in self.stages)
        return Estimate(
            parameters=report.parameters,
            active_parameters=report.active_parameters,
            steps=self.steps,
            tokens=tokens,
            train_flops=6.0 * report.active_parameters * tokens,
            state_gib=state_gib(report.parameters, with_muon=self.optim.muon_lr is not None),
        )
