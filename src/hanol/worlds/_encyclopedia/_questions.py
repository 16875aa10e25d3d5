"""Questions about an encyclopedia with exact answers.

A question starts at an entity, by name or described by clauses, and follows relations from page to
page. It is kept if its answer is unique, if every clause is needed for that, and if no page before
the last one of its path, and none of what the clauses name, states the answer.

Source: random walks and obfuscation as in arXiv 2507.02592 (WebSailor), triples and the demand that
no proper subset of the clauses decides as in arXiv 2507.15061 (WebShaper), levels as in
arXiv 2510.24701, which raises the uncertainty by atomic steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from random import Random

from hanol.worlds._encyclopedia import _schema as schema
from hanol.worlds._encyclopedia._schema import EntityType
from hanol.worlds._graph import Edge, KnowledgeGraph
from hanol.worlds._walk import GraphQuestion, QuestionWalker, nodes_of
from hanol.worlds._world import Level

_BASE = schema.BY_NAME | schema.BY_FUZZY_NAME  # relations, also by the name of their spans


class EncyclopediaWalker(QuestionWalker):
    """Draws questions about one encyclopedia from its facts, spans, and the type of each title."""

    def __init__(self, graph: KnowledgeGraph, types: Mapping[str, EntityType]) -> None:
        super().__init__(graph)
        self._types = types
        self._about: dict[str, list[Edge]] = {title: [] for title in types}
        for edge in graph.edges:
            self._about[edge.head].append(edge)
        self._of_level: dict[Level, dict[str, list[tuple[Edge, ...]]]] = {}

    def draw_question(
        self, rng: Random, *, hops: int, is_described: bool, level: Level, sets: bool
    ) -> GraphQuestion | None:
        """Try to draw a question, described for 0 hops and from level 1; None where it failed."""
        clauses: tuple[Edge, ...] = ()
        if is_described:
            described = self._descriptions(level)
            if not described:
                return None
            start = rng.choice(tuple(described))
            clauses = rng.choice(described[start])
        else:
            start = rng.choice(tuple(self._types))
        told = {clause.tail for clause in clauses}
        used = {_BASE[clause.relation].name for clause in clauses}

        def onward(here: str, left: int, seen: set[str]) -> list[Edge]:
            return [
                edge
                for name, edge in self._facts(here).items()
                if not (here == start and name in used)  # the question would hold its answer
                and (left == 0 or schema.BY_NAME[name].kind == "entity")
                and ((left == 0 and sets) or not schema.BY_NAME[name].is_set)
            ]

        path = self.walk(rng, start, hops, onward, {start, *told})
        if path is None:
            return None
        nodes = nodes_of(start, path)
        answers = self.reached(start, (), path)
        if path and self._is_told(answers, {*nodes[:-2], *told}, nodes[-2]):
            return None
        # Without its only clause a question asks about everything.
        if len(clauses) > 1 and not self.are_needed(start, clauses, path, len(answers)):
            return None
        text = _text(rng, start, self._types[start], clauses, [edge.relation for edge in path])
        return self.question(start, path, [(0, edge) for edge in clauses], answers, level, text)

    def _facts(self, title: str) -> dict[str, Edge]:
        """The first fact of each relation that a page states."""
        facts: dict[str, Edge] = {}
        for edge in self._about[title]:
            if not edge.is_span:
                facts.setdefault(edge.relation, edge)
        return facts

    def _is_told(self, answers: set[str], read: set[str], last: str) -> bool:
        """Whether the question or a page read before the last names an answer: a shortcut."""
        return not answers.isdisjoint((*read, last)) or any(
            edge.tail in answers
            for title in read & self._types.keys()
            for edge in self._about[title]
        )

    def _descriptions(self, level: Level) -> dict[str, list[tuple[Edge, ...]]]:
        """Descriptions that fit only one entity, while all of their parts fit more; cached."""
        if level not in self._of_level:
            found = {title: list(self._describe_all(title, level)) for title in self._types}
            self._of_level[level] = {title: each for title, each in found.items() if each}
        return self._of_level[level]

    def _describe_all(self, title: str, level: Level) -> Iterator[tuple[Edge, ...]]:
        holders = {edge: self.fitting(title, [edge]) for edge in self._about[title]}
        if level == 0:
            for clause, fitting in holders.items():
                if self._graph.is_entity(clause.tail) and len(fitting) == 1:
                    yield (clause,)
            return
        # What fits this entity alone makes every other clause superfluous.
        shared = [
            clause
            for clause, fitting in holders.items()
            if len(fitting) > 1 and (level == 2 or not clause.is_span)
        ]
        pairs = {pair: holders[pair[0]] & holders[pair[1]] for pair in combinations(shared, 2)}
        if level == 1:
            yield from (pair for pair, both in pairs.items() if len(both) == 1)
            return
        for a, b, c in combinations(shared, 3):
            both = pairs[a, b]
            has_span = a.is_span or b.is_span or c.is_span
            no_two_decide = min(len(both), len(pairs[a, c]), len(pairs[b, c])) > 1
            if has_span and no_two_decide and len(both & holders[c]) == 1:
                yield a, b, c


def _words(clause: Edge) -> str:
    """The clause in a question: "whose mayor is Babin Bacalo"."""
    relation = _BASE[clause.relation]
    form = schema.CLAUSE_INCLUDES if relation.is_set else schema.CLAUSE_IS
    if clause.is_span:
        form = schema.CLAUSE_BETWEEN
    return form.format(r=relation.name, o=clause.tail)


def _text(
    rng: Random, start: str, head: EntityType, clauses: Sequence[Edge], relations: Sequence[str]
) -> str:
    """The question in words: "What is the mayor of the birthplace of Babin Bacalo?"."""
    asked = start
    if clauses:
        asked = f"the {head} {' and '.join(_words(clause) for clause in clauses)}"
    for name in relations:
        asked = f"the {name} of {asked}"
    if not relations:
        return rng.choice(schema.ASK_ENTITY).format(x=asked)
    is_set = schema.BY_NAME[relations[-1]].is_set
    return rng.choice(schema.ASK_SET if is_set else schema.ASK_ONE).format(x=asked)
