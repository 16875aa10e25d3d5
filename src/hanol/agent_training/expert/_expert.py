"""The expert: a policy that knows the world, and shows how the tools are used.

It reads results as a model does, from the text of the conversation, so it serves in every mode of
`Researcher` and its runs are what a model is trained on. Its thoughts say what is needed, judge
hits one by one where the start is described, and quote the link that is visited next, because
copying a link that stands in the thought is easy and picking one by its meaning is not.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from hanol.agent_training.expert import _tokenizer as pieces
from hanol.agent_training.expert._turns import Turns
from hanol.engines import Message
from hanol.errors import DataError, EngineError
from hanol.worlds import RELATIONS, Encyclopedia, GraphQuestion, WorldPage

_HIT = re.compile(r"^(\d+)\. (.*)\[([^\[\]]+)\]\(doc-\d\d-\d\d\.md\)$", re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]]+)\]\([^()]+\)")
_SHOWN = re.compile(r"^\[(\d+)\] (.+)$", re.MULTILINE)
_BEGINNING = re.compile(r"(.+?) is an? \w+\.")  # of a page
_QUERY = re.compile(r'"query": \["([^"]*)"\]')
_WAITING = re.compile(r"^# Report so far\n(.*?)\n\n# Last action and its result\n(.*)", re.S | re.M)


@dataclass(frozen=True)
class _Seen:
    """What the conversation shows."""

    visited: tuple[tuple[WorldPage, Mapping[int, str]], ...]  # with their passages by number
    is_new: bool  # the last of them is not in the report yet
    result: str  # the last one
    queries: tuple[str, ...]


class Expert(Turns):
    """Answers questions of one world by search and visit; an `Engine`.

    Args:
        world: What it knows.
        questions: Those that it will be asked: of one hop or more, from a start that is named or
            described by one clause.
        detours: Share of questions that begin with a query which does not tell the page from
            others.

    Raises:
        DataError: It cannot answer one of the questions.
        EngineError: From `complete`, where the conversation asks another question.
    """

    name = "expert"
    context_window = None

    def __init__(
        self, world: Encyclopedia, questions: Iterable[GraphQuestion], *, detours: float = 0.1
    ) -> None:
        self.world = world
        self.questions = tuple(questions)
        self._pages = {page.title: page for page in world.pages}
        self._questions = {question.text: question for question in self.questions}
        for text, question in self._questions.items():
            has_way = 0 < question.hops == len(question.relations)
            if not has_way or len(question.clauses) > 1:
                raise DataError(
                    f"The expert cannot answer {text!r}: it knows questions of level 0 that "
                    "`hanol synth questions` made from a world. Ask those, or name another model."
                )
        self._detours = detours

    def is_detour(self, messages: Sequence[Message]) -> bool:
        """Whether the next turn is a mistake made on purpose, which nobody should learn."""
        _, question, seen, _ = self._read(messages)
        return not seen.visited and not seen.queries and self._strays(question)

    def turn(self, messages: Sequence[Message]) -> str:
        """The next turn of a conversation, as text."""
        in_rounds, question, seen, report = self._read(messages)
        if seen.visited:
            thought, action, found = self._go_on(question, *seen.visited[-1], len(seen.visited))
        else:
            thought, action = self._look_for_start(question, seen)
            found = ""
        told = ""
        if in_rounds:
            parts = [part for part in (report, found if seen.is_new else "") if part]
            told = f"{pieces.REPORT}{' ; '.join(parts) or 'none'}{pieces.END_REPORT}"
        return f"{pieces.THINK}{thought}{pieces.END_THINK}{told}{action}"

    def _read(self, messages: Sequence[Message]) -> tuple[bool, GraphQuestion, _Seen, str]:
        talk = [message.text for message in messages if message.role != "system"]
        in_rounds = _WAITING.search(talk[0])
        asked = talk[0].removeprefix("# Question\n").split("\n")[0]
        if (question := self._questions.get(asked)) is None:
            raise EngineError(f"The expert does not know the question {asked[:100]!r}.")
        if in_rounds is None:
            return False, question, self._seen(talk[2::2], talk[1::2]), ""
        report, last = in_rounds.groups()
        report = "" if report in ("(none yet)", "none") else report
        seen = self._seen([last], [last])
        # A round sees one result; the report says how many pages came before it.
        before = len(report.split(" ; ")) if report else 0
        known: list[tuple[WorldPage, Mapping[int, str]]] = [
            (self._pages[title], {}) for title in question.entities[:before]
        ]
        return True, question, replace(seen, visited=(*known, *seen.visited)), report

    def _seen(self, results: Sequence[str], turns: Sequence[str]) -> _Seen:
        visited: list[tuple[WorldPage, dict[int, str]]] = []
        for number, text in (shown for result in results for shown in _SHOWN.findall(result)):
            begins = _BEGINNING.match(text)
            if begins is not None and begins[1] in self._pages:
                visited.append((self._pages[begins[1]], {}))
            if visited:  # long pages have several passages
                visited[-1][1][int(number)] = text
        return _Seen(
            visited=tuple(visited),
            is_new=bool(visited),
            result=results[-1] if results else "",
            queries=tuple(query for turn in turns for query in _QUERY.findall(turn)),
        )

    def _strays(self, question: GraphQuestion) -> bool:
        return Random(f"detour {question.text}").random() < self._detours  # noqa: S311

    def _look_for_start(self, question: GraphQuestion, seen: _Seen) -> tuple[str, str]:
        """Search for the start, then pick its line of the results."""
        need = " ; ".join(question.relations)
        start = question.entities[0]
        page = self._pages[start]
        judged = self._judge(question, page, seen.result)
        if judged is not None and judged.endswith(")"):
            return f"{judged} need {need}", _visit(page, question.relations[0])
        name, queries = start, [start]
        if question.clauses:
            [(_, relation, value)] = question.clauses
            name = f"{page.type} {relation} {value[2:]}"
            queries = [f"{value[2:]} {page.type} {SEARCH_WORDS[relation]}"]
            # Where pages that have more of these words come first: each wording by itself.
            queries += [
                sentence.format(s=page.type, o=value[2:]).rstrip(".")
                for sentence in _SENTENCES[relation]
            ]
        before = seen.queries[-1] if seen.queries else ""
        place = queries.index(before) if before in queries else -1
        query = queries[max(place, 0) if judged is None else (place + 1) % len(queries)]
        if not seen.queries and self._strays(question):
            query = f"{page.type} {question.relations[0]}"
        thought = f"need {need} of {name}" if judged is None else f"{judged} search again {name}"
        return thought, f"{pieces.SEARCH}{query}{pieces.END_SEARCH}"

    def _judge(self, question: GraphQuestion, page: WorldPage, result: str) -> str | None:
        """What the hits are, up to the right one; None where there are none."""
        hits = _HIT.findall(result)
        if not hits:
            return None
        if not question.clauses:
            found = any(title == page.title for _, _, title in hits)
            return _link(page) if found else "no"
        [(_, relation, value)] = question.clauses
        # First what a right one looks like; then each as its line states it: equal or not is so a
        # comparison of neighbouring words. A line begins as that of the result does, with number
        # and title, so what it says and the link are found by the title, which no other line has.
        said = f"{page.type} {relation} {value[2:]} yes"
        for number, line, title in hits:
            hit = self._pages[title]
            said += f"\n{number}. {title} {hit.type} {_stated(hit, line, value[2:])}"
            if title == page.title:
                return f"{said} yes {_link(page)}"
            said += " no"
        return said

    def _go_on(
        self, question: GraphQuestion, page: WorldPage, passages: Mapping[int, str], visited: int
    ) -> tuple[str, str, str]:
        """After a page: the next one, or the answer; and what the report keeps of it."""
        relation = question.relations[visited - 1]
        [values] = [fact.values for fact in page.facts if fact.relation == relation]
        if visited == question.hops:
            value = ", ".join(values)
            number = next(n for n, text in passages.items() if all(v in text for v in values))
            action = f"{pieces.ANSWER}{value} [{number}]{pieces.END_ANSWER}"
            return f"{relation} is {value}", action, f"{relation} is {value} [{number}]"
        following = self._pages[values[0]]
        rest = question.relations[visited:]
        found = f"{relation} is {_link(following)}"
        return f"{found} need {' ; '.join(rest)}", _visit(following, rest[0]), found


def _stated(page: WorldPage, line: str, wanted: str) -> str:
    """The fact of a page that a line states: its relation and its value, of several the wanted."""
    for fact in page.facts:
        if _LINK.sub(r"\1", fact.sentence) in line:
            return f"{fact.relation} {wanted if wanted in fact.values else fact.values[0]}"
    return "none"


def _link(page: WorldPage) -> str:
    return f"[{page.title}]({page.file_name})"


def _visit(page: WorldPage, goal: str) -> str:
    return f"{pieces.VISIT}{page.file_name[4:-3]}{pieces.GOAL}{goal}{pieces.END_VISIT}"


_SENTENCES = {relation.name: relation.sentences for relation in RELATIONS}
# What pages may say where a question names a relation: one word of each way to state it.
SEARCH_WORDS = {
    "birthplace": "born light world",
    "spouse": "married home hand",
    "employer": "works living paid",
    "college": "studied degree taught",
    "awards": "won honoured received",
    "waterway": "lies banks crossed",
    "mayor": "governed elected led",
    "twin": "paired guests",
    "mouth": "ends sea out",
    "discoverer": "mapped found",
    "founder": "started up back",
    "headquarters": "based office run",
    "rival": "competes market",
    "author": "written pen composed",
    "publisher": "out printed",
    "donor": "paid funded",
    "rector": "headed directed",
    "campus": "courses located",
    "host": "place held",
    "organizer": "planned arranged",
    "guests": "welcomed attended",
}
