"""What a checkpoint is, from its configuration and the headers of its files alone.

Symbols: H heads, K key width, R latent width, P shared key width.
"""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from transformers import AutoModelForCausalLM, PreTrainedConfig

from hanol import attention
from hanol.errors import CheckpointError
from hanol.models._load import load_config, resolve


class CacheSize(BaseModel):
    """Memory that one sequence takes while it is generated."""

    bytes_per_token: int = Field(description="Grows with every token.")
    fixed_bytes: int = Field(description="Does not grow: recurrent states and conv windows.")
    twin_bytes_per_token: int = Field(
        description="The same model with full attention in every layer."
    )


class ModelReport(BaseModel):
    """Size, layers, cache and layout of a model."""

    model: str
    model_type: str
    parameters: int
    active_parameters: int = Field(description="Used for one token: chosen experts only.")
    layers: dict[str, int] = Field(description="Number of layers of each kind.")
    vocab_size: int
    dtype: str
    cache: CacheSize
    official_layout: bool | None = Field(
        description="Whether the files hold the official tensors; None where there is nothing "
        "official to compare with."
    )
    missing: list[str] = Field(default=[], description="Official tensors that no file holds.")
    unexpected: list[str] = Field(default=[], description="Tensors that are not official.")


def inspect(spec: str | Path) -> ModelReport:
    """Describe a model without loading its weights.

    Args:
        spec: A bundled name, a preset's name, a folder, or a hub id.

    Raises:
        CheckpointError: Nothing readable is there.
    """
    from hanol.models._presets import preset, preset_names

    text = str(spec)
    place: str | None
    try:
        place = resolve(text)
        config = load_config(text)
    except CheckpointError:
        if text not in preset_names():
            raise
        place, config = None, preset(text)
    sizes = parameter_sizes(config)
    total = sum(sizes.values())
    dtype = config.dtype or torch.float32
    missing: list[str] = []
    unexpected: list[str] = []
    official = None
    headers = stored_shapes(Path(place)) if place is not None and Path(place).is_dir() else None
    if headers is not None and config.model_type == "kimi_linear":
        expected = official_shapes(config)
        missing = sorted(n for n, shape in expected.items() if headers.get(n) != shape)
        unexpected = sorted(set(headers) - set(expected))
        official = not missing and not unexpected
    return ModelReport(
        model=text,
        model_type=config.model_type,
        parameters=total,
        active_parameters=total - _idle_parameters(config, sizes),
        layers=_layers(config),
        vocab_size=config.vocab_size,
        dtype=str(dtype).removeprefix("torch."),
        cache=cache_size(config, dtype.itemsize),
        official_layout=official,
        missing=missing,
        unexpected=unexpected,
    )


def parameter_sizes(config: PreTrainedConfig) -> dict[str, int]:
    """Elements of each parameter; shared ones once."""
    attention.register()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def cache_size(config: PreTrainedConfig, itemsize: int) -> CacheSize:
    """Bytes of cache of one sequence.

    A latent attention layer keeps R + P numbers a token; a delta layer keeps H K^2 float32 numbers
    and the last 3 of its 3 H K projections whatever the length; ordinary attention keeps
    2 * key heads * head width numbers a token.
    """
    kinds = _layers(config)
    layers = sum(kinds.values())
    if config.model_type == "kimi_linear":
        token = (config.kv_lora_rank + config.qk_rope_head_dim) * itemsize
        H, K = config.linear_num_heads, config.linear_head_dim
        window = (config.linear_conv_kernel_dim - 1) * 3 * H * K * itemsize
        fixed = kinds.get("delta attention", 0) * (H * K * K * 4 + window)
        return CacheSize(
            bytes_per_token=kinds.get("latent attention", 0) * token,
            fixed_bytes=fixed,
            twin_bytes_per_token=layers * token,
        )
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token = 2 * (text.num_key_value_heads or text.num_attention_heads) * width * itemsize
    return CacheSize(
        bytes_per_token=layers * token, fixed_bytes=0, twin_bytes_per_token=layers * token
    )


def official_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an official Kimi-Linear checkpoint."""
    D, H, K = config.hidden_size, config.linear_num_heads, config.linear_head_dim
    heads, N, V = config.num_attention_heads, config.qk_nope_head_dim, config.v_head_dim
    P, R, E = config.qk_rope_head_dim, config.kv_lora_rank, config.num_local_experts
    wide, shared = config.moe_intermediate_size, config.n_shared_experts
    delta: dict[str, tuple[int, ...]] = {
        **{f"{x}_proj.weight": (H * K, D) for x in "qkv"},
        **{f"{x}_conv1d.weight": (H * K, 1, config.linear_conv_kernel_dim) for x in "qkv"},
        **{f"{x}_a_proj.weight": (K, D) for x in "fg"},
        **{f"{x}_b_proj.weight": (H * K, K) for x in "fg"},
        "A_log": (1, 1, H, 1),
        "dt_bias": (H * K,),
        "b_proj.weight": (H, D),
        "o_norm.weight": (K,),
        "o_proj.weight": (D, H * K),
    }
    latent: dict[str, tuple[int, ...]] = {
        "q_proj.weight": (heads * (N + P), D),
        "kv_a_proj_with_mqa.weight": (R + P, D),
        "kv_a_layernorm.weight": (R,),
        "kv_b_proj.weight": (heads * (N + V), R),
        "o_proj.weight": (D, heads * V),
    }

    def swiglu(width: int) -> dict[str, tuple[int, ...]]:
        return {
            "gate_proj.weight": (width, D),
            "up_proj.weight": (width, D),
            "down_proj.weight": (D, width),
        }

    names: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, D),
        "model.norm.weight": (D,),
    }
    if not config.tie_word_embeddings:
        names["lm_head.weight"] = (config.vocab_size, D)
    for i, (kind, mlp) in enumerate(zip(config.layer_types, config.mlp_layer_types, strict=True)):
        layer = f"model.layers.{i}"
        names[f"{layer}.input_layernorm.weight"] = (D,)
        names[f"{layer}.post_attention_layernorm.weight"] = (D,)
        mixer = latent if kind == "full_attention" else delta
        names |= {f"{layer}.self_attn.{n}": shape for n, shape in mixer.items()}
        if mlp == "dense":
            names |= {f"{layer}.mlp.{n}": s for n, s in swiglu(config.intermediate_size).items()}
            continue
        moe = f"{layer}.block_sparse_moe"
        names[f"{moe}.gate.weight"] = (E, D)
        names[f"{moe}.gate.e_score_correction_bias"] = (E,)
        names |= {f"{moe}.shared_experts.{n}": s for n, s in swiglu(wide * shared).items()}
        for e in range(E):
            names[f"{moe}.experts.{e}.w1.weight"] = (wide, D)
            names[f"{moe}.experts.{e}.w3.weight"] = (wide, D)
            names[f"{moe}.experts.{e}.w2.weight"] = (D, wide)
    return names


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a folder's safetensors files, from their headers.

    Raises:
        CheckpointError: A file is cut off or is no safetensors file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with file.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                if length > file.stat().st_size:
                    raise ValueError("the header is longer than the file")
                header = json.loads(stream.read(length))
        except (struct.error, ValueError) as err:
            raise CheckpointError(
                f"{str(file)!r} is not a readable safetensors file: {err}."
            ) from err
        header.pop("__metadata__", None)
        shapes |= {name: tuple(entry["shape"]) for name, entry in header.items()}
    return shapes


def _layers(config: PreTrainedConfig) -> dict[str, int]:
    names = {"full_attention": "full attention", "linear_attention": "linear attention"}
    if config.model_type == "kimi_linear":
        names = {"full_attention": "latent attention", "linear_attention": "delta attention"}
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    counts: dict[str, int] = {}
    for kind in kinds:
        name = names.get(kind, kind.replace("_", " "))
        counts[name] = counts.get(name, 0) + 1
    return counts


def _idle_parameters(config: PreTrainedConfig, sizes: dict[str, int]) -> int:
    """Parameters of the experts that a token does not choose."""
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    chosen = getattr(config, "num_experts_per_tok", None)
    if not experts or not chosen:
        return 0
    routed = sum(n for name, n in sizes.items() if ".experts." in name)
    return routed - routed * chosen // experts
