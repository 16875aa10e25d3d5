"""The 105 public MetricAlign items: figures that were computed independently of this package.

The items lie outside of the repository (their licence is a sentence in a README): without them
these tests are skipped. Expected values: sacrebleu 2.6.0 and rouge_score 0.1.2, scipy 1.17,
scikit-learn 1.9, krippendorff 0.9; intervals are percentiles of another bootstrap.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hanol import evaluation, scoring

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "diting"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the MetricAlign items are not here")

# metric: rho, tau-b, Pearson, rho within sources, untied pairs, acc_eq, interval over items, over
# sources
TABLE = {
    "bleu": (0.112, 0.080, 0.106, 0.253, 0.609, 0.467, (-0.09, 0.31), (0.02, 0.37)),
    "chrf": (0.183, 0.132, 0.178, 0.266, 0.622, 0.480, (-0.01, 0.35), (0.00, 0.41)),
    "chrf++": (0.186, 0.139, 0.179, 0.299, 0.636, 0.489, (-0.01, 0.37), (0.03, 0.40)),
    "ter": (0.332, 0.247, 0.288, 0.285, 0.636, 0.476, (0.16, 0.49), (0.13, 0.56)),
    "rouge1": (0.148, 0.114, 0.161, 0.301, 0.646, 0.491, (-0.06, 0.34), (0.01, 0.36)),
    "rouge2": (0.159, 0.120, 0.113, 0.301, 0.640, 0.494, (-0.04, 0.35), (0.03, 0.40)),
    "rougeL": (0.146, 0.112, 0.165, 0.282, 0.630, 0.482, (-0.05, 0.34), (0.02, 0.36)),
    "residue": (0.291, 0.250, 0.288, 0.348, 0.585, 0.357, (0.13, 0.43), (0.06, 0.51)),
}
RATERS = {  # simple, kappa, linear, quadratic, ordinal alpha, ICC(3,1)
    "specific": (0.938, 0.906, 0.934, 0.959, 0.960, 0.959),
    "general_1": (0.864, 0.795, 0.853, 0.906, 0.910, 0.908),
    "general_2": (0.914, 0.866, 0.862, 0.856, 0.869, 0.857),
    "total": (0.802, 0.738, 0.873, 0.943, 0.943, 0.948),
}
PARITY = {
    "5": {"bleu": 17.864, "chrf": 48.371, "chrf++": 47.363, "ter": 116.667, "rouge1": 50.602,
          "rougeL": 48.193},
    "2": {"bleu": 3.653, "chrf": 31.299, "chrf++": 27.304, "ter": 115.790, "rouge1": 18.605,
          "rougeL": 18.605},
}  # fmt: skip


@pytest.fixture(scope="module")
def items() -> list[evaluation.LabelledItem]:
    return evaluation.read_labels(FOLDER / "metricalign_sample.jsonl")


@pytest.fixture(scope="module")
def report(items: list[evaluation.LabelledItem]) -> evaluation.MetaReport:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    scores = []
    for name in TABLE:
        metric = evaluation.open_metric(name)
        values = evaluation.metric_scores(metric, items)
        scores.append(
            evaluation.ScoreTable(name=name, values={key: [x] for key, x in values.items()})
        )
    return evaluation.meta_evaluate(items, scores)


def test_items_are_read(items: list[evaluation.LabelledItem]) -> None:
    assert len(items) == 105
    assert Counter(item.task for item in items) == {
        "idiom": 18, "terminology": 35, "tense": 34, "zero": 18,
    }  # fmt: skip
    assert sum(len(item.ratings) == 2 for item in items) == 81
    assert len({item.system for item in items}) == 23
    assert len({item.group for item in items}) == 6
    assert np.mean([item.human() for item in items]) == pytest.approx(2.7476, abs=1e-4)


def test_the_export_of_label_studio_holds_the_same(items: list[evaluation.LabelledItem]) -> None:
    exported = evaluation.read_labels(FOLDER / "metricalign_sample.labelstudio.json")
    by_id = {item.id: item for item in exported}
    for item in items:
        other = by_id[item.id]
        assert other.candidate == item.candidate
        assert other.human() == item.human()
        assert len(other.ratings) == len(item.ratings)
    assert "@" not in "".join(item.model_dump_json() for item in exported)


@pytest.mark.parametrize("name", PARITY)
def test_metrics_are_those_of_their_libraries(
    name: str, items: list[evaluation.LabelledItem]
) -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    [item] = [item for item in items if item.id == name]
    for metric, expected in PARITY[name].items():
        found = evaluation.open_metric(metric)
        assert found.value(item) == pytest.approx(expected, abs=1e-3)
        assert found(item) == pytest.approx(-expected if metric == "ter" else expected, abs=1e-3)


@pytest.mark.parametrize("name", TABLE)
def test_correlations_are_those_of_the_table(name: str, report: evaluation.MetaReport) -> None:
    [found] = [one for one in report.metrics if one.name == name]
    rho, tau, r, within, pairwise, _, by_items, by_groups = TABLE[name]
    assert found.pooled.spearman == pytest.approx(rho, abs=0.002)
    assert found.pooled.kendall == pytest.approx(tau, abs=0.002)
    assert found.pooled.pearson == pytest.approx(r, abs=0.002)
    assert found.within.spearman == pytest.approx(within, abs=0.002)
    assert found.pairwise == pytest.approx(pairwise, abs=0.002)
    assert (found.by_items.low, found.by_items.high) == pytest.approx(by_items, abs=0.03)
    assert (found.by_groups.low, found.by_groups.high) == pytest.approx(by_groups, abs=0.03)
    assert found.explained_rank == pytest.approx(rho**2, abs=0.002)


def test_agreement_is_that_of_the_table(report: evaluation.MetaReport) -> None:
    assert report.doubly_rated == 81
    assert report.ceiling == pytest.approx(0.943, abs=0.001)
    for one in report.agreement:
        found = (one.simple, one.kappa, one.linear, one.quadratic, one.alpha, one.icc)
        assert found == pytest.approx(RATERS[one.criterion], abs=0.001), one.criterion


def test_accuracy_with_ties_is_that_of_the_table(items: list[evaluation.LabelledItem]) -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    people, groups = [item.human() for item in items], [item.group for item in items]
    for name, row in TABLE.items():
        metric = evaluation.open_metric(name)
        given = [metric(item) for item in items]
        assert scoring.acc_eq(people, given, groups, eps=0) == pytest.approx(row[5], abs=0.002)


def test_criteria_are_nearly_one_dimension(items: list[evaluation.LabelledItem]) -> None:
    specific, general, total = (
        [item.human(name) for item in items] for name in ("specific", "general_1", "total")
    )
    assert scoring.spearman(specific, total) == pytest.approx(0.969, abs=0.001)
    assert scoring.spearman(specific, general) == pytest.approx(0.977, abs=0.001)


@pytest.mark.parametrize("noise", [1.5, 3.0])
def test_thirty_labels_correct_a_noisy_judge(
    noise: float, items: list[evaluation.LabelledItem]
) -> None:
    """The mean of exactly these 105 items, from 30 of their labels and a judge with a bias."""
    people = np.array([item.human() for item in items])
    rng = np.random.default_rng(0)
    held, width, alone, rhos = 0, 0.0, 0.0, 0.0
    for _ in range(1000):
        judge = people + 1 + noise * rng.normal(size=105)
        order = rng.permutation(105)
        few, rest = order[:30], order[30:]
        found = scoring.prediction_powered_mean(people[few], judge[few], judge[rest], finite=True)
        plain = scoring.prediction_powered_mean(
            people[few], judge[few], judge[rest], finite=True, weight=0.0
        )
        held += found.low <= people.mean() <= found.high
        width += found.high - found.low
        alone += plain.high - plain.low
        rhos += scoring.spearman(people, judge) / 1000
    assert 0.93 <= held / 1000 <= 0.97
    assert rhos > 0.5
    assert width < 0.95 * alone
