"""What a meta-evaluation found: models of the result, and its lines for the terminal."""

from collections.abc import Iterator

from pydantic import BaseModel, Field

from hanol.evaluation.meta._figures import Figure, shown_p
from hanol.scoring import CONFIDENCE, Interval


class Correlations(BaseModel):
    """Three correlations with people; None where one is undefined."""

    spearman: Figure
    kendall: Figure = Field(description="Kendall's tau-b.")
    pearson: Figure


class GroupedCorrelations(Correlations):
    """Means of correlations inside of groups."""

    defined: int = Field(description="Groups in which Spearman's correlation is defined.")
    skipped: int = Field(description="Groups in which it is not: constant, or too few outputs.")


class RaterAgreement(BaseModel):
    """Agreement of two raters on one criterion."""

    criterion: str
    items: int = Field(description="Outputs that both rated.")
    simple: Figure = Field(description="Share of equal ratings; not corrected for chance.")
    kappa: Figure = Field(description="Cohen's kappa.")
    linear: Figure = Field(description="Linearly weighted kappa.")
    quadratic: Figure = Field(description="Quadratically weighted kappa.")
    alpha: Figure = Field(description="Krippendorff's alpha, ordinal, over all raters with gaps.")
    icc: Figure = Field(description="ICC(3,1).")


class Retest(BaseModel):
    """The same judge asked again about the same outputs."""

    repeats: int
    items: int = Field(description="Outputs with as many scores as that.")
    icc: Figure = Field(description="ICC(3,1) of the repetitions.")
    flip_rate: float = Field(description="Share of outputs whose scores are not all the same.")


class Bias(BaseModel):
    """What else than quality the scores follow."""

    length: Figure = Field(
        description="Rank correlation of score and length with people's scores held constant."
    )
    own_family: Interval | None = Field(
        description="By how much more the judge gives systems of its own family than people do, "
        "compared with other systems, in units of its scores. None: there are none."
    )
    family: str | None = Field(description="Family of the judge, by its name.")


class MetricReport(BaseModel):
    """How far one judge or metric agrees with people."""

    name: str
    signature: str = Field(description="Settings of a metric; hashes of a judge.")
    items: int = Field(description="Outputs with its score and one of people.")
    coverage: float = Field(description="Share of people's outputs that it scored.")
    pooled: Correlations = Field(description="Over all outputs.")
    within: GroupedCorrelations = Field(description="Inside of groups, mean over groups.")
    systems: Correlations = Field(description="Of means of systems.")
    by_items: Interval | None = Field(description="Spearman, resampling outputs.")
    by_groups: Interval | None = Field(description="Spearman, resampling groups.")
    pairwise: Figure = Field(description="Accuracy on pairs that people order; its ties are half.")
    acc_eq: Figure = Field(description="Accuracy on pairs with ties, calibrated.")
    eps: Figure = Field(description="Difference up to which scores counted as tied.")
    acc_eq_chance: Interval | None = Field(description="The same with shuffled scores.")
    soft_pairwise: Figure = Field(description="Soft pairwise accuracy of systems.")
    explained_rank: Figure = Field(description="Squared Spearman; the paper's variance explained.")
    explained: Figure = Field(description="Variance explained by a least-squares line.")
    p: Figure = Field(description="Of no rank correlation, by permutation.")
    p_adjusted: Figure = Field(description="Of no rank correlation, adjusted for all metrics.")
    p_best: Figure = Field(description="Of no difference to the best metric, adjusted.")
    with_people: list[RaterAgreement] = Field(
        description="With the first and second rater, where the scores are levels of people."
    )
    retest: Retest | None
    bias: Bias
    undefined: dict[str, str] = Field(description="What is None, and why.")


class MetaReport(BaseModel):
    """How far judges and metrics agree with people on one set of outputs."""

    criterion: str
    items: int = Field(description="Outputs that people scored.")
    groups: int
    systems: int
    raters: int
    doubly_rated: int = Field(description="Outputs that two or more raters scored.")
    mean: float = Field(description="Mean of people's scores.")
    ceiling: Figure = Field(description="Spearman of the second rater with the first.")
    agreement: list[RaterAgreement]
    metrics: list[MetricReport] = Field(description="Best Spearman first.")

    def lines(self) -> Iterator[str]:
        """Text for the terminal."""
        yield (
            f"{self.items} outputs of {self.groups} sources by {self.systems} systems, "
            f"{self.raters} raters, criterion {self.criterion}, mean {self.mean:.3f}"
        )
        if self.agreement:
            yield from self._people()
        yield ""
        yield (
            f"agreement with people; {CONFIDENCE:.0%} intervals of rho from resampling outputs and "
            "sources"
        )
        width = max(len(one.name) for one in self.metrics)
        yield (
            f"  {'':{width}}    rho   outputs         sources         tau-b  Pearson  within  "
            "untied  acc_eq  chance   eps   p adj"
        )
        for one in self.metrics:
            chance = one.acc_eq_chance.value if one.acc_eq_chance is not None else None
            yield (
                f"  {one.name:{width}} {_shown(one.pooled.spearman)}  {_range(one.by_items):14}  "
                f"{_range(one.by_groups):14} {_shown(one.pooled.kendall)}   "
                f"{_shown(one.pooled.pearson)}  {_shown(one.within.spearman)}  "
                f"{_shown(one.pairwise)}  {_shown(one.acc_eq)}  "
                f"{_shown(chance)}  {_short(one.eps)}  "
                f"{_shown(one.p_adjusted)}"
            )
        yield from self._remarks(width)

    def _people(self) -> Iterator[str]:
        yield ""
        yield f"agreement of raters on {self.doubly_rated} outputs with two ratings"
        width = max(len(one.criterion) for one in self.agreement)
        yield f"  {'':{width}}  simple  kappa  linear  quadratic  alpha    ICC"
        for one in self.agreement:
            yield (
                f"  {one.criterion:{width}}  {_shown(one.simple)} {_shown(one.kappa)}  "
                f"{_shown(one.linear)}     {_shown(one.quadratic)} {_shown(one.alpha)} "
                f"{_shown(one.icc)}"
            )
        if self.ceiling is not None:
            yield f"  the second rater's rho with the first: {self.ceiling:.3f}"

    def _remarks(self, width: int) -> Iterator[str]:
        yield ""
        for one in self.metrics:
            notes = []
            if one.coverage < 1:
                notes.append(f"scored {one.items} of {self.items} outputs")
            if one.p_best is not None:
                notes.append(f"p {shown_p(one.p_best)} of no difference to the best")
            if one.retest is not None:
                notes.append(
                    f"asked {one.retest.repeats} times: ICC {_shown(one.retest.icc).strip()}, "
                    f"{one.retest.flip_rate:.1%} of the scores changed"
                )
            if one.bias.length is not None and abs(one.bias.length) >= 0.3:
                notes.append(f"follows length: {one.bias.length:+.2f} at equal quality")
            if one.bias.own_family is not None:
                low, high = one.bias.own_family.low, one.bias.own_family.high
                notes.append(
                    f"gives its own family ({one.bias.family}) {one.bias.own_family.value:+.2f} "
                    f"[{low:.2f}, {high:.2f}] beside people"
                )
            for reason in dict.fromkeys(one.undefined.values()):
                what = [name for name, why in one.undefined.items() if why == reason]
                notes.append(f"{', '.join(what)} undefined: {reason}")
            if one.within.skipped:
                notes.append(f"{one.within.skipped} sources left out of the means within sources")
            if notes:
                yield f"  {one.name:{width}}  {'; '.join(notes)}"


def _shown(value: Figure) -> str:
    return "     -" if value is None else f"{value:6.3f}"


def _short(value: Figure) -> str:
    return "   -" if value is None else f"{value:4.3g}"


def _range(interval: Interval | None) -> str:
    return "-" if interval is None else f"[{interval.low:.2f}, {interval.high:.2f}]"
