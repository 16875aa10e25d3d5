"""What training of the heads and of steering share: options, data, the Trainer, the folder."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import get_scheduler

from hanol.autodeco._formats import WEIGHTS
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco.training._features import FeatureBatch
from hanol.autodeco.training._loss import AutoDecoLoss, LossSettings, autodeco_loss
from hanol.errors import RecipeError
from hanol.runs import ResumeGuard
from hanol.training import (
    FREE,
    MOST_STEPS,
    OnStep,
    Seed,
    Steps,
    StepTrainer,
    last_checkpoint,
    training_arguments,
)

_GENERATOR = "easy_tokens.pt"  # state of the generator that draws them
_MOST_ROWS = 500_000_000  # which rows a step reads is decided beforehand
_WIDE = 2048  # hidden width from which the paper's rate is right


class HeadsLearning(LossSettings):
    """Loss and optimizer of the heads; the defaults are the paper's."""

    lr: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate of AdamW; None takes 5e-6 (the paper's) for hidden states "
        "of 2048 and wider, 1e-3 below.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="Schedule of the rate; the first two reach 0 at the last step."
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    steps: int = Field(400, ge=1, le=MOST_STEPS, description="Optimizer steps.")
    batch: int = Field(32, ge=1, le=100_000, description="Rows per step.")
    micro_batch: int = Field(8, ge=1, description="Rows that run through the base together.")
    seed: Seed = Field(0, description="Seed of new heads, row order and dropped tokens.")
    save_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")

    @model_validator(mode="after")
    def _decided_beforehand(self) -> Self:
        if self.steps * self.batch > _MOST_ROWS:
            raise ValueError(
                f"`steps` times `batch` is {self.steps * self.batch:,} rows, more than "
                f"{_MOST_ROWS:,}"
            )
        return self

    def rate(self, hidden_size: int) -> float:
        """Peak learning rate for a base of this width."""
        return self.lr or (5e-6 if hidden_size >= _WIDE else 1e-3)

    def loss(
        self,
        model: AutoDecoForCausalLM,
        features: FeatureBatch,
        items: int,
        generator: torch.Generator,
    ) -> AutoDecoLoss:
        """The loss of a micro-batch of a batch with `items` labels."""
        return autodeco_loss(
            *features,
            model.temp_head,
            model.top_p_head,
            self,
            generator=generator,
            num_items=torch.tensor(items),
        )


def passes(num_rows: int, seed: int) -> Iterator[int]:
    """Rows without end, in passes over all in new orders, which the arguments alone decide."""
    for epoch in count():
        yield from np.random.default_rng((seed, epoch)).permutation(num_rows).tolist()


class HeadSteps(Steps):
    """Rows of each step, in passes over all rows, each of which has `labels_R` labels."""

    def __init__(
        self, labels_R: NDArray[np.int64], settings: HeadsLearning, *, by_length: bool = True
    ) -> None:
        rows = passes(len(labels_R), settings.seed)
        self._rows = [list(islice(rows, settings.batch)) for _ in range(settings.steps)]
        if by_length:  # micro-batches of rows of similar length, to save padding
            for step in self._rows:
                step.sort(key=lambda row: int(labels_R[row]))
        self._size = settings.micro_batch
        self.parts = -(-settings.batch // settings.micro_batch)
        self._labels = [int(labels_R[step].sum()) for step in self._rows]
        self.tokens_before = [0, *np.cumsum(self._labels).tolist()]

    def part(self, step: int, part: int) -> dict[str, Tensor]:
        """A part of the batch of a step."""
        rows = self._rows[step]
        places = range(len(rows))[part * self._size : (part + 1) * self._size]
        return {
            "step": torch.tensor(step),
            "places": torch.tensor(places),
            "rows": torch.tensor([rows[place] for place in places]),
            "labels_in_batch": torch.tensor(self._labels[step]),
        }


class HeadsTrainer(StepTrainer):
    """The Trainer of the heads alone: the base is neither trained nor saved.

    The losses of a step's parts, which `part_loss` computes, are added up.
    """

    def __init__(
        self,
        wrapped: AutoDecoForCausalLM,
        steps: HeadSteps,
        settings: HeadsLearning,
        folder: Path,
        on_step: OnStep,
        part_loss: Callable[["HeadsTrainer", dict[str, Tensor]], Tensor],
    ) -> None:
        self.wrapped = wrapped
        self.generator = torch.Generator().manual_seed(settings.seed)  # draws the easy tokens
        super().__init__(
            trainable(wrapped, settings),
            steps,
            training_arguments(
                folder,
                steps=settings.steps,
                clip_norm=settings.clip,
                seed=settings.seed,
                use_cpu=wrapped.device.type == "cpu",
                gradient_accumulation_steps=steps.parts,
                save_steps=settings.save_every,
            ),
            optimizer=lambda heads: torch.optim.AdamW(
                heads.parameters(),
                lr=settings.rate(wrapped.config.temperature_hidden_size),
                weight_decay=settings.weight_decay,
            ),
            rates=lambda optimizer: get_scheduler(
                settings.schedule, optimizer, settings.warmup, settings.steps
            ),
            loss=lambda _, inputs, items: part_loss(self, inputs),
            keep=settings.keep,
            on_step=on_step,
        )

    def write_more(self, checkpoint: Path) -> None:
        """The state of the generator."""
        torch.save(self.generator.get_state(), checkpoint / _GENERATOR)

    def read_more(self, checkpoint: Path) -> None:
        """The state of the generator."""
        self.generator.set_state(torch.load(checkpoint / _GENERATOR, weights_only=True))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self.wrapped.save_heads(str(output_dir))  # in the official layout

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        tensors = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        self.wrapped.load_state_dict(tensors, strict=False)


def prepare_folder(
    folder: Path, settings: HeadsLearning, data: Mapping[str, str], *, resume: bool
) -> Path | None:
    """The checkpoint to continue from; `data` has fingerprints of what must be unchanged."""
    content = {"recipe": settings.model_dump(mode="json"), "data": dict(data)}
    guard = ResumeGuard(folder, content, free=FREE)
    saved = last_checkpoint(folder)
    if saved is None or not guard.check(resume=resume):
        guard.write()
        return None
    return saved


def trainable(model: AutoDecoForCausalLM, settings: HeadsLearning) -> nn.ModuleList:
    """Freeze all but the heads to train, and return these in float32."""
    model.freeze_base().eval()
    found = nn.ModuleList()
    for head, wanted in (
        (model.temp_head, settings.train_temperature),
        (model.top_p_head, settings.train_top_p),
    ):
        if head is not None:
            # Steps of 5e-6 are lost in the rounding of a bfloat16 weight.
            head.float().requires_grad_(wanted)
            if wanted:
                found.append(head)
    if not len(found):
        raise RecipeError(
            "There is no head to train: the model has none, or `train_temperature` and "
            "`train_top_p` switch off those that it has."
        )
    return found
