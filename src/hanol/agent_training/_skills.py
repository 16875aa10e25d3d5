"""What an agent can already do, step by step, measured on finished rollouts.

Skills of tool use appear one after another, and the accuracy stays at zero until the last of them:
a run that learns and one that does not look the same by their answers for a long time.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import unquote

from hanol.rl import Rollout
from hanol.runs import Event, ModelAnswered, ToolReturned, TurnRejected
from hanol.tools import SEARCH, VISIT

if TYPE_CHECKING:
    from hanol.worlds import Encyclopedia, GraphQuestion  # brings torch

Skill = Literal["call format", "query copy", "right page", "extraction", "next hop", "right answer"]


@dataclass(frozen=True)
class SkillRate:
    """How often something was done where it could have been.

    Args:
        hits: Times it was done.
        trials: Times it could have been.
    """

    hits: int
    trials: int

    @property
    def rate(self) -> float | None:
        """The share, from 0 to 1; None without trials."""
        return self.hits / self.trials if self.trials else None


@dataclass(frozen=True)
class Skills:
    """What one rollout shows of each skill.

    Args:
        turns: Of each turn, whether it could be used: a call of a known tool, or an answer.
        query: Whether the first search names something that the question names.
        visits: Of each page of the question's path, whether it was visited after the one before;
            ends with the first that was not, as nothing could be learned from there on.
        extractions: Of each page that was visited, whether the turn after it says what the
            question asks of that page.
        answer: Whether the answer is right.
    """

    turns: tuple[bool, ...]
    query: bool
    visits: tuple[bool, ...]
    extractions: tuple[bool, ...]
    answer: bool

    @property
    def trials(self) -> dict[Skill, Sequence[bool]]:
        """Every trial of each skill."""
        return {
            "call format": self.turns,
            "query copy": (self.query,),
            "right page": self.visits[:1],
            "extraction": self.extractions,
            "next hop": self.visits[1:],
            "right answer": (self.answer,),
        }


def measure_skills(rollout: Rollout, question: "GraphQuestion", world: "Encyclopedia") -> Skills:
    """Compare a rollout with the way to the answer of its question.

    Args:
        rollout: In any mode; it may have broken off.
        question: That was asked.
        world: The world of the question.
    """
    events = rollout.events
    visits, extractions = _follow(events, question, world)
    ended = events[-1] if events else None
    answer = getattr(ended, "answer", None)
    return Skills(
        turns=_usable_turns(events),
        query=_copies(events, question),
        visits=visits,
        extractions=extractions,
        answer=answer is not None and world.is_right(question, answer),
    )


def skill_rates(measured: Iterable[Skills]) -> dict[Skill, SkillRate]:
    """Rates over many rollouts, pooled by trials, in the order in which skills are learned."""
    hits: Counter[Skill] = Counter()
    trials: Counter[Skill] = Counter()
    for skills in measured:
        for name, tried in skills.trials.items():
            hits[name] += sum(tried)
            trials[name] += len(tried)
    return {name: SkillRate(hits[name], trials[name]) for name in get_args(Skill)}


def _usable_turns(events: Sequence[Event]) -> tuple[bool, ...]:
    """Whether each turn could be used; a report that is too long is no fault of its form."""
    usable: list[bool] = []
    for event in events:
        if isinstance(event, ModelAnswered) and event.purpose == "turn":
            usable.append(True)
        elif isinstance(event, TurnRejected) and event.error != "report_too_long":
            usable[-1] = False
    return tuple(usable)


def _copies(events: Sequence[Event], question: "GraphQuestion") -> bool:
    for event in events:
        if isinstance(event, ToolReturned) and event.name == SEARCH.name:
            queries = " ; ".join(_texts(event.arguments.get("query")))
            ends = {end for triple in question.triples for end in (triple[0], triple[2])}
            return any(_holds(queries, end[2:]) for end in ends if end.startswith("C@"))
    return False


def _follow(
    events: Sequence[Event], question: "GraphQuestion", world: "Encyclopedia"
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Visits and extractions along the path."""
    visits: list[bool] = []
    extractions: list[bool] = []
    place = 0  # in the events
    for address, values in zip(question.path, _values(question), strict=True):
        name = world.page(address).file_name
        found = (i for i in range(place, len(events)) if name in _visited(events[i]))
        seen = next(found, None)
        visits.append(seen is not None)
        if seen is None:
            break
        following = next(_turn_texts(events[seen:]), "")
        extractions.append(all(_holds(following, value) for value in values))
        place = seen
    return tuple(visits), tuple(extractions)


def _values(question: "GraphQuestion") -> Iterator[Iterable[str]]:
    """What is to be read from each page of the path."""
    yield from ((title,) for title in question.entities[1:])
    yield question.answers


def _visited(event: Event) -> set[str]:
    """File names of the pages that an event shows."""
    if not isinstance(event, ToolReturned) or event.name != VISIT.name or event.failed:
        return set()
    urls = _texts(event.arguments.get("url"))
    return {unquote(url.partition("#")[0]).strip().rpartition("/")[2] for url in urls}


def _turn_texts(events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        if isinstance(event, ModelAnswered) and event.purpose in ("turn", "forced_answer"):
            yield event.text


def _texts(value: object) -> list[str]:
    """An argument that is a text or a list of texts."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _holds(text: str, value: str) -> bool:
    """Whether a text names a value, word for word; spaces within numbers do not count."""
    return f" {_words(value)} " in f" {_words(text)} "


def _words(text: str) -> str:
    joined = re.sub(r"(?<=\d)[ ,](?=\d)", "", text.casefold())
    return " ".join(re.findall(r"[^\W\d_]+|\d+", joined))
