"""The accelerated Kimi-Linear model against transformers' own, and what transformers gets wrong."""

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModel,
    DynamicCache,
    KimiLinearConfig,
    KimiLinearForCausalLM,
    KimiLinearModel,
    LlamaConfig,
    LlamaForCausalLM,
    StaticCache,
)
from transformers.monkey_patching import get_patch_mapping

from hanol import attention, models
from hanol.attention import CACHE_NAME
from hanol.errors import CacheError, ConfigError, ShapeError

KINDS = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]


def config(**changes: Any) -> KimiLinearConfig:
    values: dict[str, Any] = {
        "vocab_size": 96,
        "hidden_size": 48,
        "intermediate_size": 96,
        "moe_intermediate_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "kv_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "linear_head_dim": 16,
        "linear_num_heads": 3,
        "num_experts": 8,
        "num_experts_per_token": 2,
        "num_expert_group": 2,
        "topk_group": 1,
        "layer_types": KINDS,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return KimiLinearConfig(**{**values, **changes})


def plain_model(**changes: Any) -> KimiLinearForCausalLM:
    """transformers' own model with norms, biases and gates away from their initial values."""
    attention.unregister()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = KimiLinearForCausalLM(config(**changes)).eval()
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim == 1:
                tensor.data += 0.2 * torch.randn_like(tensor)
            elif "proj" in name or "experts" in name:
                tensor.data *= 4
    return model


@pytest.fixture(scope="module")
def plain() -> KimiLinearForCausalLM:
    return plain_model()


@pytest.fixture(scope="module")
def ours(plain: KimiLinearForCausalLM) -> KimiLinearForCausalLM:
    return attention.accelerate(copy.deepcopy(plain))


def tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 96, (rows, length), generator=torch.Generator().manual_seed(seed))


def apart(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@torch.no_grad()
def test_logits_and_router_choices_equal_transformers(plain, ours) -> None:
    ids = tokens(2, 150)
    theirs = plain(ids, output_router_logits=True)
    mine = ours(ids, output_router_logits=True)
    assert apart(theirs.logits, mine.logits) < 1e-4
    assert torch.equal(theirs.logits.argmax(-1), mine.logits.argmax(-1))
    for a, b in zip(theirs.router_logits, mine.router_logits, strict=True):
        assert torch.equal(a.topk(2).indices.sort().values, b.topk(2).indices.sort().values)


def test_gradients_equal_transformers(plain, ours) -> None:
    ids = tokens(2, 70)
    pair = [copy.deepcopy(model).train() for model in (plain, ours)]
    for model in pair:
        model(ids, labels=ids, use_cache=False).loss.backward()
    compared = 0
    for (name, a), b in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
        if a.grad is not None:
            assert (a.grad - b.grad).norm() <= 1e-4 * a.grad.norm() + 1e-7, name
            compared += 1
    assert compared > 40


def test_parameter_names_stay(plain, ours) -> None:
    assert list(plain.state_dict()) == list(ours.state_dict())
    with torch.no_grad():
        ours(tokens(1, 5))  # lays projections side by side
    fresh = plain_model()
    fresh.load_state_dict(ours.state_dict())
    again = copy.deepcopy(ours)
    with torch.no_grad():
        ids = tokens(1, 40)
        assert apart(fresh(ids).logits, ours(ids).logits) < 1e-4
        assert torch.equal(again(ids).logits, ours(ids).logits)


@torch.no_grad()
def test_a_weight_changed_after_fusing_is_used(ours) -> None:
    model = copy.deepcopy(ours)
    ids = tokens(1, 9)
    before = model(ids).logits
    model.model.layers[0].self_attn.k_proj.weight.zero_()
    changed = model(ids).logits
    model.model.layers[0].self_attn.k_proj.weight = torch.nn.Parameter(
        ours.model.layers[0].self_attn.k_proj.weight.clone()
    )
    assert apart(before, changed) > 1e-3
    assert apart(model(ids).logits, before) < 1e-5


def test_a_model_that_wrote_in_inference_mode_can_be_trained(ours) -> None:
    model = copy.deepcopy(ours)
    ids = tokens(1, 9)
    with torch.inference_mode():
        model.generate(ids, max_new_tokens=2, do_sample=False)
    model(ids, labels=ids).loss.backward()
    assert model.model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("first", [1, 2, 3, 4, 63, 64, 69])
def test_any_split_equals_one_pass(ours, first: int) -> None:
    ids = tokens(2, 75)
    whole = ours(ids).logits
    cache = DynamicCache(config=ours.config)
    pieces = [ids[:, :first], ids[:, first:72], ids[:, 72:73], ids[:, 73:74], ids[:, 74:]]
    logits = [ours(piece, **{CACHE_NAME: cache}).logits for piece in pieces]
    assert apart(torch.cat(logits, 1), whole) < 1e-4
    assert cache.get_seq_length() == 75


@torch.no_grad()
def test_long_prompts_in_pieces_equal_one_pass(ours, monkeypatch) -> None:
    ids = tokens(1, 200)
    whole = ours(ids).logits
    monkeypatch.setattr("hanol.attention._delta._PIECE", 48)
    monkeypatch.setattr("hanol.attention._mla._QUERY_BLOCK", 32)
    assert apart(ours(ids).logits, whole) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(plain, ours, side: str) -> None:
    lengths, steps = [40, 3, 65], 8
    width = max(lengths)
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    rows = [tokens(1, length + steps, seed=length)[0] for length in lengths]
    for b, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        place = slice(width - length, width) if side == "left" else slice(0, length)
        ids[b, place], mask[b, place] = row[:length], 1

    def errors(model: Any) -> list[float]:
        cache = DynamicCache(config=model.config)
        model(ids, attention_mask=mask, **{CACHE_NAME: cache})
        grown, found = mask, []
        for step in range(steps):
            grown = torch.cat([grown, torch.ones(3, 1, dtype=torch.long)], dim=1)
            new = torch.stack([row[n + step] for row, n in zip(rows, lengths, strict=True)])
            logits = model(new.unsqueeze(1), attention_mask=grown, **{CACHE_NAME: cache}).logits[
                :, -1
            ]
            for b, n in enumerate(lengths):
                alone = ours(rows[b][None, : n + step + 1]).logits[0, -1]
                found.append(apart(logits[b], alone))
        return found

    assert max(errors(ours)) < 1e-4
    if side == "right":
        assert max(errors(plain)) > 1e-2, "transformers cures this itself now"


@torch.no_grad()
def test_packed_documents_do_not_leak(plain, ours) -> None:
    lengths = [30, 1, 64, 20]
    ids = tokens(1, sum(lengths))
    position_ids = torch.cat([torch.arange(n) for n in lengths])[None]
    ends = torch.tensor([0, *lengths]).cumsum(0)
    alone = torch.cat([ours(part).logits for part in ids.split(lengths, dim=1)], dim=1)
    assert apart(ours(ids, position_ids=position_ids).logits, alone) < 1e-5
    assert apart(ours(ids, cu_seqlens=ends).logits, alone) < 1e-5
    assert apart(ours(ids, cu_seq_lens_q=ends.int()).logits, alone) < 1e-5
    rows = ids.repeat(2, 1), position_ids.repeat(2, 1)
    assert apart(ours(rows[0], position_ids=rows[1]).logits[1:], alone) < 1e-5
    leaked = plain(ids, position_ids=position_ids).logits
    assert apart(leaked, alone) > 1e-2, "transformers cures this itself now"


def test_packed_gradients_equal_separate(ours) -> None:
    lengths = [30, 64, 6]
    ids = tokens(1, 100)
    position_ids = torch.cat([torch.arange(n) for n in lengths])[None]
    packed, alone = copy.deepcopy(ours), copy.deepcopy(ours)
    weight = torch.randn(1, 100, 96, generator=torch.Generator().manual_seed(1))
    (packed(ids, position_ids=position_ids, use_cache=False).logits * weight).sum().backward()
    for part, w in zip(ids.split(lengths, 1), weight.split(lengths, 1), strict=True):
        (alone(part, use_cache=False).logits * w).sum().backward()
    for (name, a), b in zip(packed.named_parameters(), alone.parameters(), strict=True):
        if b.grad is not None:
            assert (a.grad - b.grad).norm() <= 1e-5 * b.grad.norm() + 1e-6, name


@torch.no_grad()
def test_packed_prompt_goes_on_from_its_last_document(ours) -> None:
    ids = tokens(1, 50)
    position_ids = torch.cat([torch.arange(20), torch.arange(30)])[None]
    cache = DynamicCache(config=ours.config)
    ours(ids, position_ids=position_ids, **{CACHE_NAME: cache})
    kda = cache.layers[0].state_BHKV
    alone = DynamicCache(config=ours.config)
    ours(ids[:, 20:], **{CACHE_NAME: alone})
    assert apart(kda, alone.layers[0].state_BHKV) < 1e-5


@torch.no_grad()
def test_continuing_a_padded_batch_with_padding(ours) -> None:
    first, second = tokens(2, 20), tokens(2, 12, seed=4)
    mask1, mask2 = torch.ones(2, 20, dtype=torch.long), torch.ones(2, 12, dtype=torch.long)
    mask1[1, 15:] = 0
    mask2[0, 10:] = 0
    cache = DynamicCache(config=ours.config)
    ours(first, attention_mask=mask1, **{CACHE_NAME: cache})
    both = torch.cat([mask1, mask2], 1)
    logits = ours(second, attention_mask=both, **{CACHE_NAME: cache}).logits
    for b in range(2):
        real = torch.cat([first[b, : mask1[b].sum()], second[b, : mask2[b].sum()]])[None]
        alone = ours(real).logits[0, -int(mask2[b].sum()) :]
        assert apart(logits[b, : int(mask2[b].sum())], alone) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}],
    ids=["greedy", "beam", "assisted"],
)
def test_generate(plain, ours, options: dict[str, int]) -> None:
    ids = tokens(1, 12).repeat(1, 2)
    settings = {"max_new_tokens": 14, "do_sample": False, "eos_token_id": None}
    expected_options = {} if "prompt_lookup_num_tokens" in options else options
    expected = plain.generate(ids, **settings, **expected_options)
    assert torch.equal(ours.generate(ids, **settings, **options), expected)


def llama() -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2,
        )
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def assistants(ours) -> dict[str, Any]:
    other = attention.accelerate(plain_model(num_hidden_layers=2, layer_types=KINDS[2:]))
    near = copy.deepcopy(ours)
    near.lm_head.weight.data += 0.05 * torch.randn_like(near.lm_head.weight)
    return {"another kind": llama(), "smaller": other, "nearly the same": near, "itself": ours}


@torch.no_grad()
@pytest.mark.parametrize("name", ["another kind", "smaller", "nearly the same", "itself"])
@pytest.mark.parametrize("length", [1, 9])
@pytest.mark.parametrize("drafted", [1, 20])
def test_generate_with_an_assistant(
    ours, assistants: dict[str, Any], name: str, length: int, drafted: int
) -> None:
    assistant = assistants[name]
    assistant.generation_config.num_assistant_tokens = drafted
    for seed, new in enumerate((10, 25)):
        ids = tokens(1, length, seed=seed)
        settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": new,
                    "do_sample": False, "eos_token_id": None}  # fmt: skip
        expected = ours.generate(ids, **settings)
        assert torch.equal(ours.generate(ids, assistant_model=assistant, **settings), expected)


@torch.no_grad()
@pytest.mark.parametrize("padding", [1, 4])
def test_an_assistant_behind_padding(ours, assistants: dict[str, Any], padding: int) -> None:
    """Tokens that a model draws and that are those of the padding are padding to its assistant."""
    ids = tokens(1, 9)
    padded = torch.cat([torch.zeros(1, padding, dtype=torch.long), ids], dim=1)
    settings = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    expected = ours.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    for assistant in assistants.values():
        out = ours.generate(
            padded, attention_mask=(padded != 0).long(), assistant_model=assistant, **settings
        )
        assert torch.equal(out[:, padding:], expected)
    drawn = int(expected[0, 10])
    for pad in (drawn, 0):
        out = ours.generate(
            ids, attention_mask=torch.ones_like(ids), assistant_model=ours,
            pad_token_id=pad, **settings,
        )  # fmt: skip
        assert torch.equal(out, expected)


@torch.no_grad()
def test_a_step_of_padding_alone_changes_nothing(ours) -> None:
    ids = tokens(1, 12)
    cache = cached(ours, ids[:, :8])
    cache.activate_past_recording()
    mask = torch.ones(1, 10, dtype=torch.long)
    mask[:, 8:] = 0
    out = ours(torch.zeros(1, 2, dtype=torch.long), attention_mask=mask, **{CACHE_NAME: cache})
    assert not out.logits.isnan().any()
    assert cache.get_seq_length() == 10
    mask = torch.cat([mask, torch.ones(1, 4, dtype=torch.long)], dim=1)
    expected = ours(ids).logits[:, 8:]
    for _ in range(2):
        again = ours(ids[:, 8:], attention_mask=mask, **{CACHE_NAME: cache}).logits
        assert apart(again, expected) < 1e-4
        cache.crop(-4)


@torch.no_grad()
def test_our_model_assists_another_one(ours) -> None:
    ids, model = tokens(1, 9), llama()
    settings = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(ids, **settings)
    assert torch.equal(model.generate(ids, assistant_model=ours, **settings), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}], ids=["", "beam", "lookup"]
)
@pytest.mark.parametrize("kind", ["static", "offloaded_static", "sliding_window", "offloaded"])
def test_caches_that_are_asked_for_by_name(ours, kind: str, options: dict[str, int]) -> None:
    ids = tokens(1, 12).repeat(1, 2)
    settings = {"max_new_tokens": 14, "do_sample": False, "eos_token_id": None, **options}
    expected = ours.generate(ids, **settings)
    assert torch.equal(ours.generate(ids, cache_implementation=kind, **settings), expected)


@torch.no_grad()
def test_a_static_cache_is_filled_with_our_layers(ours) -> None:
    ids = tokens(1, 30)
    cache = StaticCache(config=ours.config, max_cache_len=64)
    parts = [ours(part, **{CACHE_NAME: cache}).logits for part in ids.split(10, dim=1)]
    assert apart(torch.cat(parts, 1), ours(ids).logits) < 1e-4


@torch.no_grad()
def test_the_first_layers_assist_the_whole_model(ours) -> None:
    ids = tokens(1, 12)
    settings = {"max_new_tokens": 14, "do_sample": False, "eos_token_id": None}
    expected = ours.generate(ids, **settings)
    assert torch.equal(ours.generate(ids, assistant_early_exit=2, **settings), expected)


def test_assisted_generation_is_refused_by_transformers_alone(plain) -> None:
    ids = tokens(1, 12)
    probe = plain_model()
    with pytest.raises(ValueError, match="stateful"):
        probe.generate(ids, max_new_tokens=4, prompt_lookup_num_tokens=3)


@torch.no_grad()
def test_model_of_delta_layers_alone(plain) -> None:
    changes = {"layer_types": ["linear_attention"] * 4}
    alone = plain_model(**changes)
    with pytest.raises(ValueError, match="get_seq_length"):
        alone(tokens(1, 5), use_cache=True)
    model = attention.accelerate(alone)
    ids = tokens(1, 20)
    out = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
    for n in range(20, 25):
        assert model(out[:, :n]).logits[0, -1].argmax() == out[0, n]


def test_gate_gradient_stays_finite_where_transformers_is_nan(plain) -> None:
    for accelerated in (False, True):
        model = copy.deepcopy(plain)
        if accelerated:
            attention.accelerate(model)
        model.model.layers[0].self_attn.forget_gate.dt_bias.data.fill_(100.0)
        ids = tokens(1, 8)
        model(ids, labels=ids, use_cache=False).loss.backward()
        gradient = model.model.layers[0].self_attn.forget_gate.dt_bias.grad
        assert bool(gradient.isfinite().all()) == accelerated


def test_bfloat16_loading_keeps_what_must_stay_float32(tmp_path, plain) -> None:
    plain.save_pretrained(tmp_path)
    attention.register()
    try:
        model = KimiLinearForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
        made = AutoModel.from_config(config(dtype="bfloat16"))
    finally:
        attention.unregister()
    assert made.layers[0].self_attn.forget_gate.A_log.dtype == torch.float32
    assert made.dtype == torch.bfloat16
    stored = dict(plain.named_parameters()) | dict(plain.named_buffers())
    seen = 0
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.rpartition(".")[2] in attention.FLOAT32:
            assert torch.equal(tensor, stored[name]), name
            seen += 1
        elif name.endswith("weight") and "gate.weight" not in name:
            assert tensor.dtype == torch.bfloat16, name
    assert seen == 3 * 2 + 3
    with torch.no_grad():
        ids = tokens(1, 60)
        a, b = model(ids).logits.float(), attention.accelerate(copy.deepcopy(plain))(ids).logits
    assert torch.cosine_similarity(a, b, dim=-1).min() > 0.99


@torch.no_grad()
def test_registering_changes_models_loaded_afterwards_and_unregistering_takes_it_back(
    tmp_path, plain
) -> None:
    plain.save_pretrained(tmp_path)
    attention.register()
    attention.register()
    fast = KimiLinearForCausalLM.from_pretrained(tmp_path)
    attention.unregister()
    slow = KimiLinearForCausalLM.from_pretrained(tmp_path)
    kinds = [type(m.model.layers[0].self_attn).__module__ for m in (fast, slow)]
    assert kinds[0].startswith("hanol")
    assert kinds[1].startswith("transformers")
    ids = tokens(1, 30)
    assert apart(fast(ids).logits, slow(ids).logits) < 1e-4


def test_registered_changes_what_is_made_within_the_block_and_searches_nothing() -> None:
    def made() -> str:
        return type(KimiLinearForCausalLM(config()).model.layers[0].self_attn).__module__

    attention.unregister()
    with attention.registered():
        with attention.registered():
            pass
        assert made().startswith("hanol"), "the inner block took back what the outer one needs"
        assert not get_patch_mapping(), "transformers would look through all of its modules"
    assert made().startswith("transformers")
    with pytest.raises(KeyError), attention.registered():
        raise KeyError
    assert made().startswith("transformers")


@torch.no_grad()
@pytest.mark.parametrize(
    ("new", "cache_block"),
    [(25, 1 << 21), (60, 1 << 21), (60, 80 * 20)],
    ids=["absorbed", "expanded", "one head and few queries at a time"],
)
def test_every_way_on_a_cache_equals_attention_among_all(
    ours, monkeypatch, new: int, cache_block: int
) -> None:
    monkeypatch.setattr("hanol.attention._mla._CACHE_BLOCK", cache_block)
    layer = ours.model.layers[3].self_attn
    rng = torch.Generator().manual_seed(0)
    q, latent = torch.randn(2, 80, 3, 24, generator=rng), torch.randn(2, 80, 32, generator=rng)
    valid = torch.ones(2, 80, dtype=torch.bool)
    expected = layer._expanded(q, latent)[0][:, -new:]
    for mask in (None, valid):
        assert apart(layer._continued(q[:, -new:], latent, mask), expected) < 1e-5


@torch.no_grad()
def test_absorbed_decoding_allocates_nothing_of_the_expanded_cache(ours) -> None:
    """The largest tensor of a step is a score for each head and token, or the latent cache."""
    layer = ours.model.layers[3].self_attn
    T = 8192
    q, latent = torch.randn(1, 1, 3, 24), torch.randn(1, T, 32)
    with Largest() as largest:
        layer._absorbed(q, latent, None)
    expanded = T * layer.num_heads * layer.qk_nope_head_dim
    assert largest.numel <= max(3 * T, latent.numel()) < expanded


class Largest(TorchDispatchMode):
    """Notes the largest new tensor."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        known = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else [out]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self.numel = max(self.numel, tensor.numel())
        return out


@torch.no_grad()
def test_bfloat16_is_as_near_as_transformers_own() -> None:
    """Both against float32 arithmetic on the same rounded weights."""
    theirs = models.cast(plain_model(mlp_layer_types=["dense"] * 4), torch.bfloat16)
    ours = attention.accelerate(copy.deepcopy(theirs))
    exact = models.cast(copy.deepcopy(ours), torch.float32)
    ids = tokens(2, 100)
    expected = exact(ids).logits
    found = [torch.cosine_similarity(m(ids).logits.float(), expected, -1) for m in (ours, theirs)]
    assert found[0].mean() >= 0.999
    assert found[0].mean() >= found[1].mean() - 1e-4
    assert found[0].min() >= found[1].min() - 1e-3


@torch.no_grad()
def test_eager_attention_returns_weights(plain) -> None:
    model = attention.accelerate(copy.deepcopy(plain))
    model.set_attn_implementation("eager")
    reference = copy.deepcopy(plain)
    reference.set_attn_implementation("eager")
    ids = tokens(2, 20)
    for use_cache in (False, True):
        mine = model(ids, output_attentions=True, use_cache=use_cache)
        theirs = reference(ids, output_attentions=True, use_cache=use_cache)
        assert apart(mine.logits, theirs.logits) < 1e-4
        assert apart(mine.attentions[0], theirs.attentions[0]) < 1e-5


def test_gradient_checkpointing_gives_the_same_gradients(ours) -> None:
    ids = tokens(1, 40)
    pair = [copy.deepcopy(ours).train() for _ in range(2)]
    pair[1].activation_checkpointing_enable()
    for model in pair:
        model(ids, labels=ids, use_cache=False).loss.backward()
    for a, b in zip(pair[0].parameters(), pair[1].parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


def test_router_bias_balances_the_experts(ours) -> None:
    model = copy.deepcopy(ours).train()
    routers = [m for m in model.modules() if hasattr(m, "e_score_correction_bias")]
    for router in routers:
        router.e_score_correction_bias.zero_()
        router.e_score_correction_bias[0] = 0.5
    loads = []
    for step in range(60):
        model(tokens(4, 64, seed=step), use_cache=False)
        loads.append(attention.update_router_bias(model, 0.02))
    assert loads[0] > 2.0
    assert sum(loads[-5:]) / 5 < 0.6 * loads[0]
    assert attention.update_router_bias(model) == 0.0


def test_qk_clip_brings_logits_under_the_limit(ours) -> None:
    model = copy.deepcopy(ours)
    layer = model.model.layers[3].self_attn
    with torch.no_grad():
        layer.q_proj.weight *= 30
    layer.record_max_logit = True
    ids = tokens(2, 50)
    model(ids, use_cache=False)  # an evaluation does not count
    assert layer.max_logit_H is None
    model.train()
    model(ids, use_cache=False)
    largest = layer.max_logit_H.clone()
    tau = largest.max().item() / 3
    shared = layer.kv_a_proj_with_mqa.weight.clone()
    clipped = attention.qk_clip(model, tau)
    assert clipped == int((largest > tau).sum())
    assert torch.equal(layer.kv_a_proj_with_mqa.weight, shared)
    model(ids, use_cache=False)
    assert (layer.max_logit_H <= torch.minimum(largest, torch.tensor(tau)) * 1.001).all()
    assert attention.qk_clip(model, 1e6) == 0


def cached(model: Any, ids: Tensor) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    model(ids, **{CACHE_NAME: cache})
    return cache


@torch.no_grad()
def test_cache_size_is_the_formula(ours) -> None:
    cache = cached(ours, tokens(2, 50))
    kda, mla = cache.layers[0], cache.layers[3]
    assert kda.state_BHKV.shape == (2, 3, 16, 16)
    assert kda.state_BHKV.dtype == torch.float32
    assert kda.window_BWC.shape == (2, 3, 3 * 3 * 16)
    assert mla.latent_BLR.shape == (2, 50, 24 + 8)
    assert mla.keys.shape == (2, 1, 50, 24)
    assert mla.values.shape == (2, 1, 50, 8)


@torch.no_grad()
@pytest.mark.parametrize("remove", [1, 5, 20, 26])
def test_crop_takes_tokens_back(ours, remove: int) -> None:
    ids = tokens(2, 60)
    cache = cached(ours, ids[:, :30])
    cache.activate_past_recording()
    for part in (ids[:, 30:34], ids[:, 34:35], ids[:, 35:60]):
        ours(part, **{CACHE_NAME: cache})
    cache.crop(-remove)
    assert cache.get_seq_length() == 60 - remove
    new = tokens(2, 3, seed=8)
    again = ours(new, **{CACHE_NAME: cache}).logits
    expected = ours(torch.cat([ids[:, : 60 - remove], new], 1)).logits[:, -3:]
    assert apart(again, expected) < 1e-4


@torch.no_grad()
def test_crop_without_a_recorded_past_says_what_to_do(ours) -> None:
    cache = cached(ours, tokens(1, 9))
    with pytest.raises(CacheError, match="activate_past_recording"):
        cache.crop(-2)


@torch.no_grad()
def test_snapshot_brings_everything_back(tmp_path, ours) -> None:
    prefix, rest = tokens(2, 40), tokens(2, 7, seed=3)
    cache = cached(ours, prefix)
    attention.snapshot(cache).save(tmp_path / "prefix.safetensors")
    expected = ours(rest, **{CACHE_NAME: cache}).logits
    kept = attention.CacheSnapshot.load(tmp_path / "prefix.safetensors")
    for _ in range(2):
        kept.restore(cache)
        assert cache.get_seq_length() == 40
        assert apart(ours(rest, **{CACHE_NAME: cache}).logits, expected) < 1e-6
    fresh = cached(ours, tokens(2, 3, seed=9))
    kept.restore(fresh)
    assert apart(ours(rest, **{CACHE_NAME: fresh}).logits, expected) < 1e-6


@torch.no_grad()
def test_rows_of_a_cache_can_be_chosen_repeated_and_reordered(ours) -> None:
    ids, new = tokens(3, 25), tokens(3, 1, seed=2)
    expected = ours(torch.cat([ids, new], 1)).logits[:, -1]
    for change, rows in (
        (lambda c: c.batch_select_indices(torch.tensor([2, 0])), [2, 0]),
        (lambda c: c.reorder_cache(torch.tensor([1, 1, 2])), [1, 1, 2]),
        (lambda c: c.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
    ):
        cache = cached(ours, ids)
        change(cache)
        assert apart(ours(new[rows], **{CACHE_NAME: cache}).logits[:, -1], expected[rows]) < 1e-4


@torch.no_grad()
def test_cache_of_another_model_is_refused(plain, ours) -> None:
    ids = tokens(1, 5)
    other = attention.accelerate(plain_model(kv_lora_rank=16))
    with pytest.raises(CacheError, match="another configuration"):
        ours(ids, **{CACHE_NAME: cached(other, ids)})
    shorter = attention.accelerate(plain_model(num_hidden_layers=2, layer_types=KINDS[2:]))
    with pytest.raises(CacheError, match="has 2 layers, but the model has 4"):
        ours(ids, **{CACHE_NAME: cached(shorter, ids)})
    with pytest.raises(CacheError, match="is a filled"):
        ours(ids, **{CACHE_NAME: cached(plain, ids)})


@torch.no_grad()
def test_a_base_model_alone_gets_layers_and_cache(plain, tmp_path) -> None:
    plain.save_pretrained(tmp_path)
    ids = tokens(2, 9)
    expected = plain.model(ids).last_hidden_state
    attention.register()
    try:
        made = AutoModel.from_config(plain.config)
        loaded = [AutoModel.from_pretrained(tmp_path), KimiLinearModel.from_pretrained(tmp_path)]
    finally:
        attention.unregister()
    for model in (made, *loaded):
        out = model(ids, use_cache=True)
        model(ids[:, :1], use_cache=True, **{CACHE_NAME: out[CACHE_NAME]})
        assert isinstance(model, KimiLinearModel)
        renamed = pytest.warns(FutureWarning, match="Use `cache`")
        with renamed if CACHE_NAME == "cache" else nullcontext():
            model(ids[:, :1], past_key_values=out[CACHE_NAME])
    for model in loaded:
        assert (model(ids).last_hidden_state - expected).abs().max() < 1e-4


def test_inputs_that_cannot_be_read(ours) -> None:
    ids = tokens(2, 6)
    with pytest.raises(ShapeError, match="`attention_mask` is .*two-dimensional"):
        ours(ids, attention_mask=torch.ones(2, 1, 6, 6))
    with pytest.raises(ShapeError, match="2 rows"):
        ours(ids, cu_seqlens=torch.tensor([0, 6]))
    with pytest.raises(ShapeError, match="rise from 0 to .* tokens, 6"):
        ours(ids[:1], cu_seqlens=torch.tensor([0, 5]))
    with pytest.raises(ShapeError, match="not both"):
        ours.model(input_ids=ids, inputs_embeds=torch.zeros(2, 6, 48))
    with pytest.raises(ConfigError, match="without layers of the delta rule"):
        attention.accelerate(torch.nn.Linear(2, 2))


LINEAR = {"kda_layers": [1, 2, 3], "full_attn_layers": [4], "head_dim": 16, "num_heads": 3}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_key_value_heads": 1}, "`num_key_value_heads` is 1"),
        ({"mla_use_nope": False}, "`mla_use_nope` is false"),
        ({"moe_router_activation_func": "softmax"}, "'softmax'"),
        ({"num_experts_per_token": 9}, "`num_experts_per_token` is 9"),
        ({"num_expert_group": 3}, "does not divide the 8 experts"),
        ({"topk_group": 3}, "`topk_group` is 3"),
        ({"linear_attn_config": {**LINEAR, "kda_layers": [0, 1, 2]}}, "names layer 0"),
        ({"linear_attn_config": {**LINEAR, "kda_layers": [1, 2, 3, 4]}}, r"Layers \[4\] are in"),
        ({"linear_attn_config": {**LINEAR, "kda_layers": [1, 2]}}, r"Layers \[3\] are neither"),
        (
            {"linear_attn_config": {**LINEAR, "kda_layers": [1, 2, 3, 7]}},
            r"Layers \[7\] are listed",
        ),
    ],
)
def test_configurations_that_cannot_work(change: dict[str, Any], text: str) -> None:
    official = {
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_experts": 8,
        "num_experts_per_token": 2,
        "num_expert_group": 2,
        "topk_group": 1,
        "linear_attn_config": LINEAR,
    }
    attention.check_config(official)
    with pytest.raises(ConfigError, match=text):
        attention.check_config({**official, **change})
