"""Multi-hop questions whose answers are known exactly.

A question starts at an entity, by name or described by clauses, and follows relations from page to
page. It is kept if its answer is unique, if every clause is needed for that, and if no page before
the last one of its path, and none of what the clauses name, states the answer.

Source: random walks and obfuscation as in arXiv 2507.02592 (WebSailor), triples and the demand that
no proper subset of the clauses decides as in arXiv 2507.15061 (WebShaper), levels as in
arXiv 2510.24701, which raises the uncertainty by atomic steps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from hanol.worlds._encyclopedia._descriptions import Clause, Descriptions, Level
from hanol.worlds._encyclopedia._graph import Entity, Triple
from hanol.worlds._encyclopedia._schema import ASK_ENTITY, ASK_ONE, ASK_SET, BY_NAME, EntityType


@dataclass(frozen=True)
class Question:
    """A question about an encyclopedia, with its answers and how to find them.

    Args:
        text: The question in words.
        answers: Every right answer; the whole set is asked for.
        triples: The question as (subject, relation, object): constants "C@text", variables "V@S"
            (a start that is described) and "V@1", "V@2", ..., and "?", what is asked for.
        hops: Relations followed from the start; 0 asks for the described entity itself.
        is_described: Whether the start is described by clauses instead of named.
        level: 0 for names; 1 for a start described by two facts; 2 for three, at least one of
            them a number or date of which only a span is told.
        entities: Titles of the pages to read, from the start to the one that states the answer.
        path: Addresses of these pages.
        relations: The relations followed, in order.
        clauses: The describing triples alone, all but the last part of `triples`.
    """

    text: str
    answers: frozenset[str]
    triples: tuple[Triple, ...]
    hops: int
    is_described: bool
    level: Level
    entities: tuple[str, ...]
    path: tuple[str, ...]
    relations: tuple[str, ...]
    clauses: tuple[Triple, ...]


class QuestionMaker:
    """Draws questions about one world; remembers which descriptions it has.

    Args:
        entities: The world.
        addresses: Address of each title.
    """

    def __init__(self, entities: Iterable[Entity], addresses: Mapping[str, str]) -> None:
        self._entities = {entity.title: entity for entity in entities}
        self._titles = tuple(self._entities)
        self._addresses = addresses
        self._descriptions = Descriptions(self._entities)

    def draw(
        self, rng: Random, *, hops: int, is_described: bool, level: Level, sets: bool
    ) -> Question | None:
        """Try to draw a question; None where a random choice led nowhere.

        Args:
            rng: Decides everything; advanced.
            hops: From 0 (only if described) up.
            is_described: Describe the start; must be true at levels 1 and 2.
            level: How much it is obfuscated.
            sets: Whether the last relation may have several values.
        """
        clauses: tuple[Clause, ...] = ()
        if is_described:
            described = self._descriptions.of_level(level)
            if not described:
                return None
            start = rng.choice(tuple(described))
            clauses = rng.choice(described[start])
        else:
            start = rng.choice(self._titles)
        walk = self._walk(rng, start, clauses, hops, sets)
        if walk is None:
            return None
        if not self._descriptions.are_all_needed(clauses, walk.relations, walk.answers):
            return None
        return self._question(rng, clauses, walk, level)

    def _walk(
        self, rng: Random, start: str, clauses: tuple[Clause, ...], hops: int, sets: bool
    ) -> "_Walk | None":
        """Follow random relations, never back to a page seen or to something the clauses name."""
        told = {clause.value for clause in clauses}
        used = {clause.relation.name for clause in clauses}
        walk = _Walk([start], [], frozenset([start]))
        for hop in range(1, hops + 1):
            facts = self._entities[walk.entities[-1]].facts
            names = [name for name in facts if self._leads_on(name, hop < hops, sets)]
            if hop == 1:  # the question would hold its own answer
                names = [name for name in names if name not in used]
            if not names:
                return None
            name = rng.choice(names)
            walk.relations.append(name)
            if hop < hops:
                [following] = facts[name]
                if following in walk.entities or following in told:
                    return None
                walk.entities.append(following)
            else:
                answers = frozenset(facts[name])
                read = {*walk.entities[:-1], *told} & self._entities.keys()
                if answers & {walk.entities[-1], *told} or self._is_told(answers, read):
                    return None
                walk = walk._replace(answers=answers)
        return walk

    @staticmethod
    def _leads_on(name: str, to_page: bool, sets: bool) -> bool:
        relation = BY_NAME[name]
        if to_page:
            return relation.kind == "entity" and not relation.is_set
        return sets or not relation.is_set

    def _is_told(self, answers: frozenset[str], titles: set[str]) -> bool:
        """Whether one of these pages names an answer: a shortcut."""
        return any(
            title in answers or not answers.isdisjoint(values)
            for title in titles
            for values in self._entities[title].facts.values()
        )

    def _question(
        self, rng: Random, clauses: tuple[Clause, ...], walk: "_Walk", level: Level
    ) -> Question:
        start = walk.entities[0]
        hops = len(walk.relations)
        subject = ("V@S" if hops else "?") if clauses else f"C@{start}"
        told = tuple((subject, clause.name, f"C@{clause.value}") for clause in clauses)
        chain = []
        for hop, name in enumerate(walk.relations, start=1):
            following = f"V@{hop}" if hop < hops else "?"
            chain.append((subject, name, following))
            subject = following
        return Question(
            text=_text(rng, start, self._entities[start].type, clauses, walk.relations),
            answers=walk.answers,
            triples=(*told, *chain),
            hops=hops,
            is_described=bool(clauses),
            level=level,
            entities=tuple(walk.entities),
            path=tuple(self._addresses[title] for title in walk.entities),
            relations=tuple(walk.relations),
            clauses=told,
        )


class _Walk(NamedTuple):
    """The pages read, the relations followed and where the last one leads."""

    entities: list[str]
    relations: list[str]
    answers: frozenset[str]


def _text(
    rng: Random,
    start: str,
    head: EntityType,
    clauses: tuple[Clause, ...],
    relations: list[str],
) -> str:
    """The question in words: "What is the mayor of the birthplace of Babin Bacalo?"."""
    asked = start
    if clauses:
        asked = f"the {head} {' and '.join(clause.words for clause in clauses)}"
    for name in relations:
        asked = f"the {name} of {asked}"
    if not relations:
        return rng.choice(ASK_ENTITY).format(x=asked)
    return rng.choice(ASK_SET if BY_NAME[relations[-1]].is_set else ASK_ONE).format(x=asked)
