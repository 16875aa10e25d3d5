"""Pairs in both orders: a judge that looks at the place decides nothing."""

import json
import re

import pytest

from hanol.engines import Request, ScriptedEngine
from hanol.errors import DataError
from hanol.evaluation import Item, Rubric, flip_rate, judge_pairs

RUBRIC = Rubric.load("diting")


def item(name: str, text: str, **changes: object) -> Item:
    return Item(**{"id": name, "task": "zero", "source": "推开门。", "candidate": text} | changes)


PAIRS = [(item(f"{n}a", "x" * n), item(f"{n}b", "y" * (9 - n))) for n in range(1, 9)]


def shown(request: Request) -> list[str]:
    return re.findall(r"Candidate \d:\n<<<\w+\n(.*)\n", request.messages[1].text)


def test_a_judge_of_places_flips_every_pair() -> None:
    found = judge_pairs(PAIRS, RUBRIC, ScriptedEngine(lambda _: '{"better": 1}'))
    assert [one.winner for one in found] == ["tie"] * len(PAIRS)
    assert flip_rate(found) == 1.0


def test_a_judge_of_texts_wins_in_both_orders(tmp_path) -> None:
    calls = []

    def longer(request: Request) -> str:
        calls.append(request)
        one, two = map(len, shown(request))
        return json.dumps(
            {"thoughts": "length", "better": 0 if one == two else 1 if one > two else 2}
        )

    found = judge_pairs(PAIRS, RUBRIC, ScriptedEngine(longer), run=tmp_path)
    assert [one.winner for one in found] == ["second"] * 4 + ["first"] * 4
    assert flip_rate(found) == 0.0
    assert len(calls) == 2 * len(PAIRS)
    again = judge_pairs(PAIRS, RUBRIC, ScriptedEngine(longer), run=tmp_path)
    assert [one.winner for one in again] == [one.winner for one in found]
    assert len(calls) == 2 * len(PAIRS)


def test_a_pair_without_a_valid_reply_has_no_winner() -> None:
    def sometimes(request: Request) -> str:
        return '{"better": 1}' if shown(request)[0].startswith("x") else "well"

    found = judge_pairs(PAIRS[:1], RUBRIC, ScriptedEngine(sometimes), parse_retries=0)
    assert (found[0].winner, found[0].orders) == (None, ("first", None))
    assert "no valid reply" in found[0].problem
    assert flip_rate(found) is None


def test_what_is_no_pair_is_refused() -> None:
    engine = ScriptedEngine(lambda _: "")
    with pytest.raises(DataError, match="The pair of item 'a' has not two candidates"):
        judge_pairs([(item("a", "x"),)], RUBRIC, engine)
    with pytest.raises(DataError, match="Items 'a' and 'b' are of different sources or tasks"):
        judge_pairs([(item("a", "x"), item("b", "y", source="开门。"))], RUBRIC, engine)
