"""Synthetic sequence tasks: palindrome, multi-query associative recall, stack.

Labels are already shifted: the model's output at position t is compared with `labels[t]`, the next
token. Tokens that cannot be predicted are `IGNORED`. Each task makes `batch` sequences; the same
`seed` gives the same ones.

Shape suffixes: B sequences, T tokens.
Source: arXiv 2510.26692, section 5.1. Vocabulary, pairs and stacks are not published for all
tasks: they are arguments here.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hanol.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100


class SequenceBatch(NamedTuple):
    """Tokens, and targets at some of their positions."""

    input_ids: "Tensor"  # [B, T], int64
    labels: "Tensor"  # [B, T], int64, `IGNORED` off target
    vocab_size: int


def palindrome(batch: int, length: int, *, symbols: int = 64, seed: int = 0) -> SequenceBatch:
    """Random symbols, a separator, then the symbols backwards.

    A sequence has 2 * length + 1 tokens; token 0 is the separator, the others the symbols. The
    target at the position of each reversed symbol is the next reversed symbol; there is none at the
    separator and at the last token.

    Raises:
        ConfigError: A size is too small.
    """
    _at_least("length", length, 2)
    _at_least("symbols", symbols, 2)
    rng = np.random.default_rng(seed)
    forward = rng.integers(1, symbols + 1, (batch, length))
    separator = np.zeros((batch, 1), dtype=np.int64)
    ids = np.concatenate([forward, separator, forward[:, ::-1]], axis=1)
    labels = np.full_like(ids, IGNORED)
    labels[:, length + 1 : -1] = ids[:, length + 2 :]
    return SequenceBatch(_tensor(ids), _tensor(labels), symbols + 1)


def mqar(
    batch: int, pairs: int, *, queries: int | None = None, vocab_size: int = 8192, seed: int = 0
) -> SequenceBatch:
    """Multi-query associative recall: key-value pairs, a separator, then keys.

    A sequence has 2 * pairs + 1 + queries tokens: token 0 is the separator, the lower half of the
    others are keys, the upper half values. Keys are asked for in random order, by default each
    once; the target at each query is its value.

    Raises:
        ConfigError: There are fewer keys than pairs, or more queries than pairs.
    """
    keys = (vocab_size - 1) // 2
    queries = pairs if queries is None else queries
    _at_least("pairs", pairs, 1)
    if keys < pairs:
        raise ConfigError(
            f"`vocab_size` {vocab_size} holds {keys} keys, but {pairs} different ones are needed: "
            f"use at least {2 * pairs + 1}."
        )
    if not 1 <= queries <= pairs:
        raise ConfigError(f"`queries` is {queries}, but must be from 1 to the {pairs} pairs.")
    rng = np.random.default_rng(seed)
    ids = np.zeros((batch, 2 * pairs + 1 + queries), dtype=np.int64)
    labels = np.full_like(ids, IGNORED)
    for b in range(batch):
        key = 1 + rng.choice(keys, pairs, replace=False)
        value = rng.integers(1 + keys, 1 + 2 * keys, pairs)
        ids[b, 0 : 2 * pairs : 2], ids[b, 1 : 2 * pairs : 2] = key, value
        asked = rng.permutation(pairs)[:queries]
        ids[b, 2 * pairs + 1 :] = key[asked]
        labels[b, 2 * pairs + 1 :] = value[asked]
    return SequenceBatch(_tensor(ids), _tensor(labels), 1 + 2 * keys)


def stack(
    batch: int, operations: int, *, stacks: int = 64, symbols: int = 64, seed: int = 0
) -> SequenceBatch:
    """Pushes to and pops from many stacks, as triples (operation, stack, element).

    Tokens: 0 push, 1 pop, then the stacks, then the elements (symbols). Pops come from non-empty
    stacks only. The target is the popped element, at the position of the stack's name.

    Raises:
        ConfigError: A size is too small.
    """
    _at_least("operations", operations, 2)
    _at_least("stacks", stacks, 1)
    _at_least("symbols", symbols, 2)
    rng = np.random.default_rng(seed)
    ids = np.zeros((batch, 3 * operations), dtype=np.int64)
    labels = np.full_like(ids, IGNORED)
    for b in range(batch):
        held: dict[int, list[int]] = {}
        for i in range(operations):
            filled = sorted(name for name, elements in held.items() if elements)
            # The last operation pops, so that every sequence has a target.
            if filled and (i + 1 == operations or rng.random() < 0.5):
                name = int(rng.choice(filled))
                element = held[name].pop()
                labels[b, 3 * i + 1] = 2 + stacks + element
                operation = 1
            else:
                name, element = int(rng.integers(stacks)), int(rng.integers(symbols))
                held.setdefault(name, []).append(element)
                operation = 0
            ids[b, 3 * i : 3 * i + 3] = operation, 2 + name, 2 + stacks + element
    return SequenceBatch(_tensor(ids), _tensor(labels), 2 + stacks + symbols)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"`{name}` is {value}, but must be at least {least}.")


def _tensor(x: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> "Tensor":
    import torch  # here, so that other worlds need no torch

    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64))
