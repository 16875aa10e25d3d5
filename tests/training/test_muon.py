"""Muon: its direction, its grouping, and that AdamW's share is torch's own AdamW."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import Lfm2Config

from hanol import attention, models
from hanol.training import MuonAdamW, orthogonalised, parameter_groups


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40), (3, 20, 12)], ids=str)
def test_orthogonalised_has_singular_values_near_one(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(x))
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_direction_is_that_of_torch_muon(dtype: torch.dtype | None) -> None:
    rng = torch.Generator().manual_seed(0)
    start, steps = torch.randn(32, 48, generator=rng), 3
    gradients = [torch.randn(32, 48, generator=rng) for _ in range(steps)]
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    group = {"params": [mine], "parts": [[32]], "lr": 0.02, "weight_decay": 0.1, "muon": True}
    ours = MuonAdamW([group], momentum=0.95, dtype=dtype)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for gradient in gradients:
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        ours.step()
        reference.step()
    moved = torch.cosine_similarity((mine - start).flatten(), (theirs - start).flatten(), dim=0)
    assert moved > 0.995  # torch iterates in bfloat16, which leaves two digits
    assert (mine - theirs).norm() < 0.1 * (mine - start).norm()


def test_adamw_share_is_torch_adamw() -> None:
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(5, 7, generator=rng)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    matrix = nn.Parameter(torch.randn(4, 4, generator=rng))
    ours = MuonAdamW(
        [
            {"params": [mine], "lr": 0.01, "weight_decay": 0.1},
            {"params": [matrix], "parts": [[4]], "lr": 0.01, "weight_decay": 0.1, "muon": True},
        ]
    )
    reference = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1, betas=(0.9, 0.95))
    for _ in range(4):
        gradient = torch.randn(5, 7, generator=rng)
        mine.grad, theirs.grad, matrix.grad = gradient, gradient.clone(), torch.eye(4)
        ours.step()
        reference.step()
    assert torch.equal(mine, theirs)


def test_state_survives_saving() -> None:
    rng = torch.Generator().manual_seed(0)
    weights = [torch.randn(6, 6, generator=rng) for _ in range(2)]
    gradients = [torch.randn(6, 6, generator=rng) for _ in range(4)]

    def fresh() -> tuple[nn.Parameter, MuonAdamW]:
        p = nn.Parameter(weights[0].clone())
        group = {"params": [p], "parts": [[2, 4]], "lr": 0.1, "weight_decay": 0.0, "muon": True}
        return p, MuonAdamW([group])

    whole, optimizer = fresh()
    for gradient in gradients:
        whole.grad = gradient.clone()
        optimizer.step()
    first, optimizer = fresh()
    for gradient in gradients[:2]:
        first.grad = gradient.clone()
        optimizer.step()
    second, resumed = fresh()
    second.data.copy_(first.data)
    resumed.load_state_dict(optimizer.state_dict())
    for gradient in gradients[2:]:
        second.grad = gradient.clone()
        resumed.step()
    assert torch.equal(whole, second)


def test_logical_matrices_are_updated_one_by_one() -> None:
    rng = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.zeros(3, 10, 4))
    p.grad = torch.randn(3, 10, 4, generator=rng)
    p.grad[:, :5] *= 100  # a loud matrix must not drown the quiet one below it
    group = {"params": [p], "parts": [[5, 5]], "lr": 1.0, "weight_decay": 0.0, "muon": True}
    MuonAdamW([group], momentum=0.0).step()
    assert torch.linalg.svdvals(p[:, 5:]).min() > 0.2


def test_groups_of_a_kimi_linear_model() -> None:
    config = models.kimi_config(
        vocab_size=64, hidden_size=32, num_layers=4, num_heads=2, head_dim=16,
        intermediate_size=48, kv_lora_rank=16, dense_layers=1, moe_intermediate_size=16,
        num_experts=4, num_experts_per_token=2,
    )  # fmt: skip
    model = models.build(config)
    groups = parameter_groups(model, muon_lr=0.01, adamw_lr=0.002, weight_decay=0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    by_group = [[names[id(p)] for p in group["params"]] for group in groups]
    decayed, plain, matrices = by_group
    assert sum(map(len, by_group)) == len(names)
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= set(decayed)
    assert all(w in " ".join(plain) for w in ("A_log", "dt_bias", "conv1d", "o_norm", "layernorm"))
    assert not any("norm" in n or "conv" in n or "A_log" in n for n in matrices)
    assert groups[1]["weight_decay"] == 0.0
    parts = dict(zip(matrices, groups[2]["parts"], strict=True))
    assert parts["model.layers.1.mlp.experts.gate_up_proj"] == [16, 16]
    assert parts["model.layers.3.self_attn.kv_a_proj_with_mqa.weight"] == [16, 8]
    everything = parameter_groups(model, muon_lr=None, adamw_lr=0.002, weight_decay=0.1)
    assert not any(group.get("muon") for group in everything)


@pytest.mark.parametrize("kind", ["lfm2", "convolved attention"])
def test_kernels_of_convolutions_are_no_matrices(kind: str) -> None:
    common = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2,
    }  # fmt: skip
    config: Any = attention.ConvAttentionConfig(**common)
    if kind == "lfm2":
        config = Lfm2Config(**common, layer_types=["conv", "full_attention"])
    model = models.build(config)
    groups = parameter_groups(model, muon_lr=0.01, adamw_lr=0.002, weight_decay=0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, plain, matrices = ([names[id(p)] for p in group["params"]] for group in groups)
    assert decayed == ["model.embed_tokens.weight"]
    kernels = [name for name, p in model.named_parameters() if p.ndim == 3]
    assert kernels  # [channels, 1, width]
    assert set(kernels) <= set(plain)
    assert all(p.ndim == 2 for p in groups[2]["params"])
    projections = [name for name in names.values() if "proj" in name]
    assert len(projections) >= 5
    assert set(projections) <= set(matrices)
