"""Tiny random chat checkpoints of four kinds, with tokenizers and templates."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import Lfm2Config, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from hanol import attention, models

LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# As Qwen3's: thoughts of earlier answers are left out, and a system message is only written first.
QWEN3 = (
    "{% if messages[0].role == 'system' %}<|start|>system\n{{ messages[0].content }}<|end|>\n"
    "{% endif %}{% for m in messages %}{% if m.role != 'system' %}<|start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{{ m.content.split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}<|end|>\n{% elif not loop.first %}"
    "{{ raise_exception('The system message must come first') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
KINDS = ["llama", "qwen3", "conv-attention", "lfm2", "kimi"]
RECURRENT = {"conv-attention", "lfm2", "kimi"}
_SPECIAL = ["<|bos|>", "<|end|>", "<|start|>", "<think>", "</think>"]


def tokenizer(template: str | None, *, ascii_only: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level with a few merges; of ASCII alone, every sequence of tokens is a text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if ascii_only:
        letters = [c for c in letters if "!" <= c <= "~"] + ["Ġ", "Ċ"]
    merges = [("a", "b"), ("t", "h"), ("th", "e"), ("Ċ", "Ċ"), ("Ġ", "a"), ("0", "0")]
    vocab = {token: i for i, token in enumerate([*letters, *map("".join, merges)])}
    raw = Tokenizer(token_models.BPE(vocab=vocab, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    raw.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in _SPECIAL])
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|bos|>", eos_token="<|end|>", pad_token="<|end|>"
    )
    made.chat_template = template
    return made


def checkpoint(
    kind: str, folder: Path, *, template: str | None = "own", window: int = 1024
) -> Path:
    """A checkpoint folder with random weights, large enough that logits differ."""
    text = tokenizer({"llama": LLAMA}.get(kind, QWEN3) if template == "own" else template)
    common: dict[str, Any] = {
        "vocab_size": len(text), "hidden_size": 64, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": window, "bos_token_id": text.bos_token_id,
        "eos_token_id": text.eos_token_id, "pad_token_id": text.eos_token_id,
    }  # fmt: skip
    config: Any
    if kind == "llama":
        config = LlamaConfig(**common)
    elif kind == "qwen3":
        config = Qwen3Config(**common, head_dim=8)
    elif kind == "conv-attention":
        config = attention.ConvAttentionConfig(**common, head_dim=8)
    elif kind == "lfm2":
        layers = ["conv", "full_attention", "conv"]
        config = Lfm2Config(
            **{**common, "num_hidden_layers": 3},
            layer_types=layers, conv_L_cache=4, conv_bias=True, block_auto_adjust_ff_dim=False,
            tie_word_embeddings=False,
        )  # fmt: skip
    else:
        config = models.kimi_config(
            vocab_size=len(text), hidden_size=32, num_layers=4, num_heads=2, head_dim=16,
            intermediate_size=48, kv_lora_rank=16, dense_layers=1, moe_intermediate_size=24,
            num_experts=8, num_experts_per_token=2, num_shared_experts=1, num_expert_group=2,
            topk_group=1, model_max_length=window,
        )  # fmt: skip
    model = models.build(config, seed=5).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_tokens" in name or "lm_head" in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        # Logits of the end token are 0: of a likeliest token never, so that answers have a length.
        model.get_output_embeddings().weight[text.eos_token_id] = 0.0
    model.generation_config.update(eos_token_id=text.eos_token_id)
    models.save(model, folder, tokenizer=text)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint of each kind."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: checkpoint(kind, root / kind) for kind in KINDS}
