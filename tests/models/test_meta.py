"""Llama in Meta's layout, against the definition and against transformers."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from hanol import models
from hanol.attention import CACHE_NAME
from hanol.errors import CheckpointError, ConfigError
from hanol.models import _meta  # private: the table of names
from hanol.models._reference_llama import (  # private: the independent reference of the layout
    frequencies,
    reference_llama,
)

IDS = torch.arange(40).reshape(2, 20) % 60


def small_llama(*, tied: bool = False, scaled: bool = False, ffn: int = 96) -> LlamaForCausalLM:
    rope: dict[str, object] = {"rope_type": "default", "rope_theta": 500000.0}
    if scaled:
        rope |= {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }  # fmt: skip
    config = LlamaConfig(
        vocab_size=60, hidden_size=64, intermediate_size=ffn, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, rope_parameters=rope,
        tie_word_embeddings=tied, max_position_embeddings=131072,
        initializer_range=0.1, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return models.build(config, seed=2).eval()


def logits(model: LlamaForCausalLM) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_definition_equals_transformers(tied: bool, scaled: bool) -> None:
    model = small_llama(tied=tied, scaled=scaled)
    tensors, params = models.llama_to_meta(model)
    expected = reference_llama(tensors, params, IDS)
    assert (logits(model) - expected).abs().max() < 1e-5


def test_gradients_equal_those_of_the_definition() -> None:
    model = small_llama()
    tensors, params = models.llama_to_meta(model)
    leaves = {name: t.double().clone().requires_grad_() for name, t in tensors.items()}
    reference_llama(leaves, params, IDS).square().mean().backward()
    model(IDS).logits.square().mean().backward()
    theirs = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, leaf in leaves.items():
        gradient = theirs[_meta._names(2)[name]]
        if name.endswith(("wq.weight", "wk.weight")):
            gradient = _meta.to_pairs(gradient, 4 if "wq" in name else 2)
        assert (gradient - leaf.grad).norm() <= 1e-5 * leaf.grad.norm(), name


def test_cached_decoding_equals_the_definition() -> None:
    model = small_llama(scaled=True)
    tensors, params = models.llama_to_meta(model)
    cache, steps = None, []
    with torch.no_grad():
        for t in range(20):
            out = model(IDS[:, t : t + 1], **{CACHE_NAME: cache}, use_cache=True)
            cache = out[CACHE_NAME]
            steps.append(out.logits)
    assert (torch.cat(steps, 1) - reference_llama(tensors, params, IDS)).abs().max() < 1e-5


@pytest.mark.parametrize("factor", [None, 8.0, 32.0])
def test_frequencies_equal_those_of_transformers(factor: float | None) -> None:
    name = {None: "llama-3-8b", 8.0: "llama-3.1-8b", 32.0: "llama-3.2-1b"}[factor]
    config = models.preset(name)
    width = config.hidden_size // config.num_attention_heads
    if factor is None:
        theirs = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=8, hidden_size=width, intermediate_size=8, num_hidden_layers=1,
                num_attention_heads=1, rope_parameters=config.rope_parameters,
            )
        ).model.rotary_emb.inv_freq  # fmt: skip
    else:
        theirs, attention_factor = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        assert attention_factor == 1.0
    ours = frequencies(width, 500000.0, factor)
    # transformers computes them in float32
    assert ((theirs - ours) / ours).abs().max() < 5e-7
    if factor is not None:
        assert ours[-1] == pytest.approx(500000.0 ** -((width - 2) / width) / factor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("ffn", [96, 101, 1024])
def test_round_trip_is_bit_exact(dtype: torch.dtype, tied: bool, ffn: int) -> None:
    model = models.cast(small_llama(tied=tied, scaled=True, ffn=ffn), dtype)
    tensors, params = models.llama_to_meta(model)
    again = models.llama_from_meta(tensors, params)
    assert again.config.intermediate_size == ffn
    assert again.config.tie_word_embeddings == tied
    assert again.dtype == dtype
    first, second = model.state_dict(), again.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert torch.equal(logits(model), logits(again))
    back = models.llama_to_meta(again)
    assert back.params == params
    assert all(torch.equal(tensor, back.tensors[name]) for name, tensor in tensors.items())


def test_a_tied_model_is_written_and_read_again(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    config = models.preset("llama-3m", vocab_size=288)
    config.tie_word_embeddings = True
    model = models.build(config)
    models.save(model, tmp_path / "m", tokenizer)
    models.convert(tmp_path / "m", tmp_path / "meta", to="meta")
    models.convert(tmp_path / "meta", tmp_path / "again")
    again = models.load_model(tmp_path / "again").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_order_is_metas() -> None:
    lanes = torch.arange(12).reshape(12, 1)
    halves = _meta._to_halves(lanes, 2)
    assert halves.flatten().tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert torch.equal(_meta.to_pairs(halves, 2), lanes)


def test_wrong_permutation_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, params = models.llama_to_meta(small_llama())
    monkeypatch.setattr(_meta, "_to_halves", lambda weight, heads: weight)
    with pytest.raises(CheckpointError, match="not in Meta's order"):
        models.llama_from_meta(tensors, params)


def test_published_feed_forward_widths() -> None:
    for dim, multiplier, multiple, width in (
        (4096, 1.3, 1024, 14336),
        (8192, 1.3, 4096, 28672),
        (16384, 1.2, 4096, 53248),
        (2048, 1.5, 256, 8192),
    ):
        params = {
            "dim": dim, "n_layers": 1, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 8,
            "ffn_dim_multiplier": multiplier, "multiple_of": multiple, "norm_eps": 1e-5,
            "rope_theta": 500000.0,
        }  # fmt: skip
        assert _meta._config({}, params, 8.0).intermediate_size == width


def split(tensors: dict[str, Tensor], count: int, key_heads: int) -> list[dict[str, Tensor]]:
    """Parts of a model as Meta's training code leaves them."""
    parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, tensor in tensors.items():
        kind = name.split(".")[-2]
        for i, part in enumerate(parts):
            if tensor.dim() == 1:
                part[name] = tensor
            elif kind in ("wk", "wv") and count > key_heads:
                part[name] = tensor.chunk(key_heads)[i * key_heads // count]
            else:
                part[name] = tensor.chunk(count, dim=1 if kind in ("wo", "w2") else 0)[i]
    return parts


@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_are_merged(count: int) -> None:
    tensors, params = models.llama_to_meta(small_llama())
    merged = models.merge_meta_parts(split(tensors, count, 2), params)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in tensors.items())


def test_parts_that_do_not_belong_together() -> None:
    tensors, params = models.llama_to_meta(small_llama())
    parts = split(tensors, 4, 2)
    parts[1]["layers.0.attention.wk.weight"] = torch.zeros(16, 64)
    with pytest.raises(CheckpointError, match=r"'layers.0.attention.wk.weight', part 1"):
        models.merge_meta_parts(parts, params)
    del parts[2]["norm.weight"]
    with pytest.raises(CheckpointError, match="same names"):
        models.merge_meta_parts(parts, params)


def test_refusals() -> None:
    model = small_llama()
    tensors, params = models.llama_to_meta(model)
    with pytest.raises(ConfigError, match="width of 160, but the tensors have 96"):
        models.llama_from_meta(tensors, {**params, "ffn_dim_multiplier": 0.9})
    with pytest.raises(ConfigError, match="3 key heads do not divide 4"):
        models.llama_from_meta(tensors, {**params, "n_kv_heads": 3})
    lacking = {name: t for name, t in tensors.items() if name != "norm.weight"}
    with pytest.raises(CheckpointError, match=r"missing \['norm.weight'\]"):
        models.llama_from_meta(lacking, params)
    with pytest.raises(CheckpointError, match=r"unexpected \['extra'\]"):
        models.llama_from_meta({**tensors, "extra": torch.zeros(1)}, params)
    other = Qwen3Config(
        vocab_size=8, hidden_size=16, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="'qwen3', but must be a 'llama'"):
        models.llama_to_meta(models.build(other))
    assert math.isclose(params["ffn_dim_multiplier"] * int(8 * 64 / 3), 96)


def test_a_rope_factor_without_effect_is_refused(tmp_path: Path) -> None:
    for name in ("plain", "scaled"):
        tensors, params = models.llama_to_meta(small_llama(scaled=name == "scaled"))
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "consolidated.00.safetensors")
        (tmp_path / name / "params.json").write_text(json.dumps(params))
    for source in ("tiny", tmp_path / "plain"):
        with pytest.raises(ConfigError, match="`rope_factor` is 32.0, but has no effect on"):
            models.convert(source, tmp_path / "out", rope_factor=32.0)
    assert not (tmp_path / "out").exists()
    for factor in (None, 32.0):
        models.convert(tmp_path / "scaled", tmp_path / "out", rope_factor=factor)
        found = models.load_config(tmp_path / "out").rope_parameters["factor"]
        assert found == (factor or 8.0)
