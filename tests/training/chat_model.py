"""A chat model of a few thousand weights, and conversations for it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hanol import models

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<s>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|eot|>", "[INST]", "[/INST]", "</s>")


def make_tokenizer(template: str | None = CHATML, end: str = "<|im_end|>") -> Any:
    """One token a byte, and special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate((*SPECIAL, *alphabet, "ĊĊ"))}
    backend = Tokenizer(token_models.BPE(vocabulary, [("Ċ", "Ċ")]))
    backend.add_special_tokens(list(SPECIAL))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token=end, pad_token="</s>"
    )
    tokenizer.chat_template = template
    return tokenizer


def make_checkpoint(folder: Path, template: str | None = CHATML, seed: int = 0) -> Path:
    """A checkpoint folder of random weights."""
    tokenizer = make_tokenizer(template)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=256,
        tie_word_embeddings=True, initializer_range=0.1, bos_token_id=0,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return models.save(models.build(config, seed=seed), folder, tokenizer)


def turns(*texts: str) -> list[dict[str, str]]:
    """Messages of the user and the assistant in turn."""
    return [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(texts)
    ]


def conversations(count: int) -> list[dict[str, Any]]:
    """Rows of different lengths."""
    return [
        {"messages": turns(f"Say {number}", "yes " * (number % 4 + 1) + str(number))}
        for number in range(count)
    ]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
