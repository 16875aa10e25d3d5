import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel, Qwen3Config

from hanol.attention import CACHE_NAME
from hanol.errors import CheckpointError
from hanol.models import build, cache_size, inspect
from hanol.models._inspect import parameter_sizes  # private: counts of a part of a model


def held_bytes(cache: DynamicCache) -> int:
    """Bytes of the tensors that a cache really holds, without spare room."""
    total = 0
    for layer in cache.layers:
        for name in ("state_BHKV", "window_BWC", "keys", "values"):
            tensor = getattr(layer, name, None)
            total += 0 if tensor is None else tensor.numel() * tensor.element_size()
    return total


def test_cache_formula_is_what_a_filled_cache_holds(moe_model: PreTrainedModel) -> None:
    size = cache_size(moe_model.config, moe_model.dtype.itemsize)
    for tokens in (5, 70):
        with torch.no_grad():
            ids = torch.arange(3, 3 + tokens).reshape(1, -1)
            cache = moe_model(ids, use_cache=True)[CACHE_NAME]
        assert held_bytes(cache) == size.fixed_bytes + tokens * size.bytes_per_token


def test_active_parameters_count_chosen_experts(moe_model: PreTrainedModel) -> None:
    sizes = parameter_sizes(moe_model.config)
    assert sum(sizes.values()) == sum(p.numel() for p in moe_model.parameters())
    expert = 3 * 32 * 24
    from hanol.models._inspect import _idle_parameters  # private: counts of a part of a model

    # three sparse layers, of whose eight experts two are used
    assert _idle_parameters(moe_model.config, sizes) == 3 * (8 - 2) * expert


def test_any_causal_model() -> None:
    config = Qwen3Config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    )  # fmt: skip
    assert cache_size(config, 2).bytes_per_token == 2 * 2 * 2 * 16 * 2


def test_inspect_reads_no_weights(
    moe_model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from hanol.models import save

    folder = save(moe_model, tmp_path_factory.mktemp("m") / "m")
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1000:] = b"\xff" * 1000  # weights turn to nonsense, the header stays
    file.write_bytes(content)
    report = inspect(folder)
    assert report.official_layout
    assert report.layers == {"delta attention": 3, "latent attention": 1}


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ({"model_type": "llama", "hidden_size": "x"}, b"", "'hidden_size'.*expected int"),
        ({"model_type": "llama", "num_attention_heads": 0}, b"", "could not be loaded"),
        ({"model_type": ["llama"]}, b"", "a string `model_type`"),
        ({"model_type": "llama"}, None, "has no weights"),
        ({"model_type": "llama"}, b"garbage", "not a readable safetensors file"),
    ],
)
def test_a_broken_checkpoint_is_not_described(
    config: dict[str, Any], weights: bytes | None, message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if weights is not None:
        (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=message):
        inspect(tmp_path)


@pytest.mark.parametrize("name", ["kimi-linear-3m", "mla-3m"])
def test_saved_share_is_the_share_of_delta_layers(name: str) -> None:
    report = inspect(name)
    latent = report.layers["latent attention"]
    ratio = report.cache.bytes_per_token / report.cache.twin_bytes_per_token
    assert ratio == latent / sum(report.layers.values())
    assert build(name).num_parameters() == report.parameters
