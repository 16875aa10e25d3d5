"""Loading of a model with heads: what `from_pretrained` takes, and the base."""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hanol import models
from hanol.autodeco._config import AutoDecoConfig
from hanol.autodeco._formats import BASE_PREFIX, StoredHeads
from hanol.errors import CheckpointError, ConfigError

_MERGED = rf"^{re.escape(BASE_PREFIX)}"  # names of the base in the merged layout


class Options:
    """The options of `from_pretrained`; those that cannot be met are refused."""

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
        dtype = values.pop("torch_dtype", dtype)
        # The Auto classes of transformers load a checkpoint in its own type by default.
        self._dtype = "auto" if dtype is None and from_auto else dtype
        device_map = values.pop("device_map", None)
        if isinstance(device_map, dict) and list(device_map) == [""]:
            device_map = device_map[""]
        try:
            self.device = str(torch.device(device if device_map is None else device_map))
        except (RuntimeError, TypeError) as err:
            raise ConfigError(
                f"`device_map` is {device_map!r}, but only a single device can be given here. Load "
                "the base with your map and pass it as `base_model`."
            ) from err
        if values:
            raise ConfigError(
                f"`from_pretrained` of an AutoDeco model does not take {sorted(values)}. Load the "
                "base as you like and pass it as `base_model`."
            )

    def dtype(self, stored: Any) -> torch.dtype | None:
        """The type to load the base in, given the one of its checkpoint; None is hanol's rule."""
        if self._dtype == "auto":
            return stored
        if isinstance(self._dtype, str):
            return models.dtype_named(self._dtype)
        return self._dtype


def load_base(
    heads: StoredHeads,
    folder: Path,
    base_model: str | Path | PreTrainedModel | None,
    options: Options,
) -> PreTrainedModel:
    """The base of heads: the given one, that of the merged checkpoint, or the one they name."""
    if isinstance(base_model, PreTrainedModel):
        llm = base_model
    elif base_model is not None:
        llm = _named_base(base_model, options)
    elif heads.layout == "merged":
        llm = _merged_base(folder, heads.config, options)
    elif name := heads.config.base_model_name_or_path:
        try:
            llm = _named_base(name, options)
        except CheckpointError as err:
            raise CheckpointError(
                f"{heads.what!r} holds heads only, and the base that it names could not be "
                f"loaded: {err} If the base is somewhere else, pass `base_model`."
            ) from err
    else:
        raise CheckpointError(
            f"{heads.what!r} holds heads only and does not name their base: pass `base_model`."
        )
    if options.attention is not None:
        llm.set_attn_implementation(options.attention)
    heads.check(head_width(llm), vocab_size(llm))
    return llm


def _named_base(name: str | Path, options: Options) -> PreTrainedModel:
    if models.model_type(name) == AutoDecoConfig.model_type:  # it may even be the same folder
        raise CheckpointError(f"{str(name)!r} has heads itself: name the model under it.")
    stored = models.load_config(name).get_text_config().dtype
    return models.load_model(name, dtype=options.dtype(stored), device=options.device)


def _merged_base(folder: Path, config: AutoDecoConfig, options: Options) -> PreTrainedModel:
    base = config.base_config
    if base is None:
        raise CheckpointError(
            f"{str(folder / 'config.json')!r} has no keys of the base (`base_model_type`, "
            "`vocab_size`, ...), so the merged weights cannot be loaded. Pass `base_model`."
        )
    dtype = options.dtype(base.dtype)
    renamed = {_MERGED: ""}
    llm, report = models.load_weights(folder, base, dtype, options.device, key_mapping=renamed)
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
                f"are {what}, such as {BASE_PREFIX}{names[0]}."
            )
    return llm


def head_width(model: PreTrainedModel) -> int:
    """Width of the hidden state that a model's output embedding reads."""
    head = model.get_output_embeddings()
    if head is None:
        raise ConfigError(
            f"{type(model).__name__} has no output embedding: AutoDeco needs a causal language "
            "model, such as `AutoModelForCausalLM` loads."
        )
    return int(getattr(head, "in_features", None) or head.weight.shape[-1])


def vocab_size(model: PreTrainedModel) -> int:
    """Tokens that a model gives logits for, as its configuration says."""
    return int(model.config.get_text_config().vocab_size)
