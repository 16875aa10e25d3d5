import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from hanol.errors import ConfigError
from hanol.models import generate
from hanol.models._generate import _Streamer


def test_greedy_is_the_most_likely_token_each_time(
    moe_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = tokenizer("def mean", return_tensors="pt").input_ids
    [sample] = generate(moe_model, tokenizer, "def mean", max_new_tokens=8, temperature=0)
    for token in sample.token_ids:
        with torch.no_grad():
            assert token == moe_model(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert sample.prompt_tokens == len(tokenizer("def mean").input_ids)
    assert sample.finish_reason == "length"


def test_long_prompts_go_through_in_parts(
    moe_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch
) -> None:
    prompt = "def mean(values): return sum(values) / len(values)"
    [whole] = generate(moe_model, tokenizer, prompt, max_new_tokens=8, temperature=0)
    lengths = []
    hook = moe_model.model.embed_tokens.register_forward_hook(
        lambda module, args, out: lengths.append(out.shape[1])
    )
    monkeypatch.setattr("hanol.models._generate._PREFILL_CHUNK", 16)
    [parts] = generate(moe_model, tokenizer, prompt, max_new_tokens=8, temperature=0)
    hook.remove()
    assert max(lengths) == 16
    assert parts.token_ids == whole.token_ids


def test_streamed_text_is_the_returned_text(
    moe_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    pieces: list[str] = []
    [sample] = generate(
        moe_model, tokenizer, "한올", max_new_tokens=40, seed=4, on_text=pieces.append
    )
    assert len(pieces) > 3
    assert "".join(pieces) == sample.text
    assert sample.text == tokenizer.decode(sample.token_ids, skip_special_tokens=True)
    assert sample.prefill_rate > 0
    assert sample.decode_rate > 0


def test_seeds_decide_and_the_global_state_is_left(
    moe_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    both = generate(moe_model, tokenizer, "a", max_new_tokens=12, seed=1, num_samples=2)
    second = generate(moe_model, tokenizer, "a", max_new_tokens=12, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert both[0].token_ids != both[1].token_ids
    assert both[1].token_ids == second[0].token_ids


def test_small_top_p_is_greedy(
    moe_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    greedy = generate(moe_model, tokenizer, "a", max_new_tokens=8, temperature=0)
    narrow = generate(moe_model, tokenizer, "a", max_new_tokens=8, top_p=1e-6, seed=3)
    assert greedy[0].token_ids == narrow[0].token_ids


def test_sampling_follows_temperature_and_top_p(
    moe_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = tokenizer("ab", return_tensors="pt").input_ids
    with torch.no_grad():
        probabilities = (moe_model(ids).logits[0, -1] / 2.0).softmax(-1)
    order = probabilities.argsort(descending=True)
    kept = order[: int((probabilities[order].cumsum(0) < 0.1).sum()) + 1].tolist()
    samples = generate(
        moe_model, tokenizer, "ab", max_new_tokens=1, temperature=2.0, top_p=0.1, num_samples=60
    )
    drawn = {sample.token_ids[0] for sample in samples}
    assert drawn <= set(kept)
    assert len(drawn) > len(kept) / 2


def test_stops_at_the_end_token(
    moe_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [full] = generate(moe_model, tokenizer, "a", max_new_tokens=6, temperature=0)
    end = full.token_ids[2]
    monkeypatch.setattr(moe_model, "generation_config", GenerationConfig(eos_token_id=[1, end]))
    [sample] = generate(moe_model, tokenizer, "a", max_new_tokens=6, temperature=0)
    assert sample.finish_reason == "stop"
    assert sample.token_ids == full.token_ids[: full.token_ids.index(end) + 1]


def test_empty_prompt_starts_at_the_begin_token(
    moe_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    [sample] = generate(moe_model, tokenizer, "", max_new_tokens=2)
    assert sample.prompt_tokens == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.5}, "`temperature` is -0.5"),
        ({"temperature": float("nan")}, "`temperature` is nan"),
        ({"top_p": 0.0}, "`top_p` is 0.0"),
        ({"top_p": 1.5}, "`top_p` is 1.5"),
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0"),
        ({"num_samples": 0}, "`num_samples` is 0"),
        ({"max_new_tokens": 256}, "context is 256"),
    ],
)
def test_impossible_values(
    values: dict[str, float],
    message: str,
    moe_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(moe_model, tokenizer, "a", **values)


@settings(max_examples=50, deadline=None)
@given(prompt=st.text(min_size=1, max_size=20), text=st.text(max_size=30))
def test_streamer_gives_any_text_exactly(prompt: str, text: str) -> None:
    tokenizer = _byte_tokenizer()
    pieces: list[str] = []
    streamer = _Streamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([tokenizer(prompt).input_ids]))
    for token in tokenizer(text).input_ids:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == text


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
