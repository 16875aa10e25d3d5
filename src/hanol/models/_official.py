"""Writing checkpoints: the official keys of `config.json`, and never a half-written folder."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hanol.errors import CheckpointError


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide the progress bars of transformers inside."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save(
    model: PreTrainedModel,
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Path:
    """Write a checkpoint folder that transformers and the official code read.

    Everything is written to a folder beside `path` and renamed when complete: a reader finds the
    old folder or the new one, never a part.

    Args:
        model: Any transformers model; Kimi-Linear models get the official names and config keys.
        path: Folder to write; an existing checkpoint there is replaced.
        tokenizer: Written with it.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    if path.exists() and not _replaceable(path):
        raise CheckpointError(
            f"{str(path)!r} exists and is not a checkpoint folder: it will not be replaced. "
            "Give another path."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            part = Path(folder) / "part"
            with no_progress_bars():
                model.save_pretrained(part)
            if tokenizer is not None:
                tokenizer.save_pretrained(part)
            if model.config.model_type == "kimi_linear":
                _complete_config(part / "config.json", model.config)
            _sync(part)
            replace_folder(part, path)
    except (OSError, SafetensorError) as err:
        # safetensors reports the system's error as text only.
        full = getattr(err, "errno", None) == errno.ENOSPC or "No space left" in str(err)
        reason = "the disk is full" if full else getattr(err, "strerror", None) or str(err)
        raise CheckpointError(
            f"The checkpoint could not be written to {str(path)!r}: {reason}. What was there is "
            "unchanged; free some space or give another path."
        ) from err
    return path


def replace_folder(new: Path, path: Path) -> None:
    """Put the folder `new` in the place of `path`, which may exist.

    When that fails, what was at `path` is put back.
    """
    if not path.exists():
        new.rename(path)
        return
    old = new.with_name(f"{new.name}-replaced")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _replaceable(path: Path) -> bool:
    return path.is_dir() and ((path / "config.json").exists() or not any(path.iterdir()))


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def _complete_config(file: Path, config: Any) -> None:
    """Add the keys that the official code needs and transformers leaves out."""
    stored = json.loads(file.read_text("utf-8"))
    kinds = list(enumerate(config.layer_types, start=1))
    stored["linear_attn_config"] = {
        "kda_layers": [n for n, kind in kinds if kind == "linear_attention"],
        "full_attn_layers": [n for n, kind in kinds if kind == "full_attention"],
        "head_dim": config.linear_head_dim,
        "num_heads": config.linear_num_heads,
        "short_conv_kernel_size": config.linear_conv_kernel_dim,
    }
    dense = [kind == "dense" for kind in config.mlp_layer_types]
    stored["first_k_dense_replace"] = dense.index(False) if False in dense else len(dense)
    stored["mla_use_nope"] = True
    stored["moe_layer_freq"] = 1
    stored["moe_router_activation_func"] = "sigmoid"
    stored["use_grouped_topk"] = True
    file.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n", "utf-8")
