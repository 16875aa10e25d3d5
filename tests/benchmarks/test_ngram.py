"""The n-gram baseline against its formula, written out with dictionaries."""

from collections import Counter

import numpy as np
import pytest

from _ngram import KneserNey

VOCAB = 5


def by_hand(train: list[int], order: int) -> list[tuple[Counter, float]]:
    grams = [
        Counter(tuple(train[i : i + k]) for i in range(len(train) - k + 1))
        for k in range(1, order + 1)
    ]
    counts = []
    for k in range(1, order + 1):
        count = grams[k - 1]
        if k < order:
            count = Counter(dict.fromkeys(grams[k - 1], 0))
            count.update(longer[1:] for longer in grams[k])
        n1 = sum(value == 1 for value in count.values())
        n2 = sum(value == 2 for value in count.values())
        counts.append((count, n1 / (n1 + 2 * n2) if n1 else 0.5))
    return counts


def probability(counts: list[tuple[Counter, float]], history: tuple[int, ...], token: int) -> float:
    p = 1 / VOCAB
    for k, (count, discount) in enumerate(counts, start=1):
        if len(history) < k - 1:
            break
        context = history[len(history) - k + 1 :]
        after = {gram: n for gram, n in count.items() if gram[:-1] == context and n > 0}
        total = sum(after.values())
        if total == 0:
            continue
        kept = max(count.get((*context, token), 0) - discount, 0) / total
        p = kept + discount * len(after) / total * p
    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_formula(order: int) -> None:
    rng = np.random.default_rng(order)
    train = rng.choice(VOCAB, 200, p=[0.5, 0.2, 0.2, 0.1, 0.0])
    scored = rng.choice(VOCAB, 60)
    counts = by_hand(train.tolist(), order)
    found = KneserNey(train, VOCAB, order).probabilities(scored)
    for i, token in enumerate(scored.tolist()):
        history = tuple(scored[max(0, i - order + 1) : i].tolist())
        assert found[i] == pytest.approx(probability(counts, history, token), rel=1e-12)


def test_probabilities_of_all_tokens_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    model = KneserNey(rng.choice(VOCAB, 300, p=[0.4, 0.3, 0.2, 0.1, 0.0]), VOCAB, order=5)
    for history in ([], [0], [0, 0, 1, 0], [4, 4, 4, 4], [3, 3, 4, 0]):
        each = [model.probabilities(np.array([*history, token]))[-1] for token in range(VOCAB)]
        assert sum(each) == pytest.approx(1, abs=1e-12)
