"""Named configurations: Kimi-Linear hybrids, their baselines of equal size, Llama 3, and Qwen3.

Source: arXiv 2510.26692 and the published config of Kimi-Linear-48B-A3B; arXiv 2407.21783, table 3;
arXiv 2505.09388, tables 1 and 2.
The sizes below 1 B are hanol's own, except the 30 M shape, which is the one of the benchmarks.
"""

from collections.abc import Callable
from typing import Any

from transformers import (
    KimiLinearConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from hanol.attention import GdnHybridConfig
from hanol.errors import ConfigError, UnknownNameError

_Maker = Callable[[int], PreTrainedConfig]


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
        more: Any other key of the configuration.
    """
    layers = range(1, num_layers + 1)
    full = [
        n
        for n in layers
        if full_attention_every and (n % full_attention_every == 0 or n == num_layers)
    ]
    values: dict[str, Any] = {
        "qk_nope_head_dim": head_dim,
        "qk_rope_head_dim": head_dim // 2,
        "v_head_dim": head_dim,
        "linear_attn_config": {
            "kda_layers": [n for n in layers if n not in full],
            "full_attn_layers": full,
            "head_dim": head_dim,
            "num_heads": num_heads,
            "short_conv_kernel_size": conv_kernel,
        },
        "first_k_dense_replace": num_layers if dense_layers is None else dense_layers,
        "mla_use_nope": True,
        "moe_layer_freq": 1,
        "moe_router_activation_func": "sigmoid",
        "use_grouped_topk": True,
        "num_nextn_predict_layers": 0,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "model_max_length": 8192,
    }
    return KimiLinearConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        kv_lora_rank=kv_lora_rank,
        **{**values, **more},
    )


def _kimi_3m(vocab_size: int, every: int) -> PreTrainedConfig:
    return kimi_config(
        vocab_size=vocab_size, hidden_size=192, num_layers=6, num_heads=3, head_dim=64,
        intermediate_size=512, kv_lora_rank=64, full_attention_every=every,
    )  # fmt: skip


def _kimi_30m(vocab_size: int, every: int) -> PreTrainedConfig:
    return kimi_config(
        vocab_size=vocab_size, hidden_size=512, num_layers=8, num_heads=8, head_dim=64,
        intermediate_size=1408, kv_lora_rank=128, full_attention_every=every,
    )  # fmt: skip


def _gdn(config: PreTrainedConfig) -> PreTrainedConfig:
    """The gated delta net hybrid of the same sizes."""
    values = config.to_dict()
    for key in ("model_type", "architectures", "transformers_version"):
        values.pop(key, None)
    return GdnHybridConfig(**values)


def _kimi_350m(vocab_size: int) -> PreTrainedConfig:
    return kimi_config(
        vocab_size=vocab_size, hidden_size=1024, num_layers=20, num_heads=8, head_dim=128,
        intermediate_size=2816, kv_lora_rank=256, model_max_length=32768,
    )  # fmt: skip


def _kimi_48b(vocab_size: int) -> PreTrainedConfig:
    return kimi_config(
        vocab_size=vocab_size, hidden_size=2304, num_layers=27, num_heads=32, head_dim=128,
        intermediate_size=9216, kv_lora_rank=512, dense_layers=1, moe_intermediate_size=1024,
        num_experts=256, num_experts_per_token=8, num_shared_experts=1, num_expert_group=1,
        topk_group=1, routed_scaling_factor=2.446, model_max_length=1048576,
        bos_token_id=163584, eos_token_id=163586, pad_token_id=163839, dtype="bfloat16",
    )  # fmt: skip


def _llama(
    vocab_size: int,
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
    intermediate_size: int,
    *,
    tied: bool = False,
    rope_factor: float | None = None,
    context: int = 8192,
    ids: tuple[int, int, int | None] = (0, 1, 2),
    dtype: str | None = None,
) -> PreTrainedConfig:
    if heads % kv_heads:
        raise ConfigError(f"{kv_heads} key heads do not divide {heads} attention heads.")
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 500000.0}
    if rope_factor is not None:
        rope = {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    bos, eos, pad = ids
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=1e-5,
        max_position_embeddings=context,
        rope_parameters=rope,
        tie_word_embeddings=tied,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype=dtype,
    )


_SMALL_VOCAB = 4096


def _llama3(*shape: int, tied: bool = False, rope_factor: float | None = None) -> _Maker:
    """A published Llama 3: layers and widths as `_llama` takes them; 128k context when scaled."""
    return lambda vocab_size: _llama(
        vocab_size,
        *shape,
        tied=tied,
        rope_factor=rope_factor,
        context=8192 if rope_factor is None else 131072,
        ids=(128000, 128001, None),  # begin of text, end of text, no padding token
        dtype="bfloat16",
    )


_QWEN3: dict[str, Any] = {
    "num_attention_heads": 32,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "max_position_embeddings": 32768,
    "bos_token_id": 151643,
    "eos_token_id": 151643,  # chat models end at 151645
    "dtype": "bfloat16",
}


def _qwen3_4b(vocab_size: int) -> PreTrainedConfig:
    return Qwen3Config(
        vocab_size=vocab_size, hidden_size=2560, num_hidden_layers=36, num_key_value_heads=8,
        intermediate_size=9728, tie_word_embeddings=True, **_QWEN3,
    )  # fmt: skip


def _qwen3_30b(vocab_size: int) -> PreTrainedConfig:
    return Qwen3MoeConfig(
        vocab_size=vocab_size, hidden_size=2048, num_hidden_layers=48, num_key_value_heads=4,
        intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
        norm_topk_prob=True, **_QWEN3,
    )  # fmt: skip


# name -> (default vocabulary, configuration of a vocabulary size)
_PRESETS: dict[str, tuple[int, _Maker]] = {
    "tiny": (2048, lambda v: _kimi_3m(v, 4)),
    "kimi-linear-3m": (_SMALL_VOCAB, lambda v: _kimi_3m(v, 4)),
    "kimi-linear-30m": (_SMALL_VOCAB, lambda v: _kimi_30m(v, 4)),
    "kimi-linear-350m": (32768, _kimi_350m),
    "kimi-linear-48b-a3b": (163840, _kimi_48b),
    "gdn-hybrid-3m": (_SMALL_VOCAB, lambda v: _gdn(_kimi_3m(v, 4))),
    "gdn-hybrid-30m": (_SMALL_VOCAB, lambda v: _gdn(_kimi_30m(v, 4))),
    "mla-3m": (_SMALL_VOCAB, lambda v: _kimi_3m(v, 1)),
    "mla-30m": (_SMALL_VOCAB, lambda v: _kimi_30m(v, 1)),
    "llama-3m": (_SMALL_VOCAB, lambda v: _llama(v, 192, 6, 3, 3, 576)),
    "llama-30m": (_SMALL_VOCAB, lambda v: _llama(v, 512, 8, 8, 8, 1536)),
    "llama-350m": (32768, lambda v: _llama(v, 1024, 22, 16, 8, 3072)),
    "llama-3.2-1b": (128256, _llama3(2048, 16, 32, 8, 8192, tied=True, rope_factor=32.0)),
    "llama-3.2-3b": (128256, _llama3(3072, 28, 24, 8, 8192, tied=True, rope_factor=32.0)),
    "llama-3-8b": (128256, _llama3(4096, 32, 32, 8, 14336)),
    "llama-3.1-8b": (128256, _llama3(4096, 32, 32, 8, 14336, rope_factor=8.0)),
    "llama-3-70b": (128256, _llama3(8192, 80, 64, 8, 28672)),
    "llama-3.1-70b": (128256, _llama3(8192, 80, 64, 8, 28672, rope_factor=8.0)),
    "llama-3.3-70b": (128256, _llama3(8192, 80, 64, 8, 28672, rope_factor=8.0)),
    "llama-3.1-405b": (128256, _llama3(16384, 126, 128, 8, 53248, rope_factor=8.0)),
    "qwen3-4b": (151936, _qwen3_4b),
    "qwen3-30b-a3b": (151936, _qwen3_30b),
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
    return make(default if vocab_size is None else vocab_size)
