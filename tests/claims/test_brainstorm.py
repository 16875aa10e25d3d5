"""The world of free and determined tokens: exact checks, uniform choices, noise on labels only."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from claims.autodeco.brainstorm import Brainstorm
from hanol.worlds import IGNORED

SEED = st.integers(0, 2**32)


@st.composite
def worlds(draw: st.DrawFn) -> Brainstorm:
    modulus = draw(st.integers(2, 9))
    return Brainstorm(
        rounds=draw(st.integers(1, 3)),
        length=draw(st.integers(1, 7)),
        symbols=modulus * draw(st.integers(1, 4)),
        modulus=modulus,
    )


def by_hand(world: Brainstorm, ids: list[int]) -> bool:
    """The rules of the module's docstring, one token after another."""
    first_sum = 2 + world.symbols
    ids = list(ids)
    for _ in range(world.rounds):
        if ids.pop(0) != 0:
            return False
        chosen = [ids.pop(0) for _ in range(world.length)]
        if any(not 2 <= token < first_sum for token in chosen) or ids.pop(0) != 1:
            return False
        total = 0
        for token in chosen:
            total += (token - 2) % world.modulus
            if ids.pop(0) != first_sum + total % world.modulus:
                return False
    return not ids


@given(worlds(), SEED)
@settings(max_examples=50, deadline=None)
def test_what_is_drawn_is_right_and_decided_by_the_seed(world: Brainstorm, seed: int) -> None:
    batch = world.draw(4, seed=seed)
    assert batch.input_ids.shape == (4, world.num_tokens)
    assert all(by_hand(world, row) for row in batch.input_ids.tolist())
    assert world.checks_right(batch.input_ids).all()
    assert torch.equal(batch.labels[:, :-1], batch.input_ids[:, 1:])
    assert (batch.labels[:, -1] == IGNORED).all()
    assert batch.input_ids.max() < world.vocab_size
    again = world.draw(4, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))


@given(worlds(), SEED, st.data())
@settings(max_examples=100, deadline=None)
def test_the_verifier_follows_the_rules_after_any_change(
    world: Brainstorm, seed: int, data: st.DataObject
) -> None:
    ids = world.draw(1, seed=seed).input_ids
    at = data.draw(st.integers(0, world.num_tokens - 1))
    token = data.draw(st.integers(-3, world.vocab_size + 3))
    changed = ids.clone()
    changed[0, at] = token
    right = world.checks_right(changed).item()
    assert right == by_hand(world, changed[0].tolist())
    if not world.free[at]:  # determined: one token is right, every other is wrong
        assert right == (token == ids[0, at])


def test_choices_can_be_anything_where_they_are_free() -> None:
    """Another symbol of the same value keeps all sums right: only there is a choice."""
    world = Brainstorm(rounds=2, length=3, symbols=12, modulus=4)
    ids = world.draw(50, seed=1).input_ids
    for at in world.free.nonzero().flatten().tolist():
        other = ids.clone()
        other[:, at] = 2 + (other[:, at] - 2 + world.modulus) % world.symbols
        assert world.checks_right(other).all()
        other[:, at] = 2 + (other[:, at] - 2 + 1) % world.symbols
        assert not world.checks_right(other).any()


@given(SEED)
@settings(max_examples=20, deadline=None)
def test_the_mask_names_the_next_tokens_that_are_symbols(seed: int) -> None:
    world = Brainstorm(rounds=2, length=4)
    batch = world.draw(3, seed=seed)
    symbol = (batch.labels >= 2) & (batch.labels < 2 + world.symbols)
    assert torch.equal(batch.free, symbol)
    assert torch.equal(batch.free[0, :-1], world.free[1:])
    assert world.free.sum() == 8


def test_choices_and_sums_are_uniform() -> None:
    """Pearson's statistic within 5 standard deviations of its mean."""
    world = Brainstorm(rounds=1, length=2, symbols=48, modulus=16)
    ids = world.draw(20_000, seed=3).input_ids
    for column, first, kinds in ((1, 2, 48), (2, 2, 48), (4, 50, 16), (5, 50, 16)):
        counts = np.bincount(ids[:, column] - first, minlength=kinds)
        expected = len(ids) / kinds
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi2 - (kinds - 1)) < 5 * math.sqrt(2 * (kinds - 1))


@given(SEED)
@settings(max_examples=10, deadline=None)
def test_noise_is_on_labels_of_sums_only_and_of_the_share_asked_for(seed: int) -> None:
    world = Brainstorm()
    clean, noisy = world.draw(400, seed=seed), world.draw(400, noise=0.1, seed=seed)
    assert torch.equal(clean.input_ids, noisy.input_ids)
    wrong = clean.labels != noisy.labels
    is_sum = clean.labels >= 2 + world.symbols
    assert not (wrong & ~is_sum).any()
    share = wrong[is_sum].double().mean().item()
    assert abs(share - 0.1) < 5 * math.sqrt(0.09 / is_sum.sum())
    noise = noisy.labels[wrong]
    assert noise.min() >= 2 + world.symbols
    assert noise.max() < world.vocab_size
    all_wrong = world.draw(400, noise=1.0, seed=seed).labels != clean.labels
    assert torch.equal(all_wrong, is_sum)


def test_size_is_that_of_a_small_vocabulary() -> None:
    assert Brainstorm().vocab_size == 66
    assert Brainstorm().num_tokens == 28
