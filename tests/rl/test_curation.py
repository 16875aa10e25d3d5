"""Curation: what is in use, dropped and probed next, and that a saved state goes on exactly."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanol.errors import DataError
from hanol.rl import GrpoSettings
from hanol.rl._curation import Curation  # private: questions are dropped without training
from hanol.runs import Task

RIGHT, WRONG, MIXED = [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]


def tasks(count: int) -> list[Task]:
    return [Task(f"q{i}", f"question {i}?") for i in range(count)]


def names(found: list[Task]) -> list[str]:
    return [task.id for task in found]


def curation_of(questions: list[Task], **options: Any) -> Curation:
    return Curation(questions, GrpoSettings(**options))


def probed(curation: Curation, **rewards: list[float]) -> Curation:
    curation.probe(rewards)
    curation.end_refresh()
    return curation


def test_only_questions_between_never_and_always_are_used() -> None:
    curation = curation_of(tasks(4), active_questions=2)
    assert curation.is_due
    assert names(curation.candidates) == ["q0", "q1", "q2", "q3"]
    probed(curation, q0=RIGHT, q1=MIXED, q2=WRONG)
    assert curation.counts == {"active": 1, "waiting": 2, "mastered": 1}
    assert names(curation.draw(5)) == ["q1"]
    assert names(curation.candidates) == ["q3", "q2"]  # what failed waits at the end


def test_a_question_whose_probe_broke_waits() -> None:
    curation = probed(curation_of(tasks(2), active_questions=1), q0=[])
    assert names(curation.candidates) == ["q1", "q0"]


def test_a_mastered_question_is_dropped_and_replaced() -> None:
    curation = probed(
        curation_of(tasks(4), active_questions=2, refresh_every=2), q0=MIXED, q1=MIXED
    )
    assert not curation.is_due  # enough are in use
    curation.learn({"q0": RIGHT, "q1": MIXED})
    assert names(curation.draw(2)) == ["q1"]
    assert curation.missing == 1
    assert not curation.is_due  # one step of two
    curation.learn({"q1": WRONG})
    assert curation.is_due
    probed(curation, q2=MIXED)
    assert sorted(names(curation.draw(2))) == ["q1", "q2"]


def test_a_dropped_question_is_not_drawn_in_the_pass_that_has_begun() -> None:
    curation = probed(curation_of(tasks(3), active_questions=3), q0=MIXED, q1=MIXED, q2=MIXED)
    (drawn,) = names(curation.draw(1))
    dropped, kept = sorted({"q0", "q1", "q2"} - {drawn})
    curation.learn({dropped: RIGHT})
    assert names(curation.draw(1)) == [kept]
    assert sorted(names(curation.draw(3))) == sorted([drawn, kept])


def test_a_partly_broken_group_is_judged_by_the_rest() -> None:
    curation = probed(curation_of(tasks(2), active_questions=2), q0=MIXED, q1=MIXED)
    curation.learn({"q0": [], "q1": [1.0]})
    assert curation.counts["mastered"] == 1
    assert names(curation.draw(2)) == ["q0"]


def test_an_empty_set_is_refilled_at_once() -> None:
    curation = probed(curation_of(tasks(2), active_questions=1, refresh_every=None), q0=MIXED)
    curation.learn({"q0": RIGHT})
    assert curation.is_due


def test_a_plateau_brings_new_questions() -> None:
    curation = curation_of(tasks(9), active_questions=2, refresh_every=None, plateau_steps=2)
    probed(curation, q0=MIXED, q1=MIXED, q2=MIXED)
    curation.learn({"q0": [0.5], "q1": [0.1]})
    curation.learn({"q0": RIGHT, "q1": [0.1]})  # two of three are left: none is missing
    curation.learn({"q1": RIGHT, "q2": [0.9]})
    assert not curation.is_due  # three steps are not twice two
    curation.learn({"q2": [0.9]})
    assert not curation.is_due  # it still rises
    curation.learn({"q2": [0.1]})
    curation.learn({"q2": [0.2]})
    assert curation.is_due
    curation.end_refresh()
    assert not curation.is_due


def test_one_refresh_probes_no_more_than_it_may() -> None:
    assert len(curation_of(tasks(9), active_questions=5, max_probes=4).candidates) == 4


def test_without_a_size_every_question_is_used_and_none_dropped() -> None:
    curation = curation_of(tasks(3))
    curation.learn({"q0": RIGHT, "q1": RIGHT, "q2": RIGHT})
    assert not curation.is_due
    assert sorted(names(curation.draw(3))) == ["q0", "q1", "q2"]


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 5))
def test_draws_are_different_even_and_seeded(count: int, per_step: int, seed: int) -> None:
    first, second = (curation_of(tasks(count), seed=seed) for _ in range(2))
    seen: Counter[str] = Counter()
    for _ in range(6):
        drawn = names(first.draw(per_step))
        assert drawn == names(second.draw(per_step))
        assert len(set(drawn)) == len(drawn) == min(count, per_step)
        seen.update(drawn)
        # One that a step has already is put off to the next one, so a pass may overlap by one.
        assert max(seen.values()) - min(seen[t.id] for t in tasks(count)) <= 2


OUTCOME = st.sampled_from([RIGHT, WRONG, MIXED, []])


@given(st.lists(st.lists(OUTCOME, min_size=12, max_size=12), min_size=1, max_size=8), st.data())
def test_a_saved_state_goes_on_exactly(steps: list[list[list[float]]], data: Any) -> None:
    stop = data.draw(st.integers(0, len(steps) - 1))

    def make() -> Curation:
        return curation_of(
            tasks(12), active_questions=3, refresh_every=2, plateau_steps=1, max_probes=5, seed=7
        )

    def advance(curation: Curation, outcomes: list[list[float]]) -> list[str]:
        result = dict(zip(names(tasks(12)), outcomes, strict=True))
        done = []
        if curation.is_due:
            done = names(curation.candidates)
            curation.probe({name: result[name] for name in done})
            curation.end_refresh()
        drawn = names(curation.draw(2))
        curation.learn({name: result[name] for name in drawn})
        assert sum(curation.counts.values()) == 12  # nothing is lost
        return done + drawn

    whole, resumed = make(), make()
    for i, outcomes in enumerate(steps):
        expected = advance(whole, outcomes)
        if i == stop:
            state = json.loads(json.dumps(resumed.state_dict()))
            resumed = make()
            resumed.load_state_dict(state)
        assert advance(resumed, outcomes) == expected
    assert resumed.state_dict() == whole.state_dict()


def test_a_state_of_other_questions_is_refused() -> None:
    with pytest.raises(DataError, match="'q2'"):
        curation_of(tasks(3)).load_state_dict(curation_of(tasks(2)).state_dict())


@pytest.mark.parametrize("questions", [[], [*tasks(2), *tasks(1)]], ids=["none", "twice"])
def test_questions_without_ids_of_their_own_are_refused(questions: list[Task]) -> None:
    with pytest.raises(DataError, match="different ids"):
        curation_of(questions)
