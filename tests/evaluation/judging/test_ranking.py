"""What judgements come to: rankings of like with like, and the page with the debates."""

import json
from dataclasses import replace

import pytest

from hanol.engines import ScriptedEngine
from hanol.errors import DataError
from hanol.evaluation import (
    Item,
    Judgement,
    Rubric,
    Scores,
    judge,
    judge_report,
    render_judgements,
)

RUBRIC = Rubric.load("diting")


def judgement(
    system: str, task: str, total: float | None, name: str, **changes: object
) -> Judgement:
    scores = None if total is None else Scores({"sp": total}, {"sp": total})
    base = Judgement(
        key=f"{system}{name}", item=Item(id=name, task=task, system=system, candidate="x"),
        status="unscored" if total is None else "ok", scores=scores, total=total, rubric="diting",
        rubric_hash="r" * 64, protocol="paper", protocol_hash="p" * 64, prompt_hash="q" * 64,
        judges={"judge": "model-1"}, decided_by="judge", rounds=1, calls=3,
    )  # fmt: skip
    return replace(base, **changes)


def test_tasks_count_the_same_however_many_items_they_have() -> None:
    found = [judgement("a", "idiom", 6, str(n)) for n in range(9)]
    found += [judgement("a", "zero", 2, name) for name in ("9", "10")]
    found += [judgement("b", "idiom", 5, f"b{n}") for n in range(10)]
    result = judge_report(found, 6.0)
    assert [one.system for one in result.systems] == ["b", "a"]
    best, other = result.systems
    assert other.total.value == pytest.approx(4)
    assert other.by_task == {"idiom": 6, "zero": 2}
    assert (other.total.low, other.total.high) == (4, 4)  # equal within each task
    assert (best.total.value, best.scored, best.items) == (5, 10, 10)
    assert "model-1" in result.title
    assert "prompts qqqqqqqq" in result.title


def test_one_item_a_task_is_no_certainty() -> None:
    found = [judgement("a", task, total, task) for task, total in (("idiom", 6), ("zero", 2))]
    (system,) = judge_report(found).systems
    assert (system.total.low, system.total.value, system.total.high) == (2, 4, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_mode": "sampled-mean"}, "different kinds of scores"),
        ({"rubric_hash": "s" * 64}, "different rubrics"),
        ({"protocol_hash": "s" * 64}, "different protocols"),
        ({"judges": {"judge": "model-2"}}, "different judges"),
        ({"prompt_hash": "s" * 64}, "different wordings"),
    ],
)
def test_unlike_judgements_are_not_ranked(changes: dict, message: str) -> None:
    found = [judgement("a", "idiom", 5, "1"), judgement("b", "idiom", 5, "2", **changes)]
    with pytest.raises(DataError, match=f"{message}.*item '1'.*item '2'"):
        judge_report(found)


def test_different_coverage_is_refused_unless_told() -> None:
    found = [judgement("a", "idiom", 5, "1"), judgement("a", "idiom", None, "2", problem="lost"),
             judgement("b", "idiom", 4, "3"), judgement("b", "idiom", 4, "4")]  # fmt: skip
    with pytest.raises(DataError, match="1 of 2 items of 'a' are scored, 2 of 2 of 'b'"):
        judge_report(found)
    result = judge_report(found, allow_coverage=True)
    assert [(one.scored, one.items) for one in result.systems] == [(1, 2), (2, 2)]
    assert result.unscored == {"2": "lost"}
    assert result.statuses == {"ok": 3, "unscored": 1}
    with pytest.raises(DataError, match="no judgements"):
        judge_report([])


def test_repeats_agreement_and_overrides_are_counted() -> None:
    def reply(request: object) -> str:
        seed = request.sampling.seed  # type: ignore[attr-defined]
        verdict = "judge_reasons" in request.messages[1].text  # type: ignore[attr-defined]
        said = {"judge": "yes"} if verdict else {}
        return json.dumps({**said, "sp": 1 + seed % 2, "g_1": 1, "g_2": 1})

    items = [Item(id=str(n), task="zero", source="x", candidate=f"c{n}") for n in range(20)]
    found = judge(items, RUBRIC, ScriptedEngine(reply), repeat=2)
    result = judge_report(found, RUBRIC.most)
    assert 0 < result.flips < 1
    assert 2 / 3 < result.agreement[0] < 1
    assert 0 < result.overridden < 1
    assert any("judged again" in fact for fact in result.facts())
    assert result.calls == 120


def test_the_page_shows_debates_and_no_strangers_markup() -> None:
    evil = "<script>alert(1)</script>\x1b[2J"
    item = Item(id="1", task="idiom", source="马马虎虎", candidate=evil, system="<b>m</b>")
    replies = iter([
        json.dumps({"thoughts": evil, "sp": 2, "g_1": 1, "g_2": 1}), "no JSON " + evil,
        json.dumps({"thoughts": "b", "sp": 0, "g_1": 1, "g_2": 1}),
        json.dumps({"judge": "no", "judge_reasons": "they differ"}),
        json.dumps({"sp": 0, "g_1": 1, "g_2": 1}), json.dumps({"sp": 0, "g_1": 1, "g_2": 1}),
        json.dumps({"judge": "yes", "sp": 0, "g_1": 1, "g_2": 1}),
    ])  # fmt: skip
    found = judge([item], RUBRIC, ScriptedEngine(lambda _: next(replies)))
    page = render_judgements(found, judge_report(found, RUBRIC.most))
    assert "<script" not in page
    assert "\x1b" not in page
    assert "<b>m</b>" not in page
    for shown in (
        "alert(1)",
        "they differ",
        "round 2",
        "1 → 0",
        "马马虎虎",
        "no JSON",
        "protocol paper",
    ):
        assert shown in page
    for loaded in ("http://", "https://", "src=", "url("):
        assert loaded not in page
