"""What a checkpoint is, from its configuration and the headers of its files alone.

Symbols: H heads, K key width, R latent width, P shared key width.
"""

import math
from collections import Counter
from pathlib import Path

import torch
from pydantic import BaseModel, Field
from transformers import KimiLinearConfig, PreTrainedConfig

from hanol import attention
from hanol.models._adapter import Adapter
from hanol.models._build import meta_model
from hanol.models._load import adapter_of, explained, load_config
from hanol.models._presets import preset, preset_names
from hanol.models._tensors import differences, stored_tensors
from hanol.models.gguf._header import read_header
from hanol.models.pulled._names import bundled_names, resolve


class CacheSize(BaseModel):
    """Memory that one sequence takes while it is generated."""

    bytes_per_token: int = Field(description="Grows with every token.")
    fixed_bytes: int = Field(description="Does not grow: recurrent states and conv windows.")
    twin_bytes_per_token: int = Field(description="The same with full attention in every layer.")


class AdapterReport(BaseModel):
    """A LoRA adapter over the model that is described."""

    base: str = Field(description="Name, folder or hub id of the base.")
    kind: str = Field(description="LORA, or another of PEFT's methods.")
    parameters: int
    rank: int | None = Field(description="None where layers have different ones.")
    layers: int = Field(description="Linear layers that are adapted.")
    num_bytes: int = Field(description="Size of the adapter's tensors.")


class ModelReport(BaseModel):
    """Size, layers, cache and layout of a model."""

    model: str
    model_type: str
    parameters: int
    active_parameters: int = Field(description="Used for one token: chosen experts only.")
    layers: dict[str, int] = Field(description="Number of layers of each kind.")
    kernels: list[str] = Field(description="What computes each kind of layer here, and why.")
    vocab_size: int
    dtype: str
    cache: CacheSize
    official_layout: bool | None = Field(
        description="Whether the files hold the official tensors; None where there is nothing "
        "official to compare with."
    )
    missing: list[str] = Field(default=[], description="Official tensors that no file holds.")
    unexpected: list[str] = Field(default=[], description="Tensors that are not official.")
    adapter: AdapterReport | None = Field(
        None, description="The adapter, if it is one; everything else is then its base's."
    )


def inspect(spec: str | Path) -> ModelReport:
    """Describe a model without loading its weights.

    Args:
        spec: A bundled or pulled name, a preset's name, a folder, a GGUF file, or a hub id.

    Raises:
        CheckpointError: Nothing readable is there: no configuration, or no weights.
    """
    text, place, adapter = str(spec), None, None
    if text in set(preset_names()) - set(bundled_names()) and not Path(text).is_dir():
        config = preset(text)
    else:
        adapter = adapter_of(text)
        place, config = resolve(adapter.base if adapter else text), load_config(text)
    with explained("configuration", text):
        sizes = parameter_sizes(config)
        total = sum(sizes.values())
        dtype = config.dtype or torch.float32
        stored_as, found = str(dtype).removeprefix("torch."), None
        if place is not None and Path(place).is_file():
            stored_as = read_header(place).stored_as
        if place is not None and Path(place).is_dir():
            if config.model_type == "kimi_linear":
                found = differences(config, Path(place))
            else:
                stored_tensors(Path(place))  # raises when none can be read
        missing, unexpected = found or ([], [])
        return ModelReport(
            model=text,
            model_type=config.model_type,
            parameters=total,
            active_parameters=total - _idle_parameters(config, sizes),
            layers=_layers(config),
            kernels=[str(one) for one in attention.kernels(config)],
            vocab_size=config.vocab_size,
            dtype=stored_as,
            cache=cache_size(config, dtype.itemsize),
            official_layout=None if found is None else found == ([], []),
            missing=missing,
            unexpected=unexpected,
            adapter=None if adapter is None else _adapter_report(adapter),
        )


def _adapter_report(adapter: Adapter) -> AdapterReport:
    tensors = stored_tensors(adapter.folder)
    ranks = {x.shape[0] for name, x in tensors.items() if ".lora_A." in name}
    return AdapterReport(
        base=adapter.base,
        kind=str(adapter.config.get("peft_type")),
        parameters=sum(math.prod(x.shape) for x in tensors.values()),
        rank=ranks.pop() if len(ranks) == 1 else None,
        layers=sum(".lora_A." in name for name in tensors),
        num_bytes=sum(x.num_bytes for x in tensors.values()),
    )


def parameter_sizes(config: PreTrainedConfig) -> dict[str, int]:
    """Elements of each parameter; shared ones once."""
    return {name: x.numel() for name, x in meta_model(config).named_parameters()}


def cache_size(config: PreTrainedConfig, itemsize: int) -> CacheSize:
    """Bytes of cache of one sequence.

    A latent attention layer keeps R + P numbers a token; a delta layer keeps its state, H K V
    float32 numbers, and the last projections before its convolution whatever the length; ordinary
    attention keeps 2 * key heads * head width numbers a token.
    """
    kinds = _layers(config)
    text = config.get_text_config()
    layers = sum(kinds.values())
    if isinstance(config, KimiLinearConfig):
        state, channels = _delta_sizes(text)
        kernel = text.linear_conv_kernel_dim - 1
        linear = kinds["delta attention"]
    else:
        linear = kinds["linear attention"]
        state, channels = _delta_sizes(text) if linear else (0, 0)
        kernel = getattr(text, "linear_conv_kernel_dim", 4)  # transformers keeps one more
    if getattr(text, "kv_lora_rank", None):
        token = (text.kv_lora_rank + text.qk_rope_head_dim) * itemsize
    else:
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        token = 2 * heads * width * itemsize
    fixed = linear * (state * 4 + kernel * channels * itemsize)
    growing = layers - linear
    return CacheSize(
        bytes_per_token=growing * token, fixed_bytes=fixed, twin_bytes_per_token=layers * token
    )


def _delta_sizes(text: PreTrainedConfig) -> tuple[int, int]:
    """Numbers of the state and channels of the convolution of a delta-rule layer."""
    if hasattr(text, "linear_num_value_heads"):
        H, key_heads = text.linear_num_value_heads, text.linear_num_key_heads
        K, V = text.linear_key_head_dim, text.linear_value_head_dim
    else:
        H = getattr(text, "linear_num_heads", text.num_attention_heads)
        key_heads, K = H, getattr(text, "linear_head_dim", None) or text.head_dim
        V = K
    return H * K * V, 2 * key_heads * K + H * V


def _layers(config: PreTrainedConfig) -> Counter[str]:
    names = {"full_attention": "full attention", "linear_attention": "linear attention"}
    if isinstance(config, KimiLinearConfig):
        names = {"full_attention": "latent attention", "linear_attention": "delta attention"}
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    return Counter(names.get(kind, kind.replace("_", " ")) for kind in kinds)


def _idle_parameters(config: PreTrainedConfig, sizes: dict[str, int]) -> int:
    """Parameters of the experts that a token does not choose."""
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    chosen = getattr(config, "num_experts_per_tok", None)
    if not experts or not chosen:
        return 0
    routed = sum(n for name, n in sizes.items() if ".experts." in name)
    return routed - routed * chosen // experts
