"""LoRA adapters in the files of PEFT: what they say of their base, and merging into it.

Plain LoRA is merged here, W + B A alpha / r in float32, so that whoever uses an adapter needs no
extra; what PEFT has beyond that (DoRA, trained embeddings, Conv1D, ...) is left to PEFT.
"""

import math
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from hanol.errors import CheckpointError, require
from hanol.files import read_json
from hanol.models.pulled._names import ADAPTER_CONFIG

WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Keys of PEFT's configuration that do not change what a merged weight is.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "target_modules", "task_type", "use_rslora",
}  # fmt: skip
_PLAIN = {"bias": ("none",), "init_lora_weights": (True, False, "gaussian")}


class Adapter(NamedTuple):
    """An adapter folder.

    Attributes:
        folder: Where its files are.
        base: Bundled or pulled name, folder or hub id of the model that it was trained on.
        revision: Commit or branch of a base from the hub.
        config: The content of `adapter_config.json`.
    """

    folder: Path
    base: str
    revision: str | None
    config: dict[str, Any]

    @property
    def not_plain(self) -> list[str]:
        """Keys whose values make it something else than LoRA on linear layers."""
        if self.config.get("peft_type") != "LORA":
            return ["peft_type"]
        found = self.config.items()
        return sorted(
            key
            for key, value in found
            if key not in _HARMLESS and value and value not in _PLAIN.get(key, ())
        )


def read_adapter(folder: Path) -> Adapter | None:
    """The adapter that a folder holds, or None.

    Raises:
        CheckpointError: The configuration cannot be read or names no base, or there are no weights.
    """
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        return None
    try:
        config = read_json(file)
        base, revision = config["base_model_name_or_path"], config.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{str(file)!r} is not the configuration of an adapter.") from err
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise CheckpointError(
            f"{str(file)!r} does not name the adapter's base: set `base_model_name_or_path`."
        )
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{str(folder)!r} has an {ADAPTER_CONFIG}, but no {WEIGHTS}.")
    return Adapter(folder, base, revision, config)


def merge_into(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """Merge an adapter into the model that it was trained on, in place.

    Raises:
        CheckpointError: The adapter cannot be read, or does not fit the model.
        MissingExtraError: It is more than plain LoRA, and PEFT is not installed.
    """
    if adapter.not_plain:
        return _merged_by_peft(model, adapter)
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in read_tensors(adapter).items():
        if (match := _NAME.fullmatch(name)) is None:
            raise _misfit(adapter, f"it has a tensor `{name}`")
        pairs.setdefault(match[1], {})[match[2]] = tensor
    for name, pair in pairs.items():
        if pair.keys() != {"A", "B"}:
            raise _misfit(adapter, f"it has one half only for `{name}`")
        _add(model, name, pair["A"], pair["B"], adapter)
    return model.eval()


def read_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The tensors of an adapter, as they are stored.

    Raises:
        CheckpointError: The file is not readable.
    """
    file = adapter.folder / WEIGHTS
    try:
        return load_file(file)
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{str(file)!r} is not a readable safetensors file, or it is cut off: {err}."
        ) from err


@torch.no_grad()
def _add(
    model: PreTrainedModel, name: str, a_RI: torch.Tensor, b_OR: torch.Tensor, adapter: Adapter
) -> None:
    try:
        layer = model.get_submodule(name)
    except AttributeError as err:
        raise _misfit(adapter, f"the base has no layer `{name}`") from err
    weight = layer.weight if isinstance(layer, nn.Linear) else None
    alpha = adapter.config.get("lora_alpha", 8)
    shapes = [list(half.shape) for half in (b_OR, a_RI)]
    fits = a_RI.dim() == b_OR.dim() == 2 and 0 < a_RI.shape[0] == b_OR.shape[1]
    if weight is None or not fits or list(weight.shape) != [b_OR.shape[0], a_RI.shape[1]]:
        raise _misfit(adapter, f"its tensors of shapes {shapes} are not for a linear `{name}`")
    if not isinstance(alpha, int | float):
        raise _misfit(adapter, f"`lora_alpha` is {alpha!r:.40}")
    rank = a_RI.shape[0]
    delta_OI = b_OR.to(weight.device).float() @ a_RI.to(weight.device).float()
    delta_OI *= alpha / (math.sqrt(rank) if adapter.config.get("use_rslora") else rank)
    weight.copy_(weight.float() + delta_OI)  # rounded once


def _merged_by_peft(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    keys = ", ".join(f"`{key}`" for key in adapter.not_plain)
    feature = f"The adapter {str(adapter.folder)!r} is more than plain LoRA ({keys}) and"
    peft = require("peft", extra="lora", feature=feature)
    if adapter.config.get("megatron_config"):  # PEFT would import the module that a file names
        raise _misfit(adapter, "adapters of Megatron are not read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT 0.21 under transformers 5.24
            wrapped = peft.PeftModel.from_pretrained(model, adapter.folder)
            merged: PreTrainedModel = wrapped.merge_and_unload()
    except Exception as err:  # PEFT raises all kinds
        raise _misfit(adapter, " ".join(str(err).split())[:300]) from err
    return merged.eval()


def _misfit(adapter: Adapter, why: str) -> CheckpointError:
    return CheckpointError(
        f"The adapter {str(adapter.folder)!r} does not fit its base {adapter.base!r}: {why}."
    )
