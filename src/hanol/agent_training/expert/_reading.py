"""An expert that is told what to read: the steps of a question, one search or visit after another.

It shows how an agent answers from real pages: it searches for what the question names, opens the
page, notes what it states, opens the pages that it links to, and answers with the passage that
says so. Its first thought is the plan: numbered steps, each what the question calls it and the
field of the pages. Every later thought says what was found at which step and what is needed next,
or whether the page is among the hits, so that a small model decides little at a time and copies the
rest. It takes from the conversation what it has seen, so it serves as any engine does.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from hanol.agent_training.expert._expert import Expert
from hanol.agent_training.expert._talk import (
    LINK,
    NOT_AMONG,
    NOT_FOUND,
    Talk,
    plain,
    rendered,
    thought,
)
from hanol.agent_training.expert._turns import Turns
from hanol.engines import Engine, Message
from hanol.errors import DataError, EngineError
from hanol.tools import SEARCH, VISIT, Turn, render_turn
from hanol.worlds import AnyPage, Encyclopedia, GraphQuestion, World

_BORDER = re.compile(r"([A-Z][^\d:,]*?) (\d[\d,.]*) km")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_LEAST = ("smallest", "lowest")
_AT_ONCE = 3  # pages of one visit, as the grammar of turns has it
_THOUGHT = 330  # characters of a thought: those of small models have 128 tokens
_SHOWN = 60  # characters of a fact by which it is recognised: a passage may end within it


@dataclass(frozen=True)
class _Read:
    """A fact to read: page, title, field, line, what to note, and what the question calls it."""

    page: str
    title: str
    sought: str
    fact: str
    note: str
    name: str = ""  # files of older versions have none

    def of(self, passages: Mapping[str, str]) -> list[str]:
        """Numbers of the visited passages that have the fact; those of profiles name their page,
        but for short ones, which begin with a section.
        """
        named = (f"{self.title}: ", "Introduction: ", "Geography: ") if ": " in self.fact else ""
        fact = plain(self.fact)[:_SHOWN]
        found = ((number, plain(text)) for number, text in passages.items())
        return [number for number, text in found if text.startswith(named) and fact in text]


class ReadingExpert(Turns):
    """Answers questions whose `details` have the steps to their answers; an `Engine`.

    Args:
        questions: Those that it will be asked, such as `Factbook.questions` draws; the tools are
            `compact_tools` over the pages.
        window: Its window in tokens. One of at most 8,192 gives it the prompts of small models,
            which are to learn from it.

    Raises:
        DataError: A question does not say how it is answered.
        EngineError: From `complete`, where the conversation asks another question, or is not one
            of ReAct mode.
    """

    name = "expert"

    def __init__(self, questions: Iterable[GraphQuestion], *, window: int | None = 8_192) -> None:
        self.context_window = window
        self._questions = {question.text: question for question in questions}
        for text, question in self._questions.items():
            if not question.details.get("steps"):
                raise DataError(
                    f"The expert cannot answer {text!r}: it knows questions that `hanol synth "
                    "questions factbook` made. Ask those, or name another model."
                )

    def turn(self, messages: Sequence[Message]) -> str:
        """The next turn of a conversation, as text."""
        talk = Talk.of(messages)
        if (question := self._questions.get(talk.question)) is None:
            raise EngineError(
                f"The expert does not know the question {talk.question[:100]!r}; it works in ReAct "
                "mode."
            )
        steps = question.details["steps"]
        plan = [[_Read(**one) for one in step["read"]] for step in steps]
        linked = {address for _, address in LINK.findall(talk.hits)}
        noted, reads = list[str](), list[_Read]()
        for number, (step, reads) in enumerate(zip(steps, plan, strict=True), start=1):
            if missing := [read for read in reads if not read.of(talk.seen)]:
                calls = _calls(question, missing, plan[number:], linked, talk)
                call = next((call for call in calls if call not in talk.made), None)
                if call is None:
                    return render_turn(Turn("answer", answer=NOT_FOUND))
                if not talk.made:
                    said = _planned(plan, 1)
                elif talk.has_hits:
                    opened = [_link(read) for read in missing if f'"{read.page}"' in call]
                    said = [f"I open {', '.join(opened)}." if opened else NOT_AMONG]
                else:
                    seen = [read for read in reads if read not in missing]
                    named = [_link(r) if r.page in linked else r.title for r in missing]
                    need = f'I need "{missing[0].sought}" of {", ".join(named)}.'
                    said = [" ".join(filter(None, [f"{number}.", _noted(seen), need]))]
                    said = [*noted, *said, *_planned(plan[number:], number + 1)]
                return f"{_short(said)}{call}"
            noted.append(" ".join(filter(None, [f"{number}.", _noted(reads), step["so"]])))
            passages = (talk.seen[n] for read in reads for n in read.of(talk.seen))
            linked |= {address for text in passages for _, address in LINK.findall(text)}
        cited = dict.fromkeys(n for read in reads for n in read.of(talk.seen))
        said_last = (steps[-1]["so"] or reads[-1].note).removesuffix(".")
        answer = "".join([said_last, *(f" [{n}]" for n in cited), "."])
        return _short(noted) + render_turn(Turn("answer", answer=answer))


def expert_of(world: World[AnyPage], questions: Sequence[GraphQuestion]) -> Engine:
    """The expert that knows the answers to questions of a world, and how they are found."""
    if isinstance(world, Encyclopedia):
        return Expert(world, questions, detours=0.0)
    return ReadingExpert(questions)


def _calls(
    question: GraphQuestion,
    missing: Sequence[_Read],
    later: Sequence[Sequence[_Read]],
    linked: set[str],
    talk: Talk,
) -> Iterator[str]:
    """Visits to the pages that are linked; else searches, first by what the question says."""
    there = list(dict.fromkeys(read.page for read in missing if read.page in linked))
    wanted = [*missing, *_of_same_pages([missing, *later], talk.seen)]
    sought = ", ".join(dict.fromkeys(read.sought for read in wanted))
    for place in range(0, len(there), _AT_ONCE):
        yield rendered(VISIT.name, {"url": there[place : place + _AT_ONCE], "goal": sought})
    hidden = {read.title: read.sought for read in reversed(missing) if read.page not in linked}
    named = dict.fromkeys(question.constants if hidden and not talk.seen else (), missing[0].sought)
    for sought_of in (named, dict.fromkeys(named, ""), hidden, dict.fromkeys(hidden, "")):
        queries = [f"{name} {field}".strip() for name, field in sought_of.items()]
        for place in range(0, len(queries), _AT_ONCE):
            yield rendered(SEARCH.name, {"query": queries[place : place + _AT_ONCE]})


def _of_same_pages(plan: Sequence[Sequence[_Read]], seen: Mapping[str, str]) -> Iterator[_Read]:
    """What is read of the pages of the first step in the steps right after it."""
    pages = {read.page for read in plan[0]}
    for reads in takewhile(lambda reads: {read.page for read in reads} <= pages, plan[1:]):
        yield from (read for read in reads if not read.of(seen))


def _planned(plan: Sequence[Sequence[_Read]], first: int) -> list[str]:
    """Steps by number: what the question calls it, and the field."""
    firsts = [reads[0] for reads in plan]
    return [
        f'{n}. {one.name or one.sought}: "{one.sought}".' for n, one in enumerate(firsts, first)
    ]


def _noted(reads: Sequence[_Read]) -> str:
    """What was read; of several numbers each with whether it leads."""
    if len(reads) == 1:
        lengths = _BORDER.findall(reads[0].fact) if "longest border" in reads[0].name else []
        return f"{_led(lengths)} {reads[0].note}".strip()
    values = [(read.title, read.note.rpartition(" is ")[2].removesuffix(".")) for read in reads]
    if all(_NUMBER.search(value) for _, value in values):
        return _led(values, reads[0].name.startswith(_LEAST)) if values else ""
    return " ".join(read.note for read in reads)


def _led(values: Sequence[tuple[str, str]], is_least: bool = False) -> str:
    """Names with their numbers, and whether each leads those before it."""
    parts, leading = list[str](), 0.0
    for name, value in values if len(values) > 1 else ():
        [number, *_] = (float(digits.replace(",", "")) for digits in _NUMBER.findall(value))
        leads = not parts or (number < leading if is_least else number > leading)
        verdict = (", yes" if leads else ", no") if parts else ""
        parts.append(f"{name} {value}{verdict}")
        leading = number if leads else leading
    return f"{'; '.join(parts)}." if parts else ""


def _short(parts: Sequence[str]) -> str:
    """A thought; of a long one without what was found first."""
    while sum(map(len, parts)) > _THOUGHT and len(parts) > 1:
        parts = parts[1:]
    return thought(parts)


def _link(read: _Read) -> str:
    return f"[{read.title}]({read.page})"
