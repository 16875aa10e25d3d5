"""Questions by random walks over a knowledge graph.

A walk goes from a start to what is asked for, along facts in either direction. The start is named
or described by facts; entities on the way get a clause of their own where the walk would otherwise
lead to several places. What is drawn here is a proposal: the filters of `hanol.synthesis` decide
about questions from documents, an encyclopedia checks its own.

Source: walks and obfuscation as in arXiv 2507.02592 (WebSailor), clauses as leaves of the
formalisation as in arXiv 2507.15061 (WebShaper).
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import Any

from hanol.errors import ConfigError, DataError
from hanol.scoring import exact_match, set_match
from hanol.worlds._graph import SLOT, Edge, KnowledgeGraph, Triple, span_of

_CLAUSES = {0: 0, 1: 2, 2: 3}  # facts that describe the start, by level
_MOST_HOPS = 5
_EXTRA = 2  # clauses at most about entities on the way
_TRIES = 30  # for clauses that help
_MOST_ANSWERS = 3  # of a question that asks for several
_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class GraphQuestion:
    """A question with its answers, and how to find them in a knowledge graph.

    Args:
        text: The question in words.
        answers: Every right answer; all of them are asked for.
        triples: The question as (subject, relation, object), in the order of the text:
            constants "C@text", variables "V@S" (a start that is described) and "V@1", "V@2", ...,
            and "?", what is asked for (arXiv 2507.15061). Empty where unknown.
        hops: Relations followed from the start; 0 asks for the described entity itself.
        level: 0 for names; 1 for a start described by two facts; 2 for three, at least one of
            them a number or date of which only a span is told.
        entities: What is met on the way, from the start on, without what is asked for.
        path: Address of the page that states each fact followed, in order; files do not keep it.
        sources: Addresses of all pages to read, in order, each once.
        facts: The sentences that state what is followed.
        id: Unique in its file; by default a hash of the text.
        details: Other keys of a row that was read from a file.
    """

    text: str
    answers: tuple[str, ...]
    triples: tuple[Triple, ...] = ()
    hops: int = 0
    level: int = 0
    entities: tuple[str, ...] = ()
    path: tuple[str, ...] = field(default=(), compare=False)
    sources: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.id:
            digest = hashlib.sha256(self.text.encode("utf-8", "replace")).hexdigest()
            object.__setattr__(self, "id", digest[:12])

    @property
    def answer(self) -> str | list[str]:
        """The answer as text, or the list of answers."""
        return self.answers[0] if len(self.answers) == 1 else list(self.answers)

    @property
    def constants(self) -> tuple[str, ...]:
        """What the question names, as far as its triples tell."""
        ends = (end for head, _, tail in self.triples for end in (head, tail))
        return tuple(dict.fromkeys(end[2:] for end in ends if end.startswith("C@")))

    @property
    def clauses(self) -> tuple[Triple, ...]:
        """The triples that describe an entity instead of leading on."""
        start = f"C@{self.entities[0]}" if self.entities else None
        return tuple(
            triple
            for triple in self.triples
            if any(end.startswith("C@") and end != start for end in (triple[0], triple[2]))
        )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations followed, in order."""
        clauses = self.clauses
        return tuple(triple[1] for triple in self.triples if triple not in clauses)

    def is_right(self, text: str | None) -> bool:
        """Whether a text is the answer, or lists exactly the answers.

        A world knows more: aliases, and other ways to write numbers (`Encyclopedia.is_right`).
        """
        if len(self.answers) == 1:
            return exact_match(text, self.answers[0])
        return set_match(text, self.answers)


class QuestionWalker:
    """Draws questions by walks along the facts of a knowledge graph."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph

    @staticmethod
    def check(num_questions: int, hops: Sequence[int], level: int, *, fewest_hops: int = 1) -> None:
        """Refuse to draw no question, by no or more than 5 hops, or of a level that is not 0 to 2.

        Raises:
            ConfigError: A number is out of its range.
        """
        if num_questions < 1:
            raise ConfigError(f"`num_questions` is {num_questions}, but must be at least 1.")
        if not hops:
            raise ConfigError("`hops` is empty. Name at least one number of hops, such as 1.")
        check_range("level", level, 0, 2)
        for number in hops:
            check_range("hops", number, fewest_hops, _MOST_HOPS)

    def draw(self, rng: Random, *, hops: int, level: int, sets: bool) -> GraphQuestion | None:
        """Try to draw a question of 1 to 5 hops; None where a random choice led nowhere.

        `sets` allows up to three answers.

        Raises:
            DataError: The graph has no facts.
        """
        if not self._graph.entities:
            raise DataError(
                "There is no question to ask: no fact was found, so nothing to ask for."
            )
        start = rng.choice(self._graph.entities)
        path = self.walk(rng, start, hops, self._onward, {start})
        if path is None:
            return None
        nodes = nodes_of(start, path)
        most = _MOST_ANSWERS if sets else 1
        if level:
            described = self._describe(rng, path, nodes, level, most)
            if described is None:
                return None
            clauses = [(0, edge) for edge in described]
            answers = self.reached(start, described, path)
        else:
            clauses, answers = self._narrowed(rng, path, nodes)
        if not 1 <= len(answers) <= most:
            return None
        return self.question(start, path, clauses, answers, level)

    @staticmethod
    def walk(
        rng: Random,
        start: str,
        hops: int,
        onward: Callable[[str, int, set[str]], list[Edge]],
        avoid: Iterable[str],
    ) -> list[Edge] | None:
        """Facts that lead from a start to somewhere new, past nothing to avoid; or None.

        `onward` names the facts that may be followed from an entity, given how many hops are left
        after them and what was met already.
        """
        seen, path, here = set(avoid), list[Edge](), start
        for left in reversed(range(hops)):
            edges = onward(here, left, seen)
            if not edges:
                return None
            # A relation first: pages have many sections and few founders.
            relation = rng.choice(list(dict.fromkeys(edge.relation for edge in edges)))
            among = [edge for edge in edges if edge.relation == relation]
            edge = among[0] if len(among) == 1 else rng.choice(among)
            path.append(edge)
            here = other_end(edge, here)
            if here in seen:
                return None
            seen.add(here)
        return path

    def _onward(self, here: str, left: int, seen: set[str]) -> list[Edge]:
        return [
            edge
            for edge in self._graph.at[here]
            if not edge.is_span
            and (there := other_end(edge, here)) not in seen
            and (left == 0 or self._graph.is_entity(there))
        ]

    def reached(self, start: str, clauses: Iterable[Edge], path: Iterable[Edge]) -> set[str]:
        """Where the relations of a path lead from everything that fits the clauses about its start;
        without clauses, from the start.
        """
        reached = self.fitting(start, clauses)
        for edge in path:
            reached = self._graph.followed(reached, edge.relation)
        return reached

    def fitting(self, name: str, clauses: Iterable[Edge]) -> set[str]:
        """What fits clauses about an entity, itself included; only itself without clauses."""
        sets = [self._graph.followed([other_end(edge, name)], edge.relation) for edge in clauses]
        return set.intersection(*sets) if sets else {name}

    def are_needed(
        self, start: str, clauses: Sequence[Edge], path: Sequence[Edge], num_answers: int
    ) -> bool:
        """Whether without any one of several clauses about the start there are more answers."""
        # Fewer clauses let more answers in, so smaller parts need no look.
        return all(
            len(self.reached(start, part, path)) > num_answers
            for part in combinations(clauses, len(clauses) - 1)
        )

    def _describe(
        self, rng: Random, path: Sequence[Edge], nodes: Sequence[str], level: int, most: int
    ) -> list[Edge] | None:
        """Facts about the start that only together decide; at level 2 spans replace the numbers."""
        start, needed = nodes[0], _CLAUSES[level]
        told = [
            edge
            for edge in self._graph.at[start]
            if edge != path[0]
            and other_end(edge, start) not in nodes
            and (not self._has_span(start, edge) if level == 2 else not edge.is_span)
            and len(self.fitting(start, [edge])) > 1
        ]
        spans = [edge for edge in told if edge.is_span]
        for _ in range(_TRIES if len(told) >= needed else 0):
            chosen = rng.sample(told, needed)
            if spans and not any(edge.is_span for edge in chosen):
                chosen[0] = rng.choice(spans)
            number = len(self.reached(start, chosen, path))
            if number <= most and self.are_needed(start, chosen, path, number):
                return chosen
        return None

    def _has_span(self, name: str, edge: Edge) -> bool:
        """Whether a fact states a number or date whose span can be told instead."""
        return not edge.is_span and any(
            other.is_span and other.relation == edge.relation for other in self._graph.at[name]
        )

    def _narrowed(
        self, rng: Random, path: Sequence[Edge], nodes: Sequence[str]
    ) -> tuple[list[tuple[int, Edge]], set[str]]:
        """Clauses about entities where a walk would lead to several; and where it ends then."""
        clauses: list[tuple[int, Edge]] = []
        reached = {nodes[0]}
        for number, edge in enumerate(path, start=1):
            reached = self._graph.followed(reached, edge.relation)
            if number < len(path) and len(reached) > 1 and len(clauses) < _EXTRA:
                extra = self._narrower(rng, nodes[number], reached, path, nodes)
                if extra is not None:
                    clauses.append((number, extra))
                    reached &= self.fitting(nodes[number], [extra])
        return clauses, reached

    def _narrower(
        self, rng: Random, name: str, among: set[str], path: Sequence[Edge], nodes: Sequence[str]
    ) -> Edge | None:
        """The fact about an entity on the way that fits the fewest others the walk may lead to."""
        told = [
            edge
            for edge in self._graph.at[name]
            if edge not in path and other_end(edge, name) not in nodes and not edge.is_span
        ]
        tried = rng.sample(told, min(_TRIES, len(told)))
        sizes = {edge: len(among & self.fitting(name, [edge])) for edge in tried}
        best = min(tried, key=sizes.__getitem__, default=None)
        return best if best is not None and sizes[best] < len(among) else None

    def question(
        self,
        start: str,
        path: Sequence[Edge],
        clauses: Sequence[tuple[int, Edge]],
        answers: Iterable[str],
        level: int,
        text: str | None = None,
    ) -> GraphQuestion:
        """The question of a walk, with clauses about the entities with these numbers on the way.

        Without `text`, it has letters for what is not named.
        """
        nodes = nodes_of(start, path)
        is_described = any(number == 0 for number, _ in clauses)
        variables = [f"V@{number}" for number in range(len(nodes))]
        variables[0] = "V@S" if is_described else f"C@{start}"
        variables[-1] = "?"
        told: list[tuple[Triple, Edge]] = []
        for number, variable in enumerate(variables):
            if number:
                edge, near = path[number - 1], variables[number - 1]
                told.append((_triple(edge, nodes[number - 1], near, variable), edge))
            for at, edge in clauses:
                if at == number:
                    constant = f"C@{other_end(edge, nodes[at])}"
                    told.append((_triple(edge, nodes[at], variable, constant), edge))
        triples = tuple(triple for triple, _ in told)
        return GraphQuestion(
            text=text or template_question(triples, is_page=nodes[-1] in self._graph.pages),
            answers=tuple(sorted(answers)),
            triples=triples,
            hops=len(path),
            level=level,
            entities=tuple(nodes[:-1] or nodes),
            path=tuple(edge.address for edge in path) or (self._graph.pages[start],),
            sources=tuple(dict.fromkeys(edge.address for _, edge in told)),
            facts=tuple(edge.snippet for edge in path),
        )


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Refuse a value out of its range."""
    if not least <= value <= most:
        raise ConfigError(f"`{name}` is {value}, but must be from {least} to {most}.")


def nodes_of(start: str, path: Iterable[Edge]) -> list[str]:
    """What a path passes, its start first."""
    nodes = [start]
    for edge in path:
        nodes.append(other_end(edge, nodes[-1]))
    return nodes


def other_end(edge: Edge, end: str) -> str:
    """The end of a fact that is not this one."""
    return edge.tail if edge.head == end else edge.head


def _triple(edge: Edge, name: str, near: str, far: str) -> Triple:
    """A fact with variables or constants for `name` and its other end."""
    return (near, edge.relation, far) if edge.head == name else (far, edge.relation, near)


def template_question(formalization: Iterable[Triple], *, is_page: bool) -> str:
    """A question in words that leave no doubt: letters for what is not named.

    Args:
        formalization: Triples in the order in which they are told.
        is_page: Whether a document is asked for.

    Example:
        >>> template_question(
        ...     [("C@Ada", "was born in", "V@1"), ("V@1", "lies on", "?")], is_page=False
        ... )
        '“Ada” was born in A. A lies on B. What is B?'
    """
    letters: dict[str, str] = {}
    told = []
    for head, relation, tail in formalization:
        subject, thing = (_shown(end, letters) for end in (head, tail))
        is_slotted = SLOT in relation
        sentence = relation.replace(SLOT, thing) if is_slotted else f"{relation} {thing}"
        told.append(f"{subject} {sentence}.")
    return f"{' '.join(told)} {'Which page' if is_page else 'What'} is {letters['?']}?"


def _shown(end: str, letters: dict[str, str]) -> str:
    if end.startswith("C@"):
        # Spans are words of ours, not names.
        is_span = re.fullmatch(r"(?:a (?:day|year) )?between \d+ and \d+", end[2:])
        is_plain = is_span or span_of(end[2:]) is not None
        return end[2:] if is_plain else f"“{end[2:]}”"
    return letters.setdefault(end, _LETTERS[len(letters)])
