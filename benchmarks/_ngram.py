"""An interpolated Kneser-Ney n-gram model over token ids, counted with numpy.

Source: Chen and Goodman (1998), section 3, interpolated form with one discount for each order:
P(w | h) = max(c(hw) - D, 0) / c(h) + D * N1+(h .) / c(h) * P(w | h'), where h' is h without its
first token, c counts occurrences for the longest order and distinct tokens in front for the
shorter ones, D = n1 / (n1 + 2 n2), and the recursion ends at 1 / vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass
class _Order:
    """k-grams of one order, a row each; contexts are rows of the order below."""

    keys: Ids  # sorted: row of the first k-1 tokens times the vocabulary, plus the last token
    count: Ids
    context_count: Ids  # by row of the context: sum of `count`
    context_kinds: Ids  # by row of the context: number of distinct tokens after it
    discount: float


class KneserNey:
    """Counts of a token stream.

    Args:
        tokens: Training stream, one document after another with its begin token.
        vocab_size: Ids are below it.
        order: Tokens of the longest n-gram.
    """

    def __init__(self, tokens: NDArray[np.integer], vocab_size: int, order: int = 5) -> None:
        self.vocab_size = vocab_size
        stream = tokens.astype(np.int64)
        rows = np.zeros(len(stream) + 1, dtype=np.int64)  # of the empty n-gram before each token
        found = []
        for k in range(1, order + 1):
            # An n-gram that ends at token i starts at i - k + 1: the first k - 1 have none.
            keys = rows[:-1] * vocab_size + stream[k - 1 :]
            unique, first, row, count = np.unique(
                keys, return_index=True, return_inverse=True, return_counts=True
            )
            found.append((unique, first, row, count))
            rows = row
        self.orders = []
        for k in range(1, order + 1):
            keys, _, _, count = found[k - 1]
            if k < order:
                # Distinct tokens in front: one for each (k+1)-gram that ends in this k-gram.
                _, first, _, _ = found[k]
                count = np.bincount(found[k - 1][2][first + 1], minlength=len(keys))
            context = keys // vocab_size
            num_contexts = 1 if k == 1 else len(found[k - 2][0])
            n1, n2 = int((count == 1).sum()), int((count == 2).sum())
            self.orders.append(
                _Order(
                    keys,
                    count,
                    np.bincount(context, weights=count, minlength=num_contexts).astype(np.int64),
                    # A k-gram at the very start of the stream has nothing in front of it.
                    np.bincount(context[count > 0], minlength=num_contexts),
                    n1 / (n1 + 2 * n2) if n1 else 0.5,
                )
            )

    def probabilities(self, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """Probability of each token after the ones before it in the stream."""
        stream = tokens.astype(np.int64)
        p = np.full(len(stream), 1 / self.vocab_size)
        # Row of the n-gram of k - 1 tokens that ends before each token, -1 where it is unknown.
        rows = np.zeros(len(stream), dtype=np.int64)
        for order in self.orders:
            known = rows >= 0
            context = np.where(known, rows, 0)
            total = np.where(known, order.context_count[context], 0)
            keys = np.where(known, context * self.vocab_size + stream, -1)
            place = np.minimum(np.searchsorted(order.keys, keys), len(order.keys) - 1)
            hit = order.keys[place] == keys
            count = np.where(hit, order.count[place], 0)
            seen = total > 0
            safe = np.maximum(total, 1)
            kept = np.maximum(count - order.discount, 0) / safe
            backed_off = order.discount * order.context_kinds[context] / safe * p
            p = np.where(seen, kept + backed_off, p)
            # The next order's context of token i is this order's n-gram that ends at i - 1.
            rows = np.concatenate([[-1], np.where(hit, place, -1)[:-1]])
        return p
