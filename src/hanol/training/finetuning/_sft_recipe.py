"""The recipe of supervised fine-tuning: conversations in, a checkpoint or a LoRA adapter out."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hanol.training._recipe import Beta, Estimate, FloatName, Recipe, Section, Seed
from hanol.training._sft import LearningSection


def _paths(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _numbers(value: Any) -> Any:
    """Block numbers from text such as "10-29" or "0,4,8-11"."""
    if isinstance(value, int):
        return (value,)
    if not isinstance(value, str):
        return value
    found: list[int] = []
    for part in value.split(","):
        if (match := re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", part)) is None:
            raise ValueError(f"{value!r} is not written as blocks are: 10-29 or 0,4,8-11")
        first = int(match[1])
        found += range(first, int(match[2] or first) + 1)
    return tuple(found)


class MessagesSection(Section):
    """Where the conversations come from and which are held out."""

    path: Annotated[tuple[str, ...] | None, BeforeValidator(_paths)] = Field(
        None,
        min_length=1,
        description="Files (.jsonl, .json, .parquet) or folders of them; one or a list.",
    )
    dataset: str | None = Field(None, description="Name of a `datasets` dataset instead.")
    split: str = Field("train", description="Split of the dataset.")
    revision: str | None = Field(None, description="Commit of the dataset.")
    made_by: str | None = Field(
        None, description="Commands that make the files; named where a file is missing."
    )
    held_out: float = Field(
        0.02, ge=0, lt=1, description="Share of prompts that are held out; 0 evaluates nothing."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give either `path` or `dataset`, and set the other one to null")
        return self


class LoraSection(Section):
    """Low-rank adapters on linear layers of a frozen model (arXiv 2106.09685)."""

    rank: int = Field(8, ge=1, le=65_536, description="Rank of each adapter.")
    alpha: float = Field(16.0, gt=0, description="Scale: an adapter counts alpha / rank times.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in front of each adapter.")
    targets: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Last names of the layers, such as q_proj; None: all but the output head.",
    )
    layers: Annotated[tuple[int, ...] | None, BeforeValidator(_numbers)] = Field(
        None,
        min_length=1,
        description="Blocks, from 0, such as 10-29; None: all. Blocks below the first of them "
        "run forward only, which saves time.",
    )


class SftRecipe(LearningSection, Recipe):
    """Supervised fine-tuning of a chat model on conversations."""

    kind: Literal["sft"]
    model: str = Field(
        description="Bundled or pulled name, folder or hub id to start from; with `lora`, an "
        "adapter too, which is then trained further."
    )
    data: MessagesSection
    lora: LoraSection | None = Field(None, description="Train adapters; None: all weights.")
    epochs: float | None = Field(
        None, gt=0, le=1e6, description="Passes over the rows; or `tokens`."
    )
    tokens: int | None = Field(None, gt=0, description="Tokens to train on; or `epochs`.")
    max_length: int = Field(2048, gt=1, description="Tokens per row; longer rows are left out.")
    muon_lr: float | None = Field(None, gt=0, description="Peak rate of Muon; None: AdamW only.")
    adamw_lr: float = Field(gt=0, description="Peak learning rate of AdamW.")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="Betas of AdamW.")
    warmup_steps: int = Field(10, ge=0, description="Optimizer steps of linear warm-up.")
    decay: float = Field(0.9, ge=0, le=1, description="Final share in which rates decay linearly.")
    save_tokens: int = Field(200_000, ge=1, description="Tokens between checkpoints.")
    eval_tokens: int = Field(250_000, ge=1, description="Tokens between evaluations.")
    eval_rows: int = Field(64, ge=1, description="Held-out rows that an evaluation reads at most.")
    log_every: int = Field(1, ge=1, description="Optimizer steps between log lines.")
    dtype: FloatName = Field(
        "float32",
        description="Data type used for computation; with `lora` also that of the frozen weights. "
        "bfloat16 is faster on GPUs and on CPUs with units for it (AVX512-BF16, AMX).",
    )
    save_dtype: FloatName = Field("float32", description="Data type of the saved weights.")
    seed: Seed = Field(0, description="Seed of adapters, row order and dropout.")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.tokens is None):
            raise ValueError("give either `epochs` or `tokens`")
        if self.lora is not None and self.muon_lr is not None:
            raise ValueError("`muon_lr` is for whole matrices: adapters are trained by AdamW")
        return self

    def estimate(self) -> Estimate:
        """What the run will take; rows are read and counted, no weights are loaded."""
        from hanol.training.finetuning._finetune import finetune_estimate

        return finetune_estimate(self)
