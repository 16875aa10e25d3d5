"""The delta rule on a CPU: Kimi-Linear, Qwen3.5 and the other models of transformers that use it.

The operators (`chunk_kda`, `recurrent_kda`, `kda_gate`) and their definition in float64
(`reference_kda`), what puts them into transformers (`register`, `accelerate`), which models have
them (`FAMILY`, beside Kimi-Linear) and what computes each kind of layer (`kernels`), copies of a
cache (`snapshot`) and its layers, decoding of Llama and Qwen in kernels of whole layers
(`accelerate_decoding`) with weights of fewer bits (`pack`, of the `KINDS`), what a trainer calls
between steps (`qk_clip`, `update_router_bias`), and models to compare with: the gated delta net
hybrid (`GdnHybridForCausalLM`) and attention with a short convolution
(`ConvAttentionForCausalLM`).
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.attention._cache import CACHE_NAME, CacheSnapshot, KdaState, LatentLayer, snapshot
    from hanol.attention._config import check_config
    from hanol.attention._conv_attention import (
        ConvAttentionConfig,
        ConvAttentionForCausalLM,
        WindowedLayer,
    )
    from hanol.attention._family import FAMILY
    from hanol.attention._gdn import GdnHybridConfig, GdnHybridForCausalLM
    from hanol.attention._kernels import LayerKernel, kernels
    from hanol.attention._mla import qk_clip
    from hanol.attention._model import FLOAT32
    from hanol.attention._moe import update_router_bias
    from hanol.attention._register import (
        accelerate,
        correct_names,
        register,
        registered,
        unregister,
    )
    from hanol.attention.decode._decoder import accelerate_decoding, decode_step
    from hanol.attention.decode._growing import GrowingLayer
    from hanol.attention.decode._weights import KINDS, pack
    from hanol.attention.kda._gate import kda_gate
    from hanol.attention.kda._kda import chunk_kda, recurrent_kda
    from hanol.attention.kda._reference import reference_kda

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "CACHE_NAME",
    "FAMILY",
    "FLOAT32",
    "KINDS",
    "CacheSnapshot",
    "ConvAttentionConfig",
    "ConvAttentionForCausalLM",
    "GdnHybridConfig",
    "GdnHybridForCausalLM",
    "GrowingLayer",
    "KdaState",
    "LatentLayer",
    "LayerKernel",
    "WindowedLayer",
    "accelerate",
    "accelerate_decoding",
    "check_config",
    "chunk_kda",
    "correct_names",
    "decode_step",
    "kda_gate",
    "kernels",
    "pack",
    "qk_clip",
    "recurrent_kda",
    "reference_kda",
    "register",
    "registered",
    "snapshot",
    "unregister",
    "update_router_bias",
]
