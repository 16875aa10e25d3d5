"""Tiny random models, and heads written the way the official checkpoints are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import (
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from hanol import models
from hanol.autodeco import AutoDecoForCausalLM

VOCAB, WIDTH = 260, 32


def build(name: str, **changes: Any) -> PreTrainedModel:
    """A base with random weights, large enough that its distributions differ between tokens."""
    common: dict[str, Any] = {
        "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 257,
        "pad_token_id": 258,
    }  # fmt: skip
    if name == "llama":
        config: Any = LlamaConfig(**common | changes)
    elif name == "tied":
        config = LlamaConfig(**common | {"tie_word_embeddings": True} | changes)
    elif name == "qwen3":
        config = Qwen3Config(**common | {"head_dim": 16, "bos_token_id": None} | changes)
    elif name == "kimi":
        config = models.kimi_config(
            vocab_size=VOCAB, hidden_size=WIDTH, num_layers=4, num_heads=2, head_dim=16,
            intermediate_size=48, kv_lora_rank=16, dense_layers=1, moe_intermediate_size=24,
            num_experts=8, num_experts_per_token=2, num_shared_experts=1, num_expert_group=2,
            topk_group=1, model_max_length=256, **changes,
        )  # fmt: skip
    else:
        raise AssertionError(name)
    model = models.build(config, seed=5).eval()
    model.generation_config.update(eos_token_id=257, pad_token_id=258)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head += 0.2 * torch.randn(head.shape, generator=generator)
    return model


NAMES = ["llama", "tied", "qwen3", "kimi"]


@pytest.fixture(params=NAMES)
def base(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param)


def official_tensors(
    seed: int = 0, *, enhanced: bool = True, width: int = WIDTH, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """The eight tensors of an official heads-only file; weights that make T and P vary."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.1, around: float = 0.0) -> torch.Tensor:
        return (around + scale * torch.randn(shape, generator=generator)).to(dtype)

    inputs = width + (5 if enhanced else 1)
    return {
        "temp_head.mlp.0.weight": draw(256, width),
        "temp_head.mlp.0.bias": draw(256),
        "temp_head.mlp.2.weight": draw(1, 256, scale=0.3),
        "temp_head.mlp.2.bias": draw(1, around=0.5),
        "top_p_head.mlp.0.weight": draw(256, inputs),
        "top_p_head.mlp.0.bias": draw(256),
        "top_p_head.mlp.2.weight": draw(1, 256, scale=0.3),
        "top_p_head.mlp.2.bias": draw(1, around=1.0),
    }


def wrap(base: PreTrainedModel, folder: Path, **kwargs: Any) -> AutoDecoForCausalLM:
    """Heads from official files, so that T and P differ from token to token."""
    heads = write_heads(folder / "heads", official_config(base), official_tensors(**kwargs))
    return AutoDecoForCausalLM.from_pretrained(heads, base_model=base)


def same_bits(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Names, types and bytes; logits may differ in the last bit by where in memory weights are."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype
        and torch.equal(*(x[k].contiguous().view(torch.uint8) for x in (a, b)))
        for k in a
    )


def official_config(base: PreTrainedModel, **changes: Any) -> dict[str, Any]:
    """`config.json` of an official heads-only folder: the base's keys flattened, ours over them."""
    flat = json.loads(base.config.to_json_string(use_diff=False))
    return {
        **flat,
        "model_type": "autodeco",
        "architectures": ["AutoDecoModelForCausalLM"],
        "enable_temperature_head": True,
        "enable_top_p_head": True,
        "use_enhanced_features": True,
        "base_model_name_or_path": "/private/of/the/authors",
        "base_model_type": base.config.model_type,
        "temperature_hidden_size": WIDTH,
        "top_p_hidden_size": WIDTH,
        **changes,
    }


def write_heads(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    *,
    name: str = "model.safetensors",
    prefix: str = "",
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(
        {f"{prefix}{key}": tensor for key, tensor in tensors.items()},
        folder / name,
        metadata={"format": "pt"},
    )
    return folder


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, so that a Korean letter takes three."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(token_models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False
    )
    tokenizer.add_special_tokens({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"})
    return tokenizer
