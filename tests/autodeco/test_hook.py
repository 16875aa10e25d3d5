"""Heads on a model that keeps its class: the same distribution, or a refusal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.autodeco.conftest import (
    VOCAB,
    WIDTH,
    build,
    official_config,
    official_tensors,
    write_heads,
)
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    DynamicCache,
    Gemma2Config,
    GraniteConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from hanol import autodeco, models
from hanol.attention import CACHE_NAME
from hanol.autodeco import AutoDecoForCausalLM, AutoDecoHook, DecodingLimits, custom_generate
from hanol.errors import CheckpointError, ConfigError

IDS = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(0))


def heads_of(base: PreTrainedModel, folder: Path, **kwargs: Any) -> Path:
    return write_heads(folder / "heads", official_config(base), official_tensors(**kwargs))


@torch.no_grad()
def test_logits_are_those_of_the_wrapped_model(base: PreTrainedModel, tmp_path: Path) -> None:
    heads = heads_of(base, tmp_path)
    expected = AutoDecoForCausalLM.from_pretrained(heads, base_model=base)(IDS)
    plain = base(IDS).logits
    with AutoDecoHook(base, heads) as hook:
        out = base(IDS)
        assert torch.equal(out.logits, expected.logits)
        assert torch.equal(hook.temperature_BT, expected.temperature)
        assert torch.equal(hook.top_p_BT, expected.top_p)
    assert torch.equal(base(IDS).logits, plain)


def test_generates_what_the_wrapped_model_does(base: PreTrainedModel, tmp_path: Path) -> None:
    heads = heads_of(base, tmp_path)
    wrapped = AutoDecoForCausalLM.from_pretrained(heads, base_model=base)
    torch.manual_seed(1)
    expected = wrapped.generate(IDS, max_new_tokens=8)
    greedy = base.generate(IDS, max_new_tokens=8, do_sample=False)
    before = base.generation_config
    with AutoDecoHook(base, heads):
        torch.manual_seed(1)
        assert torch.equal(base.generate(IDS, max_new_tokens=8), expected)
        assert torch.equal(base.generate(IDS, max_new_tokens=8, do_sample=False), greedy)
    assert base.generation_config is before


def test_custom_generate_samples_for_one_call(base: PreTrainedModel, tmp_path: Path) -> None:
    heads = heads_of(base, tmp_path)
    wrapped = AutoDecoForCausalLM.from_pretrained(heads, base_model=base)
    limits = DecodingLimits(max_temperature=0.8)
    torch.manual_seed(1)
    expected = wrapped.generate(IDS, max_new_tokens=8, repetition_penalty=1.3, limits=limits)
    plain = base(IDS).logits
    torch.manual_seed(1)
    # Its own sampling values, and transformers' top-k of 50, do not stack.
    ours = base.generate(
        IDS,
        custom_generate=custom_generate(heads, limits=limits),
        max_new_tokens=8,
        repetition_penalty=1.3,
        do_sample=True,
        temperature=0.1,
        top_p=0.1,
    )
    assert torch.equal(ours, expected)
    assert torch.equal(base(IDS).logits, plain)


def test_limits_of_a_hook(base: PreTrainedModel, tmp_path: Path) -> None:
    heads = heads_of(base, tmp_path)
    with (
        torch.no_grad(),
        AutoDecoHook(base, heads, limits=DecodingLimits(max_temperature=0.5)) as hook,
    ):
        base(IDS)
        assert hook.temperature_BT is not None
        assert hook.temperature_BT.max() == 0.5


def test_heads_of_a_wrapped_model_on_its_base(tmp_path: Path) -> None:
    base = build("llama")
    wrapped = AutoDecoForCausalLM.from_pretrained(heads_of(base, tmp_path), base_model=base)
    with torch.no_grad(), AutoDecoHook(base, wrapped):
        hooked = base(IDS).logits
    with torch.no_grad():
        assert torch.equal(hooked, wrapped(IDS).logits)


def test_merged_checkpoints_have_heads_too(tmp_path: Path) -> None:
    base = build("llama")
    autodeco.merge(heads_of(base, tmp_path), models.save(base, tmp_path / "b"), tmp_path / "m")
    with torch.no_grad():
        expected = AutoDecoForCausalLM.from_pretrained(tmp_path / "m")(IDS).logits
        with AutoDecoHook(base, tmp_path / "m"):
            assert torch.equal(base(IDS).logits, expected)


def test_removed_when_the_block_fails_and_only_once(tmp_path: Path) -> None:
    base = build("llama")
    plain = base(IDS).logits
    hook = AutoDecoHook(base, heads_of(base, tmp_path))
    with pytest.raises(RuntimeError, match="mine"), hook:
        raise RuntimeError("mine")
    assert torch.equal(base(IDS).logits, plain)
    hook.remove()
    assert torch.equal(base(IDS).logits, plain)


@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("final_logit_softcapping", Gemma2Config(
            vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, head_dim=16,
        )),
        ("logits_scaling", GraniteConfig(
            vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, logits_scaling=8.0,
        )),
        ("logit_scale", CohereConfig(
            vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
            bos_token_id=2,
        )),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_models_that_change_their_logits_afterwards_are_refused(
    key: str, config: Any, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()
    heads = heads_of(model, tmp_path)
    before = model.generation_config
    value = getattr(config, key)
    with pytest.raises(ConfigError, match=f"`{key}` of the model is {value}: .*AutoDecoForCausal"):
        AutoDecoHook(model, heads)
    assert model.generation_config is before
    assert not model.get_output_embeddings()._forward_hooks
    # The wrapped model reads the final logits, so it may have them.
    wrapped = AutoDecoForCausalLM.from_pretrained(heads, base_model=model)
    with torch.no_grad():
        assert torch.equal(wrapped(IDS, output_base_logits=True).base_logits, model(IDS).logits)


def test_granite_that_scales_by_one_is_allowed(tmp_path: Path) -> None:
    config = GraniteConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, logits_scaling=1.0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with AutoDecoHook(model, heads_of(model, tmp_path)) as hook:
        model(IDS)
    assert hook.temperature_BT.shape == (2, 9)


@pytest.mark.parametrize("key", ["output_multiplier", "lm_head_multiplier", "logit_scale"])
def test_keys_are_refused_where_the_tokens_that_are_run_show_nothing(
    key: str, tmp_path: Path
) -> None:
    base = build("llama")
    heads = heads_of(base, tmp_path)
    setattr(base.config, key, 0.5)
    with pytest.raises(ConfigError, match=f"`{key}` of the model is 0.5: it changes the logits"):
        AutoDecoHook(base, heads)
    setattr(base.config, key, 1.0)
    AutoDecoHook(base, heads).remove()


class ShiftedLlama(LlamaForCausalLM):
    """Changes its logits without a key that says so."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * 0.5
        return out


def test_changed_logits_are_found_without_a_key(tmp_path: Path) -> None:
    base = build("llama")
    heads = heads_of(base, tmp_path)
    with pytest.raises(ConfigError, match="ShiftedLlama are not what its output embedding gives"):
        AutoDecoHook(ShiftedLlama(base.config).eval(), heads)


def test_sampling_values_of_the_model_are_put_aside(tmp_path: Path) -> None:
    base = build("llama")
    base.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, top_k=20)
    with pytest.warns(UserWarning, match="temperature=0.6, top_p=0.9, top_k=20"):
        hook = AutoDecoHook(base, heads_of(base, tmp_path))
    ours = base.generation_config
    assert (ours.temperature, ours.top_p, ours.top_k) == (1.0, 1.0, 0)
    assert ours.eos_token_id == 257
    hook.remove()
    assert base.generation_config.temperature == 0.6


def test_heads_of_another_model(tmp_path: Path) -> None:
    base, wide = build("llama"), build("llama", hidden_size=64)
    heads = heads_of(base, tmp_path)
    with pytest.raises(CheckpointError, match=r"\(256, 32\).*64 numbers.*needs \(256, 64\)"):
        AutoDecoHook(wide, heads)
    with pytest.raises(
        CheckpointError, match=r"\(\.\.\., 260\), but the base gives \(\.\.\., 300\)"
    ):
        AutoDecoHook(build("llama", vocab_size=300), heads)
    wrapped = AutoDecoForCausalLM.from_pretrained(heads, base_model=base)
    with pytest.raises(CheckpointError, match=r"\(32, 260\), but this model has \(64, 260\)"):
        AutoDecoHook(wide, wrapped)
    with pytest.raises(CheckpointError, match=r"\(32, 260\), but this model has \(32, 300\)"):
        AutoDecoHook(build("llama", vocab_size=300), wrapped)
    with pytest.raises(CheckpointError, match="checkpoint of 'llama' without AutoDeco heads"):
        AutoDecoHook(base, models.save(base, tmp_path / "b"))


def test_wrapped_model_gets_no_second_heads(tmp_path: Path) -> None:
    base = build("llama")
    heads = heads_of(base, tmp_path)
    wrapped = AutoDecoForCausalLM.from_pretrained(heads, base_model=base)
    with pytest.raises(ConfigError, match="has heads of its own"):
        AutoDecoHook(wrapped, heads)
    with AutoDecoHook(base, heads), pytest.raises(ConfigError, match="has a hook already"):
        AutoDecoHook(base, heads)
    AutoDecoHook(base, heads).remove()


@torch.no_grad()
def test_cached_steps_are_the_whole_pass(tmp_path: Path) -> None:
    base = build("qwen3")
    with AutoDecoHook(base, heads_of(base, tmp_path)) as hook:
        base(IDS)
        whole: Tensor = hook.temperature_BT
        cache = DynamicCache(config=base.config)
        base(IDS[:, :8], **{CACHE_NAME: cache})
        base(IDS[:, 8:], **{CACHE_NAME: cache})
        assert torch.allclose(hook.temperature_BT, whole[:, 8:], atol=1e-5)


def test_model_without_output_embedding(tmp_path: Path) -> None:
    base = build("llama")
    heads = heads_of(base, tmp_path)
    with pytest.raises(ConfigError, match="LlamaModel has no output embedding"):
        AutoDecoHook(base.model, heads)
    assert isinstance(base.lm_head, nn.Linear)
