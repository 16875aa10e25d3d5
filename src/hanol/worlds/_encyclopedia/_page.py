"""Pages of the encyclopedia: a few sentences each, as Markdown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from hanol.worlds._encyclopedia import _schema as schema
from hanol.worlds._encyclopedia._entities import Entity
from hanol.worlds._encyclopedia._schema import EntityType

_LINK = re.compile(r"\]\((doc:\d\d \d\d)\)")


@dataclass(frozen=True)
class Fact:
    """A fact as a page states it."""

    relation: str
    values: tuple[str, ...]  # one, or up to three if the relation is a set
    sentence: str  # with its links


@dataclass(frozen=True)
class WorldPage:
    """The page of one entity.

    Args:
        title: Name of the entity.
        type: Type of the entity.
        address: Opaque, "doc:12 34".
        alias: A second name, or None.
        facts: The facts that the page states, in no special order.
        text: One paragraph: the type, then facts and distractor sentences, shuffled. Entities are
            links, `[title](doc:12 34)`.
    """

    title: str
    type: EntityType
    address: str
    alias: str | None
    facts: tuple[Fact, ...]
    text: str

    @property
    def markdown(self) -> str:
        """The page as a file: a heading, and links to other files."""
        text = _LINK.sub(lambda link: f"]({_file_name(link[1])})", self.text)
        return f"# {self.title}\n\n{text}\n"

    @property
    def file_name(self) -> str:
        """Name of the page's file: the address without marks and spaces, "doc-12-34.md"."""
        return _file_name(self.address)


def _file_name(address: str) -> str:
    return re.sub(r"\W+", "-", address) + ".md"


def draw_addresses(rng: Random, entities: list[Entity]) -> dict[str, str]:
    """Address of each title."""
    numbers = rng.sample(range(len(schema.TWO_DIGITS) ** 2), len(entities))
    return {
        entity.title: f"doc:{schema.TWO_DIGITS[number // 100]} {schema.TWO_DIGITS[number % 100]}"
        for entity, number in zip(entities, numbers, strict=True)
    }


def draw_page(
    rng: Random, entity: Entity, addresses: Mapping[str, str], num_distractors: int
) -> WorldPage:
    """Write the page of an entity, which has all of its facts; `rng` decides wording and order."""
    facts = []
    for name, values in entity.facts.items():
        template = rng.choice(schema.BY_NAME[name].sentences)
        shown = [
            f"[{value}]({addresses[value]})" if value in addresses else value for value in values
        ]
        sentence = template.format(s=entity.title, o=_listed(shown))
        facts.append(Fact(name, values, sentence))
    sentences = [fact.sentence for fact in facts]
    if entity.alias is not None:
        sentences.append(rng.choice(schema.ALIASES).format(s=entity.title, o=entity.alias))
    sentences += [
        sentence.format(s=entity.title)
        for sentence in rng.sample(schema.DISTRACTORS, num_distractors)
    ]
    rng.shuffle(sentences)
    return WorldPage(
        title=entity.title,
        type=entity.type,
        address=addresses[entity.title],
        alias=entity.alias,
        facts=tuple(facts),
        text=" ".join([schema.INTRODUCTIONS[entity.type].format(s=entity.title), *sentences]),
    )


def _listed(values: list[str]) -> str:
    """A, B and C."""
    return " and ".join([", ".join(values[:-1]), values[-1]] if values[1:] else values)
