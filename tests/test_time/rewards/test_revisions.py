"""Rows of revisions: which wrong answers stand before a right one."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanol.errors import DataError
from hanol.test_time import revision_rows
from hanol.test_time.rewards._revisions import edit_distance  # private: the distance alone

WORD = st.text("ab가", max_size=9)


def table_distance(one: str, other: str) -> int:
    """Levenshtein's table, a row at a time."""
    before = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
        before = row
    return before[-1]


@given(WORD, WORD)
def test_edit_distance_is_that_of_the_table(one: str, other: str) -> None:
    assert edit_distance(one, other) == table_distance(one, other)


def sample(right: int, wrong: int, number: int = 0) -> dict[str, object]:
    rng = random.Random(number)
    texts = ["".join(rng.choices("0123456789 +=", k=12)) for _ in range(right + wrong)]
    return {
        "prompt": f"problem {number}",
        "answers": texts,
        "right": [True] * right + [False] * wrong,
    }


def test_the_nearest_wrong_answer_stands_last() -> None:
    rows = [row for n in range(40) for row in revision_rows([sample(3, 8, n)], seed=n)]
    seen = 0
    for row in rows:
        (said,) = row["completion"]
        before = [m["content"] for m in row["prompt"] if m["role"] == "assistant"]
        number = int(row["prompt"][0]["content"].split()[1])
        texts = [t.strip() for t in sample(3, 8, number)["answers"][3:]]  # type: ignore[index]
        assert set(before) <= set(texts)
        assert len(set(before)) == len(before) == row["wrong"]
        if before:
            seen += 1
            assert edit_distance(before[-1], said["content"]) == min(
                edit_distance(text, said["content"]) for text in texts
            )
    assert seen > 60


def test_the_number_of_wrong_answers_is_uniform() -> None:
    rows = [row for n in range(400) for row in revision_rows([sample(4, 6, n)], seed=n)]
    counts = Counter(row["wrong"] for row in rows)
    expected = len(rows) / 5
    chi_square = sum((counts[j] - expected) ** 2 / expected for j in range(5))
    assert set(counts) == set(range(5))
    assert chi_square < 18.5, "p = 0.001 with 4 degrees of freedom"


def test_few_wrong_answers_and_none() -> None:
    rows = [row for n in range(50) for row in revision_rows([sample(2, 1, n)], seed=n)]
    assert {row["wrong"] for row in rows} == {0, 1}
    assert revision_rows([sample(0, 5)]) == []
    assert [row["wrong"] for row in revision_rows([sample(2, 0)])] == [0, 0]
    assert revision_rows([sample(3, 5)], seed=4) == revision_rows([sample(3, 5)], seed=4)


def test_problems_of_the_test_are_refused() -> None:
    with pytest.raises(DataError, match="'problem 3' is a problem of the test"):
        revision_rows([sample(1, 1, 3)], exclude={"problem 3"})
    with pytest.raises(DataError, match='"right"'):
        revision_rows([{"prompt": "a", "answers": ["b"], "right": []}])
