"""Judges and metrics against people: correlations, pairs, agreement, tests and probes."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import numpy as np

from hanol import scoring
from hanol.errors import DataError
from hanol.evaluation.meta._bias import find_bias
from hanol.evaluation.meta._figures import Figure, defined
from hanol.evaluation.meta._labels import TOTAL, LabelledItem, ScoreTable, criteria
from hanol.evaluation.meta._report import (
    Correlations,
    GroupedCorrelations,
    MetaReport,
    MetricReport,
    RaterAgreement,
    Retest,
)

_LEAST = 3  # outputs
_CORRELATIONS: dict[str, Callable[..., Figure]] = {
    "spearman": scoring.spearman,
    "kendall": scoring.kendall,
    "pearson": scoring.pearson,
}


def meta_evaluate(
    items: Sequence[LabelledItem],
    scores: Sequence[ScoreTable],
    *,
    criterion: str = TOTAL,
    seed: int = 0,
) -> MetaReport:
    """How far judges and metrics agree with people.

    Args:
        items: Outputs that people scored.
        scores: What judges and metrics gave the same outputs, higher for better.
        criterion: What of people's scores they are compared with.
        seed: Seed of shuffles and resamples.

    Raises:
        DataError: Fewer than three outputs have both scores of people and of a metric, no output
            has the criterion, or there are no scores.
    """
    human = {item.id: value for item in items if (value := item.human(criterion)) is not None}
    if not human:
        raise DataError(
            f"No output has the criterion {criterion!r}. People scored "
            f"{', '.join(criteria(items))}."
        )
    if not scores:
        raise DataError("There are no scores to compare with people: name metrics or a file.")
    rated = [item for item in items if item.id in human]
    twice = [item for item in rated if len(item.ratings) >= 2]
    reports = [_report(rated, human, one, criterion, seed) for one in scores]
    reports.sort(key=lambda one: -np.inf if (rho := one.pooled.spearman) is None else rho,
                 reverse=True)  # fmt: skip
    _adjust(reports, {one.name: one.means for one in scores}, human, seed)
    pairs = [item.given(criterion)[:2] for item in twice]
    pairs = [pair for pair in pairs if None not in pair]
    return MetaReport(
        criterion=criterion,
        items=len(rated),
        groups=len({item.group for item in rated}),
        systems=len({item.system for item in rated if item.system is not None}),
        raters=len({rater for item in rated for rater in item.ratings}),
        doubly_rated=len(twice),
        mean=mean(human.values()),
        ceiling=defined(scoring.spearman, *zip(*pairs, strict=True)) if pairs else None,
        agreement=rater_agreement(rated) if twice else [],
        metrics=reports,
    )


def rater_agreement(items: Sequence[LabelledItem]) -> list[RaterAgreement]:
    """Agreement of the first two raters of each output, by criterion."""
    found = []
    for criterion in criteria(items):
        pairs = [item.given(criterion)[:2] for item in items if len(item.ratings) >= 2]
        pairs = [pair for pair in pairs if None not in pair]
        if pairs:
            first, second = zip(*pairs, strict=True)
            found.append(_agreement(criterion, first, second, _rating_table(items, criterion)))
    return found


def _report(
    items: Sequence[LabelledItem],
    human: Mapping[str, float],
    scores: ScoreTable,
    criterion: str,
    seed: int,
) -> MetricReport:
    means = scores.means
    shared = [item for item in items if item.id in means]
    if len(shared) < _LEAST:
        example = next(iter(means), None)
        raise DataError(
            f"{scores.name!r} scored {len(shared)} of the {len(items)} outputs that people scored; "
            f"it takes {_LEAST}. Ids of people look like {items[0].id!r}, its own like {example!r}."
        )
    people = [human[item.id] for item in shared]
    given = [means[item.id] for item in shared]
    groups = [item.group for item in shared]
    why: dict[str, str] = {}
    tied = defined(scoring.acc_eq, people, given, groups, why=why)
    pooled = Correlations(
        **{name: defined(one, people, given, why=why) for name, one in _CORRELATIONS.items()}
    )
    rho = None if pooled.spearman is None else scoring.spearman
    return MetricReport(
        name=scores.name,
        signature=_signature(scores),
        items=len(shared),
        coverage=len(shared) / len(items),
        pooled=pooled,
        within=_within(people, given, groups),
        systems=_of_systems(shared, people, given),
        by_items=rho and scoring.bootstrap(people, given, statistic=rho, seed=seed),
        by_groups=rho
        and scoring.bootstrap(people, given, statistic=rho, clusters=groups, seed=seed),
        pairwise=defined(scoring.pairwise_accuracy, people, given, groups, why=why),
        acc_eq=tied,
        eps=None if tied is None else tied.eps,
        acc_eq_chance=tied
        and scoring.chance_level(scoring.acc_eq, people, given, groups, seed=seed),
        soft_pairwise=_soft(shared, people, given, seed),
        explained_rank=None if pooled.spearman is None else pooled.spearman**2,
        explained=None if pooled.pearson is None else pooled.pearson**2,
        p=defined(scoring.spearman_test, people, given, seed=seed),
        p_adjusted=None,
        p_best=None,
        with_people=_with_people(shared, scores, criterion),
        retest=_retest(scores),
        bias=find_bias(shared, people, given, scores.name),
        undefined=why,
    )


def _signature(scores: ScoreTable) -> str:
    hashes = [f"{name} {value[:12]}" for name in ("rubric", "prompt")
              if (value := getattr(scores, name))]  # fmt: skip
    return ", ".join([*([scores.signature] if scores.signature else []), *hashes])


def _within(
    people: Sequence[float], given: Sequence[float], groups: Sequence[str]
) -> GroupedCorrelations:
    members: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    columns = [([people[i] for i in at], [given[i] for i in at]) for at in members.values()]
    found = {
        name: [x for pair in columns if (x := defined(one, *pair)) is not None]
        for name, one in _CORRELATIONS.items()
    }
    num_defined = len(found["spearman"])
    return GroupedCorrelations(
        **{name: mean(values) if values else None for name, values in found.items()},
        defined=num_defined,
        skipped=len(members) - num_defined,
    )


def _of_systems(
    items: Sequence[LabelledItem], people: Sequence[float], given: Sequence[float]
) -> Correlations:
    by_system: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for item, *pair in zip(items, people, given, strict=True):
        if item.system is not None:
            by_system[item.system].append((pair[0], pair[1]))
    means = [np.mean(pairs, 0) for pairs in by_system.values()]
    columns = np.array(means).T if means else np.empty((2, 0))
    return Correlations(**{name: defined(one, *columns) for name, one in _CORRELATIONS.items()})


def _soft(
    items: Sequence[LabelledItem], people: Sequence[float], given: Sequence[float], seed: int
) -> Figure:
    named = [place for place, item in enumerate(items) if item.system is not None]
    keys = [(items[place].system, items[place].group) for place in named]
    if len(set(keys)) < len(keys):
        return None  # a system wrote several outputs of one source
    columns = ([values[place] for place in named] for values in (people, given))
    found: Figure = defined(
        scoring.soft_pairwise_accuracy,
        *columns,
        [system for system, _ in keys],
        [group for _, group in keys],
        seed=seed,
    )
    return found


def _rating_table(items: Sequence[LabelledItem], criterion: str) -> list[list[Figure]]:
    """One row per rater, with gaps."""
    raters = list(dict.fromkeys(rater for item in items for rater in item.ratings))
    rated = [dict(zip(item.ratings, item.given(criterion), strict=True)) for item in items]
    return [[one.get(rater) for one in rated] for rater in raters]


def _agreement(
    criterion: str,
    first: Sequence[float],
    second: Sequence[float],
    table: Sequence[Sequence[Figure]],
) -> RaterAgreement:
    kappas = {
        name: defined(scoring.cohen_kappa, first, second, weights=weights)
        for name, weights in (("kappa", None), ("linear", "linear"), ("quadratic", "quadratic"))
    }
    rows = np.array([[np.nan if x is None else x for x in row] for row in table])
    return RaterAgreement(
        criterion=criterion,
        items=len(first),
        simple=scoring.simple_agreement(first, second),
        alpha=defined(scoring.krippendorff_alpha, rows),
        icc=defined(scoring.icc31, [first, second]),
        **kappas,
    )


def _with_people(
    items: Sequence[LabelledItem], scores: ScoreTable, criterion: str
) -> list[RaterAgreement]:
    """A judge's agreement with the first and the second rater, if it gives the same levels."""
    means = scores.means
    pairs = [(item.given(criterion)[:2], means[item.id]) for item in items]
    levels = {value for people, _ in pairs for value in people if value is not None}
    if any(score != int(score) or not min(levels) <= score <= max(levels) for _, score in pairs):
        return []
    found = []
    for place, who in enumerate(("first rater", "second rater")):
        rated = [(people[place], score) for people, score in pairs if len(people) > place]
        rated = [pair for pair in rated if pair[0] is not None]
        if len(rated) >= _LEAST:
            human, judge = (list(one) for one in zip(*rated, strict=True))
            found.append(_agreement(f"{criterion}, {who}", human, judge, [human, judge]))
    return found


def _retest(scores: ScoreTable) -> Retest | None:
    repeats = scores.num_repeats
    if repeats < 2:
        return None
    rows = [values for values in scores.values.values() if len(values) == repeats]
    return Retest(
        repeats=repeats,
        items=len(rows),
        icc=defined(scoring.icc31, np.array(rows).T),
        flip_rate=mean(len(set(values)) > 1 for values in rows),
    )


def _adjust(
    reports: Sequence[MetricReport],
    means: Mapping[str, Mapping[str, float]],
    human: Mapping[str, float],
    seed: int,
) -> None:
    """Fill in p-values that depend on all metrics."""
    tested = [one for one in reports if one.p is not None]
    adjusted = scoring.benjamini_hochberg([one.p for one in tested if one.p is not None])
    for one, p in zip(tested, adjusted, strict=True):
        one.p_adjusted = p
    if len(tested) < 2:
        return
    best, *others = tested
    compared = []
    for one in others:
        shared = [name for name in human if name in means[best.name] and name in means[one.name]]
        first, second, people = (
            [values[name] for name in shared]
            for values in (means[best.name], means[one.name], human)
        )
        p = defined(
            scoring.paired_permutation, first, second, against=people, resamples=2000, seed=seed
        )
        if p is not None:
            compared.append((one, p))
    adjusted = scoring.benjamini_hochberg([p for _, p in compared])
    for (one, _), p in zip(compared, adjusted, strict=True):
        one.p_best = p
