"""A training run of the heads: its options, its folder, and what it takes to go on exactly.

Source: arXiv 2510.26697, section 3.1; the defaults are the paper's.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from torch import nn
from transformers import get_scheduler

from hanol.autodeco._features import MicroBatch
from hanol.autodeco._formats import WEIGHTS
from hanol.autodeco._loss import AutoDecoLoss, autodeco_loss
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.errors import RecipeError, TrainingError
from hanol.files import JsonLines, whole_folder
from hanol.runs import ResumeGuard
from hanol.sampling import Cumsum

OnStep = Callable[[int, dict[str, float]], None]

_STATE = "training_state.pt"
_METRICS = "metrics.jsonl"
_WIDE = 2048  # hidden width from which the paper's rate is right
# What may change when a run is resumed.
_FREE = {"save_every", "keep"}


class HeadsOptions(BaseModel):
    """Loss and optimizer of the heads; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal["hf", "megatron"] = Field("hf", description="Official trainer to follow.")
    top_p_loss: Literal["soft", "mse"] = Field(
        "soft", description='"mse" is the older official loss.'
    )
    easy_token_drop: float = Field(
        0.6, ge=0, le=1, description="Share of easy tokens that do not count, drawn anew each step."
    )
    dft: bool = Field(True, description="Weight each token by its probability.")
    train_temperature: bool = Field(True, description="False leaves that head as it is.")
    train_top_p: bool = Field(True, description="False leaves that head as it is.")
    steepness: float = Field(30.0, ge=0, description="How fast tokens fade beyond P.")
    cumsum: Cumsum = Field("inclusive", description='"exclusive" tends to hard top-p.')
    reduction: Literal["token", "micro_mean"] = Field(
        "token", description='"micro_mean": a mean of means, as the official trainer.'
    )
    lr: float | None = Field(
        None,
        gt=0,
        description="Peak rate of AdamW; None is the paper's 5e-6 for hidden states of 2048 and "
        "wider, 1e-3 below.",
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's.")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="Of the rate; the first two go to 0 at the last step."
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    steps: int = Field(400, ge=1, description="Optimizer steps.")
    batch: int = Field(32, ge=1, description="Rows of a step.")
    micro_batch: int = Field(8, ge=1, description="Rows that run through the base together.")
    chunk: int = Field(256, ge=2, description="Positions as wide as the vocabulary at once.")
    seed: int = Field(0, ge=0, description="Of the heads, the order of rows and the easy tokens.")
    save_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")

    def rate(self, hidden_size: int) -> float:
        """Peak rate for a base of this width."""
        if self.lr is not None:
            return self.lr
        return 5e-6 if hidden_size >= _WIDE else 1e-3

    def loss(
        self,
        model: AutoDecoForCausalLM,
        features: MicroBatch,
        items: int,
        generator: torch.Generator,
    ) -> AutoDecoLoss:
        """The loss of a micro-batch out of a batch with `items` labels."""
        return autodeco_loss(
            *features,
            model.temp_head,
            model.top_p_head,
            recipe=self.recipe,
            top_p_loss=self.top_p_loss,
            easy_token_drop=self.easy_token_drop,
            dft=self.dft,
            generator=generator,
            num_items=torch.tensor(items),
            reduction=self.reduction,
            train_temperature=self.train_temperature,
            train_top_p=self.train_top_p,
            steepness=self.steepness,
            cumsum=self.cumsum,
            chunk=self.chunk,
        )


class HeadsRun:
    """One run: heads, optimizer, schedule, the generator of the easy tokens, and their folder."""

    def __init__(self, model: AutoDecoForCausalLM, recipe: HeadsOptions, folder: Path) -> None:
        self.model, self.recipe, self.folder = model, recipe, folder
        self.parameters = trainable(model, recipe.train_temperature, recipe.train_top_p)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=recipe.rate(model.config.temperature_hidden_size),
            weight_decay=recipe.weight_decay,
        )
        self.scheduler = get_scheduler(recipe.schedule, self.optimizer, recipe.warmup, recipe.steps)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.step = self.labels = 0
        self.loss = math.nan

    # -- the folder

    def prepare(self, data: dict[str, str], resume: bool) -> Path | None:
        """Make the folder; the checkpoint to go on from. What has no checkpoint is begun anew.

        Args:
            data: Fingerprints, by name, of what a resumed run must find as it was.
            resume: Whether the folder may hold a run.
        """
        settings = {"recipe": self.recipe.model_dump(mode="json"), "data": data}
        guard = ResumeGuard(self.folder, settings, free=_FREE)
        found = checkpoints(self.folder)
        if found and guard.check(resume=resume):
            return found[-1]
        guard.write()
        return None

    def save(self) -> None:
        """Write a checkpoint whole or not at all: heads in the official layout, and the rest."""
        state = {
            "step": self.step,
            "labels": self.labels,
            "loss": self.loss,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
        }
        path = self.folder / f"checkpoint-{self.step}"
        hint = "Earlier checkpoints are whole: free some space and resume."
        with whole_folder(path, hint=hint) as part:
            self.model.save_heads(part)
            torch.save(state, part / _STATE)
        for old in checkpoints(self.folder)[: -self.recipe.keep]:
            shutil.rmtree(old)

    def load(self, checkpoint: Path) -> None:
        """Set everything to where a checkpoint was."""
        state = torch.load(checkpoint / _STATE, weights_only=True, map_location="cpu")
        tensors = load_file(checkpoint / WEIGHTS)
        self.model.load_state_dict(tensors, strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        self.step, self.labels, self.loss = state["step"], state["labels"], state["loss"]

    # -- steps

    def each_step(
        self, num_rows: int, update: Callable[[list[int]], dict[str, float]], on_step: OnStep | None
    ) -> None:
        """All steps that are left: write what `update` says of each, and save now and then.

        Args:
            num_rows: Rows there are; `update` is given those of its step.
            update: Computes gradients of the parameters and says what it found; the losses that
                must be finite begin with "loss".
            on_step: Called after each step with its number, from 1, and its metrics.

        Raises:
            TrainingError: The loss or the gradient is not finite.
        """
        recipe = self.recipe
        metrics = JsonLines(self.folder / _METRICS)
        # A resumed run makes the steps after the checkpoint again.
        metrics.keep(lambda line: line["step"] <= self.step)
        batches = batch_rows(num_rows, recipe.batch, recipe.seed, self.step)
        while self.step < recipe.steps:
            self.optimizer.zero_grad()
            found = update(next(batches))
            norm = nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
            self.loss = found["loss"]
            if not math.isfinite(self.loss) or not math.isfinite(norm):
                raise self._not_finite(norm.item())
            line = {
                "step": self.step + 1,
                **found,
                "grad_norm": norm.item(),
                "learning_rate": self.scheduler.get_last_lr()[0],
            }
            self.optimizer.step()
            self.scheduler.step()
            self.step += 1
            metrics.append(line)
            if self.step % recipe.save_every == 0 or self.step == recipe.steps:
                self.save()
            if on_step is not None:
                on_step(self.step, line)

    def _not_finite(self, norm: float) -> TrainingError:
        saved = checkpoints(self.folder)
        return TrainingError(
            f"The loss is {self.loss} and the norm of its gradient {norm} at step "
            f"{self.step + 1}. Lower `lr` ({self.scheduler.get_last_lr()[0]:g} there), then "
            + (f"go on from {str(saved[-1])!r}." if saved else "start again.")
        )


def trainable(
    model: AutoDecoForCausalLM, temperature: bool = True, top_p: bool = True
) -> list[nn.Parameter]:
    """Freeze all but the wanted heads, and give their parameters, in float32.

    Steps of 5e-6 are lost in the rounding of a bfloat16 weight.

    Raises:
        RecipeError: The model has none of the wanted heads.
    """
    model.freeze_base().eval()
    found: list[nn.Parameter] = []
    for head, wanted in ((model.temp_head, temperature), (model.top_p_head, top_p)):
        if head is not None:
            head.float().requires_grad_(wanted)
            found += head.parameters() if wanted else []
    if not found:
        raise RecipeError(
            "There is no head to train: the model has none, or `train_temperature` and "
            "`train_top_p` switch off those that it has."
        )
    return found


def batch_rows(num_rows: int, batch: int, seed: int, done: int) -> Iterator[list[int]]:
    """Rows of each step after the first `done`, in passes over all rows in a new order each.

    They depend on nothing but the arguments, so there is no state to save.
    """
    at = done * batch
    while True:
        rows: list[int] = []
        while len(rows) < batch:
            epoch, begin = divmod(at, num_rows)
            order = np.random.default_rng((seed, epoch)).permutation(num_rows)
            rows += order[begin : begin + batch - len(rows)].tolist()
            at = done * batch + len(rows)
        done += 1
        yield rows


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if (path / _STATE).exists()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
