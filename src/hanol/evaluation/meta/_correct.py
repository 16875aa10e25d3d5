"""From judge scores and some labels to means that can be trusted, and the labels that it takes."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from pydantic import BaseModel, Field

from hanol import scoring
from hanol.errors import DataError
from hanol.evaluation.meta._figures import Figure, defined, shown
from hanol.evaluation.meta._labels import TOTAL, LabelledItem, ScoreTable
from hanol.scoring import CONFIDENCE, Interval

_LEAST = 5  # labels of a system


class CorrectedSystem(BaseModel):
    """The corrected mean of one system."""

    name: str
    rank: int = Field(description="By the corrected mean, from 1.")
    best_rank: int = Field(description="Where every overlapping interval is decided for it.")
    worst_rank: int = Field(description="Where every overlapping interval is decided against it.")
    mean: Interval = Field(description="Corrected by the labels.")
    judge: float = Field(description="Mean of the judge alone, on the judge's scale.")
    labels: Interval = Field(description="From the labels alone.")
    num_labels: int
    num_outputs: int = Field(description="Outputs with a score of the judge.")
    weight: Figure = Field(description="How much the judge counts; 0 is not at all.")


class CorrectedScores(BaseModel):
    """Corrected means of systems, the best first."""

    judge: str
    criterion: str
    method: str = Field(description="prediction-powered, finite or rogan-gladen.")
    spearman: Figure = Field(description="Of judge and labels.")
    systems: list[CorrectedSystem]
    left_out: dict[str, str] = Field(description="Systems without a corrected mean, and why.")

    def lines(self) -> Iterator[str]:
        """Text for the terminal."""
        yield (
            f"{self.judge} on {self.criterion}, corrected by labels ({self.method}); "
            f"rho with the labels {shown(self.spearman)}, {CONFIDENCE:.0%} intervals"
        )
        width = max((len(one.name) for one in self.systems), default=0)
        heads = "corrected             labels alone          judge  labels"
        yield f"  rank        {'':{width}}  {heads}"
        for one in self.systems:
            ranks = f"{one.rank} ({one.best_rank}-{one.worst_rank})"
            yield (
                f"  {ranks:10}  {one.name:{width}}  {_interval(one.mean)}  "
                f"{_interval(one.labels)}  {one.judge:6.3f}  {one.num_labels} of {one.num_outputs}"
            )
        for name, why in self.left_out.items():
            yield f"  -           {name:{width}}  {why}"


def correct_scores(
    items: Sequence[LabelledItem],
    scores: ScoreTable,
    systems: Mapping[str, str] | None = None,
    *,
    criterion: str = TOTAL,
    finite: bool = False,
    pass_from: tuple[float, float] | None = None,
) -> CorrectedScores:
    """Correct a judge's means by labels of some of the outputs, and rank systems by them.

    The labelled outputs of each system must be a random sample of its outputs.

    Args:
        items: Outputs that people labelled.
        scores: What the judge gave them, and the outputs without labels.
        systems: System of each output, by id; without it that of the labelled items, and all
            outputs count as one system where no item names one.
        criterion: What of people's scores.
        finite: Whether the means of exactly these outputs are wanted.
        pass_from: Scores of people and of the judge from which an output passes; then shares that
            pass are corrected by Rogan and Gladen's method.

    Raises:
        DataError: No output has both a label and a score, or none has a score alone.
    """
    means = scores.means
    labels = {item.id: value for item in items if (value := item.human(criterion)) is not None}
    if not labels.keys() & means.keys():
        raise DataError(
            f"No output of {scores.name!r} has a label: ids of labels look like "
            f"{next(iter(labels), None)!r}, those of scores like {next(iter(means), None)!r}."
        )
    if not means.keys() - labels.keys():
        raise DataError(
            f"Every output of {scores.name!r} has a label: there is nothing to correct. Give "
            "scores of more outputs, or read `hanol eval meta`."
        )
    of = {item.id: item.system for item in items if item.system is not None}
    of |= scores.systems | dict(systems or {})
    by_system: dict[str, list[str]] = defaultdict(list)
    strangers = 0
    for name in means:
        if of and name not in of:
            strangers += 1
        else:
            by_system[of.get(name, "all outputs")].append(name)
    if strangers:
        raise DataError(
            f"{strangers} scored outputs have no system: give the file of all outputs, with `id` "
            "and `system`."
        )
    found, left_out = [], {}
    for system, names in by_system.items():
        one = _corrected(system, names, labels, means, finite, pass_from)
        if isinstance(one, str):
            left_out[system] = one
        else:
            found.append(one)
    shared = [name for name in labels if name in means]
    people, judged = ([values[name] for name in shared] for values in (labels, means))
    return CorrectedScores(
        judge=scores.name,
        criterion=criterion,
        method="rogan-gladen" if pass_from else "finite" if finite else "prediction-powered",
        spearman=defined(scoring.spearman, people, judged),
        systems=_ranked(found),
        left_out=left_out,
    )


def _corrected(
    system: str,
    names: Sequence[str],
    labels: Mapping[str, float],
    means: Mapping[str, float],
    finite: bool,
    pass_from: tuple[float, float] | None,
) -> CorrectedSystem | str:
    """The corrected mean of a system, or why there is none."""
    labelled = [name for name in names if name in labels]
    if len(labelled) < _LEAST:
        return f"{len(labelled)} labels are fewer than {_LEAST}"
    y_N = np.array([labels[name] for name in labelled])
    p_N = np.array([means[name] for name in labelled])
    p_M = np.array([means[name] for name in names if name not in labels])
    if pass_from is not None:
        y_N, p_N, p_M = y_N >= pass_from[0], p_N >= pass_from[1], p_M >= pass_from[1]
        correct, options = scoring.rogan_gladen, {}
        alone = scoring.wilson(int(y_N.sum()), len(y_N))
    else:
        correct, options = scoring.prediction_powered_mean, {"finite": finite}
        # Of a system whose outputs all have labels, the judge adds nothing.
        others = p_M if len(p_M) else np.zeros(1)
        plain = scoring.prediction_powered_mean(y_N, p_N, others, weight=0.0, **options)
        assert plain is not None
        # With a label on each of exactly these outputs, nothing is left to estimate.
        is_known = finite and not len(p_M)
        low, high = (plain.value,) * 2 if is_known else (plain.low, plain.high)
        alone = Interval(value=plain.value, low=low, high=high)
    why = scoring.explain_undefined(correct, y_N, p_N, p_M, **options)
    if why is not None and len(p_M):
        return why
    mean = alone if why is not None else correct(y_N, p_N, p_M, **options)
    assert mean is not None
    return CorrectedSystem(
        name=system,
        rank=0,
        best_rank=0,
        worst_rank=0,
        mean=Interval(value=mean.value, low=mean.low, high=mean.high),
        judge=float(np.concatenate([p_N, p_M]).mean()),
        labels=alone,
        num_labels=len(y_N),
        num_outputs=len(names),
        weight=getattr(mean, "weight", None),
    )


def _ranked(found: Sequence[CorrectedSystem]) -> list[CorrectedSystem]:
    ordered = sorted(found, key=lambda one: -one.mean.value)
    return [
        one.model_copy(
            update={
                "rank": number,
                "best_rank": 1 + sum(other.mean.low > one.mean.high for other in ordered),
                "worst_rank": sum(other.mean.high >= one.mean.low for other in ordered),
            }
        )
        for number, one in enumerate(ordered, start=1)
    ]


def _interval(interval: Interval) -> str:
    return f"{interval.value:6.3f} [{interval.low:.2f}, {interval.high:.2f}]".ljust(20)


# -- how many labels


class LabelPlan(BaseModel):
    """How many labels an interval of a wanted width needs."""

    half_width: float = Field(description="Wanted half of the interval, on people's scale.")
    deviation: float = Field(description="Standard deviation of people's scores.")
    rho: float = Field(description="Pearson correlation of judge and people.")
    outputs: int = Field(description="Outputs of a system that the judge scores.")
    alone: int | None = Field(description="Labels without the judge; None: more than outputs.")
    corrected: int | None = Field(description="Labels with the judge; None: more than outputs.")

    def lines(self) -> Iterator[str]:
        """Text for the terminal."""
        yield (
            f"a {CONFIDENCE:.0%} interval of +-{self.half_width:g} for the mean of a system, with "
            f"{self.outputs} outputs, deviation {self.deviation:.3f}, r {self.rho:.3f}"
        )
        for what, number in (("labels alone", self.alone), ("with the judge", self.corrected)):
            needed = "more than there are outputs" if number is None else str(number)
            yield f"  {what:14}  {needed}"


def plan_labels(half_width: float, *, deviation: float, rho: float, num_outputs: int) -> LabelPlan:
    """How many outputs people must label, so that a system's mean is known well enough.

    From the variance of the prediction-powered mean at its best weight.

    Args:
        half_width: Wanted half of the 95 % interval, on people's scale.
        deviation: Standard deviation of people's scores over outputs.
        rho: Pearson correlation of the judge with people.
        num_outputs: Outputs of a system that the judge scores.

    Raises:
        DataError: A value is out of range.
    """
    if half_width <= 0 or deviation <= 0 or not 0 <= rho <= 1 or num_outputs < 1:
        raise DataError(
            f"A plan needs a width and a deviation above 0, a correlation from 0 to 1 and outputs, "
            f"but has {half_width:g}, {deviation:g}, {rho:g} and {num_outputs}."
        )
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    target = (half_width / z) ** 2

    def needed(r: float) -> int | None:
        def variance(n: int) -> float:
            rest = num_outputs - n
            # The best weight is r / (1 + n / M) in units of both deviations.
            saved = r**2 / (1 + n / rest) if rest else 0.0
            return deviation**2 / n * (1 - saved)

        low, high = 1, num_outputs
        if variance(high) > target:
            return None
        while low < high:  # the variance falls with every label
            middle = (low + high) // 2
            low, high = (low, middle) if variance(middle) <= target else (middle + 1, high)
        return max(low, _LEAST)

    return LabelPlan(
        half_width=half_width,
        deviation=deviation,
        rho=rho,
        outputs=num_outputs,
        alone=needed(0.0),
        corrected=needed(rho),
    )


def plan_from(
    half_width: float,
    items: Sequence[LabelledItem],
    scores: ScoreTable,
    *,
    criterion: str = TOTAL,
    num_outputs: int | None = None,
) -> LabelPlan:
    """The same from labels and scores of a pilot.

    Raises:
        DataError: Fewer than three outputs have both, or one of the two is constant.
    """
    means = scores.means
    pairs = [
        (value, means[item.id])
        for item in items
        if item.id in means and (value := item.human(criterion)) is not None
    ]
    people, judged = np.array(pairs).T if pairs else (np.empty(0), np.empty(0))
    why = scoring.explain_undefined(scoring.pearson, people, judged)
    if why is not None:
        raise DataError(f"The pilot of labels says nothing: {why}.")
    rho = scoring.pearson(people, judged) or 0.0
    return plan_labels(
        half_width,
        deviation=float(people.std(ddof=1)),
        rho=max(0.0, rho),
        num_outputs=num_outputs or len(means),
    )
