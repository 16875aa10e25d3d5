"""The wrapped model: what it computes, samples, trains, keeps and refuses."""

import copy
import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from tests.autodeco.conftest import (
    NAMES,
    VOCAB,
    WIDTH,
    build,
    official_config,
    official_tensors,
    same_bits,
    wrap,
    write_heads,
)
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    GenerationConfig,
    GraniteConfig,
    LogitsProcessorList,
    MambaConfig,
    OPTConfig,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from hanol import models
from hanol.attention import CACHE_NAME
from hanol.autodeco import AutoDecoConfig, AutoDecoForCausalLM, DecodingLimits, autodeco_loss
from hanol.errors import CheckpointError, ConfigError, DataError, ShapeError

IDS = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(0))


def reference(
    tensors: dict[str, Tensor], hidden_NH: Tensor, logits_NV: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """T, P and probabilities by the formulas in float64, the cut by transformers' own warper."""
    w = {name: tensor.double() for name, tensor in tensors.items()}
    h, l = hidden_NH.double(), logits_NV.double()  # noqa: E741

    def mlp(head: str, x: Tensor) -> Tensor:
        inner = (x @ w[f"{head}.mlp.0.weight"].T + w[f"{head}.mlp.0.bias"]).relu()
        return (inner @ w[f"{head}.mlp.2.weight"].T + w[f"{head}.mlp.2.bias"]).squeeze(-1)

    T = 2 * mlp("temp_head", h).sigmoid()
    q = (l / (T + 1e-8)[:, None]).softmax(-1)
    s = [q.amax(-1), -(q * (q + 1e-8).log()).sum(-1), q.var(-1), q.topk(5).values.sum(-1)]
    P = mlp("top_p_head", torch.cat([h, T[:, None], torch.stack(s, -1)], -1)).sigmoid()
    T = T.clamp_min(1e-2)
    rows = []
    for row in range(len(l)):
        score = TemperatureLogitsWarper(T[row].item())(None, l[row : row + 1])
        rows.append(TopPLogitsWarper(P[row].item())(None, score).softmax(-1))
    return T, P, torch.cat(rows)


# -- what it computes


@pytest.mark.parametrize("name", NAMES)
def test_distribution_is_that_of_the_formulas(name: str, tmp_path: Path) -> None:
    base = build(name)
    model = wrap(base, tmp_path)
    with torch.no_grad():
        hidden = base.model(IDS).last_hidden_state.flatten(0, 1)
        logits = base(IDS).logits.flatten(0, 1)
        out = model(IDS, output_base_logits=True)
    T, P, probs = reference(official_tensors(), hidden, logits)
    assert T.std() > 0.1
    assert P.std() > 0.1
    assert torch.allclose(out.temperature.flatten().double(), T, atol=1e-5)
    assert torch.allclose(out.top_p.flatten().double(), P, atol=1e-5)
    assert torch.equal(out.base_logits.flatten(0, 1), logits)
    assert out.logits.dtype == torch.float32
    ours = out.logits.flatten(0, 1).double().softmax(-1)
    assert torch.equal(ours > 0, probs > 0)
    assert torch.allclose(ours, probs, atol=1e-6)


def test_base_and_output_embedding_run_once(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    calls: list[str] = []
    for name, module in (
        ("base", model.llm), ("backbone", model.llm.model), ("lm_head", model.llm.lm_head),
        ("temp", model.temp_head), ("top_p", model.top_p_head),
    ):  # fmt: skip
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    out = model(IDS)
    assert sorted(calls) == ["backbone", "base", "lm_head", "temp", "top_p"]
    assert out.hidden_states is None
    calls.clear()
    model(IDS, apply="off")
    assert sorted(calls) == ["backbone", "base", "lm_head"]


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(
            vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, head_dim=16, final_logit_softcapping=3.0,
        ),
        GraniteConfig(
            vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, logits_scaling=0.25,
        ),
        OPTConfig(
            vocab_size=VOCAB, hidden_size=WIDTH, ffn_dim=48, num_hidden_layers=2,
            num_attention_heads=2, word_embed_proj_dim=WIDTH,
        ),
        MambaConfig(vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, state_size=4),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_heads_read_the_models_own_final_logits(config: Any) -> None:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        base.get_output_embeddings().weight.mul_(20)
        logits = base(IDS).logits
    model = AutoDecoForCausalLM.from_base(base)
    with torch.no_grad():
        out = model(IDS, output_base_logits=True, output_hidden_states=True, logits_to_keep=3)
    assert torch.allclose(out.base_logits, logits[:, -3:], atol=1e-5)
    hidden = out.hidden_states[-1][:, -3:]
    assert torch.allclose(out.temperature, model.temp_head(hidden), atol=1e-6)
    if logits_cap := getattr(config, "final_logit_softcapping", None):
        assert logits.abs().max() < logits_cap
    ids = model.generate(IDS, max_new_tokens=4, do_sample=False)
    assert torch.equal(ids, base.generate(IDS, max_new_tokens=4, do_sample=False))


def test_chosen_one_and_one_changes_nothing(base: PreTrainedModel) -> None:
    model = AutoDecoForCausalLM.from_base(base, init="neutral")
    with torch.no_grad():
        model.top_p_head.mlp[2].bias.fill_(50.0)  # the sigmoid of 50 is exactly 1 in float32
        out = model(IDS)
        assert torch.equal(out.temperature, torch.ones(2, 9))
        assert torch.equal(out.top_p, torch.ones(2, 9))
        assert torch.equal(out.logits, base(IDS).logits)


def test_off_is_the_base(base: PreTrainedModel, tmp_path: Path) -> None:
    model = wrap(base, tmp_path)
    with torch.no_grad():
        out = model(IDS, apply="off")
        assert torch.equal(out.logits, base(IDS).logits)
        assert out.temperature is None
        assert out.top_p is None
    torch.manual_seed(3)
    ours = model.generate(IDS, max_new_tokens=6, apply="off")
    torch.manual_seed(3)
    theirs = base.generate(IDS, max_new_tokens=6, do_sample=True, top_k=0)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("apply", ["hard", "soft", "none", "off"])
def test_greedy_text_is_the_bases(base: PreTrainedModel, apply: str, tmp_path: Path) -> None:
    model = wrap(base, tmp_path)
    expected = base.generate(IDS, max_new_tokens=12, do_sample=False)
    assert torch.equal(
        model.generate(IDS, max_new_tokens=12, do_sample=False, apply=apply), expected
    )


def test_soft_mode_is_soft_top_p_and_differentiable(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    out = model(IDS, apply="soft", output_base_logits=True)
    p = (out.base_logits / out.temperature[..., None]).double().softmax(-1)
    order = p.argsort(-1, descending=True)
    c = torch.zeros_like(p).scatter(-1, order, p.gather(-1, order).cumsum(-1))
    expected = p * torch.exp(-30 * (c - out.top_p[..., None].double()).relu())
    expected = expected / expected.sum(-1, keepdim=True)
    assert torch.allclose(out.logits.double().softmax(-1), expected, atol=1e-6)
    out.logits.log_softmax(-1)[0, 0, 7].backward()
    assert model.top_p_head.mlp[0].weight.grad.abs().sum() > 0
    assert model.temp_head.mlp[0].weight.grad.abs().sum() > 0


@torch.no_grad()
def test_none_divides_by_the_temperature_alone(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    out = model(IDS, apply="none", output_base_logits=True)
    assert torch.equal(out.logits, out.base_logits / out.temperature[..., None])


@torch.no_grad()
def test_limits_of_a_call(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    free = model(IDS)
    middle = free.temperature.median().item()
    limits = DecodingLimits(min_temperature=0.9 * middle, max_temperature=middle, min_top_p=0.6)
    held = model(IDS, limits=limits, output_base_logits=True)
    assert torch.equal(held.temperature, free.temperature.clamp(0.9 * middle, middle))
    assert held.top_p.min() >= 0.6
    scores = held.base_logits / held.temperature[..., None]
    for b, t in ((0, 0), (1, 8)):
        warper = TopPLogitsWarper(held.top_p[b, t].item())
        assert torch.equal(
            warper(None, scores[b, t][None])[0] > -math.inf, held.logits[b, t] > -500
        )
    # What holds the choices at one value is that static setting.
    one = DecodingLimits(min_temperature=0.7, max_temperature=0.7, min_top_p=1.0)
    torch.manual_seed(5)
    ours = model.generate(IDS, max_new_tokens=6, limits=one)
    torch.manual_seed(5)
    assert torch.equal(
        ours, model.llm.generate(IDS, max_new_tokens=6, do_sample=True, temperature=0.7, top_k=0)
    )


@torch.no_grad()
def test_what_the_configuration_says_of_serving_is_kept_and_followed(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    expected = model(IDS, apply="soft", limits=DecodingLimits(max_temperature=0.5)).logits
    hard = model(IDS).logits
    model.save_heads(tmp_path / "plain")
    assert not [key for key in json.loads((tmp_path / "plain/config.json").read_text())
                if key.startswith("autodeco_")]  # fmt: skip
    model.config.autodeco_truncation = "soft"
    model.config.autodeco_limits = {"max_temperature": 0.5}
    model.save_heads(tmp_path / "served")
    again = AutoDecoForCausalLM.from_pretrained(tmp_path / "served", base_model=model.llm)
    assert torch.equal(again(IDS).logits, expected)
    unlimited = again(IDS, apply="hard", limits=DecodingLimits())
    assert torch.equal(unlimited.logits, hard)
    model.config.autodeco_truncation = None
    model.config.autodeco_limits = None
    model.config.autodeco_mask = "inf"
    masked = model(IDS).logits
    assert torch.equal(masked == -math.inf, hard < -500)
    assert torch.equal(masked.softmax(-1), hard.softmax(-1))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("autodeco_truncation", "top", "`autodeco_truncation` is 'top', but must be one of hard"),
        ("autodeco_mask", "nan", "`autodeco_mask` is 'nan', but must be one of finite, inf"),
        ("autodeco_limits", {"t_max": 1.0}, "limits` is not valid: unknown key `t_max`"),
        (
            "autodeco_limits",
            {"min_top_p": "0.5"},
            "`min_top_p`: Input should be a valid number, not '0.5'",
        ),
        ("autodeco_limits", {"min_top_p": 1.5}, "`min_top_p`: Input should be less .* 1, not 1.5"),
        ("autodeco_limits", {"max_temperature": 0.001}, "`max_temperature` 0.001, but they must"),
        ("autodeco_masks", "inf", "`autodeco_masks` is no key of an AutoDeco configuration"),
    ],
)
def test_other_values_for_serving_are_refused(key: str, value: Any, message: str) -> None:
    config = build("llama").config.to_dict()
    del config["model_type"]
    with pytest.raises(ConfigError, match=message):
        AutoDecoConfig(base_model_type="llama", **{key: value}, **config)


def test_one_head_alone(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    with torch.no_grad():
        both = model(IDS, output_base_logits=True)
        model.config.enable_top_p_head = False
        only_t = model(IDS)
        assert torch.equal(only_t.logits, both.base_logits / both.temperature[..., None])
        assert torch.equal(only_t.top_p, torch.ones(2, 9))
        model.config.enable_top_p_head, model.config.enable_temperature_head = True, False
        only_p = model(IDS)
        assert torch.equal(only_p.temperature, torch.ones(2, 9))
        kept = only_p.logits > -500
        assert torch.equal(only_p.logits[kept], both.base_logits[kept])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_base(dtype: torch.dtype, tmp_path: Path) -> None:
    base = models.cast(build("llama"), dtype)
    tensors = official_tensors(dtype=torch.bfloat16)
    model = wrap(base, tmp_path, dtype=torch.bfloat16)
    assert model.temp_head.mlp[0].weight.dtype == torch.bfloat16  # as it was stored
    with torch.no_grad():
        hidden = base.model(IDS).last_hidden_state.flatten(0, 1)
        out = model(IDS, output_base_logits=True)
    assert out.base_logits.dtype == dtype
    assert out.logits.dtype == out.temperature.dtype == torch.float32
    T, P, _ = reference(tensors, hidden, out.base_logits.flatten(0, 1))
    assert torch.allclose(out.temperature.flatten().double(), T, atol=1e-5)
    assert torch.allclose(out.top_p.flatten().double(), P, atol=1e-5)


# -- rows do not see each other


def test_rows_are_independent_of_neighbours_and_padding(
    base: PreTrainedModel, tmp_path: Path
) -> None:
    model = wrap(base, tmp_path)
    short = IDS[:1, :5]
    padded = torch.cat([torch.full((1, 4), 258), short], dim=1)
    mask = torch.tensor([[0] * 4 + [1] * 5, [1] * 9])  # left; flipped it is right
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        alone = model(short)
        batch = model(torch.cat([padded, IDS[1:]]), attention_mask=mask, position_ids=positions)
        ids = torch.cat([padded.roll(-4, 1), IDS[1:]])
        right = model(ids, attention_mask=mask.flip(-1))
    assert torch.allclose(batch.temperature[:1, 4:], alone.temperature, atol=1e-5)
    assert torch.allclose(batch.top_p[:1, 4:], alone.top_p, atol=1e-5)
    assert torch.allclose(batch.logits[:1, 4:].softmax(-1), alone.logits.softmax(-1), atol=1e-5)
    assert torch.allclose(right.temperature[:1, :5], alone.temperature, atol=1e-5)
    assert torch.allclose(right.top_p[:1, :5], alone.top_p, atol=1e-5)
    assert torch.allclose(right.logits[:1, :5].softmax(-1), alone.logits.softmax(-1), atol=1e-5)


def test_cached_is_uncached(base: PreTrainedModel, tmp_path: Path) -> None:
    model = wrap(base, tmp_path)
    with torch.no_grad():
        whole = model(IDS)
        first = model(IDS[:, :6], use_cache=True)
        rest = model(IDS[:, 6:], **{CACHE_NAME: first[CACHE_NAME]}, use_cache=True)
    assert torch.allclose(rest.temperature, whole.temperature[:, 6:], atol=1e-5)
    assert torch.allclose(rest.top_p, whole.top_p[:, 6:], atol=1e-5)
    assert torch.allclose(rest.logits.softmax(-1), whole.logits[:, 6:].softmax(-1), atol=1e-5)


def test_some_positions_are_the_same_positions(base: PreTrainedModel, tmp_path: Path) -> None:
    model = wrap(base, tmp_path)
    with torch.no_grad():
        whole = model(IDS)
        last = model(IDS, logits_to_keep=2)
        chosen = model(IDS, logits_to_keep=torch.tensor([0, 5]))
    assert last.logits.shape == (2, 2, VOCAB)
    assert torch.allclose(last.temperature, whole.temperature[:, -2:], atol=1e-6)
    assert torch.allclose(chosen.top_p, whole.top_p[:, [0, 5]], atol=1e-6)


def test_threads_do_not_take_each_others_hidden_states(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    prompts = [IDS[:1] + i for i in range(4)]
    with torch.no_grad():
        expected = [model(prompt).temperature for prompt in prompts]
    wrong: list[int] = []

    def work(i: int) -> None:
        with torch.no_grad():
            for _ in range(20):
                if not torch.allclose(model(prompts[i]).temperature, expected[i], atol=1e-6):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- sampling


def test_sampled_tokens_follow_the_distribution(tmp_path: Path) -> None:
    """2e5 draws by `generate`, against the float64 formulas: chi-square above p = 1e-3."""
    base = build("llama")
    model = wrap(base, tmp_path)
    with torch.no_grad():
        hidden, logits = base.model(IDS).last_hidden_state[0], base(IDS).logits[0]
    _, _, probs = reference(official_tensors(), hidden, logits)
    size = (probs > 0).sum(-1)
    position = ((size > 5) & (size < 100)).nonzero()[0, 0]  # neither all nor hardly any
    prompt, probs = IDS[:1, : position + 1], probs[position]
    torch.manual_seed(0)
    batch = prompt.expand(20_000, -1)
    drawn = torch.cat([model.generate(batch, max_new_tokens=1)[:, -1] for _ in range(10)])
    counts = torch.bincount(drawn, minlength=VOCAB).double()
    expected = probs * len(drawn)
    assert counts[expected == 0].sum() == 0
    common = expected >= 5
    assert 3 < common.sum() < VOCAB
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum()[None]]).clamp_min(1e-9)
    statistic = ((observed - wanted) ** 2 / wanted)[wanted > 1e-6].sum()
    freedom = torch.tensor(float((wanted > 1e-6).sum() - 1), dtype=torch.float64)
    # The upper tail of chi-square is the regularised incomplete gamma function.
    assert torch.special.gammaincc(freedom / 2, statistic / 2) > 1e-3


def test_batched_left_padded_generation_is_that_of_each_prompt(
    base: PreTrainedModel, tmp_path: Path
) -> None:
    model = wrap(base, tmp_path)
    batch = torch.cat([torch.cat([torch.full((1, 4), 258), IDS[:1, :5]], dim=1), IDS[1:]])
    mask = (batch != 258).long()
    out = model.generate(batch, attention_mask=mask, max_new_tokens=8, do_sample=False)
    alone = model.generate(IDS[:1, :5], max_new_tokens=8, do_sample=False)
    assert torch.equal(out[0, 9:], alone[0, 5:])


@pytest.mark.parametrize("name", ["llama", "kimi"])
def test_assisted_generation(name: str, tmp_path: Path) -> None:
    model = wrap(build(name), tmp_path)
    assistant = build("llama", num_hidden_layers=1)
    expected = model.generate(IDS[:1], max_new_tokens=10, do_sample=False)
    out = model.generate(IDS[:1], max_new_tokens=10, do_sample=False, assistant_model=assistant)
    assert torch.equal(out, expected)
    sampled = model.generate(IDS[:1], max_new_tokens=10, assistant_model=assistant)
    assert sampled.shape[1] > IDS.shape[1]


def test_static_cache_and_continued_cache(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    expected = model.generate(IDS, max_new_tokens=6, do_sample=False)
    static = model.generate(IDS, max_new_tokens=6, do_sample=False, cache_implementation="static")
    assert torch.equal(static, expected)
    cache = DynamicCache(config=model.config)
    first = model.generate(IDS, max_new_tokens=3, do_sample=False, **{CACHE_NAME: cache})
    again = model.generate(first, max_new_tokens=3, do_sample=False, **{CACHE_NAME: cache})
    assert torch.equal(again, expected)


def test_repetition_penalty_commutes_with_temperature(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    penalty = RepetitionPenaltyLogitsProcessor(1.7)
    with torch.no_grad():
        out = model(IDS, output_base_logits=True)
    after = penalty(IDS, out.logits[:, -1].clone())
    before = penalty(IDS, out.base_logits[:, -1].clone()) / out.temperature[:, -1:]
    kept = out.logits[:, -1] > -500
    assert torch.allclose(after[kept], before[kept], atol=1e-5)


def test_grammar_that_bans_the_whole_nucleus(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    with torch.no_grad():
        out = model(IDS[:1], output_base_logits=True)
    nucleus = out.logits[0, -1] > -500
    assert 0 < nucleus.sum() < VOCAB
    allowed = (~nucleus).nonzero().flatten()[:5]
    masked = torch.full((VOCAB,), -math.inf)
    masked[allowed] = out.logits[0, -1, allowed]
    expected = (out.base_logits[0, -1, allowed].double() / out.temperature[0, -1]).softmax(-1)
    assert torch.allclose(masked.softmax(-1)[allowed].double(), expected, atol=1e-4)
    ids = model.generate(
        IDS[:1], max_new_tokens=1, prefix_allowed_tokens_fn=lambda *_: allowed.tolist()
    )
    assert ids[0, -1] in allowed


def test_logits_that_are_no_numbers(tmp_path: Path) -> None:
    base = build("llama")
    model = wrap(base, tmp_path)
    with torch.no_grad():
        base.lm_head.weight.fill_(math.nan)
    with pytest.raises(DataError, match="must not be NaN"):
        model(IDS)


# -- what would act on top


def test_sampling_values_of_the_base_are_not_taken_over() -> None:
    base = build("llama")
    base.generation_config = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.95, top_k=20, eos_token_id=7, pad_token_id=0
    )
    with pytest.warns(UserWarning, match="temperature=0.6, top_p=0.95, top_k=20"):
        model = AutoDecoForCausalLM.from_base(base)
    ours = model.generation_config
    assert (ours.do_sample, ours.temperature, ours.top_p, ours.top_k) == (True, 1.0, 1.0, 0)
    assert ours.eos_token_id == 7
    assert base.generation_config.temperature == 0.6


def test_warns_of_what_acts_on_top(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    with pytest.warns(UserWarning, match="num_beams is 2"):
        model.generate(IDS, max_new_tokens=2, num_beams=2, do_sample=False)
    with pytest.warns(UserWarning, match="^temperature=0.5 would act on top"):
        model.generate(IDS, max_new_tokens=1, temperature=0.5)
    model.generate(IDS, max_new_tokens=1, temperature=0.5, apply="off")
    model.generate(IDS, max_new_tokens=2, num_beams=2, do_sample=False, apply="off")


def test_misspelt_option_of_generate(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    with pytest.raises(ValueError, match="aply"):
        model.generate(IDS, max_new_tokens=1, aply="off")
    with pytest.raises(ConfigError, match="`apply` is 'firm'"):
        model.generate(IDS, max_new_tokens=1, apply="firm")


# -- training


def test_labels_give_the_training_loss_of_the_heads(base: PreTrainedModel, tmp_path: Path) -> None:
    model = wrap(base, tmp_path).train()
    labels = IDS.clone()
    labels[0, :4] = -100
    torch.manual_seed(1)
    out = model(IDS, labels=labels)
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in model.head_parameters())
    assert all(parameter.grad is None for parameter in model.llm.parameters())
    with torch.no_grad():
        hidden = base.model(IDS).last_hidden_state[:, :-1].reshape(-1, WIDTH)
        logits = base(IDS).logits[:, :-1].reshape(-1, VOCAB)
    torch.manual_seed(1)
    expected = autodeco_loss(
        logits, hidden, labels[:, 1:].flatten(), model.temp_head, model.top_p_head
    )
    assert torch.allclose(out.loss, expected.loss, atol=1e-6)
    off = model(IDS, labels=labels, apply="off")
    assert torch.allclose(off.loss, base(IDS, labels=labels).loss, atol=1e-6)


def test_no_labels_at_all(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path).train()
    loss = model(IDS, labels=torch.full_like(IDS, -100)).loss
    loss.backward()
    assert loss == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.head_parameters())


def test_a_frozen_base_keeps_still() -> None:
    model = AutoDecoForCausalLM.from_base(build("llama", attention_dropout=0.5))
    model.train()
    assert model.temp_head.training
    assert not model.llm.training
    assert torch.equal(model(IDS).temperature, model(IDS).temperature)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in model.head_parameters()
    }
    model.freeze_base(False).freeze_heads()
    assert model.llm.training
    assert not any(parameter.requires_grad for parameter in model.head_parameters())
    assert all(parameter.requires_grad for parameter in model.llm.parameters())


def test_labels_need_all_positions(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="`labels` need the logits of all positions"):
        wrap(build("llama"), tmp_path)(IDS, labels=IDS, logits_to_keep=1)


# -- making, saving, loading


@pytest.mark.parametrize("init", ["official", "neutral"])
def test_new_heads(init: str) -> None:
    torch.manual_seed(0)
    out = AutoDecoForCausalLM.from_base(build("qwen3"), init)(IDS)
    if init == "neutral":
        assert torch.equal(out.temperature, torch.ones(2, 9))
        assert torch.allclose(out.top_p, torch.full((2, 9), 0.95))
    else:
        assert (out.temperature - 1).abs().max() < 0.5
        assert (out.top_p - 0.5).abs().max() < 0.25
    with pytest.raises(ConfigError, match="`init` is 'ones'"):
        AutoDecoForCausalLM.from_base(build("qwen3"), "ones")


def test_heads_alone_round_trip(base: PreTrainedModel, tmp_path: Path) -> None:
    folder = models.save(base, tmp_path / "the base")
    model = AutoDecoForCausalLM.from_base(models.load_model(folder))
    heads = model.save_heads(tmp_path / "heads")
    assert sorted(file.name for file in heads.iterdir()) == ["config.json", "model.safetensors"]
    stored = json.loads((heads / "config.json").read_text())
    assert stored["base_model_name_or_path"] == str(folder)
    assert stored["architectures"] == ["AutoDecoModelForCausalLM"]
    assert stored["temperature_hidden_size"] == stored["top_p_hidden_size"] == WIDTH
    for again in (
        AutoDecoForCausalLM.from_pretrained(heads),
        AutoModelForCausalLM.from_pretrained(heads),
        models.load_model(heads),
    ):
        assert type(again) is AutoDecoForCausalLM
        assert same_bits(again.state_dict(), model.state_dict())


def test_merged_round_trip(base: PreTrainedModel, tmp_path: Path) -> None:
    model = wrap(base, tmp_path)
    model.save_pretrained(tmp_path / "merged", max_shard_size="20KB")
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) > 1
    for again in (
        AutoDecoForCausalLM.from_pretrained(tmp_path / "merged"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
        models.load_model(tmp_path / "merged"),
    ):
        assert same_bits(again.state_dict(), model.state_dict())
        assert again.generation_config.eos_token_id == 257
    ours = {name for name, _ in model.named_parameters()}
    assert {"llm.model.embed_tokens.weight", "temp_head.mlp.0.weight"} <= ours


def test_bfloat16_is_kept_by_the_auto_classes(tmp_path: Path) -> None:
    base = models.cast(build("llama"), torch.bfloat16)
    wrap(base, tmp_path).save_pretrained(tmp_path / "m")
    auto = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert auto.llm.dtype == torch.bfloat16
    assert auto.temp_head.mlp[0].weight.dtype == torch.float32
    assert AutoDecoForCausalLM.from_pretrained(tmp_path / "m").llm.dtype == torch.float32
    half = AutoDecoForCausalLM.from_pretrained(tmp_path / "m", dtype="float16")
    assert half.llm.dtype == torch.float16


def test_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository in the hub's cache on disk, with the network switched off."""
    base = build("llama")
    folder = models.save(base, tmp_path / "base")
    repo = tmp_path / "cache" / "models--someone--heads"
    commit = "0" * 40
    write_heads(
        repo / "snapshots" / commit, official_config(base), official_tensors(),
        name="autodeco_heads.safetensors",
    )  # fmt: skip
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = AutoDecoForCausalLM.from_pretrained("someone/heads", base_model=folder)
    expected = AutoDecoForCausalLM.from_pretrained(repo / "snapshots" / commit, base_model=base)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.allclose(found(ids).temperature, expected(ids).temperature)


def test_base_that_the_heads_name_is_somewhere_else(tmp_path: Path) -> None:
    base = build("llama")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    with pytest.raises(
        CheckpointError, match="no folder or GGUF file '/private.*pass `base_model`"
    ):
        AutoDecoForCausalLM.from_pretrained(heads)
    nameless = official_config(base, base_model_name_or_path=None)
    heads = write_heads(tmp_path / "n", nameless, official_tensors())
    with pytest.raises(CheckpointError, match="does not name their base: pass `base_model`"):
        AutoDecoForCausalLM.from_pretrained(heads)
    AutoDecoForCausalLM.from_pretrained(heads, base_model=models.save(base, tmp_path / "b"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"trust_remote_code": True}, "`trust_remote_code` is true"),
        ({"use_safetensors": False}, "`use_safetensors` is false"),
        ({"device_map": "auto"}, "`device_map` is 'auto'"),
        ({"quantization_config": {}}, r"does not take \['quantization_config'\]"),
    ],
)
def test_options_that_cannot_be_done_are_refused(
    options: dict[str, Any], text: str, tmp_path: Path
) -> None:
    base = build("llama")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    with pytest.raises(ConfigError, match=text):
        AutoDecoForCausalLM.from_pretrained(heads, base_model=base, **options)


def test_plain_checkpoint_is_no_autodeco_checkpoint(tmp_path: Path) -> None:
    models.save(build("llama"), tmp_path / "m")
    with pytest.raises(CheckpointError, match="'llama' without AutoDeco heads.*from_base"):
        AutoDecoForCausalLM.from_pretrained(tmp_path / "m")


def test_model_without_output_embedding() -> None:
    with pytest.raises(ConfigError, match="LlamaModel has no output embedding"):
        AutoDecoForCausalLM.from_base(AutoModel.from_config(build("llama").config))


def test_base_that_has_heads_itself(tmp_path: Path) -> None:
    base = build("llama")
    model = wrap(base, tmp_path)
    with pytest.raises(ConfigError, match="tempered twice.*`model.llm`"):
        AutoDecoForCausalLM.from_base(model)
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(ConfigError, match="tempered twice"):
        AutoDecoForCausalLM.from_pretrained(tmp_path / "heads", base_model=model)
    with pytest.raises(CheckpointError, match="'.*m' has heads itself: name the model under it"):
        AutoDecoForCausalLM.from_pretrained(tmp_path / "heads", base_model=tmp_path / "m")


def test_copies_and_new_output_embeddings_still_work(tmp_path: Path) -> None:
    model = copy.deepcopy(wrap(build("llama"), tmp_path))
    expected = model(IDS).temperature
    head = model.get_output_embeddings()
    model.set_output_embeddings(copy.deepcopy(head))
    assert torch.equal(model(IDS).temperature, expected)
    model.resize_token_embeddings(VOCAB + 4)
    assert model(IDS).logits.shape[-1] == VOCAB + 4
    assert model.config.vocab_size == VOCAB + 4


def test_config_is_the_bases_and_ours(base: PreTrainedModel, tmp_path: Path) -> None:
    config = wrap(base, tmp_path).config
    assert config.vocab_size == VOCAB
    assert config.get_text_config() is base.config
    config.save_pretrained(tmp_path / "c")
    again = AutoConfig.from_pretrained(tmp_path / "c")
    assert type(again) is AutoDecoConfig
    assert type(again.base_config) is type(base.config)
    ignored = {"_name_or_path"}
    first, second = (
        {key: value for key, value in c.to_dict().items() if key not in ignored}
        for c in (config, again)
    )
    assert first == second
    again.use_cache = False
    assert again.base_config.use_cache is False
    again._attn_implementation = "eager"
    assert again.base_config._attn_implementation == "eager"


def test_model_from_a_configuration_alone(tmp_path: Path) -> None:
    config = wrap(build("kimi"), tmp_path).config
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    assert model(IDS).logits.shape == (2, 9, VOCAB)
    assert type(model.llm.model).__module__.startswith("hanol.attention")
    with pytest.raises(ConfigError, match="no keys of a base model"):
        AutoDecoForCausalLM(AutoDecoConfig())


def test_compiled_forward_is_one_graph(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    with torch.no_grad():
        hidden, logits, _ = model.features(IDS)
        compiled = torch.compile(
            lambda ids: model.features(ids, use_cache=False)[:2], backend="eager", fullgraph=True
        )
        again = compiled(IDS)
    assert torch.equal(again[0], hidden)
    assert torch.equal(again[1], logits)


def test_processors_see_what_generate_samples_from(tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    out = model.generate(
        IDS, max_new_tokens=2, output_logits=True, return_dict_in_generate=True,
        logits_processor=LogitsProcessorList(),
    )  # fmt: skip
    with torch.no_grad():
        expected = model(out.sequences[:, :-1], logits_to_keep=2).logits
    assert torch.allclose(
        torch.stack(out.logits, dim=1).softmax(-1), expected.softmax(-1), atol=1e-5
    )
