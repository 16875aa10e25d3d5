"""Loading a model by its name: weights, configuration, tokenizer."""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    KimiLinearConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from hanol import attention  # each of its names loads what it needs
from hanol.errors import CheckpointError, ConfigError, HanolError
from hanol.models._adapter import Adapter, merge_into, read_adapter
from hanol.models._light import without_compiler
from hanol.models._official import no_progress_bars, no_warnings
from hanol.models._tensors import differences, weight_files
from hanol.models._tokenizers import bounded, check_files
from hanol.models.pulled._names import ADAPTER_CONFIG, resolve

_log = logging.getLogger(__name__)
# Layers and experts: each becomes an object, before anything is compared with the weights.
_COUNTS, _MOST_PARTS = re.compile(r"(layers?|experts)$"), 10_000
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]  # all but code and pickles


class Loaded(NamedTuple):
    """A model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def fetch(spec: str | Path, **hub: Any) -> Path:
    """The folder of a checkpoint; that of a hub id is fetched first.

    Args:
        spec: Bundled or pulled name, folder or hub id.
        hub: `revision`, `token` and other options of `huggingface_hub.snapshot_download`.

    Raises:
        CheckpointError: It is neither, or cannot be fetched; or it is an adapter, which has no
            weights of its own.
    """
    folder = _fetched(spec, **hub)
    if (folder / ADAPTER_CONFIG).exists():
        raise CheckpointError(
            f"{str(spec)!r} is a LoRA adapter, and a whole checkpoint is needed here: write one "
            f"with `hanol convert {spec} --output FOLDER`."
        )
    return folder


def _fetched(spec: str | Path, **hub: Any) -> Path:
    place = resolve(spec)
    if Path(place).is_dir():
        return Path(place)
    if Path(place).is_file():
        raise CheckpointError(
            f"{str(spec)!r} is a GGUF file, but a folder is needed here: write one with "
            f"`hanol convert {spec} --output FOLDER`."
        )
    try:
        return Path(snapshot_download(place, allow_patterns=_FILES, **hub))
    except (OSError, ValueError) as err:
        raise _unreadable("files", spec, err) from err


def adapter_of(spec: str | Path, *, revision: str | None = None) -> Adapter | None:
    """The LoRA adapter behind a name, or None where it is a whole checkpoint.

    Args:
        spec: A bundled name, a folder, or a hub id.
        revision: Commit or branch of a hub id.

    Raises:
        CheckpointError: The adapter cannot be read, or its base is not there or an adapter too.
    """
    place = resolve(spec)
    if Path(place).is_file():
        return None
    if not Path(place).is_dir():
        try:
            if _file(place, ADAPTER_CONFIG, revision) is None:
                return None
        except (OSError, ValueError):  # whoever loads the configuration says what is wrong
            return None
    adapter = read_adapter(_fetched(spec, revision=revision))
    if adapter is None:
        return None
    try:
        base = resolve(adapter.base)
    except CheckpointError as err:
        raise CheckpointError(
            f"{str(spec)!r} is an adapter of {adapter.base!r}, which is not here: {err}"
        ) from err
    if (Path(base) / ADAPTER_CONFIG).exists():
        raise CheckpointError(
            f"{str(spec)!r} is an adapter of {adapter.base!r}, which is an adapter too. Write that "
            f"as a whole checkpoint first: hanol convert {adapter.base} --output FOLDER"
        )
    return adapter


def load(
    spec: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    revision: str | None = None,
) -> Loaded:
    """Load a model and its tokenizer; Kimi-Linear models get hanol's layers.

    Args:
        spec: A bundled or pulled name ("tiny"), a folder, a GGUF file, or a hub id.
        dtype: Type of the parameters; None is float32 on CPU, else what the checkpoint has.
        device: Where the model goes.
        revision: Commit or branch of a hub id.

    Raises:
        CheckpointError: Nothing loadable is there; the message says what is missing.
        ConfigError: The device cannot be used.
    """
    return Loaded(
        load_model(spec, dtype=dtype, device=device, revision=revision),
        load_tokenizer(spec, revision=revision),
    )


def load_config(spec: str | Path, *, revision: str | None = None) -> PreTrainedConfig:
    """Load the configuration alone.

    Raises:
        CheckpointError: It is missing or cannot be read.
        ConfigError: A Kimi-Linear configuration contradicts itself.
    """
    if (adapter := adapter_of(spec, revision=revision)) is not None:
        return load_config(adapter.base, revision=adapter.revision)
    place = resolve(spec)
    stored = _stored_config(spec, revision)
    if stored.get("model_type") == "kimi_linear":
        with explained("configuration", spec):
            attention.check_config(stored)  # transformers' own words for such faults help nobody
    if stored.get("model_type") == "autodeco" and "autodeco" not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{str(spec)!r} has AutoDeco heads: load it with "
            "`hanol.autodeco.AutoDecoForCausalLM.from_pretrained`, or write with it by "
            "`hanol.engines.open_engine`."
        )
    with explained("configuration", spec):
        if Path(place).is_file():
            return AutoConfig.for_model(**stored)
        return AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)


def model_type(spec: str | Path, *, revision: str | None = None) -> str | None:
    """The `model_type` of a checkpoint's configuration (an adapter's base's), known or not.

    Raises:
        CheckpointError: The configuration is missing or cannot be read.
    """
    return _stored_config(spec, revision).get("model_type")


def _stored_config(spec: str | Path, revision: str | None) -> dict[str, Any]:
    """The content of config.json, of an adapter its base's; raises as `model_type` does."""
    if (adapter := adapter_of(spec, revision=revision)) is not None:
        spec, revision = adapter.base, adapter.revision
    place = resolve(spec)
    if Path(place).is_file():
        from hanol.models.gguf._read import gguf_config

        stored: dict[str, Any] = gguf_config(place)
    else:
        with explained("configuration", spec):
            stored = PreTrainedConfig.get_config_dict(place, revision=revision)[0]
    if not isinstance(stored, dict) or not isinstance(stored.get("model_type", ""), str):
        raise CheckpointError(
            f"The configuration of {str(spec)!r} is not an object with a string `model_type`."
        )
    for part in (stored, *(value for value in stored.values() if isinstance(value, dict))):
        for key, value in part.items():
            if _COUNTS.search(str(key)) and isinstance(value, int) and value > _MOST_PARTS:
                raise CheckpointError(
                    f"The configuration of {str(spec)!r} has `{key}`: {value:,}, and no model has "
                    f"more than {_MOST_PARTS:,}."
                )
    return stored


def load_model(
    spec: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    revision: str | None = None,
    model_class: Any = None,
    **options: Any,
) -> PreTrainedModel:
    """Load the model alone; see `load`. A LoRA adapter is merged into its base.

    `model_class` and `options` are those of `load_weights`.
    """
    if (adapter := adapter_of(spec, revision=revision)) is not None:
        base = load_model(adapter.base, dtype=dtype, device=device, revision=adapter.revision)
        return merge_into(base, adapter)
    place = resolve(spec)
    _check_device(device)
    if Path(place).is_dir():
        weight_files(Path(place))  # raises when there are none
    config = load_config(spec, revision=revision)
    try:
        options |= {"revision": revision}
        model, report = load_weights(place, config, dtype, device, model_class, **options)
    except CheckpointError:
        with explained("configuration", spec):
            _refuse_tensors(spec, place, config)
        raise
    if report["missing_keys"] or report["unexpected_keys"]:
        _refuse_tensors(spec, place, config, report["missing_keys"], report["unexpected_keys"])
    if device == "cpu" and model_class is None:
        attention.accelerate_decoding(model)
    _log.info("%s: %s", spec, "; ".join(map(str, attention.kernels(config, device))))
    return model


def load_weights(
    place: str | Path,
    config: PreTrainedConfig,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    model_class: Any = None,
    **options: Any,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load the tensors of a checkpoint into the model of a configuration.

    Args:
        place: Folder, GGUF file or hub id.
        config: The configuration.
        dtype: As in `load`.
        device: As in `load`.
        model_class: Class of transformers with `from_pretrained`, such as
            `AutoModelForTokenClassification`; None is a causal language model.
        options: Those of `from_pretrained`.

    Returns:
        The model, and what transformers reports of tensors that do not fit it.

    Raises:
        CheckpointError: The tensors cannot be read.
        ConfigError: A Kimi-Linear configuration contradicts itself.
    """
    wanted: Any = dtype or (torch.float32 if device == "cpu" else "auto")
    with explained("weights", place):
        if isinstance(config, KimiLinearConfig):
            attention.check_config(config)
        layers = attention.registered(config)
        with layers, without_compiler(), no_progress_bars(), no_warnings():
            if Path(place).is_file() and model_class is None:
                from hanol.models.gguf._read import load_gguf

                model, report = load_gguf(place, config, None if wanted == "auto" else wanted)
                return model.to(device).eval(), report
            model, report = (model_class or AutoModelForCausalLM).from_pretrained(
                place, config=config, dtype=wanted, use_safetensors=True, trust_remote_code=False,
                output_loading_info=True, **options,
            )  # fmt: skip
    return model.to(device).eval(), report


def load_tokenizer(
    spec: str | Path, *, base_model: str | Path | None = None, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone.

    A checkpoint of AutoDeco heads, or a LoRA adapter, without a tokenizer has that of its base.

    Args:
        spec: A bundled or pulled name, a folder, a GGUF file, or a hub id.
        base_model: Take the tokenizer of this base, in the place of the one that heads name.
        revision: Commit or branch of a hub id (not of the base).

    Raises:
        CheckpointError: There is none, or it has more tokens than the model's embedding.
    """
    if base_model is not None:
        return load_tokenizer(base_model)
    place, stored = resolve(spec), _stored_config(spec, revision)
    adapter = adapter_of(spec, revision=revision)
    has_heads = stored.get("model_type") == "autodeco"
    with explained("tokenizer", spec):
        if adapter is not None and not _has_tokenizer(place, revision):
            return load_tokenizer(adapter.base, revision=adapter.revision)
        if has_heads and not _has_tokenizer(place, revision):
            base = stored.get("base_model_name_or_path")
            if not base:
                raise CheckpointError(
                    f"{str(spec)!r} has no tokenizer and does not name its base: pass `base_model`."
                )
            if model_type(base) == "autodeco":  # it may even be the same folder
                raise CheckpointError(
                    f"{str(spec)!r} has no tokenizer, and its base {base!r} has heads itself: name "
                    "the model under it."
                )
            return load_tokenizer(base)
        if Path(place).is_file():
            from hanol.models.gguf._read import gguf_tokenizer

            tokenizer = gguf_tokenizer(place)
        else:
            if file := _file(place, "tokenizer.json", revision):
                check_files(file.parent, spec)
            tokenizer = AutoTokenizer.from_pretrained(
                place, revision=revision, trust_remote_code=False
            )
        if has_heads:  # their configuration is known to `hanol.autodeco` only
            rows = (stored.get("text_config") or stored).get("vocab_size", len(tokenizer))
        else:
            rows = load_config(spec, revision=revision).get_text_config().vocab_size
        tokenizer = bounded(tokenizer, spec)
        fits = len(tokenizer) <= rows
    if not fits:
        raise CheckpointError(
            f"The tokenizer of {str(spec)!r} has {len(tokenizer)} tokens, but the model's "
            f"embedding has {rows} rows: they do not belong together."
        )
    return tokenizer


def _has_tokenizer(place: str, revision: str | None) -> bool:
    names = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")
    return any(_file(place, name, revision) for name in names)


def _file(place: str, name: str, revision: str | None) -> Path | None:
    """A file of a folder or a hub repository, if it has it."""
    options: Any = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    found = cached_file(place, name, revision=revision, **options)
    return Path(found) if found else None


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
    if parts and (Path(place) / "modules.json").is_file():
        raise CheckpointError(
            f"{str(spec)!r} is an embedding model, which writes no text: use it with "
            f"`hanol index FOLDER --dense {spec}`."
        )
    if parts:
        raise CheckpointError(
            f"The tensors of {str(spec)!r} do not fit its configuration: {' and '.join(parts)}. "
            "The files are incomplete, or belong to another configuration."
        )


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except Exception as err:  # each backend has its own kind
        cause = str(err).partition("\n")[0]
        raise ConfigError(f"The device {device!r} cannot be used: {cause}") from err


@contextmanager
def explained(what: str, spec: str | Path) -> Iterator[None]:
    """Within the block, whatever a checkpoint makes the libraries raise is a `CheckpointError`."""
    try:
        yield
    except HanolError:
        raise
    except Exception as err:
        raise _unreadable(what, spec, err) from err
    except BaseException as err:
        if type(err).__name__ != "PanicException":  # of a library in Rust, for it knows no others
            raise
        raise _unreadable(what, spec, err) from err


def _unreadable(what: str, spec: str | Path, err: BaseException) -> CheckpointError:
    cause = " ".join(str(err).split("\n")[:2]).strip()
    if not cause or isinstance(err, TypeError | AttributeError | LookupError):
        cause = f"{type(err).__name__} {cause}".strip()
    return CheckpointError(f"The {what} of {str(spec)!r} could not be loaded: {cause}")
