"""Pairs: which of two candidates is better, asked in both orders.

A judge that takes whichever it reads first contradicts itself when the order is swapped: such a
pair is a tie, and counts as a flip.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from hanol.engines import Engine
from hanol.errors import DataError
from hanol.evaluation.judging._item import Item, SourceResolver
from hanol.evaluation.judging._record import Utterance
from hanol.evaluation.judging._rubric import Rubric
from hanol.evaluation.judging._settings import JudgeLimits, JudgeSettings, digest
from hanol.evaluation.judging.agents._calls import Calls, StoppedError, UnscoredError
from hanol.evaluation.judging.agents._prompts import PROMPT_HASH
from hanol.evaluation.judging.agents._protocols import Case, Team, together
from hanol.runs import alone, gather, synchronous

Winner = Literal["first", "second", "tie"]
_SAID: dict[float, Winner] = {1: "first", 2: "second", 0: "tie"}
_SWAPPED: dict[Winner, Winner] = {"first": "second", "second": "first", "tie": "tie"}


@dataclass(frozen=True)
class PairJudgement:
    """Which of two candidates is better.

    Args:
        first: One candidate.
        second: The other one, of the same source.
        winner: What both orders say; "tie" where they contradict each other; None where one of them
            has no valid reply.
        orders: What the judge said with the first one before the other, and the other way round.
        problem: Why there is no winner.
    """

    first: Item
    second: Item
    winner: Winner | None
    orders: tuple[Winner | None, Winner | None]
    problem: str | None = None
    transcript: tuple[Utterance, ...] = ()

    @property
    def flipped(self) -> bool:
        """Whether the order of reading decided."""
        return None not in self.orders and self.orders[0] != self.orders[1]


def flip_rate(judgements: Iterable[PairJudgement]) -> float | None:
    """Share of the decided pairs in which the order of reading decided; None if there is none."""
    found = [one.flipped for one in judgements if one.winner is not None]
    return fmean(found) if found else None


async def ajudge_pairs(
    pairs: Iterable[Sequence[Item]],
    rubric: Rubric,
    engine: Engine,
    *,
    run: str | Path | None = None,
    source_resolver: SourceResolver | None = None,
    concurrency: int = 16,
    **options: Any,
) -> list[PairJudgement]:
    """Ask which of two candidates is better by a rubric, in both orders.

    Args:
        pairs: Two items each, of one source and task.
        rubric: What "better" means.
        engine: The judge.
        run: Folder for the log of finished calls, which are not made again; None keeps none.
        source_resolver: Finds source texts; see `judge`.
        options: Fields of `JudgeSettings`, such as `seed`.

    Raises:
        DataError: A pair has not two candidates, or they have other sources or tasks.
        EngineError: No call was ever answered.
    """
    settings = JudgeSettings(protocol="single", **options)
    given = [_checked(pair, rubric, source_resolver) for pair in pairs]
    common = [rubric.hash, settings.hash, PROMPT_HASH, engine.name, settings.seed]
    keys = [digest(*common, first.hash, second.hash)[:32] for _, (first, second) in given]
    with ExitStack() as at_end:
        if run is not None:
            at_end.enter_context(alone(run))
        path = None if run is None else Path(run) / "calls.jsonl"
        calls = Calls(JudgeLimits(concurrency=concurrency), path, set(keys))

        async def one(place: int) -> PairJudgement:
            kept, read = given[place]
            return await _decided(keys[place], kept, read, rubric, engine, settings, calls)

        return await gather(one, range(len(given)), concurrency=concurrency)


judge_pairs = synchronous(ajudge_pairs)


def _checked(
    pair: Sequence[Item], rubric: Rubric, resolver: SourceResolver | None
) -> tuple[tuple[Item, Item], tuple[Item, Item]]:
    """A pair as it is kept, and as the judge reads it."""
    pair = tuple(pair)
    if len(pair) != 2 or not all(item.candidate for item in pair):
        name = pair[0].id if pair else "?"
        raise DataError(f"The pair of item {name!r} has not two candidates: give two items each.")
    first, second = pair
    if (first.task, first.source, first.source_ref) != (
        second.task,
        second.source,
        second.source_ref,
    ):
        raise DataError(
            f"Items {first.id!r} and {second.id!r} are of different sources or tasks: what is "
            "compared must answer the same."
        )
    needs = "source" in rubric.for_task(first.task, first.id).reads or (
        first.source is None and first.source_ref
    )
    read = (first.with_source(resolver), second.with_source(resolver)) if needs else pair
    return pair, read


async def _decided(
    key: str, kept: tuple[Item, Item], read: tuple[Item, Item], rubric: Rubric, engine: Engine,
    settings: JudgeSettings, calls: Calls,
) -> PairJudgement:  # fmt: skip
    own = rubric.for_task(read[0].task, read[0].id)
    # The comparison is a rubric of its own, so that replies are read by the same rules.
    levels = {1: "Candidate 1 is better.", 2: "Candidate 2 is better.", 0: "Neither is better."}
    wording = "\n".join(f"- {one.name or one.id}: {one.levels[max(one.levels, key=str)]}"
                        for one in own.criteria)  # fmt: skip
    question = Rubric(
        id=own.id, reads=own.reads, notes=own.notes, criteria=[{"id": "better", "levels": levels}],
        about=f"{own.about}\n\nTwo candidates are compared. The better is nearer to:\n{wording}",
    )  # fmt: skip

    async def ask(order: tuple[Item, Item], name: str) -> tuple[Winner | None, Case, str | None]:
        texts = [item.candidate for item in order]
        both = read[0].model_copy(update={"candidate": "\n\n".join(texts)})
        case = Case(f"{key}/{name}", both, question, settings, Team((engine,), engine), calls,
                    candidates=tuple(texts))  # fmt: skip
        try:
            reply = await case.ask("scorer", engine, case.begin(engine))
        except (UnscoredError, StoppedError) as err:
            return None, case, str(err)
        assert reply.scores is not None
        return _SAID[reply.scores["better"]], case, None

    (forth, one, lost), (back, two, also_lost) = await together(
        [ask(read, "12"), ask((read[1], read[0]), "21")]
    )
    orders: tuple[Winner | None, Winner | None] = (forth, None if back is None else _SWAPPED[back])
    winner: Winner | None = orders[0] if orders[0] == orders[1] else "tie"
    return PairJudgement(
        *kept, None if None in orders else winner, orders, lost or also_lost,
        (*one.transcript, *two.transcript),
    )  # fmt: skip
