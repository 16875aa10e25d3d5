"""GGUF files, read back by the `gguf` package and, for Llama, by transformers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)

from hanol import models
from hanol.errors import ConfigError, WriteError

gguf = pytest.importorskip("gguf")

Read = tuple[dict[str, object], dict[str, np.ndarray]]


def read(path: Path) -> Read:
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items()}
    return values, {tensor.name: tensor.data for tensor in reader.tensors}


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=288, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return models.build(config, seed=1).eval()


@pytest.fixture(scope="module")
def kimi_file(
    moe_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Read:
    return read(models.to_gguf(moe_model, tokenizer, tmp_path_factory.mktemp("g") / "m.gguf"))


def test_kimi_tensors_are_those_of_llama_cpp(kimi_file: Read) -> None:
    constants = gguf.constants
    known = {
        constants.TENSOR_NAMES[kind]
        for kind in constants.MODEL_TENSORS[constants.MODEL_ARCH.KIMI_LINEAR]
    }
    _, tensors = kimi_file
    for name in tensors:
        stem = name.removesuffix(".weight").removesuffix(".bias")
        parts = stem.split(".")
        if parts[0] == "blk":
            parts[1] = "{bid}"
        assert ".".join(parts) in known, name
    delta = {n.split(".", 2)[2] for n in tensors if n.startswith("blk.0.")}
    assert delta == {
        "attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight",
        "attn_output.weight", "ssm_conv1d_q.weight", "ssm_conv1d_k.weight", "ssm_conv1d_v.weight",
        "ssm_f_a.weight", "ssm_f_b.weight", "ssm_dt.bias", "ssm_a", "ssm_beta.weight",
        "ssm_g_a.weight", "ssm_g_b.weight", "ssm_norm.weight", "ffn_norm.weight",
        "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight",
    }  # fmt: skip
    latent = {n.split(".", 2)[2] for n in tensors if n.startswith("blk.3.")}
    assert latent == {
        "attn_norm.weight", "attn_q.weight", "attn_kv_a_mqa.weight", "attn_kv_a_norm.weight",
        "attn_k_b.weight", "attn_v_b.weight", "attn_output.weight", "ffn_norm.weight",
        "ffn_gate_inp.weight", "exp_probs_b.bias", "ffn_gate_exps.weight", "ffn_up_exps.weight",
        "ffn_down_exps.weight", "ffn_gate_shexp.weight", "ffn_up_shexp.weight",
        "ffn_down_shexp.weight",
    }  # fmt: skip


def test_kimi_values(kimi_file: Read, moe_model: PreTrainedModel) -> None:
    _, tensors = kimi_file
    state = {name: tensor.numpy() for name, tensor in moe_model.state_dict().items()}
    attention = "model.layers.0.self_attn"
    rate = -np.exp(state[f"{attention}.forget_gate.A_log"])
    assert np.allclose(tensors["blk.0.ssm_a"], rate, rtol=1e-6)
    conv = np.concatenate([tensors[f"blk.0.ssm_conv1d_{x}.weight"] for x in "qkv"], axis=1)
    assert conv.shape == (1, 3 * 32, 1, 4)
    assert np.array_equal(conv[0], state[f"{attention}.conv1d.weight"])
    kv_b = state["model.layers.3.self_attn.kv_b_proj.weight"].reshape(2, 32, 16)
    assert np.array_equal(tensors["blk.3.attn_k_b.weight"], kv_b[:, :16].swapaxes(1, 2))
    assert np.array_equal(tensors["blk.3.attn_v_b.weight"], kv_b[:, 16:])
    experts = state["model.layers.1.mlp.experts.gate_up_proj"]
    assert np.array_equal(tensors["blk.1.ffn_gate_exps.weight"], experts[:, :24])
    assert np.array_equal(tensors["blk.1.ffn_up_exps.weight"], experts[:, 24:])


def test_kimi_metadata(kimi_file: Read) -> None:
    values, _ = kimi_file
    assert values["general.architecture"] == "kimi-linear"
    expected = {
        "attention.head_count_kv": [0, 0, 0, 1], "attention.kv_lora_rank": 16,
        "attention.key_length": 24, "attention.key_length_mla": 24, "rope.dimension_count": 8,
        "attention.value_length_mla": 16, "kda.head_dim": 16, "ssm.conv_kernel": 4,
        "leading_dense_block_count": 1, "expert_count": 8, "expert_used_count": 2,
        "expert_gating_func": 2, "expert_shared_count": 1, "expert_feed_forward_length": 24,
    }  # fmt: skip
    for key, value in expected.items():
        assert values[f"kimi-linear.{key}"] == value, key


def test_tokenizer(kimi_file: Read, tokenizer: PreTrainedTokenizerFast) -> None:
    values, _ = kimi_file
    tokens = values["tokenizer.ggml.tokens"]
    assert len(tokens) == 288
    assert tokens[280:] == [f"[PAD{i}]" for i in range(280, 288)]
    assert tokens[:3] == ["<bos>", "<eos>", "<pad>"]
    assert values["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]  # control, then normal
    assert values["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert values["tokenizer.ggml.add_bos_token"] is False
    first, second = values["tokenizer.ggml.merges"][0].split(" ")
    assert first + second in tokens


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_llama_read_by_transformers(
    dtype: str, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    models.to_gguf(llama, tokenizer, tmp_path / "m.gguf", dtype)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    ).eval()
    ids = torch.arange(3, 60).reshape(1, -1)
    with torch.no_grad():
        difference = (again(ids).logits - llama(ids).logits).abs().max()
    assert difference < (1e-6 if dtype == "f32" else 2e-3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gguf"]


def test_llama3_frequencies(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    config = models.preset("llama-3.1-8b", vocab_size=288)
    config.update({"num_hidden_layers": 1, "hidden_size": 256, "intermediate_size": 64})
    config.update({"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128})
    model = models.build(config)
    _, tensors = read(models.to_gguf(model, tokenizer, tmp_path / "m.gguf"))
    plain = 500000.0 ** -(np.arange(0, 128, 2) / 128)
    scaled = model.model.rotary_emb.inv_freq.numpy()
    assert np.allclose(plain / tensors["rope_freqs.weight"], scaled, rtol=1e-5)
    assert {n for n in tensors if n.startswith("output")} == {"output.weight", "output_norm.weight"}


def test_half_precision_keeps_small_tensors(
    moe_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    _, tensors = read(models.to_gguf(moe_model, tokenizer, tmp_path / "m.gguf", "f16"))
    assert tensors["blk.0.attn_q.weight"].dtype == np.float16
    assert tensors["blk.1.ffn_gate_exps.weight"].dtype == np.float16
    for name in ("ssm_a", "ssm_dt.bias", "ssm_conv1d_q.weight", "attn_norm.weight"):
        assert tensors[f"blk.0.{name}"].dtype == np.float32, name
    assert tensors["blk.1.ffn_gate_inp.weight"].dtype == np.float32


def _other_model(moe: PreTrainedModel) -> PreTrainedModel:
    return models.build(
        Qwen3MoeConfig(
            vocab_size=288, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, head_dim=16, num_experts=2,
            num_experts_per_tok=1, moe_intermediate_size=16,
        )
    )  # fmt: skip


def _llama_with(**more: object) -> Callable[[PreTrainedModel], PreTrainedModel]:
    config = LlamaConfig(
        vocab_size=288, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, **more,
    )  # fmt: skip
    return lambda moe: models.build(config)


def _other_heads(moe: PreTrainedModel) -> PreTrainedModel:
    config = models.kimi_config(
        vocab_size=288, hidden_size=32, num_layers=2, num_heads=2, head_dim=16,
        intermediate_size=32, kv_lora_rank=8,
    )  # fmt: skip
    config.linear_num_heads = 4
    return models.build(config)


@pytest.mark.parametrize(
    ("make", "dtype", "message"),
    [
        (_other_model, "f32", "The model is a 'qwen3_moe'"),
        (_llama_with(attention_bias=True), "f32", "q_proj.bias' has no place"),
        (_llama_with(hidden_act="gelu"), "f32", "`hidden_act` is 'gelu'"),
        (
            _llama_with(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
            "f32",
            "`rope_type` is 'dynamic'",
        ),
        (_other_heads, "f32", "4 delta heads and 2 attention heads"),
        (lambda moe: moe, "q4", "`dtype` is 'q4'"),
    ],
)
def test_what_cannot_be_written(
    make: Callable[[PreTrainedModel], PreTrainedModel],
    dtype: str,
    message: str,
    moe_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=message):
        models.to_gguf(make(moe_model), tokenizer, tmp_path / "m.gguf", dtype)
    assert list(tmp_path.iterdir()) == []


def test_path_that_cannot_be_written(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(WriteError, match="could not be written"):
        models.to_gguf(llama, tokenizer, tmp_path / "taken")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
