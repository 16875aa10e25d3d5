"""Meta-evaluation, corrected means, plans and drift on a small set of our own."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import explained_variance_score

from hanol import evaluation, scoring
from hanol.errors import DataError, UnknownNameError

Labels = list[evaluation.LabelledItem]


def make(count: int = 48, systems: int = 4, seed: int = 0) -> tuple[Labels, dict[str, float]]:
    """Outputs with two raters and their quality."""
    rng = np.random.default_rng(seed)
    items, quality = [], {}
    for n in range(count):
        system, group = f"system-{n % systems}", f"source-{n // systems}"
        value = float(np.clip(round(2 + 0.8 * (n % systems) + rng.normal(0, 1.2)), 0, 6))
        second = float(np.clip(value + rng.choice([-1, 0, 0, 0, 1]), 0, 6))
        ratings = {"A": {"total": value}, "B": {"total": second}}
        quality[str(n)] = (value + second) / 2
        items.append(
            evaluation.LabelledItem(
                id=str(n), candidate="word " * int(rng.integers(5, 30)), system=system,
                group=group, ratings=ratings if n % 3 else {"A": {"total": value}},
            )
        )  # fmt: skip
    return items, quality


def table(name: str, values: dict[str, float], **more: object) -> evaluation.ScoreTable:
    return evaluation.ScoreTable(
        name=name, values={key: [value] for key, value in values.items()}, **more
    )


ITEMS, QUALITY = make()


def noisy(noise: float, seed: int = 1) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    return {name: value + noise * rng.normal() for name, value in QUALITY.items()}


# -- meta


def test_figures_are_those_of_scipy_and_scikit_learn() -> None:
    scores = noisy(1.0)
    [found] = evaluation.meta_evaluate(ITEMS, [table("judge", scores)]).metrics
    human = [item.human() for item in ITEMS]
    given = [scores[item.id] for item in ITEMS]
    assert found.pooled.spearman == pytest.approx(stats.spearmanr(human, given).statistic)
    assert found.pooled.kendall == pytest.approx(stats.kendalltau(human, given).statistic)
    assert found.pooled.pearson == pytest.approx(stats.pearsonr(human, given).statistic)
    line = np.polyval(np.polyfit(given, human, 1), given)
    assert found.explained == pytest.approx(explained_variance_score(human, line))
    assert found.explained_rank == pytest.approx(found.pooled.spearman**2)
    groups = {item.group for item in ITEMS}
    within = [
        stats.spearmanr(*zip(*pairs, strict=True)).statistic
        for group in groups
        for pairs in [[(item.human(), scores[item.id]) for item in ITEMS if item.group == group]]
        if len({a for a, _ in pairs}) > 1
    ]
    assert found.within.spearman == pytest.approx(np.mean(within))
    assert (found.within.defined, found.within.skipped) == (len(within), 12 - len(within))
    of = {item.system for item in ITEMS}
    means = [
        np.mean([(item.human(), scores[item.id]) for item in ITEMS if item.system == s], axis=0)
        for s in of
    ]
    assert found.systems.pearson == pytest.approx(stats.pearsonr(*np.array(means).T).statistic)
    assert found.p < 0.01
    assert found.by_items.low < found.pooled.spearman < found.by_items.high
    assert found.acc_eq_chance.value < found.acc_eq


def test_a_better_metric_is_first_and_noise_is_told_from_it() -> None:
    rng = np.random.default_rng(3)
    report = evaluation.meta_evaluate(
        ITEMS,
        [
            table("noise", {name: rng.normal() for name in QUALITY}),
            table("good", noisy(0.5)),
            table("fair", noisy(0.6, seed=2)),
        ],
    )
    assert [one.name for one in report.metrics][2] == "noise"
    best, second, noise = report.metrics
    assert best.p_best is None
    assert second.p_best > 0.05 > noise.p_best
    assert noise.p_adjusted > 0.05 > best.p_adjusted >= best.p
    assert report.systems == 4
    assert report.groups == 12
    assert (report.raters, report.doubly_rated) == (2, 32)
    [both] = report.agreement
    assert both.simple > both.kappa
    assert "noise" in "\n".join(report.lines())


def test_a_constant_judge_has_no_correlation_and_says_why(caplog: object) -> None:
    constant = table("always-2", dict.fromkeys(QUALITY, 2.0))
    report = evaluation.meta_evaluate(ITEMS, [constant, table("good", noisy(0.5))])
    [found] = [one for one in report.metrics if one.name == "always-2"]
    assert report.metrics[-1] is found
    assert found.pooled.model_dump() == {"spearman": None, "kendall": None, "pearson": None}
    assert found.by_items is None
    assert found.p is found.p_adjusted is found.p_best is None
    assert found.pairwise == pytest.approx(0.5)
    assert found.undefined["spearman"] == "all values of the second are equal"
    assert "spearman, kendall, pearson undefined: all values of the second" in "\n".join(
        report.lines()
    )
    assert caplog.messages == []


def test_missing_scores_are_counted_and_never_zero() -> None:
    some = {name: value for name, value in noisy(0.5).items() if int(name) % 4}
    [found] = evaluation.meta_evaluate(ITEMS, [table("judge", some)]).metrics
    assert found.items == 36
    assert found.coverage == 0.75


@pytest.mark.parametrize(
    ("scores", "criterion", "message"),
    [
        ({"x": 1.0, "y": 2.0}, "total", "scored 0 of the 48 outputs.*'0'.*'x'"),
        ({"0": 1.0, "1": 2.0}, "total", "scored 2 of the 48 outputs.*takes 3"),
        ({}, "total", "scored 0 of the 48"),
        ({"0": 1.0}, "fluency", "criterion 'fluency'.*People scored total"),
    ],
)
def test_labels_without_overlap_are_refused(
    scores: dict[str, float], criterion: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        evaluation.meta_evaluate(ITEMS, [table("judge", scores)], criterion=criterion)


def test_repeated_scores_give_the_retest() -> None:
    rng = np.random.default_rng(0)
    same = evaluation.ScoreTable(name="a", values={k: [v, v] for k, v in QUALITY.items()})
    other = evaluation.ScoreTable(
        name="b", values={k: [v, v + float(rng.normal())] for k, v in QUALITY.items()}
    )
    by_name = {one.name: one for one in evaluation.meta_evaluate(ITEMS, [same, other]).metrics}
    assert by_name["a"].retest.icc == pytest.approx(1)
    assert by_name["a"].retest.flip_rate == 0
    pairs = np.array(list(other.values.values())).T
    assert by_name["b"].retest.icc == pytest.approx(scoring.icc31(pairs))
    assert by_name["b"].retest.flip_rate == 1
    assert "asked 2 times" in "\n".join(evaluation.meta_evaluate(ITEMS, [other]).lines())


def test_levels_of_a_judge_are_compared_with_each_rater() -> None:
    judge = {item.id: item.ratings["A"]["total"] for item in ITEMS}
    [found] = evaluation.meta_evaluate(ITEMS, [table("judge", judge)]).metrics
    first, second = found.with_people
    assert first.simple == first.kappa == first.icc == pytest.approx(1)
    assert second.items == 32
    assert second.kappa < 1


# -- what else scores follow


def test_a_judge_that_loves_length_is_found() -> None:
    by_length = {item.id: float(len(item.candidate)) for item in ITEMS}
    [found] = evaluation.meta_evaluate(ITEMS, [table("judge", by_length)]).metrics
    assert found.bias.length > 0.9
    [fair] = evaluation.meta_evaluate(ITEMS, [table("judge", noisy(0.3))]).metrics
    assert abs(fair.bias.length) < 0.5
    x, y, z = np.random.default_rng(0).normal(size=(3, 200))
    x, y = x + z, y + z
    rows = [stats.rankdata(one) for one in (x, y, z)]
    rest = [one - np.polyval(np.polyfit(rows[2], one, 1), rows[2]) for one in rows[:2]]
    expected = stats.pearsonr(*rest).statistic
    assert evaluation.partial_spearman(x, y, z) == pytest.approx(expected)
    assert evaluation.partial_spearman(x, y, [1] * 200) == scoring.spearman(x, y)
    assert evaluation.partial_spearman([1, 1, 1], [1, 2, 3], [1, 2, 3]) is None


def test_a_judge_that_likes_its_own_family_is_found() -> None:
    items = [
        item.model_copy(update={"system": {"system-0": "Qwen3-8B", "system-1": "qwen2.5:7b"}.get(
            item.system, f"{item.system}-x")})
        for item in ITEMS
    ]  # fmt: skip
    own = {
        item.id: QUALITY[item.id] + 1.5 * ("wen" in item.system) + 0.01 * int(item.id)
        for item in items
    }
    [found] = evaluation.meta_evaluate(items, [table("paper:qwen3-32b", own)]).metrics
    assert found.bias.family == "Qwen"
    assert found.bias.own_family.value == pytest.approx(1.5, abs=0.4)
    assert found.bias.own_family.low > 0.5
    [other] = evaluation.meta_evaluate(items, [table("paper:llama3", own)]).metrics
    assert other.bias.own_family is None
    assert "its own family (Qwen)" in "\n".join(
        evaluation.meta_evaluate(items, [table("qwen3", own)]).lines()
    )


def test_position_is_probed_in_both_orders() -> None:
    pairs = [(ITEMS[n], ITEMS[n + 1]) for n in range(10)]
    first = evaluation.position_probe(lambda a, b: "first", pairs)
    assert (first.flip_rate, first.first_rate, set(first.verdicts)) == (1.0, 1.0, {"tie"})

    def longer(a: evaluation.LabelledItem, b: evaluation.LabelledItem) -> str:
        if len(a.candidate) == len(b.candidate):
            return "tie"
        return "first" if len(a.candidate) > len(b.candidate) else "second"

    steady = evaluation.position_probe(longer, pairs)
    assert steady.flip_rate == 0
    assert steady.verdicts == [longer(a, b) for a, b in pairs]
    with pytest.raises(DataError, match="no pairs"):
        evaluation.position_probe(longer, [])
    with pytest.raises(DataError, match="said 'A'"):
        evaluation.position_probe(lambda a, b: "A", pairs)


# -- corrected means


def labelled(share: int) -> Labels:
    return [item for item in ITEMS if int(item.id) // 4 % 3 < share]


def test_a_biased_judge_is_corrected() -> None:
    biased = {name: value + 2.0 for name, value in noisy(0.3).items()}
    found = evaluation.correct_scores(ITEMS[:24], table("judge", biased, systems={
        item.id: item.system for item in ITEMS}))  # fmt: skip
    assert len(found.systems) == 4
    for one in found.systems:
        truth = np.mean([item.human() for item in ITEMS if item.system == one.name])
        assert one.mean.low - 0.2 <= truth <= one.mean.high + 0.2
        assert one.judge > truth + 1.5
        assert (one.num_labels, one.num_outputs) == (6, 12)
        assert one.best_rank <= one.rank <= one.worst_rank
    assert [one.rank for one in found.systems] == [1, 2, 3, 4]
    assert found.spearman > 0.9
    narrower = [one.mean.high - one.mean.low < one.labels.high - one.labels.low
                for one in found.systems]  # fmt: skip
    assert all(narrower)
    [together] = evaluation.correct_scores(
        [item.model_copy(update={"system": None}) for item in ITEMS[:24]], table("judge", biased)
    ).systems
    assert together.name == "all outputs"
    assert together.mean.low <= np.mean(list(QUALITY.values())) <= together.mean.high


def test_a_system_with_all_labels_needs_no_judge() -> None:
    scores = table("judge", noisy(0.3), systems={i.id: i.system for i in ITEMS})
    items = [item for item in ITEMS if item.system == "system-0" or int(item.id) < 24]
    for finite in (False, True):
        found = evaluation.correct_scores(items, scores, finite=finite)
        [one] = [one for one in found.systems if one.name == "system-0"]
        assert one.num_labels == one.num_outputs == 12
        assert one.mean == one.labels
        assert (one.mean.low == one.mean.high) is finite


def test_shares_that_pass_are_corrected_by_rogan_and_gladen() -> None:
    scores = table("judge", noisy(0.6))
    items = [item.model_copy(update={"system": "one"}) for item in ITEMS[:24]]
    systems = dict.fromkeys(QUALITY, "one")
    [found] = evaluation.correct_scores(items, scores, systems, pass_from=(3, 3)).systems
    labels = [item.human() >= 3 for item in items]
    judged = [scores.means[item.id] >= 3 for item in items]
    others = [value >= 3 for name, value in scores.means.items() if int(name) >= 24]
    expected = scoring.rogan_gladen(labels, judged, others)
    assert found.mean.value == pytest.approx(expected.value)
    assert found.weight is None


def test_systems_with_too_few_labels_are_named() -> None:
    found = evaluation.correct_scores(
        ITEMS[:18], table("judge", noisy(0.3), systems={i.id: i.system for i in ITEMS})
    )
    assert found.left_out == {"system-2": "4 labels are fewer than 5",
                              "system-3": "4 labels are fewer than 5"}  # fmt: skip
    assert "4 labels are fewer than 5" in "\n".join(found.lines())


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"x": 1.0}, "No output of 'judge' has a label"),
        ({"0": 1.0, "1": 2.0}, "nothing to correct"),
        ({"0": 1.0, "x": 2.0}, "1 scored outputs have no system"),
    ],
)
def test_what_cannot_be_corrected_is_refused(scores: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluation.correct_scores(ITEMS, table("judge", scores))


def test_plan_is_what_the_interval_needs() -> None:
    plan = evaluation.plan_labels(0.2, deviation=1.5, rho=0.8, num_outputs=2000)
    assert plan.alone == math.ceil((1.959964 * 1.5 / 0.2) ** 2)
    assert plan.corrected < 0.5 * plan.alone
    # Draws with that many labels have intervals of that width.
    rng = np.random.default_rng(0)
    widths = []
    for _ in range(50):
        truth = rng.normal(0, 1.5, 2000)
        judge = 0.8 * truth + 1.5 * 0.6 * rng.normal(size=2000)
        n = plan.corrected
        found = scoring.prediction_powered_mean(truth[:n], judge[:n], judge[n:])
        widths.append((found.high - found.low) / 2)
    assert np.mean(widths) == pytest.approx(0.2, rel=0.05)
    assert evaluation.plan_labels(0.01, deviation=1.5, rho=0.0, num_outputs=50).alone is None
    with pytest.raises(DataError, match="from 0 to 1"):
        evaluation.plan_labels(0.2, deviation=1, rho=1.2, num_outputs=10)


def test_plan_from_a_pilot() -> None:
    plan = evaluation.plan_from(0.3, ITEMS, table("judge", noisy(1.0)), num_outputs=500)
    people = [item.human() for item in ITEMS]
    assert plan.deviation == pytest.approx(np.std(people, ddof=1))
    assert plan.outputs == 500
    with pytest.raises(DataError, match="all values of the second are equal"):
        evaluation.plan_from(0.3, ITEMS, table("judge", dict.fromkeys(QUALITY, 1.0)))


# -- drift


def test_drift_is_found_and_no_drift_is_none() -> None:
    old = noisy(0.5)
    rng = np.random.default_rng(5)
    same = {name: value + 0.01 * (-1) ** int(name) for name, value in old.items()}
    moved = {name: value + 0.4 + 0.3 * rng.normal() for name, value in old.items()}
    steady = evaluation.find_drift(table("j", old), table("j", same), ITEMS)
    assert not steady.is_drift
    assert steady.spearman > 0.99
    found = evaluation.find_drift(table("j", old), table("j", moved), ITEMS)
    assert found.is_drift
    assert found.shift.low > 0.2
    assert found.p < 0.001
    assert found.old_with_people == pytest.approx(
        scoring.spearman([old[item.id] for item in ITEMS], [item.human() for item in ITEMS])
    )
    assert len(found.largest) == 5
    assert "rho with people" in "\n".join(found.lines())
    alone = evaluation.find_drift(table("j", old), table("j", old))
    assert (alone.changed, alone.p, alone.old_with_people, alone.largest) == (0, 1, None, [])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ({"values": {"a": [1.0]}}, {"values": {"b": [1.0]}}, "lack 1 of 1 frozen"),
        ({"values": {"a": [1.0]}}, {"values": {"a": [1.0]}}, "1 frozen outputs are fewer"),
        ({"rubric": "x"}, {"rubric": "y"}, "rubric 'x', the new ones 'y'"),
        ({"mode": "single"}, {"mode": "token-weighted"}, "mode 'single'"),
    ],
)
def test_what_is_no_drift_of_a_judge_is_refused(
    old: dict[str, object], new: dict[str, object], message: str
) -> None:
    one, other = (
        evaluation.ScoreTable(name="j", **{"values": {}, **given}) for given in (old, new)
    )
    with pytest.raises(DataError, match=message):
        evaluation.find_drift(one, other)


# -- files


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(name: str, *rows: object) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return to_file


def test_labels_are_read_in_several_forms(write: Callable[..., Path]) -> None:
    path = write(
        "labels.jsonl",
        {"id": 1, "candidate": "a", "human": 3},
        {"id": 2, "hypothesis": "b", "human": {"fluency": 1, "accuracy": 2, "n_annotators": 2}},
        {"id": 3, "output": "c", "annotations": [
            {"annotator": "A", "fluency": 1, "accuracy": 0, "comment": None},
            {"annotator": "B", "scores": {"fluency": 2, "accuracy": 1}}]},
        {"id": 4, "candidate": "d", "meta": {"human": {"fluency": 2}}},
        {"id": 5, "candidate": "e", "source_ref": {"novel": "x"}, "reference": "f"},
    )  # fmt: skip
    first, second, third, fourth, fifth = evaluation.read_labels(path)
    assert first.human() == 3
    assert (second.human(), second.human("fluency")) == (3, 1)
    assert third.given() == [1, 3]
    assert third.given("accuracy") == [0, 1]
    assert fourth.human("fluency") == 2
    assert fifth.human() is None
    assert (fifth.group, first.group) == ('{"novel": "x"}', "1")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1, "human": 1}, {"id": 1, "human": 2}], "line 2.*'1' is that of line 1"),
        ([{"candidate": "a", "human": 1}], "line 1: the row has no `id`"),
        ([{"id": 1, "candidate": "a"}], "no scores of people"),
        ([{"id": 1, "human": "good"}], "item 1: `human` is 'good'"),
        ([{"id": 1, "human": True}], "is True, which is no score"),
        ([{"id": 1, "annotations": {"A": 1}}], "`annotations` is no list"),
        ([{"id": 1, "annotations": [{"annotator": "A", "x": 1}, {"annotator": "A", "x": 2}]}],
         "the rater 'A' scored it twice"),
    ],
)  # fmt: skip
def test_labels_that_are_none_are_named(
    write: Callable[..., Path], rows: list[object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        evaluation.read_labels(write("labels.jsonl", *rows))


def judgement(name: str, total: float | None, **more: object) -> dict[str, object]:
    scores = None if total is None else {"raw": {"sp": 2}, "gated": {"sp": total, "g_1": 0}}
    return {
        "schema": 1, "id": name, "key": "k", "item": {"id": name, "candidate": "c", "system": "S"},
        "status": "unscored" if total is None else "ok", "scores": scores, "total": total,
        "rubric": "r", "rubric_hash": "abc", "protocol": "single", "protocol_hash": "p",
        "prompt_hash": "q", "judges": {"A": "tiny", "B": "tiny"}, "score_mode": "single", **more,
    }  # fmt: skip


def test_scores_are_read_from_judgements_and_from_others(write: Callable[..., Path]) -> None:
    path = write(
        "judgements.jsonl",
        judgement("1", 2.0), judgement("1", 1.0, repeat=1), judgement("2", None),
    )  # fmt: skip
    other = write("comet.jsonl", {"id": 1, "metric": "comet", "score": 0.8})
    judge, comet = evaluation.read_scores([path, other])
    assert (judge.name, judge.values, judge.unscored) == ("single:tiny", {"1": [2.0, 1.0]}, 1)
    assert judge.systems == {"1": "S"}
    assert (judge.rubric, judge.prompt, judge.mode) == ("abc", "q", "single")
    assert (comet.name, comet.values) == ("comet", {"1": [0.8]})
    [folder] = evaluation.read_scores([path.parent])
    assert folder == judge
    [specific] = evaluation.read_scores([path], "specific")
    assert specific.values == {"1": [2.0, 1.0]}
    with pytest.raises(UnknownNameError, match="'fluency'"):
        evaluation.read_scores([path], "fluency")


def test_judgements_that_do_not_compare_are_refused(write: Callable[..., Path]) -> None:
    for field in ("rubric_hash", "prompt_hash", "score_mode"):
        path = write("a.jsonl", judgement("1", 2.0), judgement("2", 2.0, **{field: "other"}))
        with pytest.raises(DataError, match=r"line 2.*which do not compare"):
            evaluation.read_scores([path])
    with pytest.raises(DataError, match="a row has `score`"):
        evaluation.read_scores([write("b.jsonl", {"id": 1, "value": 2})])
    with pytest.raises(DataError, match="no `id`"):
        evaluation.read_scores([write("c.jsonl", {"metric": "m", "score": 2})])
    with pytest.raises(DataError, match="'high', which is no score"):
        evaluation.read_scores([write("d.jsonl", {"id": 1, "metric": "m", "score": "high"})])
