"""The gated delta net hybrid against transformers' own layer, and as a model like any other."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from hanol import models
from hanol.attention import CACHE_NAME, GdnHybridConfig
from hanol.attention._gdn import GatedDeltaNet  # private: a layer that only presets build

H, K, D = 3, 16, 48


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    config = models.kimi_config(
        vocab_size=64, hidden_size=D, num_layers=4, num_heads=H, head_dim=K,
        intermediate_size=64, kv_lora_rank=16, config_class=GdnHybridConfig,
    )  # fmt: skip
    return models.build(config, seed=1).eval()


def upstream_twin(layer: GatedDeltaNet) -> Qwen3NextGatedDeltaNet:
    """transformers' layer with the same weights and the hybrid's sigmoid output gate."""
    twin = Qwen3NextGatedDeltaNet(
        SimpleNamespace(
            hidden_size=D, linear_num_value_heads=H, linear_num_key_heads=H, linear_key_head_dim=K,
            linear_value_head_dim=K, linear_conv_kernel_dim=4, hidden_act="silu",
            rms_norm_eps=layer.o_norm.variance_epsilon, layer_types=["linear_attention"],
        ),
        0,
    )  # fmt: skip
    twin.norm.activation = "sigmoid"
    heads = [
        weight.view(H, K, D)
        for weight in (
            layer.q_proj.weight,
            layer.k_proj.weight,
            layer.v_proj.weight,
            layer.g_b_proj.weight @ layer.g_a_proj.weight,
        )
    ]
    both = [
        weight.view(H, 1, D) for weight in (layer.b_proj.weight, layer.forget_gate.f_a_proj.weight)
    ]
    with torch.no_grad():
        twin.in_proj_qkvz.weight.copy_(torch.cat(heads, dim=1).flatten(0, 1))
        twin.in_proj_ba.weight.copy_(torch.cat(both, dim=1).flatten(0, 1))
        twin.conv1d.weight.copy_(layer.conv1d.weight)
        twin.A_log.copy_(layer.forget_gate.A_log.flatten())
        twin.dt_bias.copy_(layer.forget_gate.dt_bias)
        twin.norm.weight.copy_(layer.o_norm.weight)
        twin.out_proj.weight.copy_(layer.o_proj.weight)
    return twin


@pytest.mark.parametrize("tokens", [1, 5, 64, 131])
def test_layer_equals_that_of_transformers(model: PreTrainedModel, tokens: int) -> None:
    layer = model.model.layers[0].self_attn
    x = torch.randn(2, tokens, D, generator=torch.Generator().manual_seed(0))
    ours, theirs = layer(x), upstream_twin(layer)(x)
    # weights of size 0.02 make small outputs: the bound is relative
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_gate_is_one_value_a_head(model: PreTrainedModel) -> None:
    g = model.model.layers[0].self_attn.forget_gate(torch.randn(1, 7, D))
    assert g.shape == (1, 7, H)
    assert (g < 0).all()
    assert (g[0, 0, 0] != g[0, 0, 1]).item()


def test_only_three_of_four_layers_are_replaced(model: PreTrainedModel) -> None:
    kinds = [type(layer.self_attn).__name__ for layer in model.model.layers]
    assert kinds == ["GatedDeltaNet"] * 3 + ["KimiLinearAttention"]


def test_decoding_continues_the_prompt(model: PreTrainedModel) -> None:
    ids = torch.arange(40).reshape(1, -1)
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :33], use_cache=True)
        cache, steps = first[CACHE_NAME], [first.logits]
        for t in range(33, 40):
            steps.append(model(ids[:, t : t + 1], **{CACHE_NAME: cache}, use_cache=True).logits)
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-4)


def test_padding_on_either_side(model: PreTrainedModel) -> None:
    ids = torch.arange(3, 23).reshape(1, -1)
    with torch.no_grad():
        alone = model(ids).logits
        for left, right in ((4, 0), (0, 4)):
            padded = torch.nn.functional.pad(ids, (left, right))
            mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))
            logits = model(padded, attention_mask=mask).logits[:, left : left + 20]
            assert torch.allclose(logits, alone, atol=1e-4)


def test_saved_and_loaded(model: PreTrainedModel, tmp_path: Path) -> None:
    ids = torch.arange(20).reshape(1, -1)
    models.save(model, tmp_path / "m")
    with torch.no_grad():
        expected = model(ids).logits
        assert torch.equal(models.load_model(tmp_path / "m")(ids).logits, expected)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
        assert torch.equal(plain(ids).logits, expected)
    report = models.inspect(tmp_path / "m")
    assert report.model_type == "hanol_gdn_hybrid"
    assert report.layers == {"delta attention": 3, "latent attention": 1}
    assert report.official_layout is None


def test_it_learns(model: PreTrainedModel) -> None:
    student = models.build(model.config, seed=4)
    ids = torch.arange(60).reshape(2, 30)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = student(ids, labels=ids, use_cache=False).loss
        loss.backward()
        for name, parameter in student.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
