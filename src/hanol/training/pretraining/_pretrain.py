"""From a recipe of pre-training to a checkpoint: prepare text, build the model, run the stages."""

import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from hanol import attention, models
from hanol.errors import RecipeError, TrainingError, require
from hanol.files import replace_text, whole_folder
from hanol.runs import ResumeGuard, can_reuse, note_sources
from hanol.training._kinds import OnStep, TrainingResult
from hanol.training._muon import muon_adamw, sharded_like, whole
from hanol.training._run_folder import FREE, last_checkpoint, plot_loss, read_result
from hanol.training._trainer import StepTrainer, training_arguments
from hanol.training.pretraining._data import (
    PROBLEM_TEMPLATE,
    Corpus,
    documents,
    is_held_out,
    source_hash,
    tokenizer_hash,
    train_tokenizer,
    write_corpus,
)
from hanol.training.pretraining._evaluate import nats
from hanol.training.pretraining._packing import PackedSteps, check_no_leak
from hanol.training.pretraining._pretrain_recipe import PretrainRecipe


class PretrainResult(TrainingResult):
    """What a finished pre-training made."""

    steps: int
    tokens: int
    minutes: float = Field(description="Minutes of this call; a resumed run counts its last part.")
    bits_per_byte: float = Field(description="Bits per byte of held-out documents.")
    held_out_bytes: int = Field(description="Size of the documents that were scored.")

    def summary(self) -> str:
        """The result in a sentence."""
        return (
            f"{self.checkpoint}: {self.bits_per_byte:.4f} bits per byte on "
            f"{self.held_out_bytes:,} held-out bytes after {self.tokens:,} tokens "
            f"and {self.minutes:.1f} minutes"
        )


def pretrain(
    recipe: PretrainRecipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> PretrainResult:
    """Run a recipe of pre-training; see `train`, which calls this."""
    require("accelerate", extra="train", feature="Training")
    began = time.perf_counter()
    guard = ResumeGuard(folder, {"recipe": recipe.model_dump(mode="json")}, free=FREE)
    final = folder / "final"
    if guard.check(resume=resume) and (made := read_result(PretrainResult, folder)) is not None:
        return made
    saved = last_checkpoint(folder)
    args = _arguments(recipe, folder)
    with args.main_process_first(desc="preparing text"):
        source = source_hash(recipe.data) if args.local_process_index == 0 else None
        tokenizer = _tokenizer(recipe, folder, source, in_use=saved is not None)
        corpus, held_out = _corpora(recipe, folder, tokenizer, source, in_use=saved is not None)
    model = _model(recipe, tokenizer)
    steps = PackedSteps(corpus, recipe, args.world_size * recipe.micro_batches)
    check_no_leak(model, len(tokenizer))
    trainer = PretrainTrainer(model, steps, args, recipe=recipe, held_out=held_out, on_step=on_step)
    if trainer.is_world_process_zero():
        guard.write()
    trainer.run(saved)
    trainer.use_average()
    result = PretrainResult(
        folder=str(folder),
        checkpoint=str(final),
        steps=trainer.state.global_step,
        tokens=steps.tokens_before[-1],
        minutes=(time.perf_counter() - began) / 60,
        bits_per_byte=trainer.bits_per_byte(recipe.final_eval_bytes),
        held_out_bytes=int(held_out.bytes_of[_spread(held_out, recipe.final_eval_bytes)].sum()),
    )
    _write_result(trainer, tokenizer, result, folder)
    trainer.accelerator.wait_for_everyone()  # a process that left early would take others along
    return result


class PretrainTrainer(StepTrainer):
    """The Trainer with the stages, averages and evaluations of a recipe of pre-training."""

    def __init__(
        self,
        model: nn.Module,
        steps: PackedSteps,
        args: TrainingArguments,
        *,
        recipe: PretrainRecipe,
        held_out: Corpus,
        on_step: OnStep,
    ) -> None:
        self.recipe, self.held_out, self._on_step = recipe, held_out, on_step
        self._mean: dict[str, Tensor] | None = None
        self._mean_count = 0
        before = steps.tokens_before
        # The rate in the middle of its batch: the first update's is not zero.
        shares = [recipe.schedule.rate((a + b) // 2, before[-1]) for a, b in pairwise(before)]
        optim = recipe.optim
        muon_dtype = None if optim.muon_dtype is None else getattr(torch, optim.muon_dtype)
        super().__init__(
            model,
            steps,
            args,
            optimizer=lambda model: muon_adamw(
                model, optim, betas=optim.betas, momentum=optim.momentum, dtype=muon_dtype
            ),
            rates=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: shares[min(step, len(shares) - 1)]
            ),
            keep=recipe.keep,
            on_step=on_step,
            on_eval=lambda _: {"eval_bits_per_byte": self.bits_per_byte(recipe.eval_bytes)},
        )
        if recipe.qk_clip is not None:
            for layer in model.modules():
                if hasattr(layer, "record_max_logit"):
                    layer.record_max_logit = True  # type: ignore[assignment]

    def after_update(self) -> dict[str, float]:
        """Clip attention logits, balance experts, average weights, as far as the recipe asks."""
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
        seen = self.steps.tokens_before[self.state.global_step + 1]
        if self.steps.tokens_before[-1] - seen > self.recipe.schedule.decay_tokens:
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
    def bits_per_byte(self, max_bytes: int | None = None) -> float:
        """Bits per byte of the held-out documents, or of at most `max_bytes` spread over them."""
        T = max(stage.sequence_length for stage in self.recipe.stages)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = _spread(self.held_out, max_bytes)[rank::world]

        def told() -> Iterator[NDArray[Any]]:
            for done, i in enumerate(mine):
                self._on_step({"evaluated": done, "of": len(mine)})
                yield self.held_out.document(i)

        summed = nats(self.model, told(), T)
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

    def read_more(self, checkpoint: Path) -> None:
        """The running mean of the weights, if there is one."""
        file = checkpoint / "average.pt"
        if file.exists():
            stored = torch.load(file, weights_only=True)
            self._mean, self._mean_count = stored["mean"], stored["count"]


def _arguments(recipe: PretrainRecipe, folder: Path) -> TrainingArguments:
    return training_arguments(
        folder,
        steps=recipe.steps,
        clip_norm=recipe.optim.clip_norm,
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        gradient_accumulation_steps=recipe.micro_batches,
        logging_steps=recipe.log_every,
        eval_strategy="steps",
        eval_steps=recipe.eval_every,
        save_steps=recipe.save_every,
        bf16=recipe.dtype == "bfloat16",
        activation_checkpointing=recipe.gradient_checkpointing,
        report_to=["tensorboard"] if recipe.tensorboard else [],
    )


def _tokenizer(
    recipe: PretrainRecipe, folder: Path, source: str | None, *, in_use: bool
) -> PreTrainedTokenizerBase:
    """The tokenizer, trained unless that was done; `source` is None on others than the first."""
    if recipe.tokenizer.vocab_size is None:
        source = recipe.tokenizer.checkpoint or recipe.model.checkpoint
        if source is None:
            raise RecipeError(
                "A model from a preset needs `tokenizer.vocab_size` or `.checkpoint`."
            )
        tokenizer = models.load_tokenizer(source)
        if tokenizer.eos_token_id is None:
            raise RecipeError(
                f"The tokenizer of {source!r} has no end token: documents could not be told apart."
            )
        return tokenizer
    path = folder / "tokenizer"
    sources = {"data": source, "vocab_size": recipe.tokenizer.vocab_size}
    if source is not None and not can_reuse(path, sources, in_use=in_use):
        trained = train_tokenizer(_texts(recipe, held_out=False), recipe.tokenizer.vocab_size)
        if recipe.data.source == "problems":
            trained.chat_template = PROBLEM_TEMPLATE
        with whole_folder(path) as part:
            trained.save_pretrained(part)
        note_sources(path, sources)
    return AutoTokenizer.from_pretrained(path)


def _texts(recipe: PretrainRecipe, *, held_out: bool) -> Iterator[str]:
    share = recipe.data.held_out
    for document in documents(recipe.data):
        if is_held_out(document.group, share) == held_out:
            yield document.text


def _corpora(
    recipe: PretrainRecipe, folder: Path, tokenizer: Any, source: str | None, *, in_use: bool
) -> tuple[Corpus, Corpus]:
    path = folder / "tokens"
    sources = {"data": source, "tokenizer": tokenizer_hash(tokenizer)}
    if source is not None and not can_reuse(path, sources, in_use=in_use):
        with whole_folder(path) as part:
            write_corpus(part / "train", _texts(recipe, held_out=False), tokenizer)
            write_corpus(part / "held_out", _texts(recipe, held_out=True), tokenizer)
        note_sources(path, sources)
    return Corpus(path / "train"), Corpus(path / "held_out")


def _model(recipe: PretrainRecipe, tokenizer: Any) -> PreTrainedModel:
    longest = max(stage.sequence_length for stage in recipe.stages)
    if recipe.model.checkpoint is not None:
        model = models.load_model(recipe.model.checkpoint, dtype=torch.float32)
        if recipe.tokenizer.vocab_size is not None or len(tokenizer) > model.config.vocab_size:
            raise RecipeError(
                f"The tokenizer has {len(tokenizer)} tokens of its own, but the model "
                f"{recipe.model.checkpoint!r} was made for another with "
                f"{model.config.vocab_size}. Drop `tokenizer` to use the model's."
            )
    else:
        config = models.preset(str(recipe.model.preset), vocab_size=len(tokenizer))
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
        model = models.build(config, seed=recipe.seed)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise RecipeError(
            f"`sequence_length` is {longest}, but the model's context is {limit} tokens."
        )
    return model


def _write_result(
    trainer: PretrainTrainer, tokenizer: Any, result: PretrainResult, folder: Path
) -> None:
    if not math.isfinite(result.bits_per_byte):
        raise TrainingError("The held-out loss of the final weights is not finite.")
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if state is not None and any(hasattr(p, "placements") for p in model.parameters()):
        whole_model = models.build(model.config, seed=trainer.recipe.seed)
        whole_model.load_state_dict(state)
        model = whole_model
    if trainer.recipe.save_dtype == "bfloat16":
        model = models.cast(model, torch.bfloat16)
    models.save(model, folder / "final", tokenizer)
    replace_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    plot_loss(folder)


def _spread(corpus: Corpus, max_bytes: int | None) -> list[int]:
    """Documents of at most `max_bytes` in all, spread over the corpus; if each has more, the least.

    A document of a folder can be of any size, so one that does not fit is passed over.
    """
    order = np.random.default_rng(0).permutation(len(corpus.ends))
    if max_bytes is None:
        return sorted(order.tolist())
    chosen, left = [], max_bytes
    for index in order.tolist():
        if (size := int(corpus.bytes_of[index])) <= left:
            chosen.append(index)
            left -= size
    return sorted(chosen) or [int(corpus.bytes_of.argmin())]
