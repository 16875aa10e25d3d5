"""What an agent can already do, step by step, measured on finished rollouts.

Skills of tool use appear one after another, and the accuracy stays at zero until the last of them:
a run that learns and one that does not look the same by their answers for a long time.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Literal, get_args
from urllib.parse import unquote

from hanol.rl import Rollout
from hanol.runs import Event, ModelAnswered, ToolReturned, TurnRejected
from hanol.tools import SEARCH, VISIT
from hanol.worlds import AnyPage, GraphQuestion, World

Skill = Literal["call format", "query copy", "right page", "extraction", "next hop", "right answer"]
Skills = dict[Skill, Sequence[bool]]  # every trial of each skill


def measure_skills(rollout: Rollout, question: GraphQuestion, world: World[AnyPage]) -> Skills:
    """Compare a rollout with the way to the answer of its question.

    Args:
        rollout: In any mode; it may have broken off.
        question: The question.
        world: The world of the question.

    Returns:
        Whether each trial succeeded: each turn is a call of a known tool or an answer; the first
        search names something that the question names; the first page of the question's path, and
        the next ones up to the first that is missing, are visited in order; the turn after each
        page says what the question asks of it; the answer is right.
    """
    events = rollout.events
    visits, extractions = _follow(events, question, world)
    answer = getattr(events[-1], "answer", None) if events else None
    return {
        "call format": _usable_turns(events),
        "query copy": (_copies(events, question),),
        "right page": visits[:1],
        "extraction": extractions,
        "next hop": visits[1:],
        "right answer": (answer is not None and world.is_right(question, answer),),
    }


def skill_rates(measured: Iterable[Skills]) -> dict[Skill, float | None]:
    """Shares of the trials of many rollouts, in the order in which skills are learned.

    None where there were no trials.
    """
    tried: dict[Skill, list[bool]] = {name: [] for name in get_args(Skill)}
    for skills in measured:
        for name, trials in skills.items():
            tried[name] += trials
    return {name: fmean(trials) if trials else None for name, trials in tried.items()}


def _usable_turns(events: Sequence[Event]) -> tuple[bool, ...]:
    """Whether each turn could be used; a report that is too long is no fault of its form."""
    usable: list[bool] = []
    for event in events:
        if isinstance(event, ModelAnswered) and event.purpose == "turn":
            usable.append(True)
        elif isinstance(event, TurnRejected) and event.error != "report_too_long":
            usable[-1] = False
    return tuple(usable)


def _copies(events: Sequence[Event], question: GraphQuestion) -> bool:
    for event in events:
        if isinstance(event, ToolReturned) and event.name == SEARCH.name:
            queries = " ; ".join(_texts(event.arguments.get("query")))
            return any(_holds(queries, name) for name in question.constants)
    return False


def _follow(
    events: Sequence[Event], question: GraphQuestion, world: World[AnyPage]
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


def _values(question: GraphQuestion) -> Iterator[Iterable[str]]:
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
