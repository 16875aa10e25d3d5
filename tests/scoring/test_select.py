"""One answer out of many."""

import itertools
import math
import random

import pytest

from hanol.errors import ConfigError, DataError
from hanol.scoring import select, step_score


def brute_force(answers, scores, method):
    """The definition: weigh every answer in turn."""
    best = None
    for first, answer in enumerate(answers):
        if answer is None or not answer.strip() or answer in answers[:first]:
            continue
        mine = [s for a, s in zip(answers, scores, strict=True) if a == answer]
        weight = {"weighted": math.fsum(mine), "majority": len(mine), "best_of_n": max(mine)}
        key = (weight[method], len(mine), -first)
        if best is None or key > best[0]:
            best = (key, answer)
    return best and best[1]


@pytest.mark.parametrize("method", ["weighted", "majority", "best_of_n"])
def test_select_equals_the_definition(method: str) -> None:
    rng = random.Random(0)
    for _ in range(300):
        size = rng.randint(1, 12)
        answers = [rng.choice(["1", "2", "3", None, "", " "]) for _ in range(size)]
        scores = [rng.choice([0.0, 0.25, 0.5, rng.random()]) for _ in range(size)]
        found = select(answers, scores, method)
        assert found.answer == brute_force(answers, scores, method)
        if found.index is not None:
            equal = [i for i in range(size) if answers[i] == found.answer]
            assert found.index == max(equal, key=lambda i: (scores[i], -i))


@pytest.mark.parametrize("method", ["weighted", "majority", "best_of_n"])
def test_order_matters_for_ties_alone(method: str) -> None:
    answers, scores = ["4", "5", "4", "6", None], [0.1, 0.2, 0.3, 0.35, 0.99]
    first = select(answers, scores, method)
    for order in itertools.permutations(range(5)):
        moved = select([answers[i] for i in order], [scores[i] for i in order], method)
        assert moved.answer == first.answer
    assert select(["a", "b"], [0.5, 0.5], method).answer == "a"
    assert select(["b", "a"], [0.5, 0.5], method).answer == "b"


def test_equal_answers_are_those_of_equal_value() -> None:
    assert select(["1,000", "5", "1000.0"], [0.3, 0.5, 0.3]).votes == {"1,000": 0.6, "5": 0.5}
    assert len(select(["1/2", r"\frac12", "0.5", "0.25", r"\frac{1}{4}"], [1] * 5).votes) == 2
    assert len(select(["1e999999999", "9" * 5000], [1, 1]).votes) == 2
    found = select(["Paris", "paris", "Rome"], [0.4] * 3, equal=lambda a, b: a.lower() == b.lower())
    assert found.votes == {"Paris": 0.8, "Rome": 0.4}
    assert select([(1, 2), (1, 2), 3], method="majority").answer == (1, 2)


def test_unreadable_answers_have_no_vote() -> None:
    assert select(["", "", "", "7"], [0.9, 0.9, 0.9, 0.1]).answer == "7"
    nothing = select([None, ""], [0.9, 0.9])
    assert (nothing.answer, nothing.index, nothing.votes) == (None, None, {})


def test_select_refuses_what_cannot_be_weighed() -> None:
    with pytest.raises(DataError, match="3 answers but 2 scores"):
        select(["1", "2", "3"], [0.1, 0.2])
    with pytest.raises(DataError, match="pool is empty"):
        select([], [])
    with pytest.raises(DataError, match="Score 1 is nan"):
        select(["1", "2"], [0.1, math.nan])
    with pytest.raises(DataError, match="`scores` is missing"):
        select(["1"])
    with pytest.raises(ConfigError, match="'best', .* weighted, majority, best_of_n"):
        select(["1"], [1.0], "best")


def test_scores_of_steps_aggregate_as_named() -> None:
    scores = [0.9, 0.5, 0.8]
    assert step_score(scores) == step_score(scores, "last") == 0.8
    assert step_score(scores, "min") == 0.5
    assert step_score(scores, "prod") == pytest.approx(0.36)
    assert step_score(scores, "mean") == pytest.approx(2.2 / 3)
    with pytest.raises(ConfigError, match="'max', .* last, min, prod, mean"):
        step_score(scores, "max")
    with pytest.raises(DataError, match="no steps"):
        step_score([])
    with pytest.raises(DataError, match="nan"):
        step_score([0.5, math.nan])
