"""Each delta-rule model of transformers with hanol's kernels against transformers' own."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.bailing_hybrid.modeling_bailing_hybrid import (
    BailingHybridConfig,
    BailingHybridForCausalLM,
)
from transformers.models.glm5_next.configuration_glm5_next import (
    Glm5NextConfig,
    Glm5NextTextConfig,
    Glm5NextVisionConfig,
)
from transformers.models.glm5_next.modeling_glm5_next import Glm5NextForConditionalGeneration
from transformers.models.olmo_hybrid.modeling_olmo_hybrid import (
    OlmoHybridConfig,
    OlmoHybridForCausalLM,
)
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen3_5
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM
from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeTextConfig
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeForCausalLM
from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextForCausalLM
from transformers.models.qwen4_exp.configuration_qwen4_exp import Qwen4ExpTextConfig
from transformers.models.qwen4_exp.modeling_qwen4_exp import Qwen4ExpForCausalLM

from hanol import attention, models
from hanol.attention import CACHE_NAME

LINEAR, FULL = "linear_attention", "full_attention"
COMMON: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "layer_types": [LINEAR, LINEAR, LINEAR, FULL],
}  # fmt: skip
HEADS = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 24, "head_dim": 16,
}  # fmt: skip
EXPERTS = {
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24, "num_experts": 4,
    "num_experts_per_tok": 2,
}  # fmt: skip
LATENT = {
    "kv_lora_rank": 24, "q_lora_rank": 24, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "moe_intermediate_size": 24, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "num_key_value_heads": 4,
}  # fmt: skip


def glm() -> PreTrainedConfig:
    text = Glm5NextTextConfig(
        **{
            **COMMON, **LATENT, "n_routed_experts": 4, "linear_head_dim": 16,
            "linear_num_heads": 3, "index_topk": 256, "index_head_dim": 16, "index_n_heads": 2,
            "index_kpool": 4, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            "layer_types": [LINEAR, LINEAR, LINEAR, "indexed_attention"],
            "indexer_types": ["full"] * 4, "hc_mult": 2,
        }
    )  # fmt: skip
    vision = Glm5NextVisionConfig(
        depth=1, hidden_size=16, num_heads=2, intermediate_size=16, out_hidden_size=48,
        projection_intermediate_size=16, image_size=28,
    )  # fmt: skip
    return Glm5NextConfig(text_config=text, vision_config=vision)


MEMBERS: dict[str, tuple[type[PreTrainedModel], Callable[[], PreTrainedConfig]]] = {
    "qwen3_5": (Qwen3_5ForCausalLM, lambda: Qwen3_5TextConfig(**{**COMMON, **HEADS})),
    "qwen3_5_moe": (
        Qwen3_5MoeForCausalLM,
        lambda: Qwen3_5MoeTextConfig(**{**COMMON, **HEADS, **EXPERTS}),
    ),
    "qwen3_next": (
        Qwen3NextForCausalLM,
        lambda: Qwen3NextConfig(**{**COMMON, **HEADS, **EXPERTS}),
    ),
    "qwen4_exp": (
        Qwen4ExpForCausalLM,
        lambda: Qwen4ExpTextConfig(
            **{
                **COMMON, **HEADS, **EXPERTS, "hc_count": 2, "hc_lowrank": 8,
                "ngram_vocab_size_base": 97, "heads_per_ngram": 2, "split_ngram_parts": 1,
                "make_ngram_vocab_size_divisible_by": 1, "indexer_n_heads": 4,
                "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 256,
                "indexer_compress_ratio": 4,
                "layer_types": [LINEAR, LINEAR, LINEAR, "indexed_attention"],
            }
        ),
    ),
    "olmo_hybrid": (
        OlmoHybridForCausalLM,
        lambda: OlmoHybridConfig(**{**COMMON, **HEADS}),
    ),
    "glm5_next": (Glm5NextForConditionalGeneration, glm),
    "bailing_hybrid": (
        BailingHybridForCausalLM,
        lambda: BailingHybridConfig(
            **{
                **COMMON, **LATENT, "num_local_experts": 4, "head_dim": 16, "qk_rope_head_dim": 8,
                "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            }
        ),
    ),
}  # fmt: skip
ALL = pytest.mark.parametrize("name", MEMBERS)


def build(name: str) -> PreTrainedModel:
    cls, config = MEMBERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(config()).eval()
        for key, tensor in model.named_parameters():
            if tensor.ndim == 1:
                tensor.data += 0.1 * torch.randn_like(tensor)
            elif "proj" in key or "experts" in key:
                tensor.data *= 4
    return model


@pytest.fixture(scope="module")
def made() -> dict[str, PreTrainedModel]:
    return {}


@pytest.fixture
def model(name: str, made: dict[str, PreTrainedModel]) -> Iterator[PreTrainedModel]:
    if name not in made:
        made[name] = build(name)
    attention.unregister()
    yield made[name]
    attention.unregister()


def tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 96, (rows, length), generator=torch.Generator().manual_seed(seed))


@ALL
@torch.no_grad()
def test_forward(name: str, model: PreTrainedModel) -> None:
    for length in (1, 2, 5, 63, 64, 65, 130, 200):
        ids = tokens(2, length)
        attention.unregister()
        theirs = model(ids).logits
        attention.accelerate(model)
        ours = model(ids).logits
        assert (ours - theirs).abs().max() <= 1e-4, length


@ALL
@torch.no_grad()
def test_any_split_equals_one_pass(name: str, model: PreTrainedModel) -> None:
    attention.accelerate(model)
    ids = tokens(2, 75)
    whole = model(ids).logits
    for first, second in ((1, 75), (20, 73), (63, 70), (70, 71)):
        cache, pieces = None, []
        borders = [0, first, second, *range(second + 1, 76)]
        for start, end in pairwise(borders):
            out = model(ids[:, start:end], use_cache=True, **{CACHE_NAME: cache})
            cache = out[CACHE_NAME]
            pieces.append(out.logits)
        assert (torch.cat(pieces, 1) - whole).abs().max() <= 1e-4


@ALL
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_nothing(name: str, model: PreTrainedModel, side: str) -> None:
    attention.accelerate(model)
    lengths = (70, 9, 64)
    ids = torch.zeros(3, 70, dtype=torch.long)
    mask = torch.zeros_like(ids)
    rows = [tokens(1, n, seed=n)[0] for n in lengths]
    for i, row in enumerate(rows):
        part = slice(70 - len(row), 70) if side == "left" else slice(0, len(row))
        ids[i, part], mask[i, part] = row, 1
    together = model(ids, attention_mask=mask).logits
    for i, row in enumerate(rows):
        assert (together[i][mask[i] == 1] - model(row[None]).logits[0]).abs().max() <= 1e-4


@ALL
def test_gradients_are_those_of_transformers(name: str, model: PreTrainedModel) -> None:
    ids = tokens(2, 100)

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}

    theirs = gradients()
    attention.accelerate(model)
    ours = gradients()
    model.zero_grad()
    assert ours.keys() == theirs.keys()
    for key, gradient in theirs.items():
        bound = 1e-4 * gradient.norm() + 1e-6 * gradient.numel() ** 0.5
        assert (ours[key] - gradient).norm() <= bound, key


@ALL
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_generates_what_transformers_generates(
    name: str, model: PreTrainedModel, options: dict[str, int]
) -> None:
    ids = tokens(2, 20)
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    arguments = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, **options}
    theirs = model.generate(ids, **arguments)
    attention.accelerate(model)
    assert torch.equal(model.generate(ids, **arguments), theirs)


@ALL
@torch.no_grad()
def test_checkpoints_stay_those_of_transformers(
    name: str, model: PreTrainedModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "plain")
    attention.accelerate(model)
    model.save_pretrained(tmp_path / "ours")
    plain, ours = (load_file(tmp_path / x / "model.safetensors") for x in ("plain", "ours"))
    assert plain.keys() == ours.keys()
    assert all(torch.equal(plain[key], ours[key]) for key in plain)


@pytest.mark.parametrize("name", ["qwen3_5", "olmo_hybrid", "bailing_hybrid"])
@torch.no_grad()
def test_packed_documents_stay_apart(name: str, model: PreTrainedModel) -> None:
    attention.accelerate(model)
    rows = [tokens(1, n, seed=n) for n in (30, 5, 66)]
    ends = torch.tensor([0, 30, 35, 101], dtype=torch.int32)
    positions = torch.cat([torch.arange(row.shape[1]) for row in rows])[None]
    packed = model(
        torch.cat(rows, 1), position_ids=positions, cu_seq_lens_q=ends, cu_seq_lens_k=ends,
        max_length_q=66, max_length_k=66, use_cache=False,
    ).logits  # fmt: skip
    alone = torch.cat([model(row).logits for row in rows], 1)
    assert (packed - alone).abs().max() <= 1e-4


def test_registered_for_what_is_loaded_later(tmp_path: Path) -> None:
    build("qwen3_5").save_pretrained(tmp_path)
    attention.register()
    try:
        assert hasattr(qwen3_5.torch_chunk_gated_delta_rule, "plain")
        attention.unregister()
        assert not hasattr(qwen3_5.torch_chunk_gated_delta_rule, "plain")
        model = models.load_model(tmp_path)  # needs no call
        assert hasattr(qwen3_5.torch_chunk_gated_delta_rule, "plain")
        assert model(tokens(1, 5)).logits.shape == (1, 5, 96)
    finally:
        attention.unregister()


def test_tracing_gets_what_transformers_can_trace() -> None:
    class Rule(torch.nn.Module):
        def forward(self, q: Tensor, g: Tensor) -> Tensor:
            return qwen3_5.torch_chunk_gated_delta_rule(q, q, q, g, g.exp(), chunk_size=4)[0]

    rng = torch.Generator().manual_seed(0)
    q, g = torch.randn(1, 6, 2, 8, generator=rng), -torch.rand(1, 6, 2, generator=rng)
    q = q / q.norm(dim=-1, keepdim=True)
    attention.accelerate(build("qwen3_5"))
    try:
        traced = torch.export.export(Rule(), (q, g)).module()
        assert (traced(q, g) - Rule()(q, g)).abs().max() <= 1e-5
    finally:
        attention.unregister()
