"""Sequence tasks: the same by seed, targets where the paper puts them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.errors import ConfigError
from hanol.worlds import IGNORED, mqar, palindrome, stack

SEED = st.integers(0, 2**32)
MAKERS = [
    lambda n, seed: palindrome(3, n, symbols=5, seed=seed),
    lambda n, seed: mqar(3, n, vocab_size=2 * n + 7, seed=seed),
    lambda n, seed: stack(3, n, stacks=3, symbols=4, seed=seed),
]


@pytest.mark.parametrize("make", MAKERS, ids=["palindrome", "mqar", "stack"])
@given(n=st.integers(2, 40), seed=SEED)
@settings(max_examples=40, deadline=None)
def test_seeds_decide_and_every_sequence_has_a_target(make, n: int, seed: int) -> None:
    batch = make(n, seed)
    assert (batch.labels != IGNORED).any(dim=1).all()
    again = make(n, seed)
    assert torch.equal(batch.input_ids, again.input_ids)
    assert batch.input_ids.min() >= 0
    assert batch.input_ids.max() < batch.vocab_size
    assert batch.labels.max() < batch.vocab_size


def test_another_seed_gives_another_batch() -> None:
    for make in MAKERS:
        assert not torch.equal(make(20, 1).input_ids, make(20, 2).input_ids)


def test_palindrome_targets() -> None:
    ids, labels = palindrome(2, 6, seed=3)[:2]
    assert torch.equal(ids[:, :6].flip(1), ids[:, 7:])
    assert (ids[:, 6] == 0).all()
    assert (labels[:, :7] == IGNORED).all()
    assert (labels[:, -1] == IGNORED).all()
    assert torch.equal(labels[:, 7:12], ids[:, 8:])


def test_mqar_targets_are_the_values_of_its_queries() -> None:
    batch = mqar(4, 8, queries=3, vocab_size=101, seed=1)
    assert batch.input_ids.shape == (4, 20)
    for ids, labels in zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True):
        values = dict(zip(ids[0:16:2], ids[1:16:2], strict=True))
        assert len(values) == 8
        assert labels[17:] == [values[key] for key in ids[17:]]
        assert set(labels[:17]) == {IGNORED}


@given(SEED)
@settings(max_examples=30, deadline=None)
def test_stacks_pop_what_was_pushed_last_and_never_from_empty(seed: int) -> None:
    batch = stack(2, 30, stacks=3, symbols=4, seed=seed)
    for ids, labels in zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True):
        held: dict[int, list[int]] = {}
        for i in range(0, 90, 3):
            operation, name, element = ids[i : i + 3]
            if operation == 0:
                held.setdefault(name, []).append(element)
                assert labels[i : i + 3] == [IGNORED] * 3
            else:
                assert held[name].pop() == element
                assert labels[i : i + 3] == [IGNORED, element, IGNORED]


def test_sizes_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="`vocab_size` 9 holds 4 keys, but 5"):
        mqar(1, 5, vocab_size=9)
    with pytest.raises(ConfigError, match="`queries` is 6"):
        mqar(1, 5, queries=6)
    with pytest.raises(ConfigError, match="`length` is 1"):
        palindrome(1, 1)
    with pytest.raises(ConfigError, match="`symbols` is 1"):
        stack(1, 5, symbols=1)
