"""From a recipe of preferences to a checkpoint or an adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from hanol.training._kinds import OnStep
from hanol.training._recipe import Estimate
from hanol.training._sft import Objective
from hanol.training.finetuning._finetune import FinetuneResult, Finetuning, finetune_estimate
from hanol.training.finetuning._messages import ChatData
from hanol.training.finetuning._sft_recipe import SftRecipe
from hanol.training.preference._loss import NllNorm, PreferenceKind
from hanol.training.preference._rows import PreferenceObjective, read_pairs, with_reference


class PreferenceRecipe(SftRecipe):
    """Direct preference optimization on pairs of answers."""

    kind: Literal["preference"]  # type: ignore[assignment]
    beta: float = Field(0.1, gt=0, description="Strength of the reference model.")
    loss: PreferenceKind = Field(
        "sigmoid",
        description="sigmoid (DPO), sigmoid_norm (per token, as Tulu 3) or ipo.",
    )
    nll_weight: float = Field(
        0.0, ge=0, description="Weight of the likelihood of chosen answers; Llama 3 has 0.2."
    )
    nll_norm: NllNorm = Field("token", description="What the likelihood is divided by.")
    mask_formatting: bool = Field(
        False,
        description="Leave special tokens (headers, ends of turns) out of the preference, not out "
        "of the likelihood (Llama 3).",
    )

    def estimate(self) -> Estimate:
        """What the run will take; pairs are read and counted, no weights are loaded."""
        return finetune_estimate(self, _PreferenceTraining(self))


class _PreferenceTraining(Finetuning):
    """A training on pairs."""

    recipe: PreferenceRecipe

    def read(self, tokenizer: Any, on_step: OnStep) -> ChatData:
        """Pairs of the files."""
        return read_pairs(self.recipe.data, tokenizer, self.recipe.max_length)

    def objective(self, model: Any, tokenizer: Any, data: ChatData, on_step: OnStep) -> Objective:
        """The preference, with what the model that is there says as its reference."""
        recipe = self.recipe
        total = len(data.train) + len(data.held_out)
        was_training = model.training
        model.eval()
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            on_step({"evaluated": done, "of": total})

        size = recipe.batch_size // recipe.micro_batches
        is_bfloat16 = recipe.dtype == "bfloat16"  # both sides of a difference round alike
        with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bfloat16):
            for pairs in (data.train, data.held_out):
                pairs[:] = with_reference(model, pairs, batch_size=size, on_batch=tell)
        model.train(was_training)
        added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        formatting = {number for number, token in added.items() if token.special}
        return PreferenceObjective(
            beta=recipe.beta, kind=recipe.loss, nll_weight=recipe.nll_weight,
            nll_norm=recipe.nll_norm,
            formatting=sorted(formatting) if recipe.mask_formatting else (),
        )  # fmt: skip


def train_preference(
    recipe: PreferenceRecipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> FinetuneResult:
    """Run a recipe of preferences; see `train`, which calls this."""
    return _PreferenceTraining(recipe, folder).run(resume=resume, on_step=on_step)
