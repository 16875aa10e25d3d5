"""Synthetic sequence tasks: palindrome, multi-query associative recall, stack.

Labels are already shifted: the model's output at position t is compared with `labels[t]`, the next
token. Tokens that cannot be predicted are `IGNORED`.

Shape suffixes: B sequences, T tokens.
Source: arXiv 2510.26692, section 5.1. Vocabulary, pairs and stacks are not published for all
tasks: they are arguments here.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hanol.errors import ConfigError

IGNORED = -100


class SequenceBatch(NamedTuple):
    """Tokens, and targets at some of their positions."""

    task: Literal["palindrome", "mqar", "stack", "text"]
    input_ids: Tensor  # [B, T], int64
    labels: Tensor  # [B, T], int64, `IGNORED` off target
    vocab_size: int


def palindrome(batch: int, length: int, *, symbols: int = 64, seed: int = 0) -> SequenceBatch:
    """Random symbols, a separator, then the symbols backwards.

    Args:
        batch: Number of sequences.
        length: Number of random symbols; a sequence has 2 * length + 1 tokens.
        symbols: Number of different symbols; token 0 is the separator.
        seed: The same seed gives the same batch.

    The target at the position of each reversed symbol is the next reversed symbol; there is none
    at the separator and at the last token.

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
    return SequenceBatch("palindrome", _tensor(ids), _tensor(labels), symbols + 1)


def mqar(
    batch: int, pairs: int, *, queries: int | None = None, vocab_size: int = 8192, seed: int = 0
) -> SequenceBatch:
    """Multi-query associative recall: key-value pairs, a separator, then keys.

    Args:
        batch: Number of sequences.
        pairs: Number of pairs, with different keys; a sequence has 2 * pairs + 1 + queries tokens.
        queries: Number of keys asked for; by default each once, in random order.
        vocab_size: Token 0 is the separator; the lower half of the others are keys, the upper
            half values.
        seed: The same seed gives the same batch.

    The target at each query is its value.

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
    return SequenceBatch("mqar", _tensor(ids), _tensor(labels), 1 + 2 * keys)


def stack(
    batch: int, operations: int, *, stacks: int = 64, symbols: int = 64, seed: int = 0
) -> SequenceBatch:
    """Pushes to and pops from many stacks, as triples (operation, stack, element).

    Args:
        batch: Number of sequences.
        operations: Number of triples; a sequence has 3 * operations tokens.
        stacks: Number of stacks.
        symbols: Number of different elements.
        seed: The same seed gives the same batch.

    Tokens: 0 push, 1 pop, then the stacks, then the elements. Pops come from non-empty stacks
    only. The target is the popped element, at the position of the stack's name.

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
    return SequenceBatch("stack", _tensor(ids), _tensor(labels), 2 + stacks + symbols)


def oracle(batch: SequenceBatch) -> Tensor:
    """Solve a batch from the tokens up to each position alone.

    Returns:
        [B, T] answers at the target positions, `IGNORED` elsewhere.

    Raises:
        ConfigError: The batch is text, whose next tokens have no exact answer.
    """
    solve = {"palindrome": _solve_palindrome, "mqar": _solve_mqar, "stack": _solve_stack}
    if batch.task not in solve:
        raise ConfigError(
            f"`task` is {batch.task!r}, but only {', '.join(solve)} have exact answers."
        )
    answers = torch.full_like(batch.labels, IGNORED)
    for b, row in enumerate(batch.input_ids.tolist()):
        for t in (batch.labels[b] != IGNORED).nonzero().flatten().tolist():
            answers[b, t] = solve[batch.task](row[: t + 1])
    return answers


def _solve_palindrome(seen: list[int]) -> int:
    separator = seen.index(0)
    return seen[separator - 1 - (len(seen) - separator - 1)]


def _solve_mqar(seen: list[int]) -> int:
    pairs = seen[: seen.index(0)]
    return dict(zip(pairs[::2], pairs[1::2], strict=True))[seen[-1]]


def _solve_stack(seen: list[int]) -> int:
    held: list[int] = []
    for i in range(0, len(seen) - 2, 3):
        operation, name, element = seen[i : i + 3]
        if name == seen[-1]:
            if operation == 0:
                held.append(element)
            else:
                held.pop()
    return held[-1]


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"`{name}` is {value}, but must be at least {least}.")


def _tensor(x: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.int64))
