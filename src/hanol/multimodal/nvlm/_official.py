"""NVLM-D-72B's layout: names, fused and padded heads of its vision tower, two configurations.

Source: the files of nvidia/NVLM-D-72B. Its code is never run.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING, InternVLVisionConfig, PreTrainedConfig

from hanol import models
from hanol.errors import CheckpointError
from hanol.multimodal.nvlm._config import NvlmConfig

_HUB = ("cache_dir", "token", "local_files_only", "force_download", "revision")
_EMBEDDINGS = {
    "vision_model.embeddings.class_embedding": "cls_token",
    "vision_model.embeddings.position_embedding": "position_embeddings",
    "vision_model.embeddings.patch_embedding.weight": "patch_embeddings.projection.weight",
    "vision_model.embeddings.patch_embedding.bias": "patch_embeddings.projection.bias",
}
_LAYER = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "attn.proj.": "attention.projection_layer.",
    "attn.q_norm.": "attention.q_norm.",
    "attn.k_norm.": "attention.k_norm.",
    "mlp.": "mlp.",
}
# The class of the language model says what it is; `model_type` reads "llama" in some copies.
_LANGUAGES = {"Qwen2ForCausalLM": "qwen2", "LlamaForCausalLM": "llama"}


def is_official(name: Any, options: dict[str, Any]) -> bool:
    """Whether a folder or a hub id holds a model in this layout."""
    if options.get("config") is not None:
        return False
    hub = {key: options[key] for key in _HUB if key in options}
    try:
        stored = PreTrainedConfig.get_config_dict(models.resolve(name), **hub)[0]
    except (OSError, ValueError):  # transformers says what is wrong
        return False
    return "NVLM_D" in (stored.get("architectures") or ()) or stored.get("model_type") == "NVLM_D"


def load_official(name: Any, options: dict[str, Any]) -> tuple[NvlmConfig, Callable[[Any], None]]:
    """The configuration, and what puts the tensors into a model of it."""
    hub = {key: options[key] for key in _HUB if key in options}
    folder = models.fetch(name, **hub)
    config = official_config(PreTrainedConfig.get_config_dict(folder)[0])
    return config, lambda model: _fill(model, folder)


def official_config(stored: dict[str, Any]) -> NvlmConfig:
    """Our configuration for an official one.

    Raises:
        CheckpointError: Its parts are missing, or its language model is of an unknown class.
    """
    try:
        language, tower = dict(stored["llm_config"]), dict(stored["vision_config"])
        architecture = (language.get("architectures") or ["Qwen2ForCausalLM"])[0]
        size, patch = int(stored["force_image_size"]), int(tower["patch_size"])
    except (KeyError, TypeError, ValueError) as err:
        raise CheckpointError(f"The config.json of an NVLM-D model lacks {err}.") from err
    if architecture not in _LANGUAGES:
        raise CheckpointError(
            f"The language model of this NVLM-D model is a {architecture}; known are "
            f"{', '.join(_LANGUAGES)}."
        )
    language.pop("model_type", None)
    text = CONFIG_MAPPING[_LANGUAGES[architecture]](**language)
    vision = InternVLVisionConfig(
        hidden_size=tower["hidden_size"],
        num_hidden_layers=tower["num_hidden_layers"],
        num_attention_heads=tower["num_attention_heads"],
        intermediate_size=tower["intermediate_size"],
        attention_bias=tower.get("qkv_bias", False),
        use_qk_norm=tower.get("qk_normalization", True),
        norm_type=tower.get("norm_type", "rms_norm"),
        layer_norm_eps=tower.get("layer_norm_eps", 1e-6),
        image_size=[size, size],
        patch_size=[patch, patch],
    )
    shrink = float(stored.get("downsample_ratio", 0.5))
    return NvlmConfig(
        text_config=text,
        vision_config=vision,
        kind="d",
        tile_size=size,
        max_tiles=int(stored.get("max_dynamic_patch", 6)),
        vision_tokens=(size // patch) ** 2,
        vision_prefix=1,
        vision_width=tower["hidden_size"],
        downsample=round(1 / shrink),
        # The class default of the published code is version 1.
        ps_version=int(str(stored.get("ps_version", "v1")).lower().removeprefix("v")),
        image_token_id=stored.get("image_token_id"),
        tie_word_embeddings=bool(language.get("tie_word_embeddings", False)),
    )


def _fill(model: Any, folder: Path) -> None:
    """Copy the tensors of a folder into a model, one after another."""
    own = dict(model.named_parameters())
    missing, unexpected = set(own), list[str]()
    for name, tensor in _renamed(model.config.vision_config, folder):
        if name not in own:
            unexpected.append(name)
            continue
        if own[name].shape != tensor.shape:
            raise CheckpointError(
                f"The tensor {name!r} has the shape {tuple(tensor.shape)}, but the configuration "
                f"asks for {tuple(own[name].shape)}."
            )
        with torch.no_grad():
            own[name].copy_(tensor)
        missing.discard(name)
    if model.config.text_config.tie_word_embeddings:
        missing.discard("language_model.lm_head.weight")
    if missing or unexpected:
        parts = [
            f"{len(names)} {what} ({', '.join(sorted(names)[:5])})"
            for what, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise CheckpointError(
            f"The tensors of {str(folder)!r} do not fit NVLM-D's layout: {' and '.join(parts)}."
        )


def _renamed(tower: Any, folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Tensors of all files under the names that transformers' parts have."""
    for file in models.weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                yield from _own_tensors(name, opened.get_tensor(name), tower)


def _own_tensors(name: str, tensor: Tensor, tower: Any) -> Iterator[tuple[str, Tensor]]:
    """A tensor of the official tower as ours: heads apart, and without those that fill up.

    25 heads are padded to 32, so that eight devices share them; the norms look at the first 25
    alone, and the others give nothing.
    """
    if not name.startswith("vision_model."):
        yield name, tensor
        return
    if name in _EMBEDDINGS:
        yield f"vision_model.embeddings.{_EMBEDDINGS[name]}", tensor
        return
    head, _, rest = name.partition("encoder.layers.")
    layer, _, part = rest.partition(".")
    to, width = f"{head}encoder.layer.{layer}.", tower.hidden_size
    if part.startswith("attn.qkv."):
        for which, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{to}attention.{which}_proj.{part.rpartition('.')[2]}", rows[:width]
        return
    if part == "attn.proj.weight":
        tensor = tensor[:, :width]
    elif part in ("attn.q_norm.weight", "attn.k_norm.weight"):
        tensor = tensor[:width]
    for old, new in _LAYER.items():
        if part.startswith(old):
            yield to + new + part.removeprefix(old), tensor
            return
    yield name, tensor
