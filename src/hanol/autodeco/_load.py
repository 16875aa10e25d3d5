"""The parts that a wrapped model is put together from: its base and its heads, from files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    KimiLinearConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from hanol import attention, models
from hanol.autodeco import _formats as formats
from hanol.autodeco._config import AutoDecoConfig
from hanol.autodeco._heads import TemperatureHead, TopPHead
from hanol.errors import CheckpointError, ConfigError
from hanol.models import StoredTensor

_MERGED = rf"^{re.escape(formats.BASE_PREFIX)}"  # names of the base in the merged layout


class Options:
    """What `from_pretrained` was given, as far as it can be done; the rest is refused."""

    def __init__(
        self, values: dict[str, Any], dtype: torch.dtype | str | None, device: str | torch.device
    ) -> None:
        from_auto = "adapter_kwargs" in values  # which the Auto classes always pass
        for key in ("adapter_kwargs", "_from_auto", "_from_pipeline", "low_cpu_mem_usage"):
            values.pop(key, None)
        if values.pop("trust_remote_code", None):
            raise ConfigError("`trust_remote_code` is true, but code of a checkpoint is never run.")
        if values.pop("use_safetensors", None) is False:
            raise ConfigError("`use_safetensors` is false, but pickled weights are never read.")
        self.report = values.pop("output_loading_info", False)
        self.attention = values.pop("attn_implementation", None)
        self.hub = {
            key: values.pop(key)
            for key in ("cache_dir", "token", "local_files_only", "force_download")
            if key in values
        }
        if "torch_dtype" in values:
            dtype = values.pop("torch_dtype")
        # The Auto classes of transformers load a checkpoint in its own type by default.
        self._dtype = "auto" if dtype is None and from_auto else dtype
        self.device = str(_single_device(values.pop("device_map", None), device))
        if values:
            raise ConfigError(
                f"`from_pretrained` of an AutoDeco model does not take {sorted(values)}. Load the "
                "base as you like and pass it as `base_model`."
            )

    def dtype(self, stored: Any = None) -> torch.dtype | None:
        """The type to load the base in, given the one of its checkpoint; None is hanol's rule."""
        if self._dtype == "auto":
            return stored
        if isinstance(self._dtype, str):
            return models.dtype_named(self._dtype)
        return self._dtype


def _single_device(device_map: Any, device: str | torch.device) -> Any:
    if device_map is None:
        return device
    if isinstance(device_map, dict) and list(device_map) == [""]:
        device_map = device_map[""]
    try:
        return torch.device(device_map)
    except (RuntimeError, TypeError) as err:
        raise ConfigError(
            f"`device_map` is {device_map!r}, but only a single device can be given here. Load "
            "the base with your map and pass it as `base_model`."
        ) from err


def parts(
    folder: Path,
    config: PreTrainedConfig | None,
    where: str,
    base_model: str | Path | PreTrainedModel | None,
    options: Options,
) -> tuple[AutoDecoConfig, PreTrainedModel, TemperatureHead | None, TopPHead | None]:
    """What a model with heads is put together from, in any of the official layouts.

    Args:
        folder: The checkpoint.
        config: Its configuration, if it has been read already.
        where: What the user called it, for messages.
        base_model: Base to use instead of the one that the checkpoint holds or names.
        options: How to load the base.

    Raises:
        CheckpointError: Something is missing or does not fit.
    """
    config, heads = formats.read_checked(folder, where, config)
    if isinstance(base_model, PreTrainedModel):
        llm = base_model
    elif base_model is not None:
        llm = named_base(base_model, options)
    elif formats.is_merged(folder):
        llm = merged_base(folder, config, options)
    else:
        llm = base_of_heads(where, config, options)
    if options.attention is not None:
        llm.set_attn_implementation(options.attention)
    formats.check_heads(
        formats.shapes_of(heads),
        config,
        what=where,
        hidden=head_width(llm),
        vocab=llm.config.get_text_config().vocab_size,
    )
    config.attach(llm.config)
    temp_head, top_p_head = load_heads(heads, config, llm.device)
    config.enable_temperature_head = temp_head is not None
    config.enable_top_p_head = top_p_head is not None
    return config, llm, temp_head, top_p_head


def named_base(name: str | Path, options: Options) -> PreTrainedModel:
    """Load a base by its own name."""
    stored = models.load_config(name).get_text_config().dtype
    return models.load_model(name, dtype=options.dtype(stored), device=options.device)


def base_of_heads(where: str, config: AutoDecoConfig, options: Options) -> PreTrainedModel:
    """Load the base that heads name as theirs.

    Raises:
        CheckpointError: They name none, or it cannot be loaded.
    """
    if not config.base_model_name_or_path:
        raise CheckpointError(
            f"{where!r} holds heads only and does not name their base: pass `base_model`."
        )
    try:
        return named_base(config.base_model_name_or_path, options)
    except CheckpointError as err:
        raise CheckpointError(
            f"{where!r} holds heads only, and the base that it names could not be loaded: {err} "
            "If the base is somewhere else, pass `base_model`."
        ) from err


def merged_base(folder: Path, config: AutoDecoConfig, options: Options) -> PreTrainedModel:
    """Load the base out of a merged checkpoint.

    Raises:
        CheckpointError: The configuration or tensors of the base are incomplete.
    """
    base = config.base_config
    if base is None:
        raise CheckpointError(
            f"{str(folder / 'config.json')!r} has no keys of the base (`base_model_type`, "
            "`vocab_size`, ...), so the merged weights cannot be loaded. Pass `base_model`."
        )
    if isinstance(base, KimiLinearConfig):
        attention.check_config(base)
    attention.register()
    cpu = torch.float32 if options.device == "cpu" else None
    dtype: Any = options.dtype(base.dtype) or cpu or "auto"
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the heads are reported as unexpected
    try:
        with models.no_progress_bars():
            llm, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=base,
                dtype=dtype,
                key_mapping={_MERGED: ""},
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as err:
        cause = formats.first_line(err)
        raise CheckpointError(f"The base in {str(folder)!r} could not be loaded: {cause}") from err
    finally:
        logging.set_verbosity(verbosity)
    # transformers would put the prefix back when the base is saved, and `merge` a second one.
    llm._weight_conversions = [
        conversion
        for conversion in llm._weight_conversions
        if _MERGED not in conversion.source_patterns
    ]
    unexpected = sorted(key for key in report["unexpected_keys"] if "_head.mlp." not in key)
    for what, names in (("missing", sorted(report["missing_keys"])), ("unexpected", unexpected)):
        if names:
            raise CheckpointError(
                f"The base in {str(folder)!r} does not fit its config.json: {len(names)} tensors "
                f"are {what}, such as {formats.BASE_PREFIX}{names[0]}."
            )
    return llm.to(options.device).eval()


def head_width(model: PreTrainedModel) -> int:
    """Width of the hidden state that a model's output embedding reads.

    Raises:
        ConfigError: It has none, so it is no causal language model.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ConfigError(
            f"{type(model).__name__} has no output embedding: AutoDeco needs a causal language "
            "model, such as `AutoModelForCausalLM` loads."
        )
    return int(getattr(head, "in_features", None) or head.weight.shape[-1])


def load_heads(
    heads: Mapping[str, StoredTensor], config: AutoDecoConfig, device: torch.device
) -> tuple[TemperatureHead | None, TopPHead | None]:
    """Make the heads that a checkpoint holds and its configuration does not switch off."""
    shapes = formats.shapes_of(heads)

    def fill(head: Any, name: str) -> Any:
        tensors = {
            key.removeprefix(f"{name}."): stored.read()
            for key, stored in heads.items()
            if key.startswith(f"{name}.")
        }
        head.load_state_dict(tensors, assign=True)  # keeps their stored type
        return head.requires_grad_(True).to(device)

    temp_head = top_p_head = None
    if formats.has_head(shapes, "temp_head") and config.enable_temperature_head is not False:
        I, H = shapes["temp_head.mlp.0.weight"]  # noqa: E741
        with torch.device("meta"):  # loading draws no random numbers
            temp_head = TemperatureHead(H, I)
        temp_head = fill(temp_head, "temp_head")
    if formats.has_head(shapes, "top_p_head") and config.enable_top_p_head is not False:
        I, inputs = shapes["top_p_head.mlp.0.weight"]  # noqa: E741
        enhanced = formats.is_enhanced(shapes, config) is True
        with torch.device("meta"):
            top_p_head = TopPHead(inputs - (5 if enhanced else 1), enhanced, I)
        top_p_head = fill(top_p_head, "top_p_head")
    return temp_head, top_p_head
