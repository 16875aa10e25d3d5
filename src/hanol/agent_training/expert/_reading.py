"""An expert that is told what to read: the steps of a question, one search or visit after another.

It shows how an agent answers from real pages: it searches for what the question names, opens the
page, notes what it states, opens the pages that it links to, and answers with the passage that
says so. It takes from the conversation what it has seen, so it serves as any engine does.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile

from hanol.agent_training.expert._expert import Expert
from hanol.engines import Completion, Engine, Message, Request, ToolCall, Usage
from hanol.errors import DataError, EngineError
from hanol.tools import SEARCH, VISIT, Turn, render_call, render_turn
from hanol.worlds import AnyPage, Encyclopedia, GraphQuestion, World

_LINK = re.compile(r"\[([^\[\]]+)\]\(([^()\s]+)\)")
_PASSAGE = re.compile(r"^\[(\d+)\] ", re.MULTILINE)
_PAGE = re.compile(r"\(([^()\s]+)\)$", re.MULTILINE)  # ends the first line about a visited page
_AT_ONCE = 3  # pages of one visit, as the grammar of turns has it
_THOUGHT = 360  # characters of a thought: those of small models have 128 tokens
_SHOWN = 60  # characters of a fact by which it is recognised: a passage may end within it


_Found = dict[str, tuple[str, str]]  # pages and texts of visited passages, by number


@dataclass(frozen=True)
class _Read:
    """A fact to read: the page's file, what is sought there, the line, and what to note."""

    page: str
    sought: str
    fact: str
    note: str

    @property
    def field(self) -> str:
        """What the page calls it."""
        return self.fact.partition(":")[0] if ":" in self.fact else "description"


class ReadingExpert(Engine):
    """Answers questions whose `details` have the steps to their answers; an `Engine`.

    Args:
        world: Where the pages are; the tools are its `world_tools`.
        questions: Those that it will be asked, such as `Factbook.questions` draws.
        window: Its window in tokens. One of at most 8,192 gives it the prompts of small models,
            which are to learn from it.

    Raises:
        DataError: A question does not say how it is answered.
        EngineError: From `complete`, where the conversation asks another question, or is not one
            of ReAct mode.
    """

    name = "expert"

    def __init__(
        self,
        world: World[AnyPage],
        questions: Iterable[GraphQuestion],
        *,
        window: int | None = 8_192,
    ) -> None:
        self.context_window = window
        self._titles = {page.file_name: page.title for page in world.pages}
        self._questions = {question.text: question for question in questions}
        for text, question in self._questions.items():
            if not question.details.get("steps"):
                raise DataError(
                    f"The expert cannot answer {text!r}: it knows questions that `hanol synth "
                    "questions factbook` made. Ask those, or name another model."
                )

    async def complete(self, request: Request) -> Completion:
        """The expert's next turn."""
        self.check(request)
        text = self.turn(request.messages)
        usage = Usage(self.count_tokens(request.messages), len(text.split()))
        return Completion.of(text, usage=usage)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Words, as there is no tokenizer."""
        return sum(len(message.text.split()) for message in messages if message.role != "system")

    def turn(self, messages: Sequence[Message]) -> str:
        """The next turn of a conversation, as text."""
        talk = [message.text for message in messages if message.role != "system"]
        if (question := self._questions.get(talk[0].split("\n")[0])) is None:
            raise EngineError(
                f"The expert does not know the question {talk[0][:100]!r}; it works in ReAct mode."
            )
        turns, results = talk[1::2], talk[2::2]
        found, noted = _passages(results), list[str]()
        plan = [[_Read(**one) for one in step["read"]] for step in question.details["steps"]]
        for number, reads in enumerate(plan):
            missing = _not_in(found, reads)
            if missing:  # what is needed later of these pages is read with it
                missing += _not_in(found, _of_same_pages(plan[number:]))
            action = self._next(question, reads, missing, turns, results) if missing else None
            if action is not None:
                return render_turn(Turn("tool_calls", (action,), think=_thought(noted, missing)))
            noted = [*(read.note for read in reads), question.details["steps"][number]["so"]]
        cited = [n for read in reads for n, one in found.items() if _holds(*one, read)]
        said = (noted[-1] or noted[-2]).removesuffix(".")
        answer = "".join([said, *(f" [{n}]" for n in dict.fromkeys(cited)), "."])
        return render_turn(Turn("answer", answer=answer, think=_thought(noted, [])))

    def _next(
        self,
        question: GraphQuestion,
        reads: Sequence[_Read],
        missing: Sequence[_Read],
        turns: Sequence[str],
        results: Sequence[str],
    ) -> ToolCall | None:
        """Visit the pages that are known, or search for those that are not; None where all was
        tried.
        """
        known = {address for text in results for _, address in _LINK.findall(text)}
        there = list(dict.fromkeys(read.page for read in missing if read.page in known))
        goal = ", ".join(dict.fromkeys(read.field for read in missing))
        calls = [
            ToolCall(VISIT.name, {"url": there[place : place + _AT_ONCE], "goal": goal})
            for place in range(0, len(there), _AT_ONCE)
        ]
        if hidden := [self._titles[read.page] for read in missing if read.page not in known]:
            # First by what the question says, then by the titles.
            sought = " ".join(dict.fromkeys(read.sought for read in reads))
            named = [f"{name} {sought}" for name in question.constants]
            wordings = [hidden] if results else [named, hidden]
            calls += [ToolCall(SEARCH.name, {"query": queries}) for queries in wordings]
        made = "\n".join(turns)
        return next((call for call in calls if render_call(call) not in made), None)


def expert_of(world: World[AnyPage], questions: Sequence[GraphQuestion]) -> Engine:
    """The expert that knows the answers to questions of a world, and how they are found."""
    if isinstance(world, Encyclopedia):
        return Expert(world, questions, detours=0.0)
    return ReadingExpert(world, questions)


def _of_same_pages(plan: Sequence[Sequence[_Read]]) -> list[_Read]:
    """What is read of the pages of the first step in the steps right after it."""
    pages = {read.page for read in plan[0]}
    steps = takewhile(lambda reads: {read.page for read in reads} <= pages, plan[1:])
    return list(chain(*steps))


def _not_in(found: _Found, reads: Iterable[_Read]) -> list[_Read]:
    return [read for read in reads if not any(_holds(*one, read) for one in found.values())]


def _thought(noted: Sequence[str], missing: Sequence[_Read]) -> str:
    parts = [part for part in noted if part]
    if sum(map(len, parts)) > _THOUGHT:
        parts = parts[-1:]  # what follows from them
    if missing:
        sought = " and ".join(dict.fromkeys(read.sought for read in missing))
        parts.append(f"Now I need: {sought}.")
    return " ".join(parts)


def _holds(page: str, text: str, read: _Read) -> bool:
    """Whether a passage of a page has a fact, or the beginning of a long one."""
    return page == read.page and _plain(read.fact)[:_SHOWN] in _plain(text)


def _plain(text: str) -> str:
    return " ".join(_LINK.sub(r"\1", text).split())


def _passages(results: Sequence[str]) -> _Found:
    found: _Found = {}
    for text in (part for result in results for part in result.split("\n=======\n")):
        if (page := _PAGE.search(text)) is not None:
            _, *parts = _PASSAGE.split(text)
            found |= {n: (page[1], t) for n, t in zip(parts[::2], parts[1::2], strict=True)}
    return found
