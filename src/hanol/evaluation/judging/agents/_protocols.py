"""The protocols: who speaks when, who hears whom, and whose scores count."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple, TypeVar

from hanol.control import ControlTokens
from hanol.engines import Engine, Message, Request, Sampling
from hanol.evaluation.judging._item import Item
from hanol.evaluation.judging._record import Protocol, Utterance
from hanol.evaluation.judging._rubric import Rubric
from hanol.evaluation.judging._settings import Aggregate, JudgeSettings, digest
from hanol.evaluation.judging.agents import _prompts as prompts
from hanol.evaluation.judging.agents._calls import Calls, UnscoredError
from hanol.evaluation.judging.agents._oracles import JudgeTurn
from hanol.evaluation.judging.replies._reply import Reply, parse_reply

T = TypeVar("T")
_LONGEST_QUOTE = 4000  # characters of an invalid reply that stay in the conversation
_LEVELS_SHOWN = 20  # likeliest tokens in the place of a score
Scored = Mapping[str, float]


class Decision(NamedTuple):
    """What a protocol came to."""

    scores: dict[str, float]
    decided_by: str
    rounds: int
    flags: tuple[str, ...] = ()


class Team(NamedTuple):
    """The engines: scorers in order, and the judge of the protocols that have one."""

    scorers: tuple[Engine, ...]
    judge: Engine


@dataclass
class Case:
    """One item before its judges."""

    key: str
    item: Item
    rubric: Rubric
    settings: JudgeSettings
    team: Team
    calls: Calls
    repeat: int = 0
    candidates: tuple[str, ...] = ()  # where several are compared
    transcript: list[Utterance] = field(default_factory=list)
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def __post_init__(self) -> None:
        seed = digest(self.settings.seed, self.repeat)
        self.prompts = prompts.Prompts(self.item, self.rubric, digest(seed, self.item.hash),
                                       swap=self.settings.swap_order
                                       and self.settings.protocol != "official")  # fmt: skip

    def begin(
        self, engine: Engine, *, judge: bool = False, only: str | None = None
    ) -> list[Message]:
        """The conversation of an agent up to its first reply."""
        system = self.prompts.system(prompts.JUDGE if judge else prompts.SCORER)
        task = self.prompts.task(
            _control(engine), judge=judge, only=only, candidates=self.candidates
        )
        return [Message("system", system), Message("user", task)]

    async def ask(
        self,
        role: str,
        engine: Engine,
        messages: Sequence[Message],
        number: int = 1,
        *,
        judge: bool = False,
        must_score: bool = True,
        only: str | None = None,
        is_read: bool = True,
        opinions: Sequence[Scored] = (),
        warm: bool = False,
    ) -> Reply:
        """A valid reply of an agent, asked for again where it is invalid.

        Args:
            must_score: A judge's no is no reply.
            only: The one criterion that is asked for.
            is_read: Whether the reply has to be readable; if not, any text is one.
            opinions: The scorers' last scores, for judges without a model.
            warm: The engine is asked the same by another agent, and should not say the same.

        Raises:
            UnscoredError: No reply could be read, or the engine failed.
        """
        rubric = self.rubric if only is None else _narrowed(self.rubric, only)
        constraint = prompts.constraint(self.rubric, judge=judge, only=only)
        turn = JudgeTurn(self.item, rubric, role, number, self.repeat, tuple(opinions))
        weighted = self.settings.score_mode == "token-weighted"
        said, problem = list(messages), "it is empty"
        for attempt in range(1, self.settings.parse_retries + 2):
            place = f"{role}/{number}/{attempt}"
            request = Request(
                tuple(said),
                self._sampling(place, warm=warm or attempt > 1),
                constraint=constraint if self.settings.constrain else None,
                top_logprobs=_LEVELS_SHOWN if weighted else None,
            )
            row = await self.calls.call(f"{self.key}/{place}", engine, request, turn, rubric)
            self.prompt_tokens += row["prompt_tokens"]
            self.generated_tokens += row["generated_tokens"]
            text = row["text"]
            reply = parse_reply(text, self.rubric, "judge" if judge else "scorer",
                                candidate=self.item.candidate, only=only)  # fmt: skip
            if reply.status != "invalid" and judge and must_score and reply.scores is None:
                reply = replace(reply, status="invalid", problem="the final scores are missing")
            if weighted and reply.status != "invalid":
                if row.get("weighted") is None:
                    reply = replace(reply, status="invalid", scores=None,
                                    problem="its scores have no probabilities")  # fmt: skip
                else:
                    reply = replace(reply, scores=row["weighted"])
            self.transcript.append(Utterance(
                role, number, attempt, text, reply.status, reply.scores, reply.verdict,
                reply.reason, reply.flags, reply.problem,
            ))  # fmt: skip
            if reply.status != "invalid" or not is_read:
                return reply
            problem = reply.problem or problem
            said += [Message("assistant", text[:_LONGEST_QUOTE] or "-"),
                     Message("user", prompts.again(problem))]  # fmt: skip
        raise UnscoredError(f"{role}: no valid reply in {attempt} tries; at last, {problem}")

    def _sampling(self, place: str, *, warm: bool) -> Sampling:
        temperature = self.settings.temperature
        if temperature is None and self.settings.protocol != "official":  # it sets none
            temperature = 0.7 if warm else 0.0
        seed = int(digest(self.settings.seed, self.repeat, self.item.hash, place)[:7], 16)
        return Sampling(temperature, seed=seed, max_tokens=self.settings.max_tokens)


async def paper(case: Case) -> Decision:
    """Two scorers begin independently, then answer each other; the judge says when to stop."""
    settings, judge = case.settings, case.team.judge
    sides = dict(zip("AB", case.team.scorers, strict=True))
    talks = {role: case.begin(engine) for role, engine in sides.items()}
    bench = case.begin(judge, judge=True)
    warm = sides["A"] is sides["B"]
    for number in range(1, settings.max_rounds + 1):
        a, b = await together(
            case.ask(role, engine, talks[role], number, warm=warm) for role, engine in sides.items()
        )
        agree = a.scores == b.scores
        if agree and settings.judge_optional:
            return Decision(_known(a), "agreement", number)
        last = number == settings.max_rounds
        told = {"A": prompts.shown(a.scores, a.reason), "B": prompts.shown(b.scores, b.reason)}
        bench.append(Message("user", case.prompts.statements(
            list(told.values()), _control(judge), number, last=last)))  # fmt: skip
        opinions = (_known(a), _known(b))
        decided = await case.ask("judge", judge, _merged(bench), number,
                                 judge=True, must_score=last, opinions=opinions)  # fmt: skip
        if decided.verdict == "yes" or last:
            return _settled(settings, a, b, decided, number)
        bench.append(Message("assistant", decided.reason or "-"))
        for role, other in (("A", "B"), ("B", "A")):
            engine = sides[role]
            heard = case.prompts.answer(told[other], _control(engine))
            talks[role] += [Message("assistant", told[role]), Message("user", heard)]
    raise AssertionError("the last round decides")


def _settled(settings: JudgeSettings, a: Reply, b: Reply, judge: Reply, number: int) -> Decision:
    """Whose scores count after the judge has spoken."""
    if a.scores == b.scores and not settings.judge_may_override:
        flags = () if judge.scores == a.scores else ("override",)
        return Decision(_known(a), "agreement", number, flags)
    if settings.final_scores == "judge":
        return Decision(_known(judge), "judge", number)
    votes = [_known(one) for one in (a, b, judge)]
    return Decision(aggregate(votes, settings.final_scores, {}), "aggregate", number)


async def official(case: Case) -> Decision:
    """The order of calls and the messages of DITING's code: the second scorer reads the first."""
    settings, judge = case.settings, case.team.judge
    first, second = case.team.scorers
    a_talk, b_talk = case.begin(first), case.begin(second)
    bench = case.begin(judge, judge=True)
    for number in range(1, settings.max_rounds + 1):
        a = await case.ask("A", first, a_talk, number, is_read=False)
        said = _last_said(case)
        a_talk.append(Message("assistant", said))
        b_talk.append(Message("user", prompts.side("A", said)))
        bench.append(Message("user", prompts.side("A", said)))
        b = await case.ask("B", second, b_talk, number, is_read=False)
        said = _last_said(case)
        b_talk.append(Message("assistant", said))
        a_talk.append(Message("user", prompts.side("B", said)))
        bench.append(Message("user", prompts.side("B", said)))
        opinions = [one.scores for one in (a, b) if one.scores is not None]
        decided = await case.ask("judge", judge, bench, number, judge=True, must_score=False,
                                 opinions=opinions)  # fmt: skip
        bench.append(Message("assistant", decided.reason or "-"))
        if decided.verdict == "yes":
            return Decision(_known(decided), "judge", number)
    bench.append(Message("user", prompts.official_last()))
    decided = await case.ask("judge", judge, bench, number + 1, judge=True, opinions=opinions)
    return Decision(_known(decided), "judge", number)


async def single(case: Case) -> Decision:
    """One scorer; several replies of it are averaged."""
    engine = case.team.scorers[0]
    talk = case.begin(engine)
    if case.settings.score_mode != "sampled-mean":
        return Decision(_known(await case.ask("scorer", engine, talk)), "scorer", 1)
    names = [f"scorer {n}" for n in range(1, case.settings.samples + 1)]
    replies = await together(case.ask(name, engine, talk, warm=True) for name in names)
    return Decision(aggregate([_known(one) for one in replies], "mean", {}), "aggregate", 1)


async def panel(case: Case) -> Decision:
    """Several scorers that do not talk; those without a valid reply stay in the denominator."""
    engines = case.team.scorers
    members: list[tuple[str, Engine, bool]] = []
    for engine in engines:
        # By name, not by place: the order of the members changes nothing.
        same = sum(one.name == engine.name for _, one, _ in members)
        twice = sum(one.name == engine.name for one in engines) > 1
        members.append((f"member {engine.name} {same + 1}".replace("/", " "), engine, twice))

    async def vote(name: str, engine: Engine, warm: bool) -> dict[str, float] | str:
        try:
            return _known(await case.ask(name, engine, case.begin(engine), warm=warm))
        except UnscoredError as err:
            return str(err)

    found = await together(vote(*member) for member in members)
    votes = [one if isinstance(one, dict) else None for one in found]
    scales = {one.id: one.scale for one in case.rubric.criteria}
    missing = tuple(one for one in found if isinstance(one, str))
    scores = aggregate(votes, case.settings.aggregate, scales)
    if not scores:
        lost = f"; {len(missing)} gave none ({missing[0]})" if missing else ""
        raise UnscoredError(f"the panel of {len(votes)} is not decided{lost}")
    return Decision(scores, "aggregate", 1, ("abstention",) if missing else ())


async def roles(case: Case) -> Decision:
    """One scorer a criterion, and a judge over all of them."""
    settings, judge = case.settings, case.team.judge
    ids, scorers = case.rubric.ids, case.team.scorers
    agents = {name: scorers[i % len(scorers)] for i, name in enumerate(ids)}
    talks = {name: case.begin(engine, only=name) for name, engine in agents.items()}
    bench = case.begin(judge, judge=True)
    for number in range(1, settings.max_rounds + 1):
        replies = await together(
            case.ask(name, engine, talks[name], number, only=name)
            for name, engine in agents.items()
        )
        told = {name: prompts.shown(one.scores, one.reason)
                for name, one in zip(ids, replies, strict=True)}  # fmt: skip
        last = number == settings.max_rounds
        bench.append(Message("user", case.prompts.statements(
            list(told.values()), _control(judge), number, last=last)))  # fmt: skip
        opinion = {name: _known(one)[name] for name, one in zip(ids, replies, strict=True)}
        decided = await case.ask("judge", judge, _merged(bench), number,
                                 judge=True, must_score=last, opinions=(opinion,))  # fmt: skip
        if decided.verdict == "yes" or last:
            return Decision(_known(decided), "judge", number)
        bench.append(Message("assistant", decided.reason or "-"))
        for name, engine in agents.items():
            heard = case.prompts.roles(decided.reason, _control(engine))
            talks[name] += [Message("assistant", told[name]), Message("user", heard)]
    raise AssertionError("the last round decides")


PROTOCOLS: dict[Protocol, Callable[[Case], Awaitable[Decision]]] = {
    "paper": paper, "official": official, "single": single, "panel": panel, "roles": roles,
}  # fmt: skip


def aggregate(
    votes: Sequence[Scored | None], how: Aggregate, scales: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """The common score of each criterion; empty if the votes that are missing could change one.

    Args:
        votes: Of each agent; None for one that gave none.
        scales: Levels by criterion, for what a missing vote could be.
    """
    given = [vote for vote in votes if vote is not None]
    lost = len(votes) - len(given)
    if not given or (lost and how == "mean"):
        return {}
    made: dict[str, float] = {}
    for name in given[0]:
        values = sorted(vote[name] for vote in given)
        if how == "majority":
            top = max(values, key=lambda value: (values.count(value), -value))
            if 2 * values.count(top) <= len(votes):
                return {}
            made[name] = top
        elif how == "mean":
            made[name] = sum(values) / len(values)
        else:
            low, high = (median([*values, *[end] * lost]) for end in (
                (scales[name][0], scales[name][-1]) if lost else (0, 0)))  # fmt: skip
            if low != high:
                return {}
            made[name] = low
    return made


async def together(work: Any) -> list[Any]:
    """All results; the first failure only after every call has ended, so that none is lost."""
    found = await asyncio.gather(*work, return_exceptions=True)
    failures = [one for one in found if isinstance(one, BaseException)]
    if failures:
        # What stops the run counts before what one item lacks.
        raise next((one for one in failures if not isinstance(one, UnscoredError)), failures[0])
    return found


def _known(reply: Reply) -> dict[str, float]:
    assert reply.scores is not None, "a reply that had to score"
    return dict(reply.scores)


def _last_said(case: Case) -> str:
    """What the last speaker said, without its reasoning."""
    text = case.transcript[-1].text
    return text.rpartition("</think>")[2].strip() or "-"


def _merged(messages: Sequence[Message]) -> list[Message]:
    """The conversation with the first two messages of the user in one: they come together."""
    system, task, told, *rest = messages
    return [system, Message("user", f"{task.text}\n\n{told.text}"), *rest]


def _narrowed(rubric: Rubric, only: str) -> Rubric:
    criteria = tuple(one for one in rubric.criteria if one.id == only)
    return rubric.model_copy(update={"criteria": criteria, "gates": ()})


def _control(engine: Engine) -> ControlTokens:
    return getattr(engine, "control_tokens", None) or ControlTokens()
