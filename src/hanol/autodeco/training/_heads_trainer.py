"""What training of the heads and of steering share: options, data, the Trainer, the folder.

Source: arXiv 2510.26697, section 3.1; the defaults are the paper's.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import get_scheduler

from hanol.autodeco._formats import WEIGHTS
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco.training._features import FeatureBatch
from hanol.autodeco.training._loss import AutoDecoLoss, autodeco_loss
from hanol.errors import RecipeError
from hanol.runs import ResumeGuard
from hanol.sampling import Cumsum
from hanol.training import (
    FREE,
    OnStep,
    Section,
    StepTrainer,
    last_checkpoint,
    read_metrics,
    training_arguments,
)

_GENERATOR = "easy_tokens.pt"  # state of the generator that draws them
_WIDE = 2048  # hidden width from which the paper's rate is right


class HeadsLearning(Section):
    """Loss and optimizer of the heads; the defaults are the paper's."""

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
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="Schedule of the rate; the first two go to 0 at the last step."
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    steps: int = Field(400, ge=1, description="Optimizer steps.")
    batch: int = Field(32, ge=1, description="Rows of a step.")
    micro_batch: int = Field(8, ge=1, description="Rows that run through the base together.")
    chunk: int = Field(256, ge=2, description="Positions as wide as the vocabulary at once.")
    seed: int = Field(
        0, ge=0, description="Seed of the heads, the order of rows and the easy tokens."
    )
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
        features: FeatureBatch,
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


class HeadSteps:
    """Rows of each step, in passes over all rows.

    Args:
        labels_R: Labels of each row.
        settings: How many rows a step and a micro-batch have.
        by_length: Put a step's rows of about one length together: padding is work for nothing.

    Attributes:
        parts: Micro-batches of a step.
        tokens_before: Labels seen before each step, and after the last.
    """

    def __init__(
        self, labels_R: NDArray[np.int64], settings: HeadsLearning, *, by_length: bool = True
    ) -> None:
        rows = islice(batch_rows(len(labels_R), settings.batch, settings.seed, 0), settings.steps)
        self._rows = [
            sorted(batch, key=lambda row: int(labels_R[row])) if by_length else batch
            for batch in rows
        ]
        self._size = settings.micro_batch
        self.parts = -(-settings.batch // settings.micro_batch)
        self._labels = [int(labels_R[batch].sum()) for batch in self._rows]
        self.tokens_before = [0, *np.cumsum(self._labels).tolist()]

    def __len__(self) -> int:
        return len(self._rows) * self.parts

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        step, part = divmod(index, self.parts)
        rows = self._rows[step]
        places = range(len(rows))[part * self._size : (part + 1) * self._size]
        return {
            "step": torch.tensor(step),
            "places": torch.tensor(places),
            "rows": torch.tensor([rows[place] for place in places]),
            "labels_in_batch": torch.tensor(self._labels[step]),
        }


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


class HeadsTrainer(StepTrainer):
    """The Trainer of the heads alone: the base is neither trained nor saved.

    Args:
        model: The model whose heads are trained.
        steps: The data.
        settings: How.
        folder: Folder of the run.
        loss: Called with an item of `steps`.
        metrics: Called after each step; returns what is worth logging.
        on_step: As for `StepTrainer`.

    Attributes:
        generator: Draws the easy tokens; a resumed run continues with its state.
    """

    def __init__(
        self,
        model: AutoDecoForCausalLM,
        steps: Any,
        settings: HeadsLearning,
        folder: Path,
        *,
        loss: Callable[[dict[str, Tensor]], Tensor],
        metrics: Callable[[], dict[str, float]],
        on_step: OnStep,
    ) -> None:
        self.wrapped, self._metrics = model, metrics
        self.generator = torch.Generator().manual_seed(settings.seed)
        heads = trainable(model, settings.train_temperature, settings.train_top_p)
        super().__init__(
            heads,
            steps,
            training_arguments(
                folder,
                steps=settings.steps,
                clip_norm=settings.clip,
                seed=settings.seed,
                use_cpu=model.device.type == "cpu",
                gradient_accumulation_steps=steps.parts,
                save_steps=settings.save_every,
            ),
            optimizer=lambda heads: torch.optim.AdamW(
                heads.parameters(),
                lr=settings.rate(model.config.temperature_hidden_size),
                weight_decay=settings.weight_decay,
            ),
            rates=lambda optimizer: get_scheduler(
                settings.schedule, optimizer, settings.warmup, settings.steps
            ),
            loss=lambda _, inputs, count: loss(inputs),
            keep=settings.keep,
            on_step=on_step,
        )

    def after_update(self) -> dict[str, float]:
        """What the losses said of the step."""
        return self._metrics()

    def write_more(self, checkpoint: Path) -> None:
        """The state of the generator of the easy tokens."""
        torch.save(self.generator.get_state(), checkpoint / _GENERATOR)

    def read_more(self, checkpoint: Path) -> None:
        """The state of the generator of the easy tokens."""
        self.generator.set_state(torch.load(checkpoint / _GENERATOR, weights_only=True))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self.wrapped.save_heads(str(output_dir))  # in the official layout

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        tensors = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        self.wrapped.load_state_dict(tensors, strict=False)


def prepare_folder(
    folder: Path, settings: HeadsLearning, data: Mapping[str, str], *, resume: bool
) -> Path | None:
    """Make a run's folder; the checkpoint to continue from. A run without one starts again.

    Args:
        folder: Folder of the run.
        settings: Or a whole recipe.
        data: Fingerprints, by name, of what a resumed run must find as it was.
        resume: Whether the folder may hold a run.
    """
    content = {"recipe": settings.model_dump(mode="json"), "data": dict(data)}
    guard = ResumeGuard(folder, content, free=FREE)
    saved = last_checkpoint(folder)
    if saved is None or not guard.check(resume=resume):
        guard.write()
        return None
    return saved


def last_loss(folder: Path) -> float:
    """The loss of a run's last step."""
    return float(read_metrics(folder)[-1]["loss"])


def sha256(*parts: Any) -> str:
    """A digest of bytes, or of what JSON can hold."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else json.dumps(part).encode())
    return digest.hexdigest()


def trainable(
    model: AutoDecoForCausalLM, temperature: bool = True, top_p: bool = True
) -> nn.ModuleList:
    """Freeze all but the wanted heads, and give these, in float32.

    Steps of 5e-6 are lost in the rounding of a bfloat16 weight.

    Raises:
        RecipeError: The model has none of the wanted heads.
    """
    model.freeze_base().eval()
    found = nn.ModuleList()
    for head, wanted in ((model.temp_head, temperature), (model.top_p_head, top_p)):
        if head is not None:
            head.float().requires_grad_(wanted)
            if wanted:
                found.append(head)
    if not len(found):
        raise RecipeError(
            "There is no head to train: the model has none, or `train_temperature` and "
            "`train_top_p` switch off those that it has."
        )
    return found
