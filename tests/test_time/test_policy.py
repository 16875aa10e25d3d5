"""Policies and the sweeps that they are fitted on."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from hanol.errors import ConfigError, DataError, EngineError, RunError
from hanol.sampling import Sampling
from hanol.scoring import Interval
from hanol.test_time import (
    PolicyTable,
    SweepPlan,
    SweepPoint,
    ThinkSettings,
    draw_points,
    fit_policy,
    flops_matched,
    policy_key,
    policy_records,
    sweep,
    sweep_points,
    think,
)
from hanol.worlds import MathProblem

from .test_run import Lengths, Words


def record(question: int, difficulty: float, budget: int, strategy: str, right: bool, **options):
    return {
        "question": f"q{question}", "difficulty": difficulty, "budget": budget,
        "strategy": strategy, "right": right, "options": options,
    }  # fmt: skip


def test_the_best_strategy_of_each_bin_is_found_and_kept(tmp_path: Path) -> None:
    records = [
        record(q, q / 50, budget, strategy, strategy == ("beam" if q < 20 else "majority"))
        for budget in (4, 16)
        for strategy in ("beam", "majority")
        for q in range(50)
    ]
    table = fit_policy(records)
    assert [entry.strategy for entry in table.entries[4].values()] == ["majority"] * 3 + [
        "beam"
    ] * 2
    assert all(entry.accuracy == 1.0 for entry in table.entries[16].values())
    assert table.choose(0.1, 7) == {"strategy": "beam", "options": {}, "budget": 4}
    assert table.choose(0.9, 64)["budget"] == 16
    table.save(tmp_path / "policy.json")
    again = PolicyTable.load(tmp_path / "policy.json")
    assert again.to_dict() == table.to_dict()
    assert again.choose(0.1, 16) == table.choose(0.1, 16)
    with pytest.raises(ConfigError, match="`budget` is 3, .* fitted for 4, 16"):
        table.choose(0.5, 3)
    with pytest.raises(DataError, match="1 of 2 questions .* 'q7'"):
        again.check_questions(["q7", "another"])


def test_no_question_is_judged_by_what_was_chosen_on_it() -> None:
    # Each strategy is right where it would have to be chosen, and nowhere else.
    records = [record(q, 0.5, 1, s, q == wins) for s, wins in (("beam", 0), ("dvts", 1))
               for q in range(2)]  # fmt: skip
    assert fit_policy(records, bins=1).entries[1][1].accuracy == 0.0
    rng = random.Random(0)
    noise = [record(q, 0.5, 1, "beam", rng.random() < 0.5, width=w) for w in range(60)
             for q in range(60)]  # fmt: skip
    entry = fit_policy(noise, bins=1).entries[1][1]
    best = [row["right"] for row in noise if row["options"] == entry.options]
    assert sum(best) / 60 > 0.62  # chosen and judged on the same questions it would look so
    assert entry.low < 0.5 < entry.high


def test_incomplete_records_are_refused() -> None:
    good = [record(q, 0.5, 1, "beam", True) for q in range(3)]
    with pytest.raises(DataError, match="'dvts' at budget 1 has 1 of 3"):
        fit_policy([*good, record(0, 0.5, 1, "dvts", True)])
    with pytest.raises(DataError, match="'q0' has two difficulties"):
        fit_policy([*good, record(0, 0.6, 1, "dvts", True)])
    with pytest.raises(DataError, match="no records"):
        fit_policy([])


def test_a_policy_of_something_else_is_refused(tmp_path: Path) -> None:
    engine, settings = Words(), ThinkSettings()
    key = policy_key(engine, settings, "sums")
    table = fit_policy([record(q, q / 5, 1, "majority", True) for q in range(5)], key=key)
    table.check(engine, settings, task="sums")
    other = Words()
    other.name = "other"
    with pytest.raises(ConfigError, match="another model"):
        table.check(other, settings)
    with pytest.raises(ConfigError, match="another template"):
        table.check(engine, replace(settings, template="Solve: {problem}"))
    with pytest.raises(ConfigError, match="another template"):
        table.check(engine, replace(settings, sampling=Sampling(temperature=0.2, max_tokens=512)))
    with pytest.raises(ConfigError, match="another task"):
        table.check(engine, settings, task="capitals")
    with pytest.raises(ConfigError, match="another model"):
        think("a sum", other, policy=table)
    (tmp_path / "bad.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="no policy"):
        PolicyTable.load(tmp_path / "bad.json")


def test_auto_takes_what_the_policy_says_within_the_budget() -> None:
    records = [record(q, q / 5, b, "beam", True, width=2) for q in range(5) for b in (4, 8)]
    table = fit_policy(records, key=policy_key(Words(), ThinkSettings(), "sums"))
    thought = think("a sum", Words(), Lengths(), budget=11, policy=table)
    assert thought.strategy == "beam"
    assert thought.options["budget"] == 8
    assert "first answers agree" in thought.note


PROBLEMS = [MathProblem(f"p{i}", f"what is {i}", str(i)) for i in range(6)]
PLANS = [SweepPlan.parse(text) for text in ("majority", "best-of-n", "beam:width=2", "adaptive")]


def plain(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_a_killed_sweep_repeats_nothing(tmp_path: Path) -> None:
    whole = Words()
    rows = sweep(PROBLEMS, whole, Lengths(), PLANS, [1, 2, 4], tmp_path / "whole")
    assert len(rows) == 6 * 4 * 3
    calls = 0
    for fail_at in (7, 30, 10**9):
        part, resume = Words(fail_at), calls > 0
        try:
            again = sweep(
                PROBLEMS, part, Lengths(), PLANS, [1, 2, 4], tmp_path / "part", resume=resume
            )
        except EngineError:
            assert fail_at < 100
        calls += len(part.requests)
    assert calls == len(whole.requests)
    assert plain(tmp_path / "part") == plain(tmp_path / "whole")
    assert [replace(row, seconds=0) for row in again] == [replace(row, seconds=0) for row in rows]
    # On known samples another sweep makes no call.
    cached = Words(fail_at=0)
    (tmp_path / "part" / "results.jsonl").unlink()
    sweep(PROBLEMS, cached, Lengths(), PLANS, [1, 2, 4], tmp_path / "part", resume=True)
    assert plain(tmp_path / "part") == plain(tmp_path / "whole")
    with pytest.raises(RunError, match="--resume"):
        sweep(PROBLEMS, Words(), Lengths(), PLANS, [1], tmp_path / "part")
    with pytest.raises(RunError, match="`budgets`"):
        sweep(PROBLEMS, Words(), Lengths(), PLANS, [1], tmp_path / "part", resume=True)


def test_what_a_sweep_finds_is_drawn_and_fitted(tmp_path: Path) -> None:
    rows = sweep(PROBLEMS, Words(), Lengths(), PLANS, [1, 4], tmp_path)
    by_hand = [row.right for row in rows if (row.plan, row.budget) == ("majority", 4)]
    [point] = [p for p in sweep_points(rows) if (p.plan, p.budget) == ("majority", 4)]
    assert point.accuracy.value == sum(by_hand) / 6
    assert point.tokens > 0
    draw_points(sweep_points(rows), tmp_path / "a.png", "a sweep")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    table = fit_policy(policy_records(rows))
    assert table.budgets == [1, 4]
    assert sum(entry.questions for entry in table.entries[1].values()) == 6


def test_a_sweep_checks_everything_before_it_generates(tmp_path: Path) -> None:
    engine = Words()
    with pytest.raises(ConfigError, match="needs a verifier"):
        sweep(PROBLEMS, engine, None, PLANS, [1], tmp_path)
    with pytest.raises(ConfigError, match="not divisible by `width` 2"):
        sweep(PROBLEMS, engine, Lengths(), PLANS, [2, 3], tmp_path)
    with pytest.raises(DataError, match="no problems"):
        sweep([], engine, Lengths(), PLANS, [1], tmp_path)
    assert engine.requests == []
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        SweepPlan.parse("beam:width")


def test_a_larger_model_is_matched_by_flops() -> None:
    def point(plan: str, budget: int, accuracy: float) -> SweepPoint:
        return SweepPoint(plan, budget, Interval(value=accuracy, low=0, high=1), 1, 0, 1, 1, 0)

    points = [point("a", 4, 0.3), point("b", 4, 0.2), point("a", 64, 0.5), point("b", 64, 0.6)]
    few, many, none = flops_matched(points, 0.55, scale=14, ratios=(22, 0.16, 1e9))[:3]
    assert (few.budget, few.plan, few.small, few.large) == (4, "a", 0.3, 0.55)
    assert (many.budget, many.plan) == (64, "b")
    assert none.budget == 4  # 14 answers' worth remain
