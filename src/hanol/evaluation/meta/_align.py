"""Aligning a judge: which wording of a rubric, and which examples, agree best with people?

Everything is chosen on development labels and reported on held-out ones; the two never share an
output. An output that serves as an example is not judged by the rubric that shows it.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, Field

from hanol import scoring
from hanol.engines import Engine
from hanol.errors import ConfigError, DataError
from hanol.evaluation.judging._item import Item
from hanol.evaluation.judging._judge import ajudge
from hanol.evaluation.judging._rubric import Criterion, Example, Rubric
from hanol.evaluation.meta._figures import Figure, defined, shown
from hanol.evaluation.meta._labels import TOTAL, LabelledItem
from hanol.runs import synchronous
from hanol.scoring import Interval

_LEAST = 3  # outputs to judge
_HUMAN = {"sp": "specific", "g_1": "general_1", "g_2": "general_2"}  # in files of MetricAlign


class AlignedRubric(BaseModel):
    """One wording with one set of examples."""

    wording: str
    examples: list[str] = Field(description="Ids of the development outputs that it shows.")
    dev: Figure = Field(description="Spearman with people on development outputs.")
    scored: int = Field(description="Development outputs with a score.")


class Alignment(BaseModel):
    """What was tried on development labels, and how the choice does on held-out ones."""

    tried: list[AlignedRubric] = Field(description="The best first; ties keep the earlier one.")
    test_items: int
    base: Figure = Field(description="Held-out Spearman of the first wording without examples.")
    chosen: Figure = Field(description="Held-out Spearman of the best.")
    chosen_interval: Interval | None
    p: Figure = Field(description="Of no difference between the two, by a paired permutation test.")
    calls: int = Field(description="Calls of the judge.")
    rubric: Rubric = Field(description="The chosen rubric with its examples.")

    def lines(self) -> Iterator[str]:
        """Text for the terminal."""
        yield "tried on development labels"
        for one in self.tried:
            examples = f"{len(one.examples)} examples" if one.examples else "no examples"
            yield f"  {one.wording:24} {examples:12} rho {shown(one.dev)} ({one.scored} outputs)"
        interval = ""
        if self.chosen_interval is not None:
            interval = f" [{self.chosen_interval.low:.2f}, {self.chosen_interval.high:.2f}]"
        yield (
            f"held-out labels ({self.test_items} outputs): rho {shown(self.base)} before, "
            f"{shown(self.chosen)}{interval} after, p {shown(self.p)}; {self.calls} calls"
        )


async def aalign_judge(
    dev: Sequence[LabelledItem],
    test: Sequence[LabelledItem],
    wordings: Sequence[Rubric],
    engine: Engine,
    *,
    num_examples: int = 3,
    num_sets: int = 2,
    seed: int = 0,
    **options: Any,
) -> Alignment:
    """Choose a rubric's wording and examples on development labels.

    Tried are all wordings without examples, then `num_sets` random sets of examples, spread over
    people's scores, with the best wording.

    Args:
        dev: Outputs with labels to choose on.
        test: Outputs with labels to report on.
        wordings: Rubrics with the same criteria and scales; the first is the base.
        engine: The judge.
        num_examples: Examples in a set.
        num_sets: Sets of examples that are tried.
        seed: Seed of the sets, and of the judge.
        options: Of `judge`; the protocol is "single" unless given.

    Raises:
        DataError: Development and held-out labels share an output, or one of them has fewer than
            three.
        ConfigError: There is no wording, or two differ in criteria or scales.
    """
    _check(dev, test, wordings)
    options = {"protocol": "single", "seed": seed, **options}
    tried: list[tuple[AlignedRubric, Rubric]] = []
    calls = 0

    async def judged(rubric: Rubric, items: Sequence[LabelledItem]) -> dict[str, float]:
        nonlocal calls
        found = await ajudge([_as_item(item) for item in items], rubric, engine, **options)
        calls += sum(one.calls for one in found)
        return {one.id: one.total for one in found if one.total is not None}

    async def attempt(rubric: Rubric, examples: Sequence[LabelledItem]) -> None:
        shown_ids = {item.id for item in examples}
        scores = await judged(rubric, [item for item in dev if item.id not in shown_ids])
        columns = _columns(dev, scores)
        tried.append(
            (
                AlignedRubric(
                    wording=rubric.id,
                    examples=sorted(shown_ids),
                    dev=defined(scoring.spearman, *columns),
                    scored=len(scores),
                ),
                rubric,
            )
        )

    for wording in wordings:
        await attempt(wording, ())
    best = max(tried, key=_quality)[1]
    rng = random.Random(seed)  # noqa: S311 - a choice that can be repeated
    for _ in range(num_sets if num_examples else 0):
        examples = _spread(dev, num_examples, rng)
        await attempt(_with_examples(best, examples), examples)
    tried.sort(key=_quality, reverse=True)
    chosen = tried[0][1]
    before = await judged(wordings[0], test)
    after = before if chosen is wordings[0] else await judged(chosen, test)
    both = [item for item in test if item.id in before and item.id in after]
    people, first = _columns(both, before)
    _, second = _columns(both, after)
    after_columns = _columns(test, after)
    has_interval = defined(scoring.spearman, *after_columns) is not None
    return Alignment(
        tried=[one for one, _ in tried],
        test_items=len(test),
        base=defined(scoring.spearman, *_columns(test, before)),
        chosen=defined(scoring.spearman, *after_columns),
        chosen_interval=scoring.bootstrap(
            list(zip(*after_columns, strict=True)), statistic=scoring.spearman, seed=seed
        )
        if has_interval
        else None,
        p=defined(
            scoring.paired_permutation, second, first, against=people, resamples=2000, seed=seed
        ),
        calls=calls,
        rubric=chosen,
    )


align_judge = synchronous(aalign_judge)


def num_alignment_calls(
    dev: Sequence[LabelledItem],
    test: Sequence[LabelledItem],
    wordings: Sequence[Rubric],
    *,
    num_examples: int = 3,
    num_sets: int = 2,
) -> int:
    """Calls of the judge that `align_judge` makes at most where all replies are valid.

    Raises:
        DataError: As for `align_judge`.
        ConfigError: As for `align_judge`.
    """
    _check(dev, test, wordings)
    sets = num_sets if num_examples else 0
    return len(wordings) * len(dev) + sets * (len(dev) - num_examples) + 2 * len(test)


def check_apart(dev: Sequence[LabelledItem], test: Sequence[LabelledItem]) -> None:
    """Refuse development and held-out labels that share an output.

    Raises:
        DataError: They share an id, or a text of the same source.
    """
    ids = {item.id for item in dev}
    texts = {(item.group, " ".join(item.candidate.split()).casefold()): item.id for item in dev}
    for item in test:
        twin = texts.get((item.group, " ".join(item.candidate.split()).casefold()))
        if item.id in ids or twin is not None:
            what = (
                f"the id {item.id!r}" if item.id in ids else f"the text of {twin!r} and {item.id!r}"
            )
            raise DataError(
                f"Development and held-out labels share {what}: agreement on what was chosen for "
                "says nothing. Split the labels into files without common outputs."
            )


def _check(
    dev: Sequence[LabelledItem], test: Sequence[LabelledItem], wordings: Sequence[Rubric]
) -> None:
    check_apart(dev, test)
    for what, items in (("development", dev), ("held-out", test)):
        if sum(bool(item.ratings) for item in items) < _LEAST:
            raise DataError(f"There are fewer than {_LEAST} {what} outputs with labels.")
    if not wordings:
        raise ConfigError("There is no rubric to align.")
    scales = [{one.id: one.scale for one in rubric.criteria} for rubric in wordings]
    for rubric, scale in zip(wordings, scales, strict=True):
        if scale != scales[0]:
            raise ConfigError(
                f"The rubric {rubric.id!r} has other criteria or scales than {wordings[0].id!r}: "
                "wordings of one rubric differ in their words alone."
            )


def _quality(pair: tuple[AlignedRubric, Rubric]) -> float:
    return -2.0 if pair[0].dev is None else pair[0].dev


def _as_item(item: LabelledItem) -> Item:
    return Item(
        id=item.id, task=item.task, source=item.source, context=item.context,
        candidate=item.candidate, candidate_raw=item.candidate, reference=item.reference,
    )  # fmt: skip


def _columns(
    items: Sequence[LabelledItem], scores: dict[str, float]
) -> tuple[list[float], list[float]]:
    pairs = [
        (value, scores[item.id])
        for item in items
        if item.id in scores and (value := item.human(TOTAL)) is not None
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _spread(items: Sequence[LabelledItem], number: int, rng: random.Random) -> list[LabelledItem]:
    """Random outputs from equal parts of the range of people's scores."""
    ordered = sorted(
        (item for item in items if item.human() is not None), key=lambda item: item.human() or 0.0
    )
    number = min(number, max(0, len(ordered) - _LEAST))
    parts = [ordered[len(ordered) * n // number : len(ordered) * (n + 1) // number]
             for n in range(number)]  # fmt: skip
    return [rng.choice(part) for part in parts]


def _with_examples(rubric: Rubric, items: Sequence[LabelledItem]) -> Rubric:
    """A rubric that shows outputs with people's scores, in each criterion that they scored."""

    def with_them(criteria: Sequence[Criterion], task: str | None) -> tuple[Criterion, ...]:
        return tuple(
            one.model_copy(update={"examples": (*one.examples, *_examples(one, items, task))})
            for one in criteria
        )

    tasks = {
        name: task.model_copy(update={"criteria": with_them(task.criteria, name)})
        for name, task in rubric.tasks.items()
    }
    return rubric.model_copy(update={"criteria": with_them(rubric.criteria, None), "tasks": tasks})


def _examples(
    criterion: Criterion, items: Sequence[LabelledItem], task: str | None
) -> Iterator[Example]:
    for item in items:
        human = item.human(criterion.id)
        if human is None:
            human = item.human(_HUMAN.get(criterion.id, criterion.id))
        if human is not None and task in (None, item.task):
            score = min(criterion.scale, key=lambda level: abs(level - human))
            yield Example(candidate=item.candidate, score=score, source=item.source or "")
