"""Describe entities by clauses that only together decide which one is meant.

Source: arXiv 2507.15061 (WebShaper) forbids clauses that are superfluous; arXiv 2507.02592
(WebSailor) tells spans in place of numbers and dates.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Literal, NamedTuple

from hanol.worlds._encyclopedia._graph import Entity, span_of
from hanol.worlds._encyclopedia._schema import (
    BY_NAME,
    CLAUSE_BETWEEN,
    CLAUSE_INCLUDES,
    CLAUSE_IS,
    Relation,
)

Level = Literal[0, 1, 2]


class Clause(NamedTuple):
    """One thing that is said of an entity in place of its name."""

    relation: Relation
    value: str
    is_fuzzy: bool

    @property
    def name(self) -> str:
        """The relation in a triple."""
        return self.relation.fuzzy_name if self.is_fuzzy else self.relation.name

    @property
    def words(self) -> str:
        """The clause in a question: "whose mayor is Babin Bacalo"."""
        form = CLAUSE_INCLUDES if self.relation.is_set else CLAUSE_IS
        if self.is_fuzzy:
            form = CLAUSE_BETWEEN
        return form.format(r=self.relation.name, o=self.value)


class Descriptions:
    """The descriptions that the entities of a world have.

    Args:
        entities: By title.
    """

    def __init__(self, entities: Mapping[str, Entity]) -> None:
        self._entities = entities
        self._clauses = {title: tuple(_clauses(entity)) for title, entity in entities.items()}
        self._holders: dict[Clause, set[str]] = {}
        for title, clauses in self._clauses.items():
            for clause in clauses:
                self._holders.setdefault(clause, set()).add(title)
        self._of_level: dict[Level, dict[str, list[tuple[Clause, ...]]]] = {}

    def are_all_needed(
        self, clauses: tuple[Clause, ...], relations: list[str], answers: frozenset[str]
    ) -> bool:
        """Whether without any one of the clauses there would be more answers.

        Fewer clauses let more answers in, so smaller parts need no look.

        Args:
            clauses: Of the start.
            relations: What is followed from there.
            answers: Where that leads from the one entity that all clauses fit.
        """
        if len(clauses) < 2:
            return True  # without its only clause a question asks about everything
        for kept in combinations(clauses, len(clauses) - 1):
            reached = set.intersection(*(self._holders[clause] for clause in kept))
            for name in relations:
                reached = {
                    value
                    for title in reached
                    if title in self._entities
                    for value in self._entities[title].facts.get(name, ())
                }
            if len(reached) == len(answers):
                return False
        return True

    def of_level(self, level: Level) -> dict[str, list[tuple[Clause, ...]]]:
        """Descriptions that fit one entity only, all of whose parts fit more; computed once."""
        if level not in self._of_level:
            found = {title: list(self._draw_up(title, level)) for title in self._entities}
            self._of_level[level] = {title: each for title, each in found.items() if each}
        return self._of_level[level]

    def _draw_up(self, title: str, level: Level) -> Iterator[tuple[Clause, ...]]:
        clauses = self._clauses[title]
        if level == 0:
            for clause in clauses:
                if clause.relation.kind == "entity" and len(self._holders[clause]) == 1:
                    yield (clause,)
            return
        # What fits this entity alone makes every other clause superfluous.
        shared = [
            clause
            for clause in clauses
            if len(self._holders[clause]) > 1 and (level == 2 or not clause.is_fuzzy)
        ]
        if level == 1:
            for one, other in combinations(shared, 2):
                if len(self._holders[one] & self._holders[other]) == 1:
                    yield one, other
            return
        pairs = {
            pair: self._holders[pair[0]] & self._holders[pair[1]]
            for pair in combinations(shared, 2)
        }
        for a, b, c in combinations(shared, 3):
            both = pairs[a, b]
            is_fuzzy = a.is_fuzzy or b.is_fuzzy or c.is_fuzzy
            no_two_decide = min(len(both), len(pairs[a, c]), len(pairs[b, c])) > 1
            if is_fuzzy and no_two_decide and len(both & self._holders[c]) == 1:
                yield a, b, c


def _clauses(entity: Entity) -> Iterator[Clause]:
    """What can describe an entity: its facts, and the spans of its numbers and dates."""
    for name, values in entity.facts.items():
        relation = BY_NAME[name]
        for value in values:
            yield Clause(relation, value, is_fuzzy=False)
            if (span := span_of(relation, value)) is not None:
                yield Clause(relation, span, is_fuzzy=True)
