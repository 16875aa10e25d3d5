"""Settings compared: samples follow the exact distribution, the search finds the known best pair,
figures equal what is counted by hand.
"""

import io
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.autodeco.conftest import build, official_config, official_tensors, write_heads
from torch import Tensor, nn
from transformers import (
    GenerationMixin,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import CausalLMOutput

from hanol.autodeco import AutoDecoForCausalLM, Row
from hanol.errors import ConfigError, DataError, EngineError, UnknownNameError, WriteError
from hanol.evaluation import (
    Comparison,
    DecodingTask,
    DrawnCompletion,
    HeadsSetting,
    StaticSearch,
    StaticSetting,
    compare,
    decoding_bits_per_byte,
    sample,
)
from hanol.models import build as build_preset
from hanol.scoring import pass_at_k


class Bigrams(PreTrainedModel, GenerationMixin):
    """The logits of the next token are a row of a table: its distribution is known exactly."""

    config_class = PreTrainedConfig

    def __init__(self, table_VV: Tensor) -> None:
        V = len(table_VV)
        super().__init__(PreTrainedConfig(vocab_size=V, hidden_size=V))
        self.embed = nn.Embedding(V, V, _weight=torch.eye(V))
        self.head = nn.Linear(V, V, bias=False)
        self.head.weight.data = table_VV.T.contiguous()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, input_ids: Tensor, **kwargs: Any) -> CausalLMOutput:
        self.sizes.append(tuple(input_ids.shape))
        return CausalLMOutput(logits=self.head(self.embed(input_ids)))

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def one_row(*probs: float) -> Bigrams:
    """The same distribution after every token."""
    return Bigrams(torch.tensor(probs).log().expand(len(probs), -1).clone())


def exact(probs: list[float], temperature: float, top_p: float) -> np.ndarray:
    """What is sampled from, by the definition in float64."""
    p = np.array(probs) ** (1 / temperature)
    p /= p.sum()
    before = np.array([p[p > one].sum() for one in p])
    p = np.where(before < top_p, p, 0)
    return p / p.sum()


def always(prompt: Any, completion: Any) -> bool:
    return True


def task(prompts: Any = ((0,), (1,)), new: int = 1, verify: Any = always) -> DecodingTask:
    return DecodingTask("a task", prompts, verify, new)


def autodeco(name: str, tmp_path: Path, **changes: Any) -> AutoDecoForCausalLM:
    return with_heads(build(name, **changes), tmp_path)


def with_heads(base: PreTrainedModel, tmp_path: Path) -> AutoDecoForCausalLM:
    """Heads whose temperature and top-p differ from token to token."""
    width = base.config.hidden_size
    config = official_config(base, temperature_hidden_size=width, top_p_hidden_size=width)
    folder = write_heads(tmp_path / "heads", config, official_tensors(width=width))
    return AutoDecoForCausalLM.from_pretrained(folder, base_model=base)


# -- sampling


def test_frequencies_are_those_of_the_setting() -> None:
    """Chi-square over 20,000 draws, probabilities by transformers' own warpers."""
    model = one_row(0.35, 0.05, 0.25, 0.15, 0.12, 0.08)
    done = sample(
        model, None, task([(0,)], 2), StaticSetting(0.7, 0.85), n=10_000, seed=3, batch_size=5000
    )
    scores = TemperatureLogitsWarper(0.7)(None, model.head.weight[:, :1].T.detach())
    p = TopPLogitsWarper(0.85)(None, scores).softmax(-1)[0].double().numpy()
    counts = np.bincount([t for one in done[0] for t in one.token_ids], minlength=6)
    assert (counts[p == 0] == 0).all()
    kept = p > 0
    assert kept.sum() == 4
    assert all((one.nucleus_size == 4).all() for one in done[0])
    chi2 = ((counts - 20_000 * p)[kept] ** 2 / (20_000 * p[kept])).sum()
    assert chi2 < 16.3  # the 0.001 point with 3 degrees of freedom


@pytest.mark.parametrize("name", ["llama", "qwen3", "kimi"])
@pytest.mark.parametrize(
    "setting", [HeadsSetting(), StaticSetting(0.8, 0.9)], ids=["heads", "static"]
)
def test_every_token_is_the_one_that_a_pass_over_the_whole_text_gives(
    name: str, setting: Any, tmp_path: Path
) -> None:
    """Caches shared by samples, rows that end early, mixed lengths and small batches included."""
    model = autodeco(name, tmp_path)
    # Several end tokens, so that many rows end early and others do not.
    model.generation_config.eos_token_id = list(range(200, 257))
    prompts = [[5, 6, 7], [9], [8, 7, 6], [1, 2, 3, 4], [3, 3, 3]]
    done = sample(model, None, task(prompts, 9), setting, n=5, seed=11, batch_size=7)
    ended = [one.stopped for row in done for one in row]
    assert any(ended)
    assert not all(ended)
    for i, j in itertools.product(range(5), range(5)):
        one = done[i][j]
        ids = torch.tensor([prompts[i] + one.token_ids])
        with torch.no_grad():
            out = model(ids[:, :-1], apply="hard", output_base_logits=True)
        part = slice(len(prompts[i]) - 1, None)
        base = out.base_logits[0, part]
        if isinstance(setting, HeadsSetting):
            T, P, logits = out.temperature[0, part], out.top_p[0, part], out.logits[0, part]
        else:
            T, P = torch.full((len(base),), 0.8), torch.full((len(base),), 0.9)
            logits = TopPLogitsWarper(0.9)(None, TemperatureLogitsWarper(0.8)(None, base))
        torch.testing.assert_close(torch.from_numpy(one.temperature), T, rtol=0, atol=1e-4)
        torch.testing.assert_close(torch.from_numpy(one.top_p), P, rtol=0, atol=1e-4)
        cdf = logits.double().softmax(-1).cumsum(-1).numpy()
        uniform = np.random.default_rng([11, i, j]).random(9)
        expected = [int(np.searchsorted(row, u)) for row, u in zip(cdf, uniform, strict=False)]
        assert one.token_ids == expected
        assert one.stopped == (one.token_ids[-1] >= 200)
        assert one.stopped or len(one.token_ids) == 9
        assert not any(200 <= token < 257 for token in one.token_ids[:-1])


def learned_positions() -> PreTrainedModel:
    """A GPT-2 whose logits depend on where a token stands."""
    config = GPT2Config(
        vocab_size=260, n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=256,
        eos_token_id=257,
    )  # fmt: skip
    model = build_preset(config, seed=5).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in (model.transformer.wte.weight, model.transformer.wpe.weight):
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return model


def kimi_preset() -> PreTrainedModel:
    model = build_preset("kimi-linear-3m", vocab_size=260, seed=5).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


RAGGED = {"rotary": lambda: build("llama"), "learned": learned_positions, "kimi": kimi_preset}
LENGTHS = (1, 70, 2, 37, 7, 64, 37, 13)  # also across a chunk of the delta attention


def ragged_prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 200, size=size).tolist() for size in LENGTHS]


def same_completions(
    some: list[list[DrawnCompletion]], others: list[list[DrawnCompletion]]
) -> None:
    for one, other in zip(itertools.chain(*some), itertools.chain(*others), strict=True):
        assert one.token_ids == other.token_ids
        assert one.stopped == other.stopped
        np.testing.assert_allclose(one.temperature, other.temperature, rtol=0, atol=1e-4)
        np.testing.assert_allclose(one.top_p, other.top_p, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(one.nucleus_size, other.nucleus_size)


@pytest.mark.parametrize("name", RAGGED)
@pytest.mark.parametrize(
    "setting",
    [HeadsSetting(), StaticSetting(0.8, 0.9), StaticSetting(0.0)],
    ids=["heads", "static", "greedy"],
)
def test_prompts_of_other_lengths_in_the_batch_change_nothing(
    name: str, setting: Any, tmp_path: Path
) -> None:
    model = with_heads(RAGGED[name](), tmp_path)
    # Several end tokens: rows leave the batch at different times, padded ones and others.
    model.generation_config.eos_token_id = list(range(200, 257))
    what = task(ragged_prompts(), 7)
    alone = sample(model, None, what, setting, n=2, seed=3, batch_size=1)
    if setting != StaticSetting(0.0):  # of a random model that may say one token for ever
        assert len({one.stopped for row in alone for one in row}) == 2
    for batch_size in (5, 64):
        together = sample(model, None, what, setting, n=2, seed=3, batch_size=batch_size)
        same_completions(together, alone)


@pytest.mark.parametrize("name", RAGGED)
def test_a_model_without_heads_takes_prompts_of_other_lengths_too(name: str) -> None:
    model = RAGGED[name]()
    what = task(ragged_prompts(), 7)
    together = sample(model, None, what, StaticSetting(0.8, 0.9), n=2, seed=3)
    alone = sample(model, None, what, StaticSetting(0.8, 0.9), n=2, seed=3, batch_size=1)
    same_completions(together, alone)
    greedy = sample(model, None, what, StaticSetting(0.0))
    for prompt, [one] in zip(what.prompts, greedy, strict=True):
        ids = torch.tensor([[*prompt, *one.token_ids]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == one.token_ids


def test_greedy_is_that_of_generate_and_computed_once(tmp_path: Path) -> None:
    model = autodeco("llama", tmp_path)
    model.generation_config.eos_token_id = 257
    done = sample(model, None, task([[5, 6, 7]], 12), StaticSetting(0.0), n=4)
    expected = model.generate(torch.tensor([[5, 6, 7]]), do_sample=False, max_new_tokens=12)
    assert all(one.token_ids == expected[0, 3:].tolist() for one in done[0])
    assert len(done[0]) == 4


def test_the_prompt_goes_through_the_model_once_for_all_samples() -> None:
    model = one_row(0.5, 0.5)
    sample(model, None, task([[0, 1, 0], [1, 1, 1]], 2), StaticSetting(), n=8)
    assert model.sizes[0] == (2, 3)
    assert model.sizes[1] == (16, 4)  # no cache: the whole rows


@given(batch_size=st.integers(1, 40), seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_seed_decides_whatever_the_batch(batch_size: int, seed: int) -> None:
    model = one_row(0.4, 0.3, 0.2, 0.1)
    what = task([[1, 2], [3], [2, 2], [0]], 4)
    once = sample(model, None, what, StaticSetting(1.2, 0.9), n=5, seed=seed)
    again = sample(
        model, None, what, StaticSetting(1.2, 0.9), n=5, seed=seed, batch_size=batch_size
    )
    assert [[c.token_ids for c in row] for row in once] == [
        [c.token_ids for c in row] for row in again
    ]
    fewer = sample(model, None, what, StaticSetting(1.2, 0.9), n=2, seed=seed)
    assert [[c.token_ids for c in row] for row in fewer] == [
        [c.token_ids for c in row[:2]] for row in once
    ]


def test_another_seed_gives_other_samples() -> None:
    model = one_row(0.4, 0.3, 0.2, 0.1)
    drawn = {
        tuple(c.token_ids for c in sample(model, None, task(new=20), StaticSetting(), seed=s)[0])[
            0:1
        ]
        and tuple(sample(model, None, task(new=20), StaticSetting(), seed=s)[0][0].token_ids)
        for s in range(10)
    }
    assert len(drawn) == 10


def test_each_head_alone_and_the_model_left_as_it_was(tmp_path: Path) -> None:
    model = autodeco("llama", tmp_path).train()
    prompts = [[5, 6, 7], [9, 1, 2]]
    both = sample(model, None, task(prompts, 6), HeadsSetting(), n=3)
    temperature = sample(model, None, task(prompts, 6), HeadsSetting(top_p=False), n=3)
    top_p = sample(model, None, task(prompts, 6), HeadsSetting(temperature=False), n=3)
    neither = sample(model, None, task(prompts, 6), HeadsSetting(False, False), n=3)
    default = sample(model, None, task(prompts, 6), StaticSetting(), n=3)
    for row in temperature:
        assert all((one.top_p == 1).all() for one in row)
        assert any((one.temperature != 1).any() for one in row)
    for row in top_p:
        assert all((one.temperature == 1).all() for one in row)
        assert all((one.top_p < 1).all() for one in row)
    # The first token comes from the same hidden state: the temperature head says the same.
    assert temperature[0][0].temperature[0] == both[0][0].temperature[0]
    assert [[c.token_ids for c in r] for r in neither] == [
        [c.token_ids for c in r] for r in default
    ]
    assert model.config.enable_temperature_head is True
    assert model.config.enable_top_p_head is True
    assert model.training

    alone = AutoDecoForCausalLM.from_base(model.llm, enable_temperature_head=False)
    alone.top_p_head = model.top_p_head
    apart = sample(alone, None, task(prompts, 6), HeadsSetting(temperature=False), n=3)
    assert [[c.token_ids for c in r] for r in apart] == [[c.token_ids for c in r] for r in top_p]


def test_texts_come_whole_and_reach_the_verifier(byte_tokenizer) -> None:
    """A model that says the same three bytes for ever: one Korean letter."""
    letter = byte_tokenizer("한").input_ids
    end = byte_tokenizer.eos_token_id
    chain = [byte_tokenizer("a").input_ids[0], *letter, end]
    table = torch.zeros(260, 260)
    for now, after in itertools.pairwise(chain):
        table[now, after] = 100.0
    model = Bigrams(table)
    model.generation_config.eos_token_id = end
    seen = []

    def verify(prompt: str, completion: str, row: Row) -> bool:
        seen.append((prompt, completion))
        return completion == "한"

    rows = [Row(prompt="a"), Row(prompt="ba")]
    both = DecodingTask.from_rows("letters", rows, verify, byte_tokenizer, max_new_tokens=8)
    result = compare(
        model, byte_tokenizer, both, settings={"default": StaticSetting()}, samples=2
    ).result("default")
    assert seen == [("a", "한")] * 2 + [("ba", "한")] * 2
    assert result.pass_at[1].value == 1
    assert result.length.mean == 4
    assert result.cut == 0


def test_a_task_of_rows_asks_the_verifier_with_the_row(byte_tokenizer) -> None:
    rows = [Row(prompt="1+1=", answer="2"), Row(prompt="1+2=", answer="3")]
    asked = []

    def verify(prompt: str, completion: str, row: Row) -> bool:
        asked.append((prompt, completion))
        return completion == row.answer

    made = DecodingTask.from_rows("sums", rows, verify, byte_tokenizer, max_new_tokens=1)
    table = torch.zeros(260, 260)
    table[byte_tokenizer("=").input_ids[0], byte_tokenizer("3").input_ids[0]] = 100.0
    result = compare(
        Bigrams(table), byte_tokenizer, made, settings={"x": StaticSetting()}, samples=1
    ).result("x")
    assert asked == [("1+1=", "3"), ("1+2=", "3")]
    assert result.right == [0, 1]
    with pytest.raises(DataError, match="answer '5' in the place of '2'"):
        DecodingTask.from_rows(
            "x", [rows[0], Row(prompt="1+1=", answer="5")], verify, byte_tokenizer, max_new_tokens=1
        )


def test_what_cannot_be_sampled_is_refused(tmp_path: Path) -> None:
    plain = build("llama")
    with pytest.raises(ConfigError, match="250 tokens and 20 are to follow.*256"):
        sample(plain, None, task([[1] * 250], 20), StaticSetting())
    with pytest.raises(ConfigError, match="temperature head, but this LlamaForCausalLM has none"):
        sample(plain, None, task(), HeadsSetting())
    without = AutoDecoForCausalLM.from_base(plain, enable_top_p_head=False)
    with pytest.raises(ConfigError, match="top-p head, but this AutoDecoForCausalLM has none"):
        sample(without, None, task(), HeadsSetting())
    for wrong in ({"n": 0}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            sample(plain, None, task(), StaticSetting(), **wrong)
    broken = one_row(0.5, 0.5)
    broken.head.weight.data[0, 1] = math.nan
    with pytest.raises(EngineError, match="NaN"):
        sample(broken, None, task([[1]]), StaticSetting())
    with pytest.raises(DataError, match="no prompts"):
        task([])
    with pytest.raises(DataError, match="Prompt 1 .* is empty"):
        task([[1], []])
    with pytest.raises(ConfigError, match="`max_new_tokens` is 0"):
        task(new=0)
    for temperature, top_p in ((-0.1, 1), (math.inf, 1), (math.nan, 1), (1, 0), (1, 1.01)):
        with pytest.raises(ConfigError, match="must be"):
            StaticSetting(temperature, top_p)


# -- the search


def search(model: Any, what: DecodingTask, **options: Any) -> StaticSearch:
    found = compare(model, None, what, **options).search
    assert found is not None
    return found


PROBS = [0.5, 0.3, 0.06, 0.05, 0.05, 0.04]


def second_is_right(prompt: Any, completed: list[int]) -> bool:
    return completed == [1]


@pytest.mark.parametrize("method", ["coarse", "grid"])
def test_the_search_finds_the_known_best_pair(method: Any) -> None:
    """Right is the second most likely token: neither greedy nor the tail will do."""
    temperatures, top_ps = (0.1, 0.4, 0.9, 3.0), (0.3, 0.7, 0.95, 1.0)
    found = search(
        one_row(*PROBS), task(verify=second_is_right), method=method,
        temperatures=temperatures, top_ps=top_ps, samples=2000, batch_size=4000,
    )  # fmt: skip
    accuracy = {(t, p): exact(PROBS, t, p)[1] for t in temperatures for p in (*top_ps, 1.0)}
    if method == "coarse":
        best_t = max(temperatures, key=lambda t: accuracy[t, 1.0])
        best = max(((best_t, p) for p in top_ps), key=accuracy.__getitem__)
        assert len(found.points) == 4 + 3
    else:
        best = max(accuracy, key=accuracy.__getitem__)
        assert len(found.points) == 16
    assert (found.best.temperature, found.best.top_p) == best
    assert found.best_of_halves == (found.best, found.best)
    for point in found.points:
        p = accuracy[point.temperature, point.top_p]
        assert abs(point.pass_at_1 - p) <= 5 * math.sqrt(p * (1 - p) / 4000)
    assert found.oracle == max(point.pass_at_1 for point in found.points)
    assert found.split_half == found.oracle  # both halves picked the same


def test_ties_go_to_the_more_diverse_setting() -> None:
    found = search(one_row(0.5, 0.5), task(), samples=1)
    assert (found.best.temperature, found.best.top_p) == (1.5, 1.0)
    assert len(found.points) == 15 + 9
    assert [point.temperature for point in found.points[:3]] == [0.1, 0.2, 0.3]


def test_split_in_half_is_not_fooled_by_luck() -> None:
    """A verifier that tosses a coin: no setting is better than another."""
    oracle, honest = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        coin = task([[i % 2] for i in range(20)], verify=lambda *_, rng=rng: rng.random() < 0.5)
        found = search(one_row(0.5, 0.5), coin, samples=2, seed=seed, top_ps=(0.5, 1.0))
        assert sorted(found.halves[0] + found.halves[1]) == list(range(20))
        oracle.append(found.oracle)
        honest.append(found.split_half)
    error = math.sqrt(0.25 / 40 / 40)
    assert abs(np.mean(honest) - 0.5) < 4 * error
    assert np.mean(oracle) > 0.5 + 8 * error


def test_each_half_is_decoded_and_scored_with_the_pair_of_the_other() -> None:
    """Some problems need the most likely token, the others an unlikely one."""
    model = one_row(0.6, 0.2, 0.2)

    def verify(prompt: list[int], done: list[int]) -> bool:
        return (done == [0]) == (prompt == [0])

    mixed = task([[0]] * 4 + [[1]] * 4, verify=verify)
    options: dict[str, Any] = {"temperatures": (0.1, 1.0, 3.0), "top_ps": (0.5, 1.0)}
    compared = compare(model, None, mixed, samples=50, seed=4, **options)
    found = compared.search
    first, second = found.best_of_halves
    assert first != second
    right = np.zeros(8, dtype=int)
    for half, setting in ((found.halves[0], second), (found.halves[1], first)):
        done = sample(model, None, mixed, setting, n=50, seed=4)
        for i in half:
            right[i] = sum(verify(mixed.prompts[i], one.token_ids) for one in done[i])
    assert found.split_half == pytest.approx(right.mean() / 50, abs=1e-12)
    assert compared.result("best static").right == right.tolist()
    assert compared.result("best static").static == [first, second]
    assert compared.result("oracle static").pass_at[1].value == pytest.approx(found.oracle)


def test_a_search_that_cannot_be_made() -> None:
    model = one_row(0.5, 0.5)
    with pytest.raises(DataError, match="1 problem"):
        search(model, task([[1]]))
    with pytest.raises(ConfigError, match="`method` is 'fine'"):
        search(model, task(), method="fine")
    with pytest.raises(ConfigError, match="must not be empty"):
        search(model, task(), temperatures=())
    with pytest.raises(ConfigError, match=r"`temperature` is -1"):
        search(model, task(), temperatures=(-1.0,))


# -- the comparison


def choose_then_answer() -> AutoDecoForCausalLM:
    """After 0 a free choice of 1 to 4; after each of them one right answer, said 7 times in 10.

    The temperature head is 1 after the 0 and 0.1 elsewhere; the top-p head is all but 1.
    """
    probs = torch.full((9, 9), 1e-30)
    probs[0, 1:5] = 0.25
    for i in range(1, 5):
        probs[i, 5:9] = 0.1
        probs[i, 4 + i] = 0.7
    model = AutoDecoForCausalLM.from_base(Bigrams(probs.log()), init="neutral")
    first, last = model.temp_head.mlp[0], model.temp_head.mlp[2]
    with torch.no_grad():
        first.weight.zero_()
        first.bias.zero_()
        first.weight[0, 1:] = 1.0  # the hidden state is one-hot: 1 unless the token is 0
        last.weight[0, 0] = math.log(0.05 / 0.95)
        model.top_p_head.mlp[2].bias.fill_(8.0)
    return model


def answered(prompt: list[int], done: list[int]) -> bool:
    return done[1] == done[0] + 4


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    problems = DecodingTask("choose, then answer", [[0]] * 30, answered, 2)
    return compare(choose_then_answer(), None, problems, samples=8, seeds=2, seed=1)


def test_figures_are_those_that_are_known(comparison: Comparison) -> None:
    names = [result.name for result in comparison.results]
    assert names == [
        "greedy", "default", "best static", "oracle static", "temperature head", "top-p head",
        "AutoDeco",
    ]  # fmt: skip
    assert comparison.result("greedy").pass_at[1].value == 1
    default, own = comparison.result("default"), comparison.result("AutoDeco")
    error = math.sqrt(0.7 * 0.3 / 480)
    assert abs(default.pass_at[1].value - 0.7) < 4 * error
    assert default.pass_at[1].low < 0.7 < default.pass_at[1].high
    assert comparison.result("temperature head").pass_at[1].value == 1
    assert abs(comparison.result("top-p head").pass_at[1].value - 0.7) < 4 * error
    assert own.pass_at[1].value == 1
    assert own.static == []
    assert comparison.result("greedy").static == [StaticSetting(0.0)]
    assert len(comparison.result("best static").static) == 2
    # Greedy always says the same: one bigram among eight completions of a seed.
    assert comparison.result("greedy").distinct[2].value == pytest.approx(1 / 8)
    assert own.distinct[2].value > 3 / 8
    assert own.temperature.mean == pytest.approx((1 + 0.1) / 2, abs=1e-3)
    assert own.temperature.percentiles[95] == pytest.approx(1, abs=1e-3)
    assert own.length.mean == 2
    assert own.cut == 1  # there is no end token
    assert comparison.spent.seconds > 0
    assert comparison.spent.generated_tokens == 2 * comparison.spent.model_calls
    gain = comparison.difference("AutoDeco", "default").pass_at[1]
    assert gain.value == pytest.approx(1 - default.pass_at[1].value)
    assert gain.low > 0
    loss = comparison.difference("default", "AutoDeco").pass_at[1]
    assert (loss.value, loss.low, loss.high) == (-gain.value, -gain.high, -gain.low)
    assert list(default.pass_at) == [1, 2, 4, 8, 16]
    for result in comparison.results:
        values = [result.pass_at[k].value for k in (1, 2, 4, 8, 16)]
        assert values == sorted(values)
        for k in (1, 4, 16):
            by_hand = pass_at_k(16, result.right, k).mean()
            assert result.pass_at[k].value == pytest.approx(by_hand)


def test_std_is_that_over_seeds_and_one_token_counts_the_cut_by_top_p() -> None:
    model = one_row(0.6, 0.25, 0.15)
    problems = task([[i % 3] for i in range(10)], 1, lambda prompt, done: done == [0])
    settings_ = {
        "wide": StaticSetting(),
        "one": StaticSetting(1.0, 0.5),
        "cold": StaticSetting(0.01),
    }
    got = compare(model, None, problems, settings=settings_, samples=4, seeds=3, seed=2)
    assert got.search is None
    cost = got.spent
    assert (cost.model_calls, cost.prompt_tokens, cost.generated_tokens) == (360, 30, 360)
    done = sample(model, None, problems, StaticSetting(), n=12, seed=2)
    right = np.array([[c.token_ids == [0] for c in row] for row in done])
    by_seed = [right[:, i : i + 4].mean() for i in (0, 4, 8)]
    assert got.result("wide").pass_at_1_std == pytest.approx(np.std(by_seed))
    assert [got.result(name).one_token for name in settings_] == [0, 1, 0]
    assert got.result("one").pass_at_1_std == 0


def test_the_result_survives_json_and_shows_every_setting(comparison: Comparison) -> None:
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(comparison.table())
    shown = console.export_text()
    for result in comparison.results:
        assert result.name in shown
    default = comparison.result("default").pass_at[1]
    assert f"{100 * default.value:.1f}" in shown
    assert f"{100 * default.low:.1f}..{100 * default.high:.1f}" in shown
    assert max(map(len, shown.splitlines())) <= 100
    with pytest.raises(UnknownNameError, match="Did you mean 'AutoDeco'"):
        comparison.result("autodeko")
    with pytest.raises(ConfigError, match="two settings"):
        comparison.difference("greedy", "greedy")


def test_bits_per_byte_of_given_completions_are_measured_and_shown(
    tmp_path: Path, byte_tokenizer
) -> None:
    model = autodeco("llama", tmp_path)
    rows = [Row(prompt="1+1=", completion="2"), Row(prompt="how", completion=" are you?")]
    what = DecodingTask.from_rows("t", rows, lambda *_: True, byte_tokenizer, max_new_tokens=2)
    used: dict[str, Any] = {
        "greedy": StaticSetting(0.0), "default": StaticSetting(), "sharp": StaticSetting(0.5, 0.8),
        "both": HeadsSetting(), "one": HeadsSetting(top_p=False),
    }  # fmt: skip
    got = compare(model, byte_tokenizer, what, settings=used, samples=1, rows=rows)
    assert got.result("greedy").bits_per_byte is None
    for name in ("default", "sharp", "both", "one"):
        bits = decoding_bits_per_byte(model, byte_tokenizer, rows, used[name])
        assert got.result(name).bits_per_byte == pytest.approx(bits, rel=1e-9)
    assert Comparison.model_validate_json(got.model_dump_json()) == got
    lines = shown(got)
    assert any("bits/" in line for line in lines)
    for name in ("default", "sharp", "both", "one"):
        [line] = [line for line in lines if line.strip().startswith(f"{name} ")]
        assert f" {got.result(name).bits_per_byte:.2f} " in line
    assert max(map(len, lines)) <= 120


def test_without_completions_there_are_no_bits(byte_tokenizer) -> None:
    prompts = [Row(prompt="a"), Row(prompt="bc")]
    what = DecodingTask.from_rows("t", prompts, lambda *_: True, byte_tokenizer, max_new_tokens=2)
    one = {"default": StaticSetting()}
    base = build("llama")
    heads, completed = AutoDecoForCausalLM.from_base(base), [Row(prompt="a", completion="b")]
    for model, rows in ((heads, ()), (heads, prompts), (base, completed)):
        got = compare(model, byte_tokenizer, what, settings=one, samples=1, rows=rows)
        assert got.result("default").bits_per_byte is None
        assert not any("bits/" in line for line in shown(got))


def test_two_halves_with_settings_of_their_own_have_the_mean_of_their_bits(
    tmp_path: Path, byte_tokenizer
) -> None:
    rows = [Row(prompt=str(i), completion=str(i)) for i in range(4)]
    what = DecodingTask.from_rows(
        "t", rows, lambda p, c, row: len(c) % 2 == int(p) % 2, byte_tokenizer, max_new_tokens=3
    )
    model = autodeco("llama", tmp_path)
    got = compare(
        model, byte_tokenizer, what, temperatures=(0.5, 1.5), top_ps=(0.5, 1.0), samples=2,
        rows=rows,
    )  # fmt: skip
    pair = got.result("best static").static
    assert len(pair) == 2
    bits = [decoding_bits_per_byte(model, byte_tokenizer, rows, one) for one in pair]
    assert got.result("best static").bits_per_byte == pytest.approx(sum(bits) / 2, rel=1e-9)
    assert got.result("AutoDeco").bits_per_byte is not None


def shown(comparison: Comparison) -> list[str]:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison.table())
    return console.export_text().splitlines()


def test_the_plot_is_an_image_with_every_setting(comparison: Comparison, tmp_path: Path) -> None:
    path = comparison.plot(tmp_path / "a folder.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(WriteError, match="could not be written"):
        comparison.plot(tmp_path)


def test_progress_goes_up_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    compare(
        choose_then_answer(), None, DecodingTask("x", [[0]] * 4, answered, 2),
        samples=2, batch_size=3, temperatures=(0.5, 1.0), top_ps=(0.5, 1.0),
        on_progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert len({total for _, total in seen}) == 1
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_a_model_without_heads_is_compared_without_them() -> None:
    got = compare(
        one_row(0.6, 0.4), None, task(), samples=2, temperatures=(0.5, 1.0), top_ps=(1.0,)
    )
    assert [result.name for result in got.results] == [
        "greedy", "default", "best static", "oracle static",
    ]  # fmt: skip
    got.table()


def test_a_comparison_that_cannot_be_made() -> None:
    model = one_row(0.5, 0.5)
    with pytest.raises(DataError, match="1 problem"):
        compare(model, None, task([[1]]))
    for wrong, message in (
        ({"samples": 0}, "`samples` is 0"),
        ({"seeds": 0}, "`seeds` 0"),
        ({"settings": {}}, "`settings` is empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare(model, None, task(), **wrong)


def test_a_static_setting_has_both_values() -> None:
    with pytest.raises(ConfigError, match="needs a `temperature` and a `top_p`"):
        StaticSetting(None)  # type: ignore[arg-type]
