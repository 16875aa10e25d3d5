"""An expert that is told what to read: the steps of a question, one search or visit after another.

It shows how an agent answers from real pages: it searches for what the question names, opens the
page, notes what it states, opens the pages that it links to, and answers with the passage that
says so. Its first thought is the plan: the fields to read, as the pages call them, so that a small
model decides once and then copies them into queries and goals. It takes from the conversation what
it has seen, so it serves as any engine does.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from hanol.agent_training.expert._expert import Expert
from hanol.agent_training.expert._turns import Turns
from hanol.engines import Engine, Message, ToolCall
from hanol.errors import DataError, EngineError
from hanol.tools import SEARCH, VISIT, Turn, render_call, render_turn
from hanol.worlds import AnyPage, Encyclopedia, GraphQuestion, World

_LINK = re.compile(r"\[([^\[\]]+)\]\(([^()\s]+)\)")
_PASSAGE = re.compile(r"^\[(\d+)\] (.+)$", re.MULTILINE)
_AT_ONCE = 3  # pages of one visit, as the grammar of turns has it
_THOUGHT = 360  # characters of a thought: those of small models have 128 tokens
_NOT_FOUND = "The pages that were found do not say it."  # and no program calls that right
_SHOWN = 60  # characters of a fact by which it is recognised: a passage may end within it


@dataclass(frozen=True)
class _Read:
    """A fact to read: the page and its title, the field, the line, and what to note."""

    page: str
    title: str
    sought: str
    fact: str
    note: str

    def of(self, passages: Mapping[str, str]) -> list[str]:
        """Numbers of the visited passages that have the fact; those of profiles name their page,
        but for short ones, which begin with a section.
        """
        named = (f"{self.title}: ", "Introduction: ", "Geography: ") if ": " in self.fact else ""
        fact = _plain(self.fact)[:_SHOWN]
        return [n for n, text in passages.items() if text.startswith(named) and fact in text]


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
        talk = [message.text for message in messages if message.role != "system"]
        if (question := self._questions.get(talk[0].split("\n")[0])) is None:
            raise EngineError(
                f"The expert does not know the question {talk[0][:100]!r}; it works in ReAct mode."
            )
        made, results = "\n".join(talk[1::2]), "\n".join(talk[2::2])
        seen = {n: _plain(text) for n, text in _PASSAGE.findall(results)}
        steps = question.details["steps"]
        plan = [[_Read(**one) for one in step["read"]] for step in steps]
        noted, reads = list[str](), list[_Read]()
        for number, reads in enumerate(plan):
            if missing := [read for read in reads if not read.of(seen)]:
                missing += _of_same_pages(plan[number:], seen)
                call = next((c for c in _calls(question, missing, results) if c not in made), None)
                if call is None:
                    return render_turn(Turn("answer", answer=_NOT_FOUND))
                later = (read for reads in plan[number + 1 :] for read in reads)
                return f"{_thought(noted, [*missing, *later])}{call}"
            noted = [*(read.note for read in reads), *filter(None, [steps[number]["so"]])]
        cited = dict.fromkeys(n for read in reads for n in read.of(seen))
        said = noted[-1].removesuffix(".")
        answer = "".join([said, *(f" [{n}]" for n in cited), "."])
        return _thought(noted[:-1], []) + render_turn(Turn("answer", answer=answer))


def expert_of(world: World[AnyPage], questions: Sequence[GraphQuestion]) -> Engine:
    """The expert that knows the answers to questions of a world, and how they are found."""
    if isinstance(world, Encyclopedia):
        return Expert(world, questions, detours=0.0)
    return ReadingExpert(questions)


def _calls(question: GraphQuestion, missing: Sequence[_Read], results: str) -> Iterator[str]:
    """Visits to the pages that are known; else searches, first by what the question says."""
    known = {address for _, address in _LINK.findall(results)}
    there = list(dict.fromkeys(read.page for read in missing if read.page in known))
    sought = ", ".join(dict.fromkeys(read.sought for read in missing))
    for place in range(0, len(there), _AT_ONCE):
        yield _rendered(VISIT.name, {"url": there[place : place + _AT_ONCE], "goal": sought})
    hidden = {read.title: read.sought for read in reversed(missing) if read.page not in known}
    named = dict.fromkeys(question.constants, missing[0].sought)
    alone = dict.fromkeys(hidden, "")
    for sought_of in ([named] if hidden and not results else []) + [hidden, alone]:
        queries = [f"{name} {field}".strip() for name, field in sought_of.items()]
        for place in range(0, len(queries), _AT_ONCE):
            yield _rendered(SEARCH.name, {"query": queries[place : place + _AT_ONCE]})


def _rendered(name: str, arguments: dict[str, object]) -> str:
    return render_call(ToolCall(name, arguments))


def _of_same_pages(plan: Sequence[Sequence[_Read]], seen: Mapping[str, str]) -> Iterator[_Read]:
    """What is read of the pages of the first step in the steps right after it."""
    pages = {read.page for read in plan[0]}
    for reads in takewhile(lambda reads: {read.page for read in reads} <= pages, plan[1:]):
        yield from (read for read in reads if not read.of(seen))


def _thought(noted: Sequence[str], missing: Sequence[_Read]) -> str:
    """What was found, and what it is needed for; in tags."""
    parts = [*noted] if sum(map(len, noted)) <= _THOUGHT else [noted[-1]]  # what follows from them
    if missing:
        fields = dict.fromkeys(f'"{one.sought}"' for one in missing)
        parts.append(f"I need {', then '.join(fields)}.")
    if not parts:
        return ""
    return f"<think>\n{' '.join(parts)}\n</think>\n"


def _plain(text: str) -> str:
    return " ".join(_LINK.sub(r"\1", text).split())
