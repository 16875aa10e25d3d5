import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import KimiLinearConfig, PreTrainedModel, PreTrainedTokenizerFast

from hanol.models import build, kimi_config

TEXT = [
    "def mean(values):\n    return sum(values) / len(values)\n",
    "한올, one strand. 안녕하세요!\n",
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level tokens, so that a Korean letter takes several of them."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<bos>", "<eos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


@pytest.fixture(scope="session")
def moe_config() -> KimiLinearConfig:
    """Four layers of the official shape in small: three delta, one latent; one dense, rest MoE."""
    return kimi_config(
        vocab_size=288, hidden_size=32, num_layers=4, num_heads=2, head_dim=16,
        intermediate_size=48, kv_lora_rank=16, dense_layers=1, moe_intermediate_size=24,
        num_experts=8, num_experts_per_token=2, num_shared_experts=1, num_expert_group=2,
        topk_group=1, model_max_length=256,
    )  # fmt: skip


@pytest.fixture(scope="session")
def moe_model(moe_config: KimiLinearConfig) -> PreTrainedModel:
    """Random weights, norms and router biases included."""
    model = build(moe_config, seed=3).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if "norm" in name or "correction_bias" in name:
                tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
    return model
