"""Small tasks: answers pass their checks, wrong replies do not, held-out tasks are apart."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanol.autodeco import training_rows
from hanol.errors import ConfigError, DataError, UnknownNameError
from hanol.scoring import parse_verifier
from hanol.worlds import check_task, small_tasks

KINDS = ["sum", "story", "capital", "instruction"]


def right(reply: str, check: str, answer: str = "1") -> bool:
    return check_task("", reply, SimpleNamespace(answer=answer, extra={"check": check}, where="A"))


def test_tasks_follow_from_the_seed_and_have_answers_that_pass() -> None:
    tasks = small_tasks(200)
    assert tasks == small_tasks(200)
    assert tasks[:100] == small_tasks(100)
    assert tasks != small_tasks(200, seed=1)
    assert len({task.question for task in tasks}) == 200
    assert {kind: sum(t.kind == kind for t in tasks) for kind in KINDS} == dict.fromkeys(KINDS, 50)
    assert all(right(task.answer, task.check, task.answer) for task in tasks)


def test_held_out_tasks_are_never_among_the_others() -> None:
    for seed in (0, 1):
        kept, others = (small_tasks(2000, seed=seed, held_out=flag) for flag in (True, False))
        assert {task.kind for task in kept} == set(KINDS)
        assert not {task.question for task in kept} & {task.question for task in others}
        # Nor in another wording.
        capitals = [{t.answer for t in part if t.kind == "capital"} for part in (kept, others)]
        assert not capitals[0] & capitals[1]
        assert len(capitals[0]) > 20


def test_kinds_that_are_used_up_or_unknown() -> None:
    assert 50 < len(small_tasks(10_000, kinds=["capital"])) < 300
    with pytest.raises(UnknownNameError, match="Did you mean 'story'"):
        small_tasks(1, kinds=["storys"])
    for number, kinds in ((0, KINDS), (1, [])):
        with pytest.raises(ConfigError, match="must have some"):
            small_tasks(number, kinds=kinds)


@pytest.mark.parametrize(
    ("check", "answer", "good", "bad"),
    [
        ("number", "12", ["So 3 + 9 = 12.", "**12**"], ["13", "twelve"]),
        (
            "capital", "Bogotá",
            ["The capital of Colombia is Bogota.", "BOGOTÁ"],
            ["Lima", "Bogotá or Lima", "Bogotan", ""],
        ),
        (
            "lines 2", "", ["1. red\n2. blue", "- red\n\n- navy blue."],
            ["red blue", "a\na", "a\nb\nc", "a\nthis one is very long"],
        ),
        ("contains cat 6", "", ["I saw two cats."], ["I saw a dog.", "A cat. A dog.", "cat " * 7]),
        ("starts the moon", "", ["The moon is bright!"], ["A moon.", "The moons.", "The moon"]),
        (
            "keys a b", "",
            ['{"b": 1, "a": {}}', 'Here:\n```json\n{"a": 1, "b": 2}\n```\nIt has two keys.'],
            ['{"a": 1}', '["a", "b"]', "a b", '{"a": 1, "b": 2, "c": 3}', '{"a":' * 400, ""],
        ),
        ("count 2 4", "", ["2, 3, 4", "2 3 4"], ["2, 4", "2, 3, 4, 5", "4 3 2", "1. 2\n2. 3"]),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) and value else "",
)  # fmt: skip
def test_checks(check: str, answer: str, good: list[str], bad: list[str]) -> None:
    assert [reply for reply in good if not right(reply, check, answer)] == []
    assert [reply for reply in bad if right(reply, check, answer)] == []


@given(reply=st.text(max_size=80), task=st.sampled_from(small_tasks(80)))
def test_any_reply_gets_a_verdict(reply: str, task) -> None:
    assert right(reply, task.check, task.answer) in (True, False)


def test_rows_that_cannot_be_checked() -> None:
    for check, said in (
        ("colour", "no check is named 'colour'"),
        ("lines x", "'lines' cannot"),
    ):
        with pytest.raises(DataError, match=f"A: .*{said}"):
            right("a, b", check)
    with pytest.raises(DataError, match='"answer"'):
        check_task("", "1", SimpleNamespace(answer=None, extra={}, where="A"))


def test_rows_of_training_and_of_evaluation() -> None:
    verify = parse_verifier("hanol.worlds:check_task")
    rows = training_rows("tasks", 40)
    kept = training_rows("tasks", 40, held_out=True)
    assert len(rows) == len(kept) == 40
    assert {row.messages[0]["role"] for row in rows} == {"user"}
    assert not {row.messages[0]["content"] for row in rows} & {
        row.messages[0]["content"] for row in kept
    }
    assert all(verify("", str(row.answer), row) for row in rows + kept)
    assert not any(verify("", "no idea", row) for row in rows + kept)
    assert len(training_rows("tasks")) == 400
