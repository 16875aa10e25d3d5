"""Correlations, pairs, raters, permutation tests and corrected means against scipy and peers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from hanol import scoring
from hanol.errors import DataError, UnknownNameError

levels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=40)
REFERENCES = {
    "pearson": stats.pearsonr,
    "spearman": stats.spearmanr,
    "kendall": lambda x, y: stats.kendalltau(x, y, variant="b"),
}


@pytest.mark.parametrize("name", REFERENCES)
@given(pairs=levels)
@settings(deadline=None, max_examples=60)
def test_correlations_are_those_of_scipy(name: str, pairs: list[tuple[int, int]]) -> None:
    x, y = zip(*pairs, strict=True)
    found = getattr(scoring, name)(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert type(found) is float
        assert found == pytest.approx(REFERENCES[name](x, y).statistic, abs=1e-12)


def test_kendall_of_more_items_than_a_block() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 50, (2, 2300))
    expected = stats.kendalltau(x, y).statistic
    assert scoring.kendall(x, y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([1, 1, 1], [1, 2, 3], "all values of the first are equal"),
        ([1, 2, 3], [5, 5, 5], "all values of the second are equal"),
        ([1, 2], [2, 1], "2 pairs are fewer than 3"),
        ([1, math.nan, 3], [1, 2, 3], "value 2 is missing"),
        ([1, 2, None], [1, 2, 3], "value 3 is missing"),
    ],
)
def test_what_is_undefined_is_none_with_a_reason(
    x: list[float], y: list[float], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    for statistic in (scoring.spearman, scoring.pearson, scoring.kendall):
        assert statistic(x, y) is None
        assert reason in caplog.messages[-1]
        assert str(scoring.explain_undefined(statistic, x, y)).startswith(reason)
    assert scoring.explain_undefined(scoring.spearman, [1, 2, 3], [1, 2, 4]) is None


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(2,\), \(3,\)"):
        scoring.spearman([1, 2], [1, 2, 3])


# -- pairs


def relations(values: list[int], eps: float = 0) -> list[int]:
    pairs = itertools.combinations(values, 2)
    return [0 if abs(a - b) <= eps else (a > b) - (a < b) for a, b in pairs]


@given(pairs=levels)
@settings(deadline=None)
def test_pairs_are_counted_by_the_definition(pairs: list[tuple[int, int]]) -> None:
    human, metric = (list(one) for one in zip(*pairs, strict=True))
    people = relations(human)
    ordered = [(1 + a * b) / 2 for a, b in zip(people, relations(metric), strict=True) if a]
    found = scoring.pairwise_accuracy(human, metric)
    assert found is None if not ordered else found == pytest.approx(np.mean(ordered))
    shares = {
        eps: np.mean([a == b for a, b in zip(people, relations(metric, eps), strict=True)])
        for eps in range(5)
    }
    assert scoring.acc_eq(human, metric, eps=0) == pytest.approx(shares[0])
    best = scoring.acc_eq(human, metric)
    assert best == pytest.approx(max(shares.values()))
    assert shares[int(best.eps)] == pytest.approx(best)


def test_accuracy_of_groups_is_a_mean_over_groups_and_never_crosses_them() -> None:
    human, metric = [1, 2, 1, 2, 3, 9], [1, 2, 3, 2, 1, 0]
    groups = ["a", "a", "b", "b", "b", "c"]
    assert scoring.acc_eq(human, metric, groups, eps=0) == pytest.approx((1 + 0) / 2)
    assert scoring.pairwise_accuracy(human, metric, groups) == pytest.approx((1 + 0) / 2)
    assert scoring.acc_eq([1], [1]) is None
    assert scoring.pairwise_accuracy([1, 1], [1, 2]) is None
    with pytest.raises(DataError, match="5 clusters for 6"):
        scoring.acc_eq(human, metric, groups[:5])
    with pytest.raises(DataError, match="at least 0"):
        scoring.acc_eq(human, metric, eps=-1)


def test_chance_of_a_metric_that_ties_is_not_one_half() -> None:
    rng = np.random.default_rng(0)
    human, metric = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    chance = scoring.chance_level(scoring.acc_eq, human, metric, ["x"] * 30 + ["y"] * 30)
    assert 0.3 < chance.low <= chance.value <= chance.high < 0.5
    plain = scoring.chance_level(scoring.pairwise_accuracy, human, metric)
    assert plain.value == pytest.approx(0.5, abs=0.02)
    assert scoring.chance_level(scoring.spearman, [1, 1, 1], [1, 2, 3]) is None


def test_shuffles_stay_inside_of_their_group() -> None:
    def all_apart(human: object, metric: object, groups: object) -> float:
        first, second = np.asarray(metric)[:3], np.asarray(metric)[3:]
        return float(set(first) == {1, 2, 3} and set(second) == {7, 8, 9})

    chance = scoring.chance_level(all_apart, [0] * 6, [1, 2, 3, 7, 8, 9], list("aaabbb"))
    assert chance.value == 1


def test_soft_pairwise_accuracy() -> None:
    rng = np.random.default_rng(0)
    systems = [s for s in "abcd" for _ in range(12)]
    sources = list(range(12)) * 4
    quality = {"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0}
    human = [quality[s] + rng.normal() for s in systems]
    same = scoring.soft_pairwise_accuracy(human, human, systems, sources)
    noise = scoring.soft_pairwise_accuracy(human, rng.normal(size=48), systems, sources)
    wrong = scoring.soft_pairwise_accuracy(human, [-x for x in human], systems, sources)
    assert same == 1
    assert wrong < 0.25 < noise < 0.85
    # Two systems by hand: the one-sided p-value of an exact sign flip.
    flips = np.array(list(itertools.product([-1, 1], repeat=12)))
    gap = np.array(human[:12]) - human[12:24]
    p = (flips @ gap >= gap.sum()).mean()
    found = scoring.soft_pairwise_accuracy(human[:24], [0.0] * 24, systems[:24], sources[:24])
    assert found == pytest.approx(1 - abs(p - 1), abs=0.02)
    assert scoring.soft_pairwise_accuracy([1, 2], [1, 2], ["a", "b"], [1, 2]) is None
    with pytest.raises(DataError, match="two items of the source 1"):
        scoring.soft_pairwise_accuracy([1, 2], [1, 2], ["a", "a"], [1, 1])


# -- raters


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
@given(pairs=levels)
@settings(deadline=None, max_examples=40)
def test_kappas_are_those_of_scikit_learn(weights: str, pairs: list[tuple[int, int]]) -> None:
    a, b = zip(*pairs, strict=True)
    for labels in (None, [0, 1, 2, 3, 4]):
        found = scoring.cohen_kappa(a, b, weights=weights, labels=labels)
        if len({*a, *b}) == 1:
            assert found is None
        else:
            expected = cohen_kappa_score(a, b, weights=weights, labels=labels)
            assert found == pytest.approx(expected, abs=1e-12)


def test_ratings_and_weights_that_are_not_on_the_scale_are_refused() -> None:
    with pytest.raises(DataError, match="The rating 3 is none of `labels`"):
        scoring.cohen_kappa([0, 3], [0, 1], labels=[0, 1, 2])
    with pytest.raises(UnknownNameError, match="quadratic"):
        scoring.cohen_kappa([0, 1], [0, 1], weights="square")
    with pytest.raises(UnknownNameError, match="ordinal"):
        scoring.krippendorff_alpha([[0, 1], [0, 1]], level="ratio")


# Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C and E.
_ = None
FOUR = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
    [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
]


@pytest.mark.parametrize(
    ("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_that_of_its_author(level: str, alpha: float) -> None:
    assert scoring.krippendorff_alpha(FOUR, level=level) == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_that_of_the_package(level: str) -> None:
    krippendorff = pytest.importorskip("krippendorff")
    rng = np.random.default_rng(0)
    for _ in range(20):
        ratings = rng.integers(0, 4, (3, 15)).astype(float)
        ratings[rng.random(ratings.shape) < 0.3] = np.nan
        expected = krippendorff.alpha(ratings, level_of_measurement=level)
        assert scoring.krippendorff_alpha(ratings, level=level) == pytest.approx(expected)


def test_icc_of_shrout_and_fleiss() -> None:
    """Their table 2 of 1979, whose ICC(3,1) is 0.71."""
    ratings = [[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]]
    assert scoring.icc31(ratings) == pytest.approx(0.7148, abs=1e-4)
    assert scoring.icc31(*ratings) == scoring.icc31(ratings)
    assert scoring.krippendorff_alpha(*ratings) == scoring.krippendorff_alpha(ratings)
    stricter = [[1, 2, 3, 4], [0, 1, 2, 3]]
    assert scoring.icc31(stricter) == pytest.approx(1)
    assert scoring.icc31([[1, 2, 3, None, 4], [1, 2, 4, 5, 4]]) == pytest.approx(
        scoring.icc31([[1, 2, 3, 4], [1, 2, 4, 4]])
    )


@pytest.mark.parametrize(
    ("statistic", "ratings", "reason"),
    [
        (scoring.icc31, [[1, 2, 3]], "two raters"),
        (scoring.icc31, [[1, 2, None], [1, 2, 3]], "2 items that all raters rated"),
        (scoring.icc31, [[1, 1, 1], [1, 1, 1]], "no variance"),
        (scoring.krippendorff_alpha, [[1, None], [None, 1]], "no item has ratings of two"),
        (scoring.krippendorff_alpha, [[1, 1], [1, 1]], "every rating is the same"),
    ],
)
def test_agreement_without_variance_or_overlap_is_none(
    statistic: object, ratings: list[list[float]], reason: str
) -> None:
    assert statistic(ratings) is None
    assert reason in scoring.explain_undefined(statistic, ratings)


def test_tables_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="equally long"):
        scoring.icc31([[1, 2], [1]])
    with pytest.raises(DataError, match="one row per rater"):
        scoring.krippendorff_alpha([1, 2, 3])


# -- permutation tests and the bootstrap


def test_permutation_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (5, 9):
        a, b = rng.normal(0.5, 1, n), rng.normal(0, 1, n)
        for alternative in ("two-sided", "greater"):
            expected = stats.permutation_test(
                (a, b),
                lambda x, y, axis: (x - y).mean(axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=np.inf,
                alternative=alternative,
            )
            found = scoring.paired_permutation(a, b, alternative=alternative)
            assert found == pytest.approx(expected.pvalue, abs=1e-9)
    a, b = rng.normal(0.3, 1, 60), rng.normal(0, 1, 60)
    many = scoring.paired_permutation(a, b)
    assert many == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)
    assert many == scoring.paired_permutation(a, b)
    assert scoring.paired_permutation([1, 2], [1, 2]) == 1
    assert scoring.paired_permutation([], []) is None
    with pytest.raises(UnknownNameError, match="two-sided"):
        scoring.paired_permutation([1], [1], alternative="less")


def test_whole_clusters_are_swapped() -> None:
    a, b = [1.0] * 20, [0.0] * 20
    assert scoring.paired_permutation(a, b) < 1e-3
    assert scoring.paired_permutation(a, b, clusters=["x"] * 10 + ["y"] * 10) == 0.5


def test_metrics_are_compared_by_their_correlation_with_people() -> None:
    rng = np.random.default_rng(0)
    human = rng.normal(size=80)
    good, bad = human + 0.5 * rng.normal(size=80), 100 * (human + 3 * rng.normal(size=80))
    options = {"against": human, "resamples": 2000}
    assert scoring.paired_permutation(good, bad, alternative="greater", **options) < 0.01
    assert scoring.paired_permutation(bad, good, alternative="greater", **options) > 0.9
    like = human + 0.5 * rng.normal(size=80)
    assert scoring.paired_permutation(good, like, **options) > 0.05
    assert scoring.paired_permutation([1, 2, 3], [1, 1, 1], against=[1, 2, 3]) is None


def test_p_values_are_adjusted_as_scipy_does() -> None:
    p = np.random.default_rng(0).random(20) ** 2
    assert scoring.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert scoring.benjamini_hochberg([]) == []
    with pytest.raises(DataError, match="from 0 to 1"):
        scoring.benjamini_hochberg([0.5, 1.5])


def test_clusters_widen_the_interval_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(30), 10)
    values = rng.normal(size=30)[of] + 0.1 * rng.normal(size=300)
    [plain], [clustered] = (
        scoring.bootstrap(values[:, None], clusters=clusters) for clusters in (None, of.tolist())
    )
    assert plain.value == clustered.value == pytest.approx(values.mean())
    means = values.reshape(30, 10).mean(1)
    error = means.std() / math.sqrt(30)
    assert clustered.high - clustered.low == pytest.approx(3.92 * error, rel=0.1)
    assert clustered.high - clustered.low > 2.5 * (plain.high - plain.low)
    with pytest.raises(DataError, match="29 clusters for 300"):
        scoring.bootstrap(values[:, None], clusters=range(29))


@pytest.mark.parametrize("name", ["spearman", "pearson"])
def test_all_resamples_at_once_are_those_one_by_one(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 40)
    both = np.stack([x, x + rng.integers(-3, 4, 40)], 1)
    statistic = getattr(scoring, name)
    for clusters in (None, [n // 8 for n in range(40)]):
        fast = scoring.bootstrap(both, clusters=clusters, statistic=statistic)
        slow = scoring.bootstrap(both, clusters=clusters, statistic=lambda a, b: statistic(a, b))
        assert fast.value == slow.value == statistic(*both.T)
        assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-9)
        assert fast.low < fast.value < fast.high


def test_columns_may_be_given_one_by_one() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    stacked = scoring.bootstrap(np.stack([x, y], 1), statistic=scoring.spearman)
    assert scoring.bootstrap(x, y, statistic=scoring.spearman) == stacked
    assert scoring.bootstrap(x) == scoring.bootstrap(x[:, None])
    with pytest.raises(DataError, match="differ in length"):
        scoring.bootstrap(x, y[:-1])


def test_bootstrap_of_what_is_undefined_is_none() -> None:
    constant = [[1, 2], [1, 3], [1, 4]]
    assert scoring.bootstrap(constant, statistic=scoring.spearman) is None
    some = [[1, 2], [2, 3], [3, 1]]
    assert scoring.bootstrap(some, statistic=scoring.spearman, clusters=["a"] * 3) is None


# -- corrected means


def test_prediction_powered_mean_is_that_of_ppi_python() -> None:
    ppi = pytest.importorskip("ppi_py")
    rng = np.random.default_rng(0)
    for n, m, noise in ((30, 75, 0.5), (10, 400, 3.0), (50, 60, 0.1)):
        truth = rng.normal(size=n + m)
        judge = 0.8 * truth + 0.5 + noise * rng.normal(size=n + m)
        y, p, u = truth[:n], judge[:n], judge[n:]
        for weight in (None, 0.0, 1.0):
            found = scoring.prediction_powered_mean(y, p, u, weight=weight)
            low, high = ppi.ppi_mean_ci(y, p, u, alpha=0.05, lam=weight)
            value = ppi.ppi_mean_pointestimate(y, p, u, lam=weight)
            assert (found.low, found.high) == pytest.approx((low[0], high[0]), abs=1e-9)
            assert found.value == pytest.approx(float(np.squeeze(value)), abs=1e-9)


def test_prediction_powered_mean_by_hand() -> None:
    found = scoring.prediction_powered_mean([0, 1, 2, 3], [1, 2, 3, 4], [2, 4, 6], weight=1.0)
    assert found.value == pytest.approx(3)
    error = math.sqrt(np.var([2, 4, 6]) / 3)
    assert found.high - found.value == pytest.approx(1.959964 * error, abs=1e-6)
    assert found.weight == 1
    useless = scoring.prediction_powered_mean([0, 1, 2, 3], [1, 1, 1, 1], [1, 1])
    assert (useless.weight, useless.value) == (0, 1.5)
    assert scoring.prediction_powered_mean([1, 2], [1, 2], [1]) is None
    assert scoring.prediction_powered_mean([1, 2, 3], [1, 2, 3], []) is None
    assert scoring.prediction_powered_mean([1, 2, 3], [1, 2, 3], [1], finite=True) is None


def coverage(rho: float, finite: bool, draws: int = 1000) -> tuple[float, float, float]:
    """Share of intervals that hold the mean, and their mean width with and without a judge."""
    rng = np.random.default_rng(7)
    held, widths, alone = 0, [], []
    truth = np.minimum(6, np.maximum(0, rng.normal(2.7, 2.2, 105).round()))
    for _ in range(draws):
        if not finite:
            truth = np.minimum(6, np.maximum(0, rng.normal(2.7, 2.2, 105).round()))
        noise = truth.std() * math.sqrt(1 / rho**2 - 1)
        judge = truth + 0.7 + noise * rng.normal(size=105)
        chosen = rng.permutation(105)
        y, p, u = truth[chosen[:30]], judge[chosen[:30]], judge[chosen[30:]]
        found = scoring.prediction_powered_mean(y, p, u, finite=finite)
        plain = scoring.prediction_powered_mean(y, p, u, finite=finite, weight=0.0)
        mean = truth.mean() if finite else _POPULATION
        held += found.low <= mean <= found.high
        widths.append(found.high - found.low)
        alone.append(plain.high - plain.low)
    return held / draws, float(np.mean(widths)), float(np.mean(alone))


_POPULATION = float(
    np.minimum(6, np.maximum(0, np.random.default_rng(1).normal(2.7, 2.2, 10**6).round())).mean()
)


@pytest.mark.parametrize("rho", [0.6, 0.9])
@pytest.mark.parametrize("finite", [False, True], ids=["population", "these"])
def test_intervals_cover_and_a_good_judge_makes_them_narrower(rho: float, finite: bool) -> None:
    held, width, alone = coverage(rho, finite)
    assert 0.93 <= held <= 0.97
    assert width < alone * (0.95 if rho < 0.7 else 0.75)


def test_rogan_gladen_covers_and_is_within_zero_and_one() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        truth = rng.random(400) < 0.3
        judge = np.where(rng.random(400) < np.where(truth, 0.85, 0.8), truth, ~truth)
        found = scoring.rogan_gladen(truth[:100], judge[:100], judge[100:])
        assert 0 <= found.low <= found.value <= found.high <= 1
        held += found.low <= 0.3 <= found.high
    assert 0.93 <= held / 1000 <= 0.98
    assert scoring.rogan_gladen([1, 0], [1, 0], [1, 0, 0, 0]).value == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("labels", "judged", "others", "reason"),
    [
        ([1, 1], [1, 0], [1], "people failed none"),
        ([0, 0], [1, 0], [1], "people passed none"),
        ([0, 1], [1, 0], [1], "as often"),
        ([0, 1], [0, 1], [], "no unlabelled"),
    ],
)
def test_rates_that_cannot_be_corrected_are_none(
    labels: list[int], judged: list[int], others: list[int], reason: str
) -> None:
    assert scoring.rogan_gladen(labels, judged, others) is None
    assert reason in scoring.explain_undefined(scoring.rogan_gladen, labels, judged, others)


def test_scores_are_no_passes() -> None:
    with pytest.raises(DataError, match="0 or 1"):
        scoring.rogan_gladen([2, 0], [1, 0], [1])


def test_the_quantile_of_student_is_that_of_scipy() -> None:
    from hanol.scoring.agreement._corrected import t_quantile  # private: an expansion of its own

    for freedom in (3, 5, 10, 28, 200):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.01)
