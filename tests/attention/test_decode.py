"""One token through kernels of whole layers against transformers, and weights of fewer bits."""

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    KimiLinearConfig,
    KimiLinearForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

from hanol import attention
from hanol.attention import CACHE_NAME
from hanol.attention.decode import _kimi, _llama  # private: whether the short way was taken
from hanol.errors import CheckpointError, UnknownNameError

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def kimi(**more: Any) -> KimiLinearConfig:
    return KimiLinearConfig(
        vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        num_attention_heads=2, num_key_value_heads=2, qk_nope_head_dim=16, qk_rope_head_dim=8,
        v_head_dim=32, kv_lora_rank=24, linear_head_dim=64,
        linear_num_heads=2, num_experts=6, num_experts_per_token=2, moe_intermediate_size=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )  # fmt: skip


MODELS: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama with biases": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, attention_bias=True, rope_parameters={
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        }),
    ),
    "llama with wide heads": (
        LlamaForCausalLM,
        LlamaConfig(**{**SIZES, "head_dim": 64, "num_attention_heads": 8}),
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**{**SIZES, "head_dim": 32})),
    "qwen3.5": (
        Qwen3_5ForCausalLM,
        Qwen3_5TextConfig(
            **SIZES, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16,
            linear_value_head_dim=32,
            layer_types=["linear_attention", "full_attention", "linear_attention"],
        ),
    ),
    "kimi": (KimiLinearForCausalLM, kimi(mlp_layer_types=["dense"] * 3)),
    "kimi with experts and low ranks": (
        KimiLinearForCausalLM,
        kimi(
            mlp_layer_types=["dense", "sparse", "sparse"], q_lora_rank=64, num_expert_group=2,
            topk_group=1, routed_scaling_factor=1.7,
        ),
    ),
}  # fmt: skip
ALL = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def plain(name: str) -> PreTrainedModel:
    cls, config = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(copy.deepcopy(config)).eval()
        for tensor in model.parameters():
            tensor.data += 0.1 * torch.randn_like(tensor)
    return model


@pytest.fixture
def ours(plain: PreTrainedModel) -> PreTrainedModel:
    model = copy.deepcopy(plain)
    if isinstance(model, KimiLinearForCausalLM):
        attention.accelerate(model)
    assert attention.accelerate_decoding(model)
    return model


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each token that went the short way."""
    rows: list[int] = []
    for cls in (_llama.LlamaStep, _kimi.KimiStep):

        def counted(self: Any, embeds: Tensor, *arguments: Any, call: Any = cls.__call__) -> Tensor:
            rows.append(len(embeds))
            return call(self, embeds, *arguments)

        monkeypatch.setattr(cls, "__call__", counted)
    return rows


def tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 96, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def stepwise(model: Any, ids: Tensor, prompt: int, **inputs: Any) -> Tensor:
    """Logits of all tokens after the prompt, one token a call."""
    mask = inputs.pop("attention_mask", None)
    first: dict[str, Any] = {}
    if mask is not None:
        first["attention_mask"] = mask[:, :prompt]
        first["position_ids"] = (mask[:, :prompt].cumsum(1) - 1).clamp(min=0)
    out = model(ids[:, :prompt], use_cache=True, **first)
    pieces = [out.logits[:, -1:]]
    for t in range(prompt, ids.shape[1]):
        if mask is not None:
            inputs["attention_mask"] = mask[:, : t + 1]
            inputs["position_ids"] = mask[:, : t + 1].sum(1, keepdim=True) - 1
        out = model(ids[:, t : t + 1], use_cache=True, **{CACHE_NAME: out[CACHE_NAME]}, **inputs)
        pieces.append(out.logits)
    return torch.cat(pieces, dim=1)


@ALL
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
def test_logits_are_those_of_the_whole_pass(
    name: str, plain: PreTrainedModel, ours: PreTrainedModel, steps: list[int], rows: int
) -> None:
    ids = tokens(rows, 40)
    with torch.no_grad():
        whole = plain(ids).logits[:, 2:]
    assert (stepwise(ours, ids, 3) - whole).abs().max() <= 1e-4
    assert steps == [rows] * 37


@ALL
def test_padding_on_the_left(
    name: str, plain: PreTrainedModel, ours: PreTrainedModel, steps: list[int]
) -> None:
    ids = tokens(3, 30)
    mask = torch.ones_like(ids)
    mask[0, :9], mask[2, :4] = 0, 0
    found = stepwise(ours, ids, 12, attention_mask=mask)
    for row, pad in enumerate((9, 0, 4)):
        with torch.no_grad():
            alone = plain(ids[row : row + 1, pad:]).logits[0, 11 - pad :]
        assert (found[row] - alone).abs().max() <= 1e-4
    assert steps


@ALL
@pytest.mark.parametrize("beams", [1, 3])
def test_generates_what_transformers_generates(
    name: str, plain: PreTrainedModel, ours: PreTrainedModel, steps: list[int], beams: int
) -> None:
    ids = tokens(2, 9)
    options = {
        "attention_mask": torch.ones_like(ids), "max_new_tokens": 15, "do_sample": False,
        "num_beams": beams,
    }  # fmt: skip
    assert torch.equal(ours.generate(ids, **options), plain.generate(ids, **options))
    assert set(steps) == {2 * beams}


@pytest.mark.parametrize("name", ["llama"])
def test_who_listens_or_changes_the_model_gets_transformers_own_way(
    name: str, plain: PreTrainedModel, ours: Any, steps: list[int]
) -> None:
    ids = tokens(1, 8)
    before = stepwise(ours, ids, 3)
    assert len(steps) == 5
    steps.clear()
    with torch.no_grad():
        cached = ours(ids[:, :5], use_cache=True)
        hidden = ours(ids[:, 5:6], output_hidden_states=True, **{CACHE_NAME: cached[CACHE_NAME]})
    assert len(hidden.hidden_states) == 4
    assert not steps
    seen: list[Any] = []
    hook = ours.model.layers[1].mlp.up_proj.register_forward_hook(lambda *x: seen.append(x))
    torch.testing.assert_close(stepwise(ours, ids, 3), before, rtol=0, atol=1e-5)
    assert len(seen) == 6
    assert not steps
    hook.remove()
    with torch.no_grad():  # an optimizer's step, in place, and a tensor that is another one
        ours.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        ours.model.layers[1].self_attn.q_proj.weight.data = (
            ours.model.layers[1].self_attn.q_proj.weight.data * 0.5
        )
        plain.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        plain.model.layers[1].self_attn.q_proj.weight.mul_(0.5)
    assert (stepwise(ours, ids, 3) - stepwise(plain, ids, 3)).abs().max() <= 1e-4
    assert len(steps) == 5
    adapted = get_peft_model(ours, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    for key, tensor in adapted.named_parameters():
        if "lora_B" in key:
            tensor.data.normal_()
    steps.clear()
    whole = adapted(ids).logits[:, 2:].detach()
    assert (stepwise(adapted, ids, 3) - whole).abs().max() <= 1e-4
    assert not steps


@pytest.mark.parametrize("name", ["llama"])
@torch.no_grad()
def test_what_does_not_fit_is_for_transformers(
    name: str, plain: Any, ours: Any, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tokens(2, 6)

    def both(taken: Sequence[int] = (), **inputs: Any) -> None:
        steps.clear()
        found = []
        for model in (plain, ours):
            cache = model(ids[:, :5], use_cache=True)[CACHE_NAME]
            try:
                found.append(model(ids[:, 5:], **{CACHE_NAME: cache}, **inputs).logits)
            except Exception as err:  # whatever transformers says
                found.append(type(err))
        assert steps == [*taken]
        if isinstance(found[0], Tensor):
            assert (found[0] - found[1]).abs().max() <= 1e-4
        else:
            assert found[0] is found[1]

    both(attention_mask=torch.tensor([[1, 1, 1], [0, 1, 1]]))  # of too few tokens
    both(attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1]]))  # of too few rows
    both(position_ids=torch.arange(4)[None])
    for model in (plain, ours):
        monkeypatch.setattr(model.config, "num_hidden_layers", 2)
    both(taken=[2])  # its first layers, which assist the whole model
    monkeypatch.undo()
    monkeypatch.setattr(ours.model.layers[0].mlp, "forward", lambda x: x * 0)
    monkeypatch.setattr(plain.model.layers[0].mlp, "forward", lambda x: x * 0)
    both()


@pytest.mark.parametrize("name", ["qwen2"])
def test_a_model_that_stepped_is_saved_as_it_is(
    name: str, plain: Any, ours: Any, steps: list[int], tmp_path: Path
) -> None:
    stepwise(ours, tokens(1, 9), 3)
    assert steps
    ours.save_pretrained(tmp_path)
    again = Qwen2ForCausalLM.from_pretrained(tmp_path)
    for key, tensor in plain.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)


@pytest.mark.parametrize("name", ["qwen3"])
def test_copies_and_pickles_step_for_themselves(name: str, ours: Any, steps: list[int]) -> None:
    ids = tokens(1, 9)
    before = stepwise(ours, ids, 3)
    for again in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        with torch.no_grad():
            ours.model.norm.weight.mul_(1.25)  # of the first alone
        assert torch.equal(stepwise(again, ids, 3), before)
    assert len(steps) == 18


@pytest.mark.parametrize("name", ["qwen3"])
def test_without_numba_it_is_transformers(
    name: str, plain: Any, ours: Any, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("_decoder", "_weights"):
        monkeypatch.setattr(f"hanol.attention.decode.{module}.numba_kernels_exist", lambda: False)
    ids = tokens(2, 9)
    torch.testing.assert_close(stepwise(ours, ids, 3), stepwise(plain, ids, 3))
    assert not steps


def held_bytes(model: nn.Module) -> int:
    """Of all but the experts, which stay float32."""
    named = [*model.named_parameters(), *model.named_buffers()]
    held = {x.data_ptr(): x for name, x in named if ".experts." not in name}
    return sum(x.numel() * x.element_size() for x in held.values())


@ALL
@pytest.mark.parametrize("kind", attention.KINDS)
def test_packed_models_step_as_they_read(
    name: str, plain: PreTrainedModel, ours: PreTrainedModel, steps: list[int], kind: str
) -> None:
    before = held_bytes(ours)
    attention.pack(ours, kind)
    assert held_bytes(ours) < before * {"bfloat16": 0.6, "int8": 0.4, "int4": 0.35}[kind]
    ids = tokens(3, 20)
    with torch.no_grad():
        whole, exact = ours(ids).logits, plain(ids).logits
    assert (stepwise(ours, ids, 12) - whole[:, 11:]).abs().max() <= 1e-4
    assert len(steps) == 8
    error = (whole - exact).norm() / exact.norm()
    bound = {"bfloat16": 0.02, "int8": 0.05, "int4": 0.6}[kind]
    # Where roundings choose another expert, a token is another one.
    assert 1e-5 < error < (0.6 if "experts" in name else bound)


@pytest.mark.parametrize("kind", attention.KINDS)
def test_packed_products(kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    linear = nn.Linear(192, 77)
    linear.weight.data = torch.randn(77, 192, generator=rng)
    linear.weight.data[3] = 0
    linear.weight.data[4, 5] = 1e4
    model = Holder(linear)
    attention.pack(model, kind)  # type: ignore[arg-type]
    packed: Any = model.linear
    weight = packed.dequantized()
    assert torch.equal(weight[3], torch.zeros(192))
    bound = {"bfloat16": 2**-8, "int8": 1 / 250, "int4": 1 / 7}[kind]
    for got, wanted in zip(weight.view(-1, 32), Holder.weight.view(-1, 32), strict=True):
        near = Holder.weight.abs().max() if kind == "int8" and 1e4 in wanted else wanted.abs().max()
        assert (got - wanted).abs().max() <= bound * near + 1e-6 or kind == "int8"
    for rows in range(1, 10):
        x = torch.randn(rows, 192, generator=rng)
        with torch.no_grad():
            torch.testing.assert_close(packed(x), x @ weight.T + linear.bias, rtol=1e-5, atol=1e-2)
    x = torch.randn(2, 192, requires_grad=True, generator=rng)
    packed(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(2, -1))


class Holder(nn.Module):
    """A layer where a model would have it."""

    weight: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        Holder.weight = linear.weight.detach().clone()

    def get_output_embeddings(self) -> None:
        """It has none."""

    def get_input_embeddings(self) -> None:
        """It has none."""


@pytest.mark.parametrize("name", ["llama"])
def test_a_packed_model_is_not_saved_without_its_weights(
    name: str, ours: PreTrainedModel, tmp_path: Path
) -> None:
    attention.pack(ours, "int8")
    with pytest.raises(CheckpointError, match="rounded to int8 for inference and cannot be saved"):
        ours.save_pretrained(tmp_path)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(UnknownNameError, match="int3"):
        attention.pack(Holder(nn.Linear(64, 2)), "int3")  # type: ignore[arg-type]
