"""A model with random weights, from a preset or a configuration."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from hanol import attention
from hanol.errors import UnknownNameError
from hanol.models._light import without_compiler
from hanol.models._presets import preset


def build(
    config: str | PreTrainedConfig,
    *,
    vocab_size: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> PreTrainedModel:
    """Make a model with random weights; Kimi-Linear models get hanol's layers.

    Args:
        config: A preset's name or a configuration.
        vocab_size: Rows of the embedding, for a preset.
        seed: Seed of the weights; the global random state is left as it was.
        dtype: Type of the parameters; what must stay float32 does.
        device: Where to make it; "meta" allocates nothing.

    Raises:
        UnknownNameError: There is no preset of that name.
        ConfigError: The configuration contradicts itself.
    """
    if isinstance(config, str):
        config = preset(config, vocab_size=vocab_size)
    with attention.registered(config), torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return cast(model, dtype)


def meta_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model without memory for its weights: names and shapes alone."""
    with attention.registered(config), without_compiler(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Change the type of a model's parameters in place, but not of those that stay float32.

    Buffers stay as they are: `model.to(dtype)` would round the frequencies of rotary positions.
    """
    for name, parameter in model.named_parameters():
        stays = name.rpartition(".")[2] in attention.FLOAT32
        parameter.data = parameter.data.to(torch.float32 if stays else dtype)
    return model


def add_baselines() -> None:
    """Make models that transformers lacks known to its Auto classes."""
    for config, model in (
        (attention.GdnHybridConfig, attention.GdnHybridForCausalLM),
        (attention.ConvAttentionConfig, attention.ConvAttentionForCausalLM),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, model, exist_ok=True)


def dtype_named(name: str) -> torch.dtype:
    """The floating-point type behind a name.

    Raises:
        UnknownNameError: No type that weights can have is called so.
    """
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in known:
        raise UnknownNameError("weight type", name, known)
    return known[name]
