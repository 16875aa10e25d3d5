"""Draws the entities of a world and the facts about them: connected, with cycles.

Source: arXiv 2507.02592 (WebSailor) draws its questions from a graph with cycles and shared
neighbours, so that only a whole question decides; here popular values are drawn more often, so that
many entities share facts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from hanol.worlds._encyclopedia import _schema as schema
from hanol.worlds._encyclopedia._schema import EntityType, Relation
from hanol.worlds._world import Split

# A name belongs to one split, by the sum of its pieces modulo 4: no two splits share a name.
CLASSES: dict[Split, tuple[int, ...]] = {"train": (0, 1), "dev": (2,), "test": (3,)}
_TWO_PIECES = 0.6  # share of names of two pieces; the others have three
_WITH_ALIAS = 0.2
_NUM_FACTS = (3, 6)  # least and most of a page, as far as its type has so many relations
_PAIRED = 0.6  # share of the entities that have a partner in a symmetric relation


@dataclass
class Entity:
    """An entity and its facts: values by the name of the relation."""

    title: str
    type: EntityType
    alias: str | None
    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)


def draw_entities(rng: Random, num_entities: int, split: Split) -> list[Entity]:
    """Entities by type, with facts that connect them all; `rng` decides everything."""
    names = _names(rng, split)
    entities = []
    numbers = {head: max(2, int(num_entities * share)) for head, share in schema.SHARES.items()}
    numbers["person"] += num_entities - sum(numbers.values())
    for head, number in numbers.items():
        for _ in range(number):
            alias = next(names) if rng.random() < _WITH_ALIAS else None
            entities.append(Entity(next(names), head, alias))
    of_type: dict[EntityType, list[Entity]] = {head: [] for head in schema.SHARES}
    for entity in entities:
        of_type[entity.type].append(entity)
    for head, members in of_type.items():
        _pair(rng, head, members)
    for entity in entities:
        _add_facts(rng, entity, of_type)
    _connect(rng, entities)
    return entities


def _names(rng: Random, split: Split) -> Iterator[str]:
    """New names of one split, none of which occurs inside another."""
    classes, random = CLASSES[split], rng.random
    names: set[tuple[int, ...]] = set()
    pairs: set[tuple[int, ...]] = set()  # neighbours in names of three pieces
    while True:
        first = int(random() * len(schema.PIECES))
        middle = () if random() < _TWO_PIECES else (int(random() * len(schema.PIECES)),)
        residue = classes[int(random() * len(classes))]
        last = 4 * int(random() * len(schema.PIECES) / 4)
        pieces: tuple[int, ...] = (first, *middle, last + (residue - first - sum(middle)) % 4)
        inner = {pieces[:2], pieces[1:]} if middle else set()
        is_taken = pieces in names or pieces in pairs or inner & names
        if not is_taken and len(set(pieces)) == len(pieces):
            names.add(pieces)
            pairs |= inner
            yield " ".join(schema.PIECES[piece] for piece in pieces)


def _pair(rng: Random, head: EntityType, members: list[Entity]) -> None:
    """Give most of the entities partners in the symmetric relation of their type, if it has one."""
    for relation in schema.OF_TYPE[head]:
        if relation.is_symmetric:
            shuffled = rng.sample(members, len(members))
            for i in range(0, int(len(members) * _PAIRED) - 1, 2):
                one, other = shuffled[i], shuffled[i + 1]
                one.facts[relation.name] = (other.title,)
                other.facts[relation.name] = (one.title,)


def _add_facts(rng: Random, entity: Entity, of_type: dict[EntityType, list[Entity]]) -> None:
    relations = [relation for relation in schema.OF_TYPE[entity.type] if not relation.is_symmetric]
    chosen = [relation for relation in relations if relation.is_anchor]
    others = [relation for relation in relations if not relation.is_anchor]
    number = rng.randint(*_NUM_FACTS) - len(entity.facts) - len(chosen)
    chosen += rng.sample(others, max(0, min(number, len(others))))
    for relation in chosen:
        entity.facts[relation.name] = _values(rng, relation, of_type)


def _values(
    rng: Random, relation: Relation, of_type: dict[EntityType, list[Entity]]
) -> tuple[str, ...]:
    if relation.tail is not None:
        targets = of_type[relation.tail]
        number = 1 + int(3 * rng.random()) if relation.is_set else 1
        # The square makes the first of a type popular: the first tenth gets a third of the links.
        titles = (targets[int(len(targets) * rng.random() ** 2)].title for _ in range(number))
        return tuple(dict.fromkeys(titles))
    if relation.words:
        return (rng.choice(relation.words),)
    if relation.kind == "number":
        return (f"{rng.randint(10, 99)} {rng.choice(schema.TWO_DIGITS)}",)
    year = str(rng.randint(schema.FIRST_YEAR, schema.LAST_YEAR))
    if relation.kind == "year":
        return (year,)
    return (f"{rng.randint(1, schema.DAYS)} {rng.choice(schema.MONTHS)} {year}",)


def _connect(rng: Random, entities: list[Entity]) -> None:
    """Move persons of the smaller parts to birthplaces in the largest, until there is one part.

    Anchors make sure that every part has a person and a city. A move may leave a still smaller
    part behind, but takes at least the person out of it, so this ends.
    """
    by_title = {entity.title: entity for entity in entities}
    while len(parts := _parts(by_title)) > 1:
        largest = max(parts, key=len)
        cities = [title for title in largest if by_title[title].type == "city"]
        for part in parts:
            if part is not largest:
                person = next(title for title in part if by_title[title].type == "person")
                by_title[person].facts["birthplace"] = (rng.choice(cities),)


def _parts(by_title: dict[str, Entity]) -> list[list[str]]:
    """Titles of the parts that are connected by links, in either direction."""
    neighbours: dict[str, list[str]] = {title: [] for title in by_title}
    for title, entity in by_title.items():
        for values in entity.facts.values():
            for value in values:
                if value in neighbours:
                    neighbours[title].append(value)
                    neighbours[value].append(title)
    parts = []
    seen: set[str] = set()
    for title in by_title:
        if title not in seen:
            seen.add(title)
            part = [title]
            for member in part:  # grows while it is read
                new = [other for other in neighbours[member] if other not in seen]
                part += dict.fromkeys(new)
                seen.update(new)
            parts.append(part)
    return parts
