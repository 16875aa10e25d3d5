"""Sampling that keeps the right ones of a model's own answers."""

import ast
from typing import Any

import pytest
import torch
from tests.autodeco.conftest import build

from hanol import models
from hanol.autodeco import AutoDecoForCausalLM, Row, tokenize
from hanol.errors import ConfigError, DataError
from hanol.evaluation import rejection_sample
from hanol.scoring import parse_verifier


@pytest.fixture(scope="module")
def base():
    return build("llama")


PROMPTS = [Row("ab", line=1), Row("hello there", line=2), Row("c", line=3)]


def test_own_answers_are_kept_with_their_tokens(base, byte_tokenizer) -> None:
    """A base that mostly ends soon: what it wrote before is the completion."""
    calls = []

    def even(prompt: str, completion: str, row: Row) -> bool:
        calls.append((prompt, row.line))
        return len(completion) % 2 == 0

    seen = []
    found = rejection_sample(
        base, byte_tokenizer, PROMPTS, even, n=32, keep=3, max_new_tokens=240, batch_size=24,
        seed=1, on_progress=lambda *progress: seen.append(progress),
    )  # fmt: skip
    assert 0 < found.num_accepted < 96
    assert found.num_solved == len({row.prompt for row in found.rows})
    assert max(sum(row.prompt == p.prompt for row in found.rows) for p in PROMPTS) <= 3
    assert [row.line for row in found.rows] == sorted(row.line for row in found.rows)
    assert seen[-1] == (3, 3)
    assert set(calls) == {(row.prompt, row.line) for row in PROMPTS}
    for row in found.rows:
        assert len(row.completion) % 2 == 0
        assert row.completion_ids[-1] == byte_tokenizer.eos_token_id
        assert byte_tokenizer.decode(row.completion_ids, skip_special_tokens=True) == row.completion
        trained = tokenize([row], byte_tokenizer).rows[0]
        assert [label for label in trained.labels if label != -100] == list(row.completion_ids)


def test_the_same_seed_samples_the_same_and_leaves_the_global_state(base, byte_tokenizer) -> None:
    def sample(seed: int) -> list[Row]:
        return rejection_sample(
            base, byte_tokenizer, PROMPTS, lambda *_: True, n=8, keep=8, max_new_tokens=200,
            seed=seed,
        ).rows  # fmt: skip

    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    first = sample(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == sample(0)
    assert first != sample(1)


def test_it_is_the_base_that_is_sampled(base, byte_tokenizer) -> None:
    """Heads that would make it greedy do not act."""
    model = AutoDecoForCausalLM.from_base(base)
    with torch.no_grad():
        model.temp_head.mlp[2].bias.fill_(-20)

    def sample(which: Any) -> list[Row]:
        return rejection_sample(
            which, byte_tokenizer, PROMPTS, lambda *_: True, n=8, keep=8, max_new_tokens=200
        ).rows

    assert sample(model) == sample(base)


def test_an_answer_without_end_is_not_kept(base, byte_tokenizer) -> None:
    found = rejection_sample(
        base, byte_tokenizer, PROMPTS, lambda *_: True, n=4, max_new_tokens=1, seed=3
    )
    assert len(found.rows) <= found.num_accepted < 12
    assert all(row.completion_ids[-1] == byte_tokenizer.eos_token_id for row in found.rows)


def test_what_cannot_be_verified_is_refused_before_sampling(base, byte_tokenizer) -> None:
    verifier = parse_verifier("arithmetic")
    with pytest.raises(DataError, match='Line 1: .*"answer"'):
        rejection_sample(base, byte_tokenizer, PROMPTS, verifier, max_new_tokens=1)
    with pytest.raises(DataError, match="no prompts"):
        rejection_sample(base, byte_tokenizer, [], verifier)
    for name, value in (("n", 0), ("batch_size", 0)):
        with pytest.raises(ConfigError, match=f"`{name}` (is )?0"):
            rejection_sample(base, byte_tokenizer, PROMPTS, lambda *_: True, **{name: value})


@pytest.mark.slow
def test_the_bundled_model_samples_functions_that_parse() -> None:
    base, tokenizer = models.load("tiny")
    prompts = [
        Row("def is_even(number):\n"),
        Row('class Stack:\n    def push(self, item):\n        """Add an item."""\n'),
    ]
    found = rejection_sample(
        base, tokenizer, prompts, parse_verifier("python:body"), n=8, keep=8, max_new_tokens=64
    )
    assert found.num_accepted >= len(found.rows) > 0
    for row in found.rows:
        ast.parse(row.prompt + row.completion)
        # The last token may reach over the cut, so the tokens can be a little shorter.
        text = tokenizer.decode(row.completion_ids, skip_special_tokens=True)
        assert row.completion.startswith(text)
        ast.parse(row.prompt + text)
