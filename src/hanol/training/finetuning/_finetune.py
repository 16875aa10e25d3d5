"""From a recipe of supervised fine-tuning to a checkpoint or an adapter."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from hanol import models
from hanol.errors import RecipeError, require
from hanol.files import replace_text, whole_folder
from hanol.runs import ResumeGuard
from hanol.training._kinds import OnStep, TrainingResult
from hanol.training._recipe import Estimate
from hanol.training._run_folder import FREE, plot_loss, read_result
from hanol.training._sft import (
    Objective,
    SftSettings,
    SftSteps,
    TrainingRow,
    sft_loss,
    train_sft,
)
from hanol.training.finetuning._lora import (
    adapted_layers,
    first_block,
    with_adapters,
    with_stored_adapter,
    write_adapter,
)
from hanol.training.finetuning._messages import ChatData, read_chats
from hanol.training.finetuning._sft_recipe import MessagesSection, SftRecipe

_FREE = FREE | {"save_tokens", "eval_tokens", "eval_rows", "gradient_checkpointing"}


class FinetuneResult(TrainingResult):
    """What a finished fine-tuning made; its checkpoint is a model's or an adapter's folder."""

    steps: int
    tokens: int
    rows: int = Field(description="Token sequences that were learned from.")
    held_out_rows: int
    left_out: dict[str, int] = Field(description="Rows that could not be learned from, by reason.")
    parameters: int
    trained_parameters: int
    minutes: float = Field(description="Minutes of this call; a resumed run counts its last part.")
    eval_loss: float | None = Field(
        description="Nats per token of the assistant in held-out rows; None without such rows."
    )

    def summary(self) -> str:
        """The result in a sentence."""
        loss = "" if self.eval_loss is None else f"held-out loss {self.eval_loss:.4f} "
        counts = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in self.left_out.items())
        return (
            f"{self.checkpoint}: {loss}after {self.tokens:,} tokens of {self.rows:,} rows and "
            f"{self.minutes:.1f} minutes" + (f"; left out: {counts}" if counts else "")
        )


class Finetuning:
    """A run of fine-tuning, in steps of which other kinds of recipes replace some.

    Args:
        recipe: What to do.
        folder: Folder of the run; None estimates only.
    """

    result_class: type[FinetuneResult] = FinetuneResult
    makes_rows = False  # whether `read` writes what it makes into the folder, to be resumed

    def __init__(self, recipe: SftRecipe, folder: Path | None = None) -> None:
        self.recipe, self._folder = recipe, folder

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        assert self._folder is not None
        return self._folder

    # -- what kinds replace

    def read(self, tokenizer: Any, on_step: OnStep) -> ChatData:
        """Rows to learn from and to evaluate; longer work shows its progress."""
        return read_chats(_data_of(self.recipe), tokenizer, self.recipe.max_length)

    def load(self) -> tuple[Any, models.Adapter | None]:
        """The model that is trained, and the adapter in it that an earlier training made."""
        return _model(self.recipe)

    def objective(self, model: Any, tokenizer: Any, data: ChatData, on_step: OnStep) -> Objective:
        """What is learned; called before a checkpoint is read into the model."""
        return Objective()

    def save(self, model: Any, adapter: models.Adapter | None, tokenizer: Any, final: Path) -> None:
        """Write what was trained."""
        dtype = getattr(torch, self.recipe.save_dtype)
        if self.recipe.lora is None:
            models.save(models.cast(model, dtype), final, tokenizer)
            return
        with whole_folder(final) as part:
            write_adapter(model, part, dtype)
            if adapter is not None and (adapter.folder / "tokenizer_config.json").exists():
                tokenizer.save_pretrained(part)

    def evaluated(self, loss: float, held_out: Sequence[Any], model: Any) -> dict[str, float]:
        """Called after each evaluation; what it says beside the loss of the held-out rows."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Fields of the result that its class adds, or that say something else."""
        return {}

    # -- the run

    def run(self, *, resume: bool = False, on_step: OnStep = lambda line: None) -> FinetuneResult:
        """Run it, or read back what it made; see `train`."""
        recipe, folder = self.recipe, self.folder
        require("accelerate", extra="train", feature="Training")
        if recipe.lora is not None:  # before anything is read or written
            require("peft", extra="lora", feature="Training LoRA adapters")
        began = time.perf_counter()
        is_first = os.environ.get("RANK", "0") == "0"  # the one of several processes that writes
        final, report = folder / "final", folder / "result.json"
        guard = ResumeGuard(folder, {"recipe": recipe.model_dump(mode="json")}, free=_FREE)
        was_started = guard.check(resume=resume) if is_first else resume
        if was_started and (made := read_result(self.result_class, folder)) is not None:
            return made
        if is_first and not was_started and self.makes_rows:
            guard.write()
        tokenizer = models.load_tokenizer(recipe.model)
        data = self.read(tokenizer, on_step)
        on_step({"rows": len(data.train), "held_out": len(data.held_out), **_left_out(data)})
        content = {"data": {"left_out": data.left_out, "fingerprint": _fingerprint(data)}}
        data_guard = ResumeGuard(folder, content, file="data.yaml")
        if is_first and not data_guard.check(resume=True):
            data_guard.write()
            guard.write()
        model, adapter = self.load()
        objective = self.objective(model, tokenizer, data, on_step)
        settings = _settings(recipe, data.train)
        held_out = data.held_out[:: -(-len(data.held_out) // recipe.eval_rows) or 1]
        losses: list[float] = []
        is_bfloat16 = recipe.dtype == "bfloat16"

        def on_eval(seen: int) -> Mapping[str, Any]:
            def tell(done: int) -> None:
                on_step({"evaluated": done, "of": len(held_out)})

            with torch.autocast(model.device.type, torch.bfloat16, enabled=is_bfloat16):
                losses.append(sft_loss(model, held_out, on_batch=tell, objective=objective))
            return {"eval_loss": losses[-1], **self.evaluated(losses[-1], held_out, model)}

        done = train_sft(
            model,
            data.train,
            settings,
            folder,
            resume=True,
            on_step=on_step,
            on_eval=on_eval if held_out else None,
            log_every=recipe.log_every,
            objective=objective,
        )
        sizes = [(x.numel(), x.requires_grad) for x in model.parameters()]
        values = {
            "folder": str(folder),
            "checkpoint": str(final),
            "steps": done.steps,
            "tokens": done.tokens,
            "rows": done.rows,
            "held_out_rows": len(data.held_out),
            "left_out": data.left_out,
            "parameters": sum(size for size, _ in sizes),
            "trained_parameters": sum(size for size, is_trained in sizes if is_trained),
            "minutes": (time.perf_counter() - began) / 60,
            "eval_loss": losses[-1] if losses else None,
        }
        result = self.result_class(**{**values, **self.facts()})
        if is_first:
            self.save(model, adapter, tokenizer, final)
            replace_text(report, result.model_dump_json(indent=2) + "\n")
            plot_loss(folder)
        return result


def finetune(
    recipe: SftRecipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> FinetuneResult:
    """Run a recipe of fine-tuning; see `train`, which calls this."""
    return Finetuning(recipe, folder).run(resume=resume, on_step=on_step)


def finetune_estimate(recipe: SftRecipe, method: Finetuning | None = None) -> Estimate:
    """What a run will take: its rows are tokenized, its model is not allocated."""
    tokenizer = models.load_tokenizer(recipe.model)
    chats = (method or Finetuning(recipe)).read(tokenizer, lambda line: None)
    steps = SftSteps(chats.train, _settings(recipe, chats.train))
    tokens = steps.tokens_before[-1]
    size = models.inspect(recipe.model)
    trained, width, passes = size.parameters, 4, 6.0
    if recipe.lora is not None:
        config = models.load_config(recipe.model)
        layers = adapted_layers(models.build(config, device="meta"), recipe.lora)
        pairs = ((layer.in_features, layer.out_features) for layer in layers.values())
        trained = sum(recipe.lora.rank * (a + b) for a, b in pairs)
        width = 2 if recipe.dtype == "bfloat16" else 4
        # Gradients of activations only, and none below the first adapter.
        blocks = config.get_text_config().num_hidden_layers
        passes = 4.0 - 2.0 * first_block(layers) / blocks
    with_muon = recipe.muon_lr is not None
    frozen = 0 if recipe.lora is None else size.parameters
    state = frozen * width + trained * 4 * (3 if with_muon else 4)
    return Estimate(
        parameters=size.parameters,
        active_parameters=size.active_parameters,
        trained_parameters=trained,
        steps=len(steps.batches),
        tokens=tokens,
        train_flops=tokens * (passes * size.active_parameters + 6.0 * (trained if frozen else 0)),
        state_gib=state / 2**30,
        rows=len(chats.train),
        left_out=chats.left_out,
    )


def _data_of(recipe: SftRecipe) -> MessagesSection:
    if recipe.data is None:
        raise RecipeError("The recipe has no `data`.")
    return recipe.data


def _settings(recipe: SftRecipe, rows: Sequence[TrainingRow]) -> SftSettings:
    same = SftSettings.model_fields.keys() & SftRecipe.model_fields.keys()
    tokens = recipe.tokens
    if tokens is None:
        tokens = max(1, round((recipe.epochs or 1) * sum(row.size for row in rows)))
    return SftSettings(**{**{name: getattr(recipe, name) for name in same}, "tokens": tokens})


def _model(recipe: SftRecipe) -> tuple[Any, models.Adapter | None]:
    """The model that is trained, and the adapter in it that an earlier training made."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = models.load_config(recipe.model)
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and recipe.max_length > limit:
        raise RecipeError(
            f"`max_length` is {recipe.max_length}, but the model's context is {limit} tokens."
        )
    if recipe.lora is None:
        return models.load_model(recipe.model, dtype=torch.float32, device=device), None
    dtype = getattr(torch, recipe.dtype)
    adapter = models.adapter_of(recipe.model)
    if adapter is None:
        model = models.load_model(recipe.model, dtype=dtype, device=device)
        return with_adapters(model, recipe.lora, base=recipe.model, seed=recipe.seed), None
    model = models.load_model(adapter.base, dtype=dtype, device=device, revision=adapter.revision)
    return with_stored_adapter(model, adapter, recipe.lora), adapter


def _left_out(chats: ChatData) -> dict[str, str]:
    return {"left_out": chats.left_out_text()} if chats.left_out else {}


def _fingerprint(chats: ChatData) -> str:
    """Of all that is learned or evaluated, in its order."""
    digest = hashlib.sha256()
    for row in (*chats.train, *chats.held_out):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:32]
