"""Recipes of research agents: what they may say, what they are told when they are wrong."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hanol.agent_training import ResearcherRecipe
from hanol.agent_training.stages._agent_model import (
    starting_model,
)  # private: the weights before the first step
from hanol.attention import CACHE_NAME
from hanol.errors import RecipeError
from hanol.training import SftSettings, estimate, read_recipe, with_overrides

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "researcher").glob("*.yaml"))
RECIPES = [path for path in RECIPES if "kind: researcher" in path.read_text("utf-8")]
SMALL = {
    "kind": "researcher",
    "name": "small",
    "model": {"config": "kimi-linear"},
    "world": {"entities": 40},
    "stages": [
        {"kind": "midtrain", "tokens": 1000, "data": {"planning": 0.5, "text": 0.5}},
        {"kind": "reject"},
        {"kind": "sft", "epochs": 2, "source": "reject"},
        {"kind": "grpo", "name": "a"},
        {"kind": "grpo", "name": "b", "start": "sft"},
        {"kind": "merge", "of": ["a", "b"]},
    ],
}


def recipe(*overrides: str) -> ResearcherRecipe:
    return with_overrides(ResearcherRecipe, copy.deepcopy(SMALL), list(overrides), "The recipe")


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_recipe_is_valid_and_its_size_is_known_without_the_network(path) -> None:
    found = read_recipe(path)
    size = estimate(found)
    assert size.parameters > 0
    assert [stage.name for stage in size.stages] == [stage.name for stage in found.stages]


def test_the_recipes_are_there() -> None:
    assert {path.stem for path in RECIPES} >= {"tiny", "longer", "stages", "qwen3-4b", "30b-a3b"}


def test_the_shape_of_the_paper() -> None:
    (path,) = [path for path in RECIPES if path.stem == "30b-a3b"]
    found = read_recipe(path)
    size = estimate(found)
    assert size.parameters == 30_532_122_624
    assert size.active_parameters == 3_353_032_704
    assert size.state_gib == pytest.approx(30_532_122_624 * 16 / 2**30)
    lengths = [(stage.kind, getattr(stage, "max_length", None)) for stage in found.stages]
    assert lengths == [
        ("midtrain", 32 * 1024), ("midtrain", 128 * 1024), ("sft", 40 * 1024), ("sft", 128 * 1024),
        ("grpo", 64 * 1024), ("grpo", 64 * 1024), ("merge", None),
    ]  # fmt: skip
    trained = [stage for stage in found.stages if stage.kind in ("midtrain", "sft", "grpo")]
    assert [stage.muon_lr for stage in trained] == [None] * 6


def test_needs_are_those_of_the_model_that_is_trained() -> None:
    for config in ("kimi-linear", "lfm2"):
        found = recipe(f"model.config={config}")
        model, tokenizer = starting_model(found)
        size = estimate(found)
        assert size.parameters == sum(p.numel() for p in model.parameters())
        assert model.config.vocab_size == len(tokenizer)
        # Steps and questions of a step and attempts at each: twice the defaults 100, 8 and 8.
        assert size.rollouts == 1000 * 4 + 2 * 100 * 8 * 8
        assert size.tokens == 1000 + 2 * 100 * 8 * 8 * 2048


@pytest.mark.parametrize("verbatim", [False, True])
def test_calls_are_one_token_or_many(verbatim: bool) -> None:
    loaded = starting_model(recipe(f"model.verbatim_calls={str(verbatim).lower()}"))
    call = '<tool_call>\n{"name": "search", "arguments": {"query": ["'
    assert (len(loaded.tokenizer.tokenize(call)) > 1) == verbatim
    assert loaded.model.config.vocab_size == len(loaded.tokenizer)


def test_weights_follow_from_the_seed() -> None:
    first, again, other = (
        starting_model(recipe(f"seed={seed}")).model.state_dict() for seed in (3, 3, 4)
    )
    assert all(bool((first[name] == again[name]).all()) for name in first)
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.conv1d.weight"):
        assert not bool((first[name] == other[name]).all())
    # Short convolutions begin wide enough to be found early.
    assert 0.25 < first["model.layers.0.self_attn.conv1d.weight"].std().item() < 0.35


@pytest.mark.parametrize("config", ["conv-attention", "kimi-linear", "lfm2"])
def test_every_short_convolution_sees_as_many_tokens_as_wanted(config: str) -> None:
    options = (f"model.config={config}", "model.conv_kernel=6")
    model = starting_model(recipe(*options)).model
    kernels = [p for name, p in model.named_parameters() if "conv" in name and p.ndim == 3]
    assert kernels
    assert {kernel.shape[-1] for kernel in kernels} == {6}
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        found = model.eval()(input_ids=ids).logits
        cached = model(input_ids=ids[:, :4], use_cache=True)
        rest = [cached.logits]
        for t in (4, 5):
            cached = model(
                input_ids=ids[:, t : t + 1], **{CACHE_NAME: cached[CACHE_NAME]}, use_cache=True
            )
            rest.append(cached.logits)
    torch.testing.assert_close(torch.cat(rest, dim=1), found, rtol=0, atol=1e-4)


def test_a_plain_name_is_a_checkpoint() -> None:
    found = recipe("model=Qwen/Qwen3-4B")
    assert found.model.checkpoint == "Qwen/Qwen3-4B"
    assert found.model.config is None


def test_stages_are_called_by_their_kind_unless_told() -> None:
    assert [stage.name for stage in recipe().stages] == [
        "midtrain", "reject", "sft", "a", "b", "merge",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("wrld={}", "unknown key `wrld`, did you mean 'world'"),
        ("world.entites=5", "unknown key `world.entites`, did you mean 'entities'"),
        ("stages.0.tokns=5", "unknown key `stages.0.midtrain.tokns`, did you mean 'tokens'"),
        ("stages.3.baselin=loo", "`stages.3.grpo.baselin`, did you mean 'baseline'"),
        ("stages.0.data.plannin=1", "`stages.0.midtrain.data.plannin.* 'planning', 'reas"),
        ("stages.5.weigts=1", "`stages.5.merge.weigts`, did you mean 'weights'"),
        ("stages.0.kind=pretrain", "'pretrain' .* 'midtrain', 'sft', 'reject', 'grpo', 'merge'"),
        ("stages.4.start=stf", "stage 'b' refers to 'stf', but .* are midtrain, sft, a"),
        ("stages.4.start=merge", "stage 'b' refers to 'merge'"),
        ("stages.4.start=b", "stage 'b' refers to 'b'"),
        ("stages.4.start=reject", "refers to 'reject', but the stages with a model"),
        ("stages.2.source=midtrain", "refers to 'midtrain', but the `reject` stages .* are reject"),
        ("stages.5.of=[a, c]", "stage 'merge' refers to 'c'"),
        ("stages.5.of=[a]", "at least 2 items"),
        ("stages.5.weights=[0.5, 0.6]", "each 0 or more, together 1"),
        ("stages.5.weights=[1.5, -0.5]", "each 0 or more, together 1"),
        ("stages.5.weights=[1.0]", "names 2 stages, but `weights` 1"),
        ("stages.4.name=a", "two stages are called 'a'"),
        ("stages.4.name=../a", "should match pattern"),
        ("stages.0.epochs=1", "give either `tokens` or `epochs`"),
        ("stages.2.epochs=null", "give either `tokens` or `epochs`"),
        ("stages.0.data.text=0.6", "shares add up to 1.1, but must add up to 1"),
        ("stages.2.modes={react: 0.4}", "shares add up to 0.4"),
        ("stages.3.clip_low=1.5", "`stages.3.grpo.clip_low`: Input should be less than 1"),
        ("stages.0.micro_batches=3", "does not divide `batch_size`"),
        ("stages=[]", "at least 1 item"),
        ("documents={folder: a, questions: b}", "either `world` or `documents`"),
        ("world=null", "either `world` or `documents`"),
        ("world.hops=[1, 6]", "less than or equal to 5"),
        ("model.checkpoint=a/b", "either `config` or `checkpoint`"),
        ("model.preset=qwen3-4b", "`preset` is the shape of a `checkpoint`"),
        ("model.num_heads=5", "does not divide `hidden_size`"),
        ("engine=tiny", "checkpoint"),
        ("kind=reader", "'researcher'"),
    ],
)
def test_what_is_wrong_is_said(override, said) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(override)


@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 50),
    decay=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_rates_warm_up_stay_and_fall_in_a_line(steps, warmup, decay, final) -> None:
    plan = SftSettings(tokens=1, warmup_steps=warmup, decay=decay, final=final)
    rates = [plan.rate(step, steps) for step in range(steps)]
    for step, rate in enumerate(rates):
        warm = 1.0 if warmup == 0 else min(1.0, (step + 1) / warmup)
        begin = (1 - decay) * steps  # of the decay
        fallen = 0.0 if decay == 0 else max(0.0, step - begin) / (decay * steps)
        assert rate == pytest.approx(warm * (1 - (1 - final) * fallen), abs=1e-9)
        assert 0 < rate <= 1
