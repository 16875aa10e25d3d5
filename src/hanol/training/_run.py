"""From a recipe to a checkpoint: prepare text, build the model, run the stages, write it."""

import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from hanol import models
from hanol.errors import DataError, RecipeError, TrainingError, require
from hanol.training._data import Corpus, documents, is_held_out, write_corpus
from hanol.training._packing import PackedSteps, check_no_leak
from hanol.training._progress import RunLog, plot_loss
from hanol.training._recipe import Recipe
from hanol.training._tokenizer import train_tokenizer
from hanol.training._trainer import RecipeTrainer, last_checkpoint


class TrainingResult(BaseModel):
    """What a finished run made."""

    folder: str
    checkpoint: str
    steps: int
    tokens: int
    minutes: float = Field(description="Of this call; a resumed run counts its last part.")
    bits_per_byte: float = Field(description="On all held-out documents.")
    held_out_bytes: int


class Needs(BaseModel):
    """What a recipe will take, computed without allocating the model."""

    parameters: int
    active_parameters: int
    steps: int
    tokens: int
    train_flops: float = Field(description="6 * active parameters * tokens.")
    state_gib: float = Field(description="Weights, gradients and optimizer state, all processes.")


def needs(recipe: Recipe) -> Needs:
    """Size a run up on the meta device."""
    name = recipe.model.preset or recipe.model.checkpoint
    report = models.inspect(str(name))
    tokens = sum(stage.steps * stage.batch_tokens for stage in recipe.stages)
    # float32 weights and gradients, one momentum for Muon or two moments for AdamW.
    moments = 1 if recipe.optim.muon_lr is not None else 2
    return Needs(
        parameters=report.parameters,
        active_parameters=report.active_parameters,
        steps=recipe.steps,
        tokens=tokens,
        train_flops=6.0 * report.active_parameters * tokens,
        state_gib=report.parameters * 4 * (2 + moments) / 2**30,
    )


def train(
    recipe: Recipe, folder: str | Path | None = None, *, resume: bool = False, quiet: bool = False
) -> TrainingResult:
    """Run a recipe.

    Args:
        recipe: What to do.
        folder: The run's folder; None is `runs/<name>`.
        resume: Go on from the folder's newest checkpoint, or start if there is none.
        quiet: No progress bar.

    Raises:
        RecipeError: The folder holds another run, or model, tokenizer and recipe do not fit.
        DataError: The data cannot be used.
        TrainingError: The run had to stop; what it saved is whole.
    """
    require("accelerate", extra="train", feature="Training")
    folder = Path(folder) if folder is not None else Path("runs") / recipe.name
    begin = time.perf_counter()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    saved = _prepare_folder(recipe, folder, resume)
    args = _arguments(recipe, folder)
    with args.main_process_first(desc="preparing text"):
        tokenizer = _tokenizer(recipe, folder)
        train_corpus, held_out = _corpora(recipe, folder, tokenizer)
    model = _model(recipe, tokenizer)
    plan = PackedSteps(train_corpus, recipe, args.world_size * recipe.micro_batches)
    check_no_leak(model, len(tokenizer))
    log = RunLog(folder, plan, quiet=quiet)
    trainer = RecipeTrainer(model, recipe, args, plan, held_out, [log])
    log.trainer = trainer
    if trainer.is_world_process_zero():
        _write_resolved(recipe, folder)
    if saved is not None:
        trainer.restore_average(saved)
    try:
        with models.no_progress_bars():  # one for each file of each checkpoint
            trainer.train(resume_from_checkpoint=None if saved is None else str(saved))
    finally:
        log.close()
    trainer.use_average()
    bits = trainer.bits_per_byte()
    result = TrainingResult(
        folder=str(folder),
        checkpoint=str(folder / "final"),
        steps=trainer.state.global_step,
        tokens=plan.tokens_before[-1],
        minutes=(time.perf_counter() - begin) / 60,
        bits_per_byte=bits,
        held_out_bytes=held_out.num_bytes,
    )
    _write_result(trainer, recipe, tokenizer, result, folder)
    trainer.accelerator.wait_for_everyone()  # a process that left early would take others along
    return result


def _prepare_folder(recipe: Recipe, folder: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from; refuses a folder with another or an unfinished run."""
    shutil.rmtree(folder / ".writing", ignore_errors=True)
    saved = last_checkpoint(folder)
    stored = folder / "recipe.yaml"
    if not stored.exists():
        folder.mkdir(parents=True, exist_ok=True)
        return None
    if not resume:
        raise RecipeError(
            f"{str(folder)!r} already holds a run. Go on with it by --resume, or give another "
            "--output."
        )
    before = yaml.safe_load(stored.read_text("utf-8"))["recipe"]
    now = json.loads(recipe.model_dump_json())
    free = {"eval_every", "save_every", "keep", "log_every", "threads", "record", "tensorboard"}
    changed = sorted(k for k in now if k not in free and now[k] != before.get(k))
    if changed:
        raise RecipeError(
            f"The run in {str(folder)!r} was started with other values of {', '.join(changed)}: "
            "it cannot be resumed with this recipe. Give another --output."
        )
    return saved


def _arguments(recipe: Recipe, folder: Path) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=1,  # an item is a whole part of a batch
        gradient_accumulation_steps=recipe.micro_batches,
        max_grad_norm=recipe.optim.clip_norm,
        logging_steps=recipe.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=recipe.eval_every,
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=None,  # the trainer removes old checkpoints itself, after the rename
        seed=recipe.seed,
        data_seed=recipe.seed,
        bf16=recipe.dtype == "bfloat16",
        activation_checkpointing=recipe.gradient_checkpointing,
        use_cpu=not cuda,
        ddp_backend="gloo" if not cuda and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        report_to=["tensorboard"] if recipe.tensorboard else [],
        label_names=["labels"],
    )


def _tokenizer(recipe: Recipe, folder: Path) -> PreTrainedTokenizerBase:
    if recipe.tokenizer.vocab_size is None:
        source = recipe.tokenizer.checkpoint or recipe.model.checkpoint
        if source is None:
            raise RecipeError(
                "A model from a preset needs `tokenizer.vocab_size` or `.checkpoint`."
            )
        tokenizer = models.load_tokenizer(source)
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            raise RecipeError(
                f"The tokenizer of {source!r} has no begin or no end token: documents could not be "
                "told apart."
            )
        return tokenizer
    path = folder / "tokenizer"
    if not path.exists():
        part = path.with_name("tokenizer.part")
        train_tokenizer(
            _texts(recipe, held_out=False), recipe.tokenizer.vocab_size
        ).save_pretrained(part)
        part.rename(path)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def _texts(recipe: Recipe, *, held_out: bool) -> Iterator[str]:
    share = recipe.data.held_out
    for document in documents(recipe.data):
        if is_held_out(document.group, share) == held_out:
            yield document.text


def _corpora(recipe: Recipe, folder: Path, tokenizer: Any) -> tuple[Corpus, Corpus]:
    path = folder / "tokens"
    if not path.exists():
        part = path.with_name("tokens.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            write_corpus(part / "train", _texts(recipe, held_out=False), tokenizer)
            write_corpus(part / "held_out", _texts(recipe, held_out=True), tokenizer)
        except OSError as err:
            raise DataError(f"The tokens could not be written to {str(path)!r}: {err}") from err
        part.rename(path)
    return Corpus(path / "train"), Corpus(path / "held_out")


def _model(recipe: Recipe, tokenizer: Any) -> PreTrainedModel:
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


def _write_resolved(recipe: Recipe, folder: Path) -> None:
    """The recipe with every default filled in, and what it runs on."""
    content = {
        "recipe": json.loads(recipe.model_dump_json()),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("hanol", "torch", "transformers", "tokenizers")},
        },
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "command": " ".join(["hanol", *sys.argv[1:]]),
    }
    part = folder / "recipe.yaml.part"
    part.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    part.rename(folder / "recipe.yaml")


def _write_result(
    trainer: RecipeTrainer, recipe: Recipe, tokenizer: Any, result: TrainingResult, folder: Path
) -> None:
    if not math.isfinite(result.bits_per_byte):
        raise TrainingError("The held-out loss of the final weights is not finite.")
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if state is not None and any(hasattr(p, "placements") for p in model.parameters()):
        whole = models.build(model.config, seed=recipe.seed)
        whole.load_state_dict(state)
        model = whole
    if recipe.save_dtype == "bfloat16":
        model = models.cast(model, torch.bfloat16)
    models.save(model, folder / "final", tokenizer)
    part = folder / "result.json.part"
    part.write_text(result.model_dump_json(indent=2) + "\n", "utf-8")
    part.rename(folder / "result.json")
    plot_loss(folder)
