"""Has a judge changed? Two runs over the same frozen outputs, compared in pairs."""

from collections.abc import Iterator, Sequence
from statistics import mean

import numpy as np
from pydantic import BaseModel, Field

from hanol import scoring
from hanol.errors import DataError
from hanol.evaluation.meta._figures import Figure, defined, shown, shown_p
from hanol.evaluation.meta._labels import TOTAL, LabelledItem, ScoreTable
from hanol.scoring import Interval

_LEAST = 3


class DriftReport(BaseModel):
    """A new judge against an old one on the same outputs."""

    old: str
    new: str
    items: int
    old_mean: float
    new_mean: float
    shift: Interval = Field(description="New minus old, resampling outputs.")
    p: Figure = Field(description="Of no shift, by a paired permutation test.")
    changed: float = Field(description="Share of outputs whose score is another.")
    spearman: Figure = Field(description="Of old and new.")
    icc: Figure = Field(description="ICC(3,1) of old and new.")
    old_with_people: Figure = Field(description="Spearman of the old one and people.")
    new_with_people: Figure = Field(description="Spearman of the new one and people.")
    p_people: Figure = Field(description="Of no difference of these two.")
    largest: list[tuple[str, float, float]] = Field(
        description="Outputs whose score changed most: id, old, new."
    )

    def lines(self) -> Iterator[str]:
        """Text for the terminal."""
        yield f"{self.new} against {self.old} on {self.items} outputs"
        yield (
            f"  mean {self.old_mean:.3f} to {self.new_mean:.3f}: {self.shift.value:+.3f} "
            f"[{self.shift.low:.3f}, {self.shift.high:.3f}], p {shown_p(self.p)}"
        )
        yield (
            f"  {self.changed:.1%} of the scores changed; rho {shown(self.spearman)}, "
            f"ICC {shown(self.icc)}"
        )
        if self.old_with_people is not None or self.new_with_people is not None:
            yield (
                f"  rho with people {shown(self.old_with_people)} to "
                f"{shown(self.new_with_people)}, p {shown_p(self.p_people)}"
            )
        for name, old, new in self.largest:
            yield f"  {name}: {old:g} to {new:g}"

    @property
    def is_drift(self) -> bool:
        """Whether the scores moved, or agreement with people did, at a p-value below 0.05."""
        return any(p is not None and p < 0.05 for p in (self.p, self.p_people))


def find_drift(
    old: ScoreTable,
    new: ScoreTable,
    items: Sequence[LabelledItem] = (),
    *,
    criterion: str = TOTAL,
    seed: int = 0,
) -> DriftReport:
    """Compare two runs of a judge, or two judges, on the outputs of the old one.

    Args:
        old: The frozen scores.
        new: Scores of the same outputs; others are ignored.
        items: The outputs with people's scores, if there are some.
        criterion: What of people's scores.
        seed: Seed of the test.

    Raises:
        DataError: The new scores lack some of the outputs, there are fewer than three, or the two
            were made with other rubrics or modes.
    """
    for what in ("rubric", "mode"):
        one, other = getattr(old, what), getattr(new, what)
        if one is not None and other is not None and one != other:
            raise DataError(
                f"The old scores have the {what} {one!r}, the new ones {other!r}: the change would "
                "be that of the scale. Judge the frozen outputs alike."
            )
    first, second = old.means, new.means
    if missing := sorted(first.keys() - second.keys()):
        raise DataError(
            f"The new scores lack {len(missing)} of {len(first)} frozen outputs, for example "
            f"{missing[0]!r}. Judge all of them: those that are left would compare other outputs."
        )
    if len(first) < _LEAST:
        raise DataError(f"{len(first)} frozen outputs are fewer than {_LEAST}.")
    names = sorted(first)
    before, after = (np.array([values[name] for name in names]) for values in (first, second))
    people = {item.id: value for item in items if (value := item.human(criterion)) is not None}
    with_people: list[Figure] = [None, None, None]
    shared = [place for place, name in enumerate(names) if name in people]
    if len(shared) >= _LEAST:
        human = [people[names[place]] for place in shared]
        both = before[shared], after[shared]
        with_people = [defined(scoring.spearman, one, human) for one in both]
        with_people.append(
            None if None in with_people
            else scoring.paired_permutation(*both, against=human, seed=seed, resamples=2000)
        )  # fmt: skip
    order = np.argsort(-np.abs(after - before), kind="stable")[:5]
    [shift] = scoring.bootstrap((after - before)[:, None], seed=seed)
    return DriftReport(
        old=old.name,
        new=new.name,
        items=len(names),
        old_mean=mean(before),
        new_mean=mean(after),
        shift=shift,
        p=scoring.paired_permutation(after, before, seed=seed),
        changed=float((before != after).mean()),
        spearman=defined(scoring.spearman, before, after),
        icc=defined(scoring.icc31, np.stack([before, after])),
        old_with_people=with_people[0],
        new_with_people=with_people[1],
        p_people=with_people[2],
        largest=[
            (names[i], float(before[i]), float(after[i])) for i in order if before[i] != after[i]
        ],
    )
