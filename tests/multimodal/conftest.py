"""A tiny language model and a tiny vision tower, joined in each way."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel

from hanol.models import load_tokenizer
from hanol.multimodal import NvlmForConditionalGeneration, NvlmProcessor

SIZE = 16


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def language(vocab_size: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        initializer_range=0.3, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tower(seed: int = 1) -> ViTModel:
    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=SIZE, patch_size=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, initializer_range=0.3,
    )  # fmt: skip
    return ViTModel(config, add_pooling_layer=False).eval()


Joined = tuple[NvlmForConditionalGeneration, NvlmProcessor]


@pytest.fixture
def joined() -> Callable[..., Joined]:
    """A model of a kind, gates open unless told otherwise, and its processor."""

    def make(kind: str, *, open_gates: bool = True, **options: object) -> Joined:
        tokenizer = load_tokenizer("tiny")
        model = NvlmForConditionalGeneration.from_parts(
            language(len(tokenizer)), tower(), kind=kind, **options
        )
        processor = NvlmProcessor.for_model(model, tokenizer)
        with torch.no_grad():
            for part in (model.mlp1, model.cross_layers):
                for name, parameter in part.named_parameters():
                    if parameter.ndim > 1:
                        parameter.mul_(10)
                    elif open_gates and "gate" in name:
                        parameter.fill_(0.7)
        return model, processor

    return make
