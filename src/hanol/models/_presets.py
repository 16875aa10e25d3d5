"""Named configurations: Kimi-Linear hybrids, their baselines of equal size, Llama 3, and Qwen3.

Source: arXiv 2510.26692 and the published config of Kimi-Linear-48B-A3B; arXiv 2407.21783, table 3;
arXiv 2505.09388, tables 1 and 2.
The sizes below 1 B are hanol's own, except the 30 M shape, which is the one of the benchmarks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import (
    KimiLinearConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from hanol.attention import GdnHybridConfig
from hanol.errors import UnknownNameError


def kimi_config(
    *,
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    head_dim: int,
    intermediate_size: int,
    kv_lora_rank: int,
    full_attention_every: int = 4,
    dense_layers: int | None = None,
    conv_kernel: int = 4,
    config_class: type[KimiLinearConfig] = KimiLinearConfig,
    **more: Any,
) -> KimiLinearConfig:
    """A Kimi-Linear configuration that carries every key of the official `config.json`.

    Args:
        vocab_size: Rows of the embedding.
        hidden_size: Width of the model.
        num_layers: Blocks.
        num_heads: Heads of the delta attention and of the latent attention.
        head_dim: Key and value width of a delta head; the latent attention has the same plus half
            of it as the shared part of the keys.
        intermediate_size: Width of the dense SwiGLU.
        kv_lora_rank: Latent width of the cache.
        full_attention_every: Every n-th layer, and the last, is latent attention; 1 makes all of
            them so, 0 none.
        dense_layers: Blocks with a dense SwiGLU before the experts begin; None is all.
        conv_kernel: Tokens that the short convolutions see.
        config_class: `KimiLinearConfig`, or the class of a baseline with the same keys.
        more: Any other key of the configuration.
    """
    every = full_attention_every
    kinds = [
        "full_attention" if every and (n % every == 0 or n == num_layers) else "linear_attention"
        for n in range(1, num_layers + 1)
    ]
    values: dict[str, Any] = {
        "qk_nope_head_dim": head_dim, "qk_rope_head_dim": head_dim // 2, "v_head_dim": head_dim,
        **official_keys(kinds, dense_layers, head_dim, num_heads, conv_kernel),
        "num_nextn_predict_layers": 0, "model_max_length": 8192,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    return config_class(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        kv_lora_rank=kv_lora_rank,
        **{**values, **more},
    )


def official_keys(
    kinds: list[str], dense_layers: int | None, head_dim: int, num_heads: int, conv_kernel: int
) -> dict[str, Any]:
    """What the official code reads of a Kimi-Linear `config.json`, and transformers leaves out."""
    layers = list(enumerate(kinds, start=1))
    return {
        "linear_attn_config": {
            "kda_layers": [n for n, kind in layers if kind == "linear_attention"],
            "full_attn_layers": [n for n, kind in layers if kind == "full_attention"],
            "head_dim": head_dim,
            "num_heads": num_heads,
            "short_conv_kernel_size": conv_kernel,
        },
        "first_k_dense_replace": len(kinds) if dense_layers is None else dense_layers,
        "mla_use_nope": True,
        "moe_layer_freq": 1,
        "moe_router_activation_func": "sigmoid",
        "use_grouped_topk": True,
    }


def leading_dense(config: KimiLinearConfig) -> int:
    """Layers before the first one with experts."""
    return [*config.mlp_layer_types, "sparse"].index("sparse")


def llama_config(
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
    intermediate_size: int,
    *,
    rope_factor: float | None = None,
    rope_theta: float = 500000.0,
    **more: Any,
) -> LlamaConfig:
    """A Llama 3 configuration; with `rope_factor`, slow rotations are slowed by it as in 3.1."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": rope_theta}
    if rope_factor is not None:
        rope |= {
            "rope_type": "llama3", "factor": rope_factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        }  # fmt: skip
    values: dict[str, Any] = {
        "max_position_embeddings": 8192 if rope_factor is None else 131072,
        "rope_parameters": rope, "rms_norm_eps": 1e-5,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    return LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        **{**values, **more},
    )


_3M: dict[str, Any] = {
    "hidden_size": 192, "num_layers": 6, "num_heads": 3, "head_dim": 64,
    "intermediate_size": 512, "kv_lora_rank": 64,
}  # fmt: skip
_30M: dict[str, Any] = {
    "hidden_size": 512, "num_layers": 8, "num_heads": 8, "head_dim": 64,
    "intermediate_size": 1408, "kv_lora_rank": 128,
}  # fmt: skip
_KIMI_350M = partial(
    kimi_config, hidden_size=1024, num_layers=20, num_heads=8, head_dim=128,
    intermediate_size=2816, kv_lora_rank=256, model_max_length=32768,
)  # fmt: skip
_KIMI_48B = partial(
    kimi_config, hidden_size=2304, num_layers=27, num_heads=32, head_dim=128,
    intermediate_size=9216, kv_lora_rank=512, dense_layers=1, moe_intermediate_size=1024,
    num_experts=256, num_experts_per_token=8, num_shared_experts=1, num_expert_group=1,
    topk_group=1, routed_scaling_factor=2.446, model_max_length=1048576, bos_token_id=163584,
    eos_token_id=163586, pad_token_id=163839, dtype="bfloat16",
)  # fmt: skip
# Begin of text, end of text, no padding token.
_LLAMA3: dict[str, Any] = {
    "bos_token_id": 128000, "eos_token_id": 128001, "pad_token_id": None, "dtype": "bfloat16",
}  # fmt: skip
_LLAMA31 = {**_LLAMA3, "rope_factor": 8.0}
_LLAMA32 = {**_LLAMA3, "rope_factor": 32.0, "tie_word_embeddings": True}
_QWEN3: dict[str, Any] = {
    "num_attention_heads": 32, "head_dim": 128, "rms_norm_eps": 1e-6, "dtype": "bfloat16",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "max_position_embeddings": 32768,
    "bos_token_id": 151643, "eos_token_id": 151643,  # chat models end at 151645
}  # fmt: skip
_QWEN3_4B = partial(
    Qwen3Config, hidden_size=2560, num_hidden_layers=36, num_key_value_heads=8,
    intermediate_size=9728, tie_word_embeddings=True, **_QWEN3,
)  # fmt: skip
_QWEN3_30B = partial(
    Qwen3MoeConfig, hidden_size=2048, num_hidden_layers=48, num_key_value_heads=4,
    intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
    norm_topk_prob=True, **_QWEN3,
)  # fmt: skip

# name -> (default vocabulary, configuration of a vocabulary size)
_PRESETS: dict[str, tuple[int, Callable[..., PreTrainedConfig]]] = {
    "tiny": (2048, partial(kimi_config, **_3M)),
    "kimi-linear-3m": (4096, partial(kimi_config, **_3M)),
    "kimi-linear-30m": (4096, partial(kimi_config, **_30M)),
    "kimi-linear-350m": (32768, _KIMI_350M),
    "kimi-linear-48b-a3b": (163840, _KIMI_48B),
    "gdn-hybrid-3m": (4096, partial(kimi_config, config_class=GdnHybridConfig, **_3M)),
    "gdn-hybrid-30m": (4096, partial(kimi_config, config_class=GdnHybridConfig, **_30M)),
    "mla-3m": (4096, partial(kimi_config, full_attention_every=1, **_3M)),
    "mla-30m": (4096, partial(kimi_config, full_attention_every=1, **_30M)),
    # For the problems of `hanol.worlds`: the largest has 14 times the blocks of the smallest.
    "world-small": (320, partial(llama_config, 72, 4, 4, 4, 192, tie_word_embeddings=True)),
    "world-medium": (320, partial(llama_config, 128, 5, 4, 4, 344, tie_word_embeddings=True)),
    "world-large": (320, partial(llama_config, 240, 5, 6, 6, 672, tie_word_embeddings=True)),
    "llama-3m": (4096, partial(llama_config, 192, 6, 3, 3, 576)),
    "llama-30m": (4096, partial(llama_config, 512, 8, 8, 8, 1536)),
    "llama-350m": (32768, partial(llama_config, 1024, 22, 16, 8, 3072)),
    "llama-3.2-1b": (128256, partial(llama_config, 2048, 16, 32, 8, 8192, **_LLAMA32)),
    "llama-3.2-3b": (128256, partial(llama_config, 3072, 28, 24, 8, 8192, **_LLAMA32)),
    "llama-3-8b": (128256, partial(llama_config, 4096, 32, 32, 8, 14336, **_LLAMA3)),
    "llama-3.1-8b": (128256, partial(llama_config, 4096, 32, 32, 8, 14336, **_LLAMA31)),
    "llama-3-70b": (128256, partial(llama_config, 8192, 80, 64, 8, 28672, **_LLAMA3)),
    "llama-3.1-70b": (128256, partial(llama_config, 8192, 80, 64, 8, 28672, **_LLAMA31)),
    "llama-3.3-70b": (128256, partial(llama_config, 8192, 80, 64, 8, 28672, **_LLAMA31)),
    "llama-3.1-405b": (128256, partial(llama_config, 16384, 126, 128, 8, 53248, **_LLAMA31)),
    "qwen3-4b": (151936, _QWEN3_4B),
    "qwen3-30b-a3b": (151936, _QWEN3_30B),
}


def preset_names() -> list[str]:
    """All names that `preset` knows."""
    return sorted(_PRESETS)


def preset(name: str, *, vocab_size: int | None = None) -> PreTrainedConfig:
    """The configuration behind a name.

    Args:
        name: One of `preset_names()`.
        vocab_size: Rows of the embedding instead of the preset's own number.

    Raises:
        UnknownNameError: There is no such preset.
    """
    if name not in _PRESETS:
        raise UnknownNameError("preset", name, _PRESETS)
    default, make = _PRESETS[name]
    return make(vocab_size=default if vocab_size is None else vocab_size)
