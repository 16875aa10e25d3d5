"""Writing checkpoints with the official keys of `config.json`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hanol.errors import CheckpointError
from hanol.files import (
    read_json,
    whole_folder,
)
from hanol.models._presets import leading_dense, official_keys


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


@contextmanager
def no_warnings() -> Iterator[None]:
    """Hide the warnings of transformers inside, where an error of ours says the same."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def save(
    model: PreTrainedModel,
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Path:
    """Write a checkpoint folder that transformers and the official code read.

    It is written whole or not at all: a reader finds the old folder or the new one, never a part.

    Args:
        model: Any transformers model; Kimi-Linear models get the official names and config keys.
        path: Folder to write; an existing checkpoint there is replaced.
        tokenizer: Written with it.

    Raises:
        CheckpointError: `path` exists and is not a checkpoint folder.
        WriteError: The disk is full or the folder cannot be written.
    """
    with checkpoint_folder(path) as part, no_progress_bars():
        model.save_pretrained(part)
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        if model.config.model_type == "kimi_linear":
            _complete_config(part / "config.json", model.config)
    return Path(path)


@contextmanager
def checkpoint_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder to write a checkpoint to; it replaces `path` when the block ends.

    Raises:
        CheckpointError: `path` exists and is not a checkpoint folder.
        WriteError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    replaceable = path.is_dir() and ((path / "config.json").exists() or not any(path.iterdir()))
    if path.exists() and not replaceable:
        raise CheckpointError(
            f"{str(path)!r} exists and is not a checkpoint folder: it will not be replaced. "
            "Give another path."
        )
    with whole_folder(path) as part:
        yield part


def _complete_config(file: Path, config: Any) -> None:
    """Add the keys that the official code needs and transformers leaves out."""
    stored = read_json(file)
    stored |= official_keys(
        config.layer_types, leading_dense(config), config.linear_head_dim,
        config.linear_num_heads, config.linear_conv_kernel_dim,
    )  # fmt: skip
    file.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n", "utf-8")
