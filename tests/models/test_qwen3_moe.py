"""Qwen3-MoE: the published shape, and checkpoints with a file entry for each expert."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import silu
from transformers import Qwen3MoeConfig

from hanol import models
from hanol.errors import CheckpointError

D, LAYERS, HEADS, KEY_HEADS, K, EXPERTS, CHOSEN, WIDE, VOCAB = 32, 2, 4, 2, 16, 6, 2, 24, 50
THETA, EPS = 10000.0, 1e-6


def config() -> Qwen3MoeConfig:
    return Qwen3MoeConfig(
        vocab_size=VOCAB, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, head_dim=K, num_experts=EXPERTS, num_experts_per_tok=CHOSEN,
        moe_intermediate_size=WIDE, norm_topk_prob=True, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )  # fmt: skip


def official_tensors() -> dict[str, Tensor]:
    """Random weights under the names of the released files: each expert by itself."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"model.embed_tokens.weight": (VOCAB, D), "lm_head.weight": (VOCAB, D)}
    shapes["model.norm.weight"] = (D,)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.{n}_layernorm.weight": (D,) for n in ("input", "post_attention")}
        shapes |= {f"{layer}.self_attn.{x}_norm.weight": (K,) for x in "qk"}
        shapes[f"{layer}.self_attn.q_proj.weight"] = (HEADS * K, D)
        shapes |= {f"{layer}.self_attn.{x}_proj.weight": (KEY_HEADS * K, D) for x in "kv"}
        shapes[f"{layer}.self_attn.o_proj.weight"] = (D, HEADS * K)
        shapes[f"{layer}.mlp.gate.weight"] = (EXPERTS, D)
        for e in range(EXPERTS):
            expert = f"{layer}.mlp.experts.{e}"
            shapes |= {f"{expert}.{n}_proj.weight": (WIDE, D) for n in ("gate", "up")}
            shapes[f"{expert}.down_proj.weight"] = (D, WIDE)
    return {
        name: torch.randn(shape, generator=rng) * 0.3 + (1 if len(shape) == 1 else 0)
        for name, shape in shapes.items()
    }


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotated(x_HTK: Tensor) -> Tensor:
    angles = torch.arange(x_HTK.shape[1], dtype=torch.float64)[:, None] * THETA ** (
        -torch.arange(0, K, 2, dtype=torch.float64) / K
    )
    a, b = x_HTK[..., : K // 2], x_HTK[..., K // 2 :]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def oracle(tensors: dict[str, Tensor], ids_T: Tensor) -> Tensor:
    """Logits in float64, one expert of one token at a time."""
    w = {name: tensor.double() for name, tensor in tensors.items()}
    x = w["model.embed_tokens.weight"][ids_T]
    T = len(ids_T)
    hidden = torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        h = norm(x, w[p + "input_layernorm.weight"])
        q = (h @ w[p + "self_attn.q_proj.weight"].T).view(T, HEADS, K)
        k, v = (
            (h @ w[p + f"self_attn.{n}_proj.weight"].T).view(T, KEY_HEADS, K).transpose(0, 1)
            for n in "kv"
        )
        q = rotated(norm(q, w[p + "self_attn.q_norm.weight"]).transpose(0, 1))
        k = rotated(norm(k, w[p + "self_attn.k_norm.weight"]))
        k, v = (t.repeat_interleave(HEADS // KEY_HEADS, 0) for t in (k, v))
        seen = ((q @ k.mT) / K**0.5 + hidden).softmax(-1) @ v
        x = x + seen.transpose(0, 1).reshape(T, -1) @ w[p + "self_attn.o_proj.weight"].T
        h = norm(x, w[p + "post_attention_layernorm.weight"])
        chance = (h @ w[p + "mlp.gate.weight"].T).softmax(-1)
        added = torch.zeros_like(x)
        for t in range(T):
            top, chosen = chance[t].topk(CHOSEN)
            for share, e in zip(top / top.sum(), chosen.tolist(), strict=True):
                gate, up, down = (
                    w[p + f"mlp.experts.{e}.{n}_proj.weight"] for n in ("gate", "up", "down")
                )
                added[t] += share * (down @ (silu(gate @ h[t]) * (up @ h[t])))
        x = x + added
    return norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config().save_pretrained(tmp_path)
    tensors = official_tensors()
    half = len(tensors) // 2
    files = {"model-00001-of-00002.safetensors": list(tensors)[:half]}
    files["model-00002-of-00002.safetensors"] = list(tensors)[half:]
    for file, names in files.items():
        save_file({n: tensors[n] for n in names}, tmp_path / file, {"format": "pt"})
    index = {name: file for file, names in files.items() for name in names}
    content = {"metadata": {"total_size": 0}, "weight_map": index}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    return tmp_path


def test_experts_on_disk_load_and_give_the_logits_of_the_definition(folder) -> None:
    model = models.load_model(folder)
    ids = torch.tensor([3, 14, 15, 9, 26, 5, 35, 8])
    with torch.no_grad():
        found = model(ids[None]).logits[0]
    expected = oracle(official_tensors(), ids)
    assert expected.std() > 0.1
    assert (found.double() - expected).abs().max() < 1e-5


def test_saving_gives_back_the_files_names(folder, tmp_path) -> None:
    model = models.load_model(folder)
    models.save(model, tmp_path / "again")
    found = load_file(tmp_path / "again" / "model.safetensors")
    wanted = official_tensors()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_missing_expert_is_refused(folder) -> None:
    file = folder / "model-00002-of-00002.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.experts.5.down_proj.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="could not be loaded"):
        models.load_model(folder)


def test_the_published_shape() -> None:
    report = models.inspect("qwen3-30b-a3b")
    assert report.parameters == 30_532_122_624
    assert report.active_parameters == 3_353_032_704
    # 48 layers keep keys and values of 4 heads in bfloat16
    assert report.cache.bytes_per_token == 48 * 2 * 4 * 128 * 2
