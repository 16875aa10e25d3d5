"""What judgements come to: systems with intervals, and what the judges were like.

Only like is ranked with like: one rubric, one protocol, the same judges, one kind of score, and the
same items for every system.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from pydantic import BaseModel

from hanol.errors import DataError
from hanol.evaluation.judging._record import Judgement
from hanol.scoring import CONFIDENCE, Interval

_RESAMPLES = 2000
_ALIKE = {
    "rubric_hash": "rubrics", "protocol_hash": "protocols", "judges": "judges",
    "score_mode": "kinds of scores", "prompt_hash": "wordings of prompts",
}  # fmt: skip


class SystemScore(BaseModel, frozen=True):
    """What one system got.

    Args:
        system: Its name; "" where the items name none.
        total: Mean total over the items of a task, then over tasks, with its 95 % interval from
            resampling items; None where nothing is scored.
        by_task: Mean total by task.
        by_criterion: Mean gated score by criterion, over all items.
        scored: Items with a score.
        items: Items.
    """

    system: str
    total: Interval | None
    by_task: dict[str, float]
    by_criterion: dict[str, float]
    scored: int
    items: int


class JudgeReport(BaseModel, frozen=True):
    """What judgements come to.

    Args:
        title: Judges, prompts, rubric and protocol: figures under other titles do not compare.
        most: The highest total.
        systems: From the best.
        statuses: Judgements by status.
        unscored: Items without a score, with the reason.
        rounds: Mean rounds.
        calls: Calls of models, and the tokens of prompts and replies.
        decided_by: How often whose scores counted.
        gated: Share of scored judgements that a gate changed.
        overridden: Share whose scorers agreed against the judge.
        agreement: Share of equal scores of two scorers, in the first round and in the last; None
            where fewer than two scored the same.
        flips: Share of items whose repeated judgements differ in a score; None without repeats.
    """

    title: str
    most: float
    systems: tuple[SystemScore, ...]
    statuses: dict[str, int]
    unscored: dict[str, str]
    rounds: float
    calls: int
    prompt_tokens: int
    generated_tokens: int
    decided_by: dict[str, int]
    gated: float
    overridden: float
    agreement: tuple[float, float] | None
    flips: float | None

    def facts(self) -> Iterator[str]:
        """What the judges were like, a phrase each."""
        of = sum(self.statuses.values())
        unscored = self.statuses.get("unscored", 0)
        repaired = self.statuses.get("repaired", 0)
        yield f"{of - unscored} of {of} scored" + (
            f", {repaired} with repaired replies" * bool(repaired)
        )
        yield (f"{self.calls:,} calls, {self.prompt_tokens:,} prompt and "
               f"{self.generated_tokens:,} generated tokens, {self.rounds:.2f} rounds")  # fmt: skip
        if self.decided_by:
            said = sorted(self.decided_by.items(), key=lambda pair: -pair[1])
            yield "decided by " + ", ".join(f"{who} {count}" for who, count in said)
        if self.agreement is not None:
            first, last = self.agreement
            yield f"scorers agree on {100 * first:.0f} % of scores, at last on {100 * last:.0f} %"
        if self.gated:
            yield f"gates changed {100 * self.gated:.0f} %"
        if self.overridden:
            yield f"the judge was not followed in {100 * self.overridden:.0f} %"
        if self.flips is not None:
            yield f"{100 * self.flips:.0f} % of items got other scores when judged again"


def judge_report(
    judgements: Iterable[Judgement], most: float = 0.0, *, allow_coverage: bool = False
) -> JudgeReport:
    """Rank the systems of judgements.

    Args:
        most: The rubric's highest total, for the reader.
        allow_coverage: Rank systems although other items of theirs are scored.

    Raises:
        DataError: There is none, they are of different kinds, or systems are scored on different
            items; the message says which.
    """
    found = list(judgements)
    if not found:
        raise DataError("There are no judgements to report.")
    check_alike(found)
    by_system: dict[str, list[Judgement]] = defaultdict(list)
    for one in found:
        by_system[one.item.system or ""].append(one)
    if not allow_coverage:
        _check_coverage(by_system)
    systems = [_system(name, group) for name, group in by_system.items()]
    systems.sort(key=lambda one: (-(one.total.value if one.total else -1.0), one.system))
    scored = [one for one in found if one.scores is not None]
    n = max(1, len(scored))
    return JudgeReport(
        title=title(found[0]), most=most, systems=tuple(systems),
        statuses=dict(Counter(one.status for one in found)),
        unscored={one.id: one.problem or "" for one in found if one.scores is None},
        rounds=fmean([one.rounds for one in scored] or [0.0]),
        calls=sum(one.calls for one in found),
        prompt_tokens=sum(one.prompt_tokens for one in found),
        generated_tokens=sum(one.generated_tokens for one in found),
        decided_by=dict(Counter(str(one.decided_by) for one in scored)),
        gated=sum("gate" in one.flags for one in scored) / n,
        overridden=sum("override" in one.flags for one in scored) / n,
        agreement=_agreement(scored), flips=_flips(found),
    )  # fmt: skip


def title(one: Judgement) -> str:
    """What figures of such judgements are called."""
    names = list(dict.fromkeys(one.judges.values()))
    mode = "" if one.score_mode == "single" else f", {one.score_mode}"
    return (
        f"judged by {', '.join(names)} (prompts {one.prompt_hash[:8]}), rubric {one.rubric} "
        f"{one.rubric_hash[:8]}, protocol {one.protocol} {one.protocol_hash[:8]}{mode}"
    )


def check_alike(judgements: Sequence[Judgement]) -> None:
    """Refuse judgements whose scores do not compare.

    Raises:
        DataError: Two are of different rubrics, protocols, judges, prompts or kinds of scores.
    """
    for name, what in _ALIKE.items():
        seen = {str(getattr(one, name)): one.id for one in judgements}
        if len(seen) > 1:
            (first, a), (second, b) = list(seen.items())[:2]
            raise DataError(
                f"Judgements of different {what} do not compare: item {a!r} has {first[:60]}, item "
                f"{b!r} {second[:60]}. Report them apart."
            )


def _check_coverage(by_system: Mapping[str, Sequence[Judgement]]) -> None:
    """Systems are compared on shares of their items only if all of them have the same share."""
    shares = {name: (sum(one.scores is not None for one in group), len(group))
              for name, group in by_system.items()}  # fmt: skip
    (first, (scored, items)), *rest = shares.items()
    for name, (other, others) in rest:
        if other * items != scored * others:
            raise DataError(
                f"Systems of different coverage are not ranked: {scored} of {items} items of "
                f"{first!r} are scored, {other} of {others} of {name!r}. Judge what is missing, or "
                "allow it (--allow-coverage)."
            )


def _system(name: str, group: Sequence[Judgement]) -> SystemScore:
    """A system's scores: items of one task are averaged, then tasks, each counting the same."""
    totals: dict[tuple[str, str], list[float]] = defaultdict(list)
    criteria: dict[str, list[float]] = defaultdict(list)
    for one in group:
        if one.scores is not None and one.total is not None:
            totals[one.item.task or "", one.id].append(one.total)
            for criterion, score in one.scores.items():
                criteria[criterion].append(score)
    by_task: dict[str, list[float]] = defaultdict(list)
    for (task, _), found in totals.items():
        by_task[task].append(fmean(found))  # over repeats
    ids = {one.id for one in group}
    return SystemScore(
        system=name, total=_macro(list(by_task.values())),
        by_task={task: fmean(found) for task, found in by_task.items()},
        by_criterion={criterion: fmean(found) for criterion, found in criteria.items()},
        scored=len({one.id for one in group if one.scores is not None}), items=len(ids),
    )  # fmt: skip


def _macro(tasks: Sequence[Sequence[float]]) -> Interval | None:
    """The mean over tasks of their means, with its interval.

    Items are resampled within tasks. One item shows no spread: where a task has no more, tasks are
    resampled too.
    """
    if not tasks:
        return None
    rng = np.random.default_rng(0)
    drawn_TR = np.array([rng.choice(one, (_RESAMPLES, len(one))).mean(1) for one in tasks])
    if min(map(len, tasks)) < 2:
        drawn_TR = np.take_along_axis(drawn_TR, rng.integers(0, len(tasks), drawn_TR.shape), axis=0)
    low, high = np.quantile(drawn_TR.mean(0), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value=fmean(map(fmean, tasks)), low=float(low), high=float(high))


def _agreement(judgements: Sequence[Judgement]) -> tuple[float, float] | None:
    """Equal scores of pairs of scorers, in their first round and in their last."""
    equal: dict[bool, list[bool]] = {True: [], False: []}
    for one in judgements:
        said: dict[int, list[Mapping[str, float]]] = defaultdict(list)
        for reply in one.transcript:
            if reply.role != "judge" and reply.scores and reply.status != "invalid":
                said[reply.round].append(reply.scores)
        if said:
            for is_first, number in ((True, min(said)), (False, max(said))):
                for a, b in combinations(said[number], 2):
                    equal[is_first] += [a[name] == b[name] for name in a if name in b]
    if not equal[True] or not equal[False]:
        return None
    return fmean(equal[True]), fmean(equal[False])


def _flips(judgements: Sequence[Judgement]) -> float | None:
    """Items that got other scores when they were judged again."""
    seen: dict[str, list[Any]] = defaultdict(list)
    for one in judgements:
        if one.scores is not None:
            seen[one.id].append(one.scores.gated)
    repeated = [found for found in seen.values() if len(found) > 1]
    if not repeated:
        return None
    return fmean(any(one != found[0] for one in found) for found in repeated)
