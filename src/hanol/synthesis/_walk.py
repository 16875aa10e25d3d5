"""Questions by random walks over a knowledge graph.

A walk goes from a start to what is asked for, along facts in either direction. The start is named
or described by facts; pages on the way get a clause of their own where the walk would otherwise
lead to several places. What is drawn here is a proposal: `_filters` decides.

Source: walks and obfuscation as in arXiv 2507.02592 (WebSailor), clauses as leaves of the
formalisation as in arXiv 2507.15061 (WebShaper).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING

from hanol.synthesis._graph import Edge, KnowledgeGraph
from hanol.synthesis._samples import Triple
from hanol.synthesis._wording import template_question

if TYPE_CHECKING:  # they bring torch with them
    from hanol.worlds import Question

_CLAUSES = {0: 0, 1: 2, 2: 3}  # facts that describe the start, by level
_EXTRA = 2  # clauses at most about pages on the way
_TRIES = 30  # for clauses that help
_MOST_ANSWERS = 3  # of a question that asks for several


@dataclass(frozen=True)
class Draft:
    """A question that was drawn, not yet checked.

    Args:
        text: In words.
        answers: What the walk led to.
        formalization: Triples, in the order in which the question tells them.
        hops: Facts followed from the start.
        level: 0 for a named start, 1 for one described by two facts, 2 for three with spans.
        sources: Addresses of the documents to read, in order, each once.
        stated_in: Address of the document that states the answer.
        facts: The sentences that state what is followed.
        entities: What is met on the way, from the start on, without what is asked for.
        question: Of a world: the question that it was made from.
    """

    text: str
    answers: frozenset[str]
    formalization: tuple[Triple, ...]
    hops: int
    level: int
    sources: tuple[str, ...]
    stated_in: str
    facts: tuple[str, ...]
    entities: tuple[str, ...]
    question: "Question | None" = None

    @property
    def constants(self) -> tuple[str, ...]:
        """What the question names."""
        ends = (end for first, _, last in self.formalization for end in (first, last))
        return tuple(dict.fromkeys(end[2:] for end in ends if end.startswith("C@")))


def draft_of(question: "Question", graph: KnowledgeGraph) -> Draft:
    """A question that a world made."""
    return Draft(
        text=question.text,
        answers=question.answers,
        formalization=question.triples,
        hops=question.hops,
        level=question.level,
        sources=tuple(dict.fromkeys(graph.pages[title] for title in question.entities)),
        stated_in=graph.pages[question.entities[-1]],
        facts=tuple(
            graph.snippets[step] for step in zip(question.entities, question.relations, strict=True)
        ),
        entities=question.entities,
        question=question,
    )


def draw(graph: KnowledgeGraph, rng: Random, *, hops: int, level: int, sets: bool) -> Draft | None:
    """Try to draw a question; None where a random choice led nowhere.

    Args:
        graph: To walk on.
        rng: Decides everything; advanced.
        hops: From 1 to 5.
        level: From 0 to 2.
        sets: Whether up to three answers are allowed.
    """
    walk = _walk(graph, rng, hops)
    if walk is None:
        return None
    start, path = walk
    nodes = _nodes(start, path)
    most = _MOST_ANSWERS if sets else 1
    if level:
        described = _describe(graph, rng, path, nodes, level, most)
        if described is None:
            return None
        clauses = [(0, edge) for edge in described]
        reached = _reached(graph, start, described, path)
    else:
        clauses, reached = _narrowed(graph, rng, path, nodes)
    if not 1 <= len(reached) <= most:
        return None
    return _draft(graph, start, path, clauses, reached, level)


def _walk(graph: KnowledgeGraph, rng: Random, hops: int) -> tuple[str, list[Edge]] | None:
    """A start, and facts that lead from it to a place not met before."""
    start = rng.choice(graph.entities)
    seen, path, here = {start}, [], start
    for hop in range(1, hops + 1):
        onward = [
            edge
            for edge in graph.at[here]
            if not edge.is_span
            and (there := _other(edge, here)) not in seen
            and (graph.is_entity(there) if hop < hops else True)
        ]
        if not onward:
            return None
        # By relation first: pages have many sections and few founders.
        relation = rng.choice(sorted({edge.relation for edge in onward}))
        edge = rng.choice([edge for edge in onward if edge.relation == relation])
        path.append(edge)
        here = _other(edge, here)
        seen.add(here)
    return start, path


def _nodes(start: str, path: Iterable[Edge]) -> list[str]:
    nodes = [start]
    for edge in path:
        nodes.append(_other(edge, nodes[-1]))
    return nodes


def _other(edge: Edge, end: str) -> str:
    return edge.tail if edge.head == end else edge.head


def _followed(graph: KnowledgeGraph, name: str, relation: str) -> set[str]:
    """Where a relation leads from a place, in either direction."""
    return {_other(edge, name) for edge in graph.at[name] if edge.relation == relation}


def _fitting(graph: KnowledgeGraph, name: str, clauses: Iterable[Edge]) -> set[str]:
    """What the clauses about an entity fit, itself among them."""
    fitting = [
        _followed(graph, constant, clause.relation)
        for clause in clauses
        if (constant := _other(clause, name)) in graph.at
    ]
    return set.intersection(*fitting)


def _reached(
    graph: KnowledgeGraph, start: str, clauses: Iterable[Edge], path: Iterable[Edge]
) -> set[str]:
    """Where the relations of a path lead from everything that the clauses about its start fit."""
    reached = _fitting(graph, start, clauses)
    for edge in path:
        reached = {name for place in reached for name in _followed(graph, place, edge.relation)}
    return reached


def _describe(
    graph: KnowledgeGraph,
    rng: Random,
    path: Sequence[Edge],
    nodes: Sequence[str],
    level: int,
    most: int,
) -> list[Edge] | None:
    """Facts about the start which together, and only together, make the answer unique.

    At level 2 spans stand for numbers and dates, and are preferred.
    """
    start, needed = nodes[0], _CLAUSES[level]
    told = [
        edge
        for edge in graph.at[start]
        if edge != path[0]
        and _other(edge, start) not in nodes
        and (not _has_span(graph, start, edge) if level == 2 else not edge.is_span)
        and len(_fitting(graph, start, [edge])) > 1
    ]
    spans = [edge for edge in told if edge.is_span]
    for _ in range(_TRIES if len(told) >= needed else 0):
        chosen = rng.sample(told, needed)
        if spans and not any(edge.is_span for edge in chosen):
            chosen[0] = rng.choice(spans)
        number = len(_reached(graph, start, chosen, path))
        parts = combinations(chosen, needed - 1)
        if number <= most and all(
            len(_reached(graph, start, part, path)) > number for part in parts
        ):
            return chosen
    return None


def _has_span(graph: KnowledgeGraph, name: str, edge: Edge) -> bool:
    """Whether a fact states a number or date of which a span can be told instead."""
    relation = edge.relation
    return not edge.is_span and any(
        other.is_span and other.relation in (relation, f"{relation} period", f"{relation} range")
        for other in graph.at[name]
    )


def _narrowed(
    graph: KnowledgeGraph, rng: Random, path: Sequence[Edge], nodes: Sequence[str]
) -> tuple[list[tuple[int, Edge]], set[str]]:
    """Clauses about pages on the way where a walk would lead to several; and where it then ends."""
    clauses: list[tuple[int, Edge]] = []
    reached = {nodes[0]}
    for number, edge in enumerate(path, start=1):
        reached = {name for place in reached for name in _followed(graph, place, edge.relation)}
        if number < len(path) and len(reached) > 1 and len(clauses) < _EXTRA:
            extra = _narrower(graph, rng, nodes[number], reached, path, nodes)
            if extra is not None:
                clauses.append((number, extra))
                reached &= _fitting(graph, nodes[number], [extra])
    return clauses, reached


def _narrower(
    graph: KnowledgeGraph,
    rng: Random,
    name: str,
    among: set[str],
    path: Collection[Edge],
    nodes: Collection[str],
) -> Edge | None:
    """A fact about a place on the way that fits it best among those that the walk may lead to."""
    told = [
        edge
        for edge in graph.at[name]
        if edge not in path and _other(edge, name) not in nodes and not edge.is_span
    ]
    tried = rng.sample(told, min(_TRIES, len(told)))
    sizes = {edge: len(among & _fitting(graph, name, [edge])) for edge in tried}
    best = min(tried, key=sizes.__getitem__, default=None)
    return best if best is not None and sizes[best] < len(among) else None


def _draft(
    graph: KnowledgeGraph,
    start: str,
    path: list[Edge],
    clauses: list[tuple[int, Edge]],
    answers: set[str],
    level: int,
) -> Draft:
    nodes = _nodes(start, path)
    variables = [f"V@{number}" for number in range(len(nodes))]
    variables[0] = "V@S" if level else f"C@{start}"
    variables[-1] = "?"
    triples: list[Triple] = []
    read: list[str] = []
    for number, variable in enumerate(variables):
        if number:
            here, there = nodes[number - 1], variables[number - 1]
            triples.append(_triple(path[number - 1], here, there, variable))
            read.append(path[number - 1].address)
        for at, edge in clauses:
            if at == number:
                triples.append(_triple(edge, nodes[at], variable, None))
                read.append(edge.address)
    return Draft(
        text=template_question(triples, is_page=nodes[-1] in graph.pages),
        answers=frozenset(answers),
        formalization=tuple(triples),
        hops=len(path),
        level=level,
        sources=tuple(dict.fromkeys(read)),
        stated_in=path[-1].address,
        facts=tuple(edge.snippet for edge in path),
        entities=tuple(nodes[:-1]),
    )


def _triple(edge: Edge, name: str, near: str, far: str | None) -> Triple:
    """A fact with a variable for one of its ends, and another or a constant for the other."""
    other = f"C@{_other(edge, name)}" if far is None else far
    return (near, edge.relation, other) if edge.head == name else (other, edge.relation, near)
