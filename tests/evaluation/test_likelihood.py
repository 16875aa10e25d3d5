"""Bits per byte under a setting: the base's cross-entropy where nothing is changed, a computation
by hand where it is.
"""

import math
from pathlib import Path

import pytest
import torch
from tests.autodeco.conftest import build, wrap
from transformers import PreTrainedTokenizerBase

from hanol.autodeco import AutoDecoForCausalLM, Row
from hanol.errors import ConfigError, DataError
from hanol.evaluation import HeadsSetting, StaticSetting, decoding_bits_per_byte
from hanol.sampling import soft_top_p

ROWS = [
    Row(prompt="def f(x):\n", completion="    return x\n"),
    Row(prompt="안녕", completion="하세요, 반갑습니다"),  # three bytes a letter
    Row(prompt="a", completion="b"),
    Row(prompt="A longer prompt that is padded less than all others: ", completion="yes."),
    Row(prompt="0", completion="123456789" * 4),
]
EPSILON = 1e-9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> AutoDecoForCausalLM:
    return wrap(build("llama"), tmp_path_factory.mktemp("heads"))


def by_hand(
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    row: Row,
    temperature: float | None,
    top_p: float | None,
) -> float:
    """Bits of one completion, in float64; None takes what the model's heads choose."""
    prompt = tokenizer(row.prompt).input_ids
    completion = [*tokenizer(row.completion).input_ids, tokenizer.eos_token_id]
    ids = torch.tensor([prompt + completion])
    part = slice(len(prompt) - 1, -1)
    with torch.no_grad():
        logits = model.llm(ids).logits[0, part].double()
        chosen = model(ids, apply="soft")
    T = chosen.temperature[0, part].double() if temperature is None else temperature
    P = chosen.top_p[0, part].double() if top_p is None else top_p
    ones = torch.ones(len(completion), dtype=torch.float64)
    probs = soft_top_p(logits, T * ones, P * ones)
    nats = -(probs.gather(1, torch.tensor(completion)[:, None]) + EPSILON).log().sum()
    return float(nats) / math.log(2)


def expected(
    model: AutoDecoForCausalLM, tokenizer: PreTrainedTokenizerBase, *values: float | None
) -> float:
    bits = sum(by_hand(model, tokenizer, row, *values) for row in ROWS)
    return bits / sum(len(row.completion.encode()) for row in ROWS)


def test_at_one_it_is_the_cross_entropy_of_the_base(model, byte_tokenizer) -> None:
    """A plain forward pass of transformers, without any of our code."""
    nats = num_bytes = 0.0
    for row in ROWS:
        prompt = byte_tokenizer(row.prompt).input_ids
        completion = [*byte_tokenizer(row.completion).input_ids, byte_tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(prompt) + completion])
        with torch.no_grad():
            loss = model.llm(torch.tensor([prompt + completion]), labels=labels).loss
        nats += loss.item() * len(completion)
        num_bytes += len(row.completion.encode())
    got = decoding_bits_per_byte(model, byte_tokenizer, ROWS, StaticSetting())
    assert got == pytest.approx(nats / math.log(2) / num_bytes, rel=2e-6)
    assert got > 5  # of a random model, about log2(260) a byte


@pytest.mark.parametrize("values", [(0.5, 1.0), (1.7, 1.0), (1.0, 0.6), (0.8, 0.9)])
def test_a_static_setting_is_soft_top_p_at_it(model, byte_tokenizer, values) -> None:
    got = decoding_bits_per_byte(model, byte_tokenizer, ROWS, StaticSetting(*values))
    assert got == pytest.approx(expected(model, byte_tokenizer, *values), rel=1e-5)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        (HeadsSetting(), (None, None)),
        (HeadsSetting(top_p=False), (None, 1.0)),
    ],
    ids=["both", "temperature"],
)
def test_heads_are_soft_top_p_at_what_they_choose(model, byte_tokenizer, setting, values) -> None:
    got = decoding_bits_per_byte(model, byte_tokenizer, ROWS, setting)
    assert got == pytest.approx(expected(model, byte_tokenizer, *values), rel=1e-5)


def test_a_top_p_head_alone_reads_the_temperature_1(model, byte_tokenizer) -> None:
    """What it chooses then is another top-p than beside the other head."""
    alone = AutoDecoForCausalLM.from_base(model.llm, enable_temperature_head=False)
    alone.top_p_head = model.top_p_head
    got = decoding_bits_per_byte(model, byte_tokenizer, ROWS, HeadsSetting(temperature=False))
    assert got == pytest.approx(expected(alone, byte_tokenizer, 1.0, None), rel=1e-5)
    assert (model.config.enable_temperature_head, model.config.enable_top_p_head) == (True, True)


def test_heads_that_choose_a_pair_cost_what_the_pair_costs(model, byte_tokenizer) -> None:
    made = AutoDecoForCausalLM.from_base(model.llm)
    with torch.no_grad():
        for head, bias in ((made.temp_head, 0.7 / 1.3), (made.top_p_head, 0.9 / 0.1)):
            head.mlp[2].weight.zero_()
            head.mlp[2].bias.fill_(math.log(bias))
    static = decoding_bits_per_byte(model, byte_tokenizer, ROWS, StaticSetting(0.7, 0.9))
    got = decoding_bits_per_byte(made, byte_tokenizer, ROWS, HeadsSetting())
    assert got == pytest.approx(static, rel=1e-5)


def confident(tokenizer: PreTrainedTokenizerBase) -> AutoDecoForCausalLM:
    """After everything "y" or the end, equally likely, and all other tokens one in two hundred."""
    base = build("llama")
    base.lm_head = torch.nn.Linear(base.config.hidden_size, 260)
    with torch.no_grad():
        base.lm_head.weight.zero_()
        base.lm_head.bias.fill_(math.log(0.005 / 258))
        base.lm_head.bias[[*tokenizer("y").input_ids, tokenizer.eos_token_id]] = math.log(0.4975)
    return AutoDecoForCausalLM.from_base(base)


def test_a_likely_text_costs_less_when_the_choice_is_sharper(byte_tokenizer) -> None:
    row = Row(prompt="x", completion="y")
    model = confident(byte_tokenizer)

    def bits(temperature: float, top_p: float = 1.0) -> float:
        setting = StaticSetting(temperature, top_p)
        return decoding_bits_per_byte(model, byte_tokenizer, [row], setting)

    by_temperature = [bits(t) for t in (0.2, 0.5, 1.0, 1.5, 2.0)]
    assert by_temperature == sorted(by_temperature)
    assert by_temperature[-1] > by_temperature[2] > by_temperature[0]
    # Two tokens share almost everything: a bit for each of "y" and the end.
    assert by_temperature[0] == pytest.approx(2, abs=1e-4)


def test_an_unlikely_text_costs_more_the_more_is_cut_and_never_more_than_30_bits_a_token(
    byte_tokenizer,
) -> None:
    model = confident(byte_tokenizer)
    row = Row(prompt="x", completion="zzz")

    def bits(top_p: float) -> float:
        return decoding_bits_per_byte(model, byte_tokenizer, [row], StaticSetting(1.0, top_p))

    by_top_p = [bits(p) for p in (1.0, 0.99, 0.9, 0.7, 0.5)]
    assert by_top_p == sorted(by_top_p)
    assert by_top_p[0] < by_top_p[-1]
    cold = decoding_bits_per_byte(model, byte_tokenizer, [row], StaticSetting(0.01))
    # Three of 30 bits and an end of one bit, for three bytes.
    assert cold == pytest.approx((3 * -math.log2(EPSILON) + 1) / 3, rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen3", "kimi"])
@pytest.mark.parametrize(
    "setting", [StaticSetting(0.8, 0.9), HeadsSetting()], ids=["static", "heads"]
)
def test_batches_and_padding_do_not_matter(
    name: str, setting: StaticSetting | HeadsSetting, tmp_path: Path, byte_tokenizer
) -> None:
    model = wrap(build(name), tmp_path)
    alone = decoding_bits_per_byte(model, byte_tokenizer, ROWS, setting, batch=1)
    for batch in (2, 3, 64):
        got = decoding_bits_per_byte(model, byte_tokenizer, ROWS, setting, batch=batch)
        assert got == pytest.approx(alone, rel=1e-5)
    turned = decoding_bits_per_byte(model, byte_tokenizer, ROWS[::-1], setting)
    assert turned == pytest.approx(alone, rel=1e-5)


def test_rows_without_a_completion_and_long_ones_are_left_out(model, byte_tokenizer) -> None:
    short, long = ROWS[2], ROWS[4]
    got = decoding_bits_per_byte(
        model, byte_tokenizer, [short, long, Row(prompt="x")], StaticSetting(), max_length=5
    )
    alone = decoding_bits_per_byte(model, byte_tokenizer, [short], StaticSetting())
    assert got == pytest.approx(alone, rel=1e-6)
    beyond = Row(prompt="x", completion="y" * 300)  # the base's context is 256
    with_beyond = decoding_bits_per_byte(model, byte_tokenizer, [beyond, short], StaticSetting())
    assert with_beyond == pytest.approx(alone, rel=1e-6)
    for left_out in ([long], [Row(prompt="x")], []):
        with pytest.raises(DataError):
            decoding_bits_per_byte(model, byte_tokenizer, left_out, StaticSetting(), max_length=5)


def test_nothing_is_left_changed(model, byte_tokenizer) -> None:
    before = [p.detach().clone() for p in model.parameters()]
    decoding_bits_per_byte(model, byte_tokenizer, ROWS, HeadsSetting(top_p=False))
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert model.config.enable_top_p_head
    assert not any(p.requires_grad for p in model.llm.parameters())


def test_what_has_no_bits_is_refused(model, byte_tokenizer) -> None:
    with pytest.raises(ConfigError, match="Greedy"):
        decoding_bits_per_byte(model, byte_tokenizer, ROWS, StaticSetting(0.0))
    without = AutoDecoForCausalLM.from_base(model.llm, enable_top_p_head=False)
    with pytest.raises(ConfigError, match="top-p head, but this AutoDecoForCausalLM has none"):
        decoding_bits_per_byte(without, byte_tokenizer, ROWS, HeadsSetting())
    with pytest.raises(DataError, match="no tokenizer"):
        decoding_bits_per_byte(model, None, ROWS, StaticSetting())
    # Tokens without any text: bits of no bytes.
    with pytest.raises(DataError, match="no bytes"):
        decoding_bits_per_byte(
            model, byte_tokenizer, [Row(prompt="x", completion_ids=(257,))], StaticSetting()
        )
