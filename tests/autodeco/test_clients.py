"""What uses a model with heads as it uses any model: each gives what it must equal."""

import copy
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from tests.autodeco.conftest import NAMES, build, wrap
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TextIteratorStreamer,
    pipeline,
)

from hanol.attention import CACHE_NAME
from hanol.autodeco import AutoDecoForCausalLM, autodeco_loss
from hanol.errors import ConfigError

IDS = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(0))
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6}


@pytest.fixture
def model(tmp_path: Path) -> AutoDecoForCausalLM:
    return wrap(build("llama"), tmp_path)


# -- embeddings instead of tokens


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_of_the_prompt_give_what_its_tokens_give(name: str, tmp_path: Path) -> None:
    model = wrap(build(name), tmp_path)
    embeds = model.get_input_embeddings()(IDS)
    greedy = model.generate(inputs_embeds=embeds, **GREEDY)
    assert torch.equal(greedy, model.generate(IDS, **GREEDY)[:, IDS.shape[1] :])
    both = model.generate(IDS, inputs_embeds=embeds, **GREEDY)
    assert torch.equal(both[:, : IDS.shape[1]], IDS)
    assert torch.equal(both[:, IDS.shape[1] :], greedy)
    torch.manual_seed(4)
    drawn = model.generate(inputs_embeds=embeds, max_new_tokens=6)
    torch.manual_seed(4)
    assert torch.equal(drawn, model.generate(IDS, max_new_tokens=6)[:, IDS.shape[1] :])


def test_padded_embeddings(model: AutoDecoForCausalLM) -> None:
    embeds = model.get_input_embeddings()(torch.cat([IDS[:, :3], IDS], dim=1))
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[:, :3] = 0
    found = model.generate(inputs_embeds=embeds, attention_mask=mask, **GREEDY)
    assert torch.equal(found, model.generate(IDS, **GREEDY)[:, IDS.shape[1] :])


def test_a_base_that_takes_no_embeddings_says_so(model: AutoDecoForCausalLM) -> None:
    prepare = model.llm.prepare_inputs_for_generation
    model.llm.prepare_inputs_for_generation = lambda input_ids, **kwargs: prepare(
        input_ids, **kwargs
    )
    assert model.generate(IDS, **GREEDY).shape == (2, 15)
    with pytest.raises(ConfigError, match="LlamaForCausalLM does not generate from `inputs_emb"):
        model.generate(inputs_embeds=model.get_input_embeddings()(IDS), **GREEDY)


# -- training


def losses(model: AutoDecoForCausalLM) -> tuple[Tensor, Tensor]:
    """The base's cross-entropy, and the loss of the heads."""
    with torch.no_grad():
        hidden, logits, _ = model.features(IDS)
        cross_entropy = model.llm(input_ids=IDS, labels=IDS).loss
    settings: Any = {"generator": torch.default_generator}
    torch.manual_seed(1)
    heads = autodeco_loss(
        logits[:, :-1].flatten(0, 1), hidden[:, :-1].flatten(0, 1), IDS[:, 1:].flatten(),
        model.temp_head, model.top_p_head, **settings,
    )  # fmt: skip
    return cross_entropy, heads.loss.detach()


def test_labels_give_the_loss_of_what_is_trained(model: AutoDecoForCausalLM) -> None:
    cross_entropy, of_heads = losses(model)

    def loss(**kwargs: Any) -> Tensor:
        torch.manual_seed(1)
        found = model(IDS, labels=torch.cat([IDS[:, :1] * 0 - 100, IDS[:, 1:]], 1), **kwargs).loss
        model.zero_grad()
        if found.requires_grad:
            found.backward()
        return found.detach()

    def learns(parameters: Any) -> bool:
        return any(p.grad is not None and p.grad.any() for p in parameters)

    # The draw of easy tokens has a number for each label.
    assert torch.isclose(loss(), of_heads)
    assert learns(model.head_parameters())
    assert not learns(model.llm.parameters())
    model.freeze_base(False)
    assert torch.isclose(loss(), of_heads + cross_entropy)
    assert learns(model.head_parameters())
    assert learns(model.llm.parameters())
    model.freeze_heads()
    assert torch.isclose(loss(), cross_entropy)
    assert not learns(model.head_parameters())
    model.freeze_base()
    assert torch.isclose(loss(), of_heads)
    assert torch.isclose(loss(apply="off"), cross_entropy)


def test_output_is_a_tuple_only_where_that_is_asked(model: AutoDecoForCausalLM) -> None:
    assert model(IDS, labels=IDS, return_dict=None).loss is not None
    assert isinstance(model(IDS, return_dict=False), tuple)
    model.config.return_dict = False
    assert isinstance(model(IDS), tuple)
    assert model(IDS, return_dict=True).logits is not None


def lora(model: AutoDecoForCausalLM, **options: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = {"target_modules": ["q_proj", "v_proj"], "r": 4, "task_type": "CAUSAL_LM", **options}
    return peft.get_peft_model(model, peft.LoraConfig(**config))


def step(model: Any, **options: Any) -> float:
    """One step of training; the loss before it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    loss = model(input_ids=IDS, labels=IDS, **options).loss
    for p, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
        with torch.no_grad():
            p -= 0.5 * gradient / (gradient.norm() + 1e-8)
    return loss.item()


# PEFT 0.21 reads it.
OLD_NAME = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@OLD_NAME
def test_lora_around_it_trains_is_saved_and_merged(
    model: AutoDecoForCausalLM, tmp_path: Path
) -> None:
    plain = copy.deepcopy(model)
    cross_entropy = float(losses(model)[0])
    wrapped = lora(model)
    names = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert len(names) == 8
    assert all("lora_" in name for name in names)
    found = [step(wrapped) for _ in range(8)]
    assert found[0] == pytest.approx(cross_entropy)
    assert found[-1] < found[0] - 0.1
    wrapped.eval()
    with torch.no_grad():
        out = wrapped(input_ids=IDS)
        assert not torch.allclose(out.temperature, plain(IDS).temperature)
        wrapped.save_pretrained(tmp_path / "adapter")
        from peft import PeftModel

        again = PeftModel.from_pretrained(plain, tmp_path / "adapter")
        assert torch.equal(again(input_ids=IDS).logits, out.logits)
        text = wrapped.generate(input_ids=IDS, **GREEDY)
        assert torch.equal(again.generate(input_ids=IDS, **GREEDY), text)
        merged = wrapped.merge_and_unload()
        assert torch.allclose(merged(IDS).temperature, out.temperature, atol=1e-4)
        merged.save_pretrained(tmp_path / "merged")
        loaded = AutoDecoForCausalLM.from_pretrained(tmp_path / "merged")
        assert torch.equal(loaded(IDS).logits, merged(IDS).logits)


@OLD_NAME
def test_lora_and_heads_together(model: AutoDecoForCausalLM) -> None:
    cross_entropy, of_heads = losses(model)
    wrapped = lora(model, modules_to_save=["temp_head", "top_p_head"])
    wrapped.train()
    before = copy.deepcopy(wrapped.state_dict())
    torch.manual_seed(1)
    assert step(wrapped) == pytest.approx(float(cross_entropy + of_heads), rel=1e-4)
    changed = {name for name, x in wrapped.state_dict().items() if not x.equal(before[name])}
    assert {"lora_B" in name or "_head.modules_to_save" in name for name in changed} == {True}
    assert any("temp_head" in name for name in changed)
    assert any("lora_B" in name for name in changed)


@OLD_NAME
def test_lora_on_the_output_embedding_and_checkpointed_gradients(
    model: AutoDecoForCausalLM,
) -> None:
    wrapped = lora(model, target_modules=["q_proj", "lm_head"])
    enable = "activation_checkpointing_enable"  # its name from transformers 5.24 on
    getattr(wrapped, enable if hasattr(wrapped, enable) else "gradient_checkpointing_enable")()
    wrapped.enable_input_require_grads()
    wrapped.train()
    assert step(wrapped, use_cache=False) > step(wrapped, use_cache=False)


# -- generating


def test_pipeline_writes_what_generate_writes(
    model: AutoDecoForCausalLM, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    pipe = pipeline("text-generation", model=model, tokenizer=byte_tokenizer)
    [found] = pipe("hello", max_new_tokens=6, do_sample=False, return_full_text=False)
    ids = byte_tokenizer("hello", return_tensors="pt").input_ids
    [written] = model.generate(ids, **GREEDY)[:, ids.shape[1] :]
    text = byte_tokenizer.decode(written, skip_special_tokens=True)
    assert found["generated_text"] == text


def test_streamer_gets_every_piece(
    model: AutoDecoForCausalLM, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    streamer = TextIteratorStreamer(byte_tokenizer, skip_prompt=True, timeout=30)
    torch.manual_seed(2)
    thread = Thread(
        target=model.generate,
        kwargs={"inputs": IDS[:1], "max_new_tokens": 12, "streamer": streamer},
    )
    thread.start()
    pieces = list(streamer)
    thread.join()
    torch.manual_seed(2)
    [ids] = model.generate(IDS[:1], max_new_tokens=12)[:, IDS.shape[1] :]
    assert "".join(pieces) == byte_tokenizer.decode(ids)


@pytest.mark.parametrize("by", ["prompt", "model"])
def test_assistants_do_not_change_a_greedy_text(by: str, model: AutoDecoForCausalLM) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    ids = IDS[:1].repeat(1, 2)
    alone = model.generate(ids, **options)
    helper = {"prompt": {"prompt_lookup_num_tokens": 4}, "model": {"assistant_model": model.llm}}
    assert torch.equal(model.generate(ids, **options, **helper[by]), alone)
    # A text that is drawn may only have tokens of the nucleus.
    drawn = model.generate(ids, max_new_tokens=12, **helper[by])
    with torch.no_grad():
        log_p = model(drawn).logits.log_softmax(-1)[:, ids.shape[1] - 1 : -1]
    assert (log_p.gather(-1, drawn[:, ids.shape[1] :, None]) > -500).all()


def test_beams_are_the_bases_or_sums_of_autodecos_log_probabilities(
    model: AutoDecoForCausalLM,
) -> None:
    options: dict[str, Any] = {
        "num_beams": 3, "num_return_sequences": 3, "length_penalty": 0.0, "output_scores": True,
        "return_dict_in_generate": True, **GREEDY,
    }  # fmt: skip
    base = model.llm.generate(IDS, **options)
    assert torch.equal(model.generate(IDS, apply="off", **options).sequences, base.sequences)
    with pytest.warns(UserWarning, match="num_beams is 3"):
        found = model.generate(IDS, **options)
    new = found.sequences[:, IDS.shape[1] :]
    with torch.no_grad():
        log_p = model(found.sequences).logits.log_softmax(-1)[:, IDS.shape[1] - 1 : -1]
    of_tokens = log_p.gather(-1, new.unsqueeze(-1)).squeeze(-1)
    pad = new == model.generation_config.pad_token_id
    assert torch.allclose(of_tokens.masked_fill(pad, 0).sum(-1), found.sequences_scores, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 1}, {"guidance_scale": 1.5}],
    ids=lambda options: next(iter(options)),
)
def test_penalties_act_on_its_logits(options: dict[str, Any], model: AutoDecoForCausalLM) -> None:
    out = model.generate(
        IDS, max_new_tokens=1, output_scores=True, return_dict_in_generate=True, **options
    )
    with torch.no_grad():
        logits = model(IDS).logits[:, -1]
        unconditional = model(IDS[:, -1:]).logits[:, -1]
    expected = logits.clone()
    for row, ids in enumerate(IDS):
        if "repetition_penalty" in options:
            seen = logits[row, ids]
            expected[row, ids] = torch.where(seen < 0, seen * 1.7, seen / 1.7)
        elif "no_repeat_ngram_size" in options:
            expected[row, ids] = -torch.inf
    if "guidance_scale" in options:
        free = unconditional.log_softmax(-1)
        expected = 1.5 * (logits.log_softmax(-1) - free) + free
    assert torch.allclose(out.scores[0].softmax(-1), expected.softmax(-1), atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "kimi"])
def test_bfloat16_writes_what_its_base_writes(name: str, tmp_path: Path) -> None:
    model = wrap(build(name).bfloat16(), tmp_path)
    out = model(IDS)
    assert (model.llm.dtype, out.logits.dtype, out.temperature.dtype) == (
        torch.bfloat16, torch.float32, torch.float32,
    )  # fmt: skip
    assert torch.equal(model.generate(IDS, **GREEDY), model.llm.generate(IDS, **GREEDY))
    whole = model.bfloat16()
    assert {p.dtype for p in whole.parameters()} == {torch.bfloat16}
    assert torch.equal(whole.generate(IDS, **GREEDY), model.llm.generate(IDS, **GREEDY))


# -- compiled


def fresh(base: PreTrainedModel, folder: Path) -> tuple[AutoDecoForCausalLM, Any]:
    """A model, and a compiled copy of it that never ran."""
    model = wrap(base, folder)
    torch.compiler.reset()
    return model, torch.compile(copy.deepcopy(model), backend="eager")


# torch looks at `.grad` of tensors where a graph is cut, and hides its own warning of that.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("limits", [None, {"max_temperature": 0.7, "min_top_p": 0.5}])
def test_compiled_forward(limits: dict[str, float] | None, tmp_path: Path) -> None:
    model, compiled = fresh(build("llama"), tmp_path)
    for one in (model, compiled):
        one.config.autodeco_limits = limits
    with torch.no_grad():
        for ids in (IDS, IDS[:1, :5], IDS[:, :7]):
            out, expected = compiled(ids), model(ids)
            assert torch.allclose(out.logits, expected.logits, atol=1e-4)
            assert torch.allclose(out.top_p, expected.top_p, atol=1e-5)
        first = compiled(IDS[:, :8], use_cache=True)
        after = compiled(IDS[:, 8:], use_cache=True, **{CACHE_NAME: first[CACHE_NAME]})
        assert torch.allclose(after.logits[:, 0], model(IDS).logits[:, -1], atol=1e-4)
    torch.manual_seed(0)
    loss = compiled(IDS, labels=IDS).loss
    loss.backward()
    torch.manual_seed(0)
    assert torch.isclose(loss, model(IDS, labels=IDS).loss)
    assert all(p.grad is not None for p in compiled.head_parameters())


def test_compiled_model_generates(tmp_path: Path) -> None:
    model, compiled = fresh(build("llama"), tmp_path)
    assert torch.equal(compiled.generate(IDS, **GREEDY), model.generate(IDS, **GREEDY))
