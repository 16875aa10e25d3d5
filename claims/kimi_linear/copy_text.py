"""Procedural text with copies at a distance: what the language-model comparisons train on.

A fixed Markov chain gives local structure; now and then a passage from earlier in the sequence
comes back after a marker, so that only a model that looks far back predicts it.
"""

import numpy as np
import torch

from hanol.worlds import SequenceBatch

VOCAB_SIZE = 64
_MARKER = 0
_BRANCHES = 6


def copy_text(batch: int, length: int, *, seed: int) -> SequenceBatch:
    """Sequences whose every token but the first is a target.

    Args:
        batch: Sequences.
        length: Tokens of each, at least 32.
        seed: The same seed gives the same batch; the chain is the same for all seeds.
    """
    chain = np.random.default_rng(2510_26692)
    successors = chain.integers(1, VOCAB_SIZE, (VOCAB_SIZE, _BRANCHES))
    rng = np.random.default_rng(seed)
    ids = np.zeros((batch, length + 1), dtype=np.int64)
    for b in range(batch):
        row = [int(rng.integers(1, VOCAB_SIZE))]
        while len(row) <= length:
            if len(row) > 24 and rng.random() < 0.06:
                start = int(rng.integers(0, len(row) - 16))
                row += [_MARKER, *row[start : start + int(rng.integers(8, 17))]]
            else:
                # Unequal branches: a chain that is worth learning.
                row.append(int(successors[row[-1], min(rng.geometric(0.4), _BRANCHES) - 1]))
        ids[b] = row[: length + 1]
    return SequenceBatch(torch.from_numpy(ids[:, :-1]), torch.from_numpy(ids[:, 1:]), VOCAB_SIZE)
