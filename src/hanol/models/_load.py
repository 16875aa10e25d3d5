"""From a name to a model: a bundled one, a folder, or a hub id."""

import importlib.resources
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    KimiLinearConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hanol import attention
from hanol.errors import CheckpointError
from hanol.models._layout import differences
from hanol.models._official import no_progress_bars
from hanol.models._presets import preset_names


class Loaded(NamedTuple):
    """A model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def bundled_names() -> list[str]:
    """Models that are part of the package."""
    folder = importlib.resources.files("hanol.models") / "bundled"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def resolve(spec: str | Path) -> str:
    """The folder or hub id behind a name.

    Raises:
        CheckpointError: It is no bundled model, no checkpoint folder and no hub id owner/name.
    """
    text = str(spec)
    if text in bundled_names():
        return str(importlib.resources.files("hanol.models") / "bundled" / text)
    path = Path(text).expanduser()
    if path.is_dir():
        _check_folder(path)
        return str(path)
    if path.is_file():
        raise CheckpointError(f"{text!r} is a file, but a checkpoint is a folder with config.json.")
    looks_like_path = path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1
    if looks_like_path:
        raise CheckpointError(f"There is no folder {text!r}.")
    if "/" not in text:
        hint = (
            " It is a preset without weights: train it, or build it with `hanol.models.build`."
            if text in preset_names()
            else ""
        )
        raise CheckpointError(
            f"{text!r} is neither a bundled model ({', '.join(bundled_names()) or 'none'}), nor a "
            f"folder, nor a hub id of the form owner/name.{hint}"
        )
    return text


def load(
    spec: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    revision: str | None = None,
) -> Loaded:
    """Load a model and its tokenizer; Kimi-Linear models get hanol's layers.

    Args:
        spec: A bundled name ("tiny"), a folder, or a hub id.
        dtype: Type of the parameters; None is float32 on CPU, else what the checkpoint has.
        device: Where the model goes.
        revision: Commit or branch of a hub id.

    Raises:
        CheckpointError: Nothing loadable is there; the message says what is missing.
    """
    return Loaded(
        load_model(spec, dtype=dtype, device=device, revision=revision),
        load_tokenizer(spec, revision=revision),
    )


def load_config(spec: str | Path, *, revision: str | None = None) -> PreTrainedConfig:
    """Load the configuration alone.

    Raises:
        CheckpointError: It is missing or cannot be read.
    """
    place = resolve(spec)
    try:
        return AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as err:
        raise _unreadable("configuration", spec, err) from err


def model_type(spec: str | Path, *, revision: str | None = None) -> str | None:
    """The `model_type` of a checkpoint's configuration, known to transformers or not.

    Raises:
        CheckpointError: The configuration is missing or cannot be read.
    """
    place = resolve(spec)
    try:
        content, _ = PreTrainedConfig.get_config_dict(place, revision=revision)
    except (OSError, ValueError) as err:
        raise _unreadable("configuration", spec, err) from err
    found: str | None = content.get("model_type")
    return found


def load_model(
    spec: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    revision: str | None = None,
) -> PreTrainedModel:
    """Load the model alone; see `load`."""
    place = resolve(spec)
    if Path(place).is_dir() and not any(Path(place).glob("*.safetensors")):
        raise CheckpointError(f"{str(spec)!r} has no weights: no file there is a .safetensors.")
    config = load_config(spec, revision=revision)
    if isinstance(config, KimiLinearConfig):
        attention.check_config(config)
    attention.register()
    wanted: Any = dtype or (torch.float32 if device == "cpu" else "auto")
    try:
        with no_progress_bars():
            model, report = AutoModelForCausalLM.from_pretrained(
                place,
                config=config,
                dtype=wanted,
                revision=revision,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as err:
        _refuse_tensors(spec, place, config)
        raise _unreadable("weights", spec, err) from err
    if report["missing_keys"] or report["unexpected_keys"]:
        _refuse_tensors(spec, place, config, report["missing_keys"], report["unexpected_keys"])
    return model.to(device).eval()


def load_tokenizer(spec: str | Path, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone.

    Raises:
        CheckpointError: There is none, or it has more tokens than the model's embedding.
    """
    place = resolve(spec)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as err:
        raise _unreadable("tokenizer", spec, err) from err
    rows = load_config(spec, revision=revision).get_text_config().vocab_size
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"The tokenizer of {str(spec)!r} has {len(tokenizer)} tokens, but the model's "
            f"embedding has {rows} rows: they do not belong together."
        )
    return tokenizer


def _check_folder(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()}
    if "config.json" not in names:
        raise CheckpointError(
            f"{str(path)!r} has no config.json: it is not a checkpoint. "
            f"It holds {', '.join(sorted(names)[:5]) or 'nothing'}."
        )
    try:
        json.loads((path / "config.json").read_text("utf-8"))
    except ValueError as err:
        raise CheckpointError(f"{str(path / 'config.json')!r} is not JSON: {err}.") from err
    has_safe = any(name.endswith(".safetensors") for name in names)
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")))
    if pickled and not has_safe:
        raise CheckpointError(
            f"{str(path)!r} has only pickled weights ({pickled[0]}), which can run code when "
            "loaded. Convert them to safetensors first."
        )


def _refuse_tensors(
    spec: str | Path,
    place: str,
    config: PreTrainedConfig,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
) -> None:
    """Raise when tensors are missing or unexpected; in a Kimi-Linear folder by official name."""
    if Path(place).is_dir() and config.model_type == "kimi_linear":
        missing, unexpected = differences(config, Path(place))
    parts = []
    for what, names in (("missing", sorted(missing)), ("unexpected", sorted(unexpected))):
        if names:
            more = ", ..." if len(names) > 5 else ""
            parts.append(f"{len(names)} {what} ({', '.join(names[:5])}{more})")
    if parts:
        raise CheckpointError(
            f"The tensors of {str(spec)!r} do not fit its config.json: {' and '.join(parts)}. "
            "The files are incomplete, or belong to another configuration."
        )


def _unreadable(what: str, spec: str | Path, err: Exception) -> CheckpointError:
    text = str(err).strip()
    cause = text.splitlines()[0] if text else type(err).__name__
    return CheckpointError(f"The {what} of {str(spec)!r} could not be loaded: {cause}")
