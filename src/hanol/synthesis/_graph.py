"""A knowledge graph whose every fact says where it is stated, and exact answers on it.

Source: (head, relation, tail, address, snippet) as the graphs of arXiv 2507.02592 (WebSailor) keep
them; questions on it are triples in the form of arXiv 2507.15061 (WebShaper).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from hanol.errors import DataError
from hanol.files import read_rows, replace_text
from hanol.synthesis._samples import Triple, evaluate_formalization

SLOT = "…"  # in a relation: where the tail stands, if not at the end
LINKS, MENTIONS, SECTION = "links to", "mentions", "has a section called"
_GENERIC = (LINKS, MENTIONS, SECTION)  # ours, so they mean one thing only
_SAMPLE = 200  # facts of a relation that are looked at before all of them
_YEAR = re.compile(r"(1\d{3}|20\d{2})")
_DATE = re.compile(r"(\d{4})-\d\d?-\d\d?|[A-Z][a-z]+ \d{1,2}, (\d{4})|\d{1,2} [A-Z][a-z]+ (\d{4})")
_NUMBER = re.compile(r"\d{1,3}(?:[, ]\d{3})+|\d+")


@dataclass(frozen=True)
class Edge:
    """A fact.

    Args:
        head: An entity, by its name.
        relation: Words that make a sentence between the names, "was born in"; `SLOT` is where the
            tail stands if anything follows it, "has … inhabitants". In a world: the relation.
        tail: An entity, or a word, number or date.
        address: Of the document that states it.
        snippet: The sentence.
        is_span: The tail is a span that a number or date lies in.
        is_implied: True, but a better fact joins the same two: it counts, and is never told.
    """

    head: str
    relation: str
    tail: str
    address: str
    snippet: str
    is_span: bool = False
    is_implied: bool = False

    @property
    def triple(self) -> Triple:
        """The fact alone."""
        return self.head, self.relation, self.tail


class KnowledgeGraph:
    """Facts, and the pages that entities have.

    Args:
        edges: Facts; of equal ones, the first is kept.
        pages: Address of the page of each entity that has one.
        is_worded: Relations are words of documents, so that two of them may mean the same.
    """

    def __init__(
        self, edges: Iterable[Edge], pages: dict[str, str], *, is_worded: bool = False
    ) -> None:
        self.is_worded = is_worded
        self.edges: tuple[Edge, ...] = tuple(
            {edge.triple: edge for edge in reversed(list(edges))}.values()
        )[::-1]
        self.pages = pages
        self._likenesses: dict[str, list[str]] = {}

    @cached_property
    def at(self) -> dict[str, tuple[Edge, ...]]:
        """The facts to tell that name an entity or value, at either end."""
        found: dict[str, list[Edge]] = {}
        for edge in self.edges:
            if edge.is_implied:
                continue
            found.setdefault(edge.head, []).append(edge)
            if edge.tail != edge.head:
                found.setdefault(edge.tail, []).append(edge)
        return {name: tuple(edges) for name, edges in found.items()}

    @cached_property
    def snippets(self) -> dict[tuple[str, str], str]:
        """The sentence that states a relation of a head."""
        return {(edge.head, edge.relation): edge.snippet for edge in self.edges}

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """What facts are about; everything else is a word, number or date."""
        return tuple(dict.fromkeys(edge.head for edge in self.edges if not edge.is_implied))

    @cached_property
    def _is_entity(self) -> frozenset[str]:
        return frozenset((*self.entities, *self.pages))

    def is_entity(self, name: str) -> bool:
        """Whether a name is of an entity."""
        return name in self._is_entity

    @cached_property
    def _of_relation(self) -> dict[str, list[Triple]]:
        found: dict[str, list[Triple]] = {}
        for edge in self.edges:
            found.setdefault(edge.relation, []).append(edge.triple)
        return found

    @cached_property
    def _ends(self) -> dict[str, tuple[set[str], set[str]]]:
        """Heads and tails of each relation that is not ours."""
        ends: dict[str, tuple[set[str], set[str]]] = {}
        for edge in self.edges:
            if edge.relation not in _GENERIC:
                heads, tails = ends.setdefault(edge.relation, (set(), set()))
                heads.add(edge.head)
                tails.add(edge.tail)
        return ends

    @cached_property
    def _stated(self) -> dict[str, set[str]]:
        """The relations of each head that are not ours."""
        stated: dict[str, set[str]] = {}
        for relation, (heads, _) in self._ends.items():
            for head in heads:
                stated.setdefault(head, set()).add(relation)
        return stated

    def _may_mean_the_same(self, one: str, other: str) -> bool:
        """Whether two relations may be one in other words.

        They have no head in common, because nobody says the same of something twice. And they join
        the same kinds of things: a tail in common, or third relations that the pages of both state.
        """
        (heads, tails), (other_heads, other_tails) = self._ends[one], self._ends[other]
        if one == other or not heads.isdisjoint(other_heads):
            return False
        first, second = self._kinds(heads) - {one}, self._kinds(other_heads) - {other}
        if first and second and first.isdisjoint(second):
            return False
        return bool(tails & other_tails or self._kinds(tails) & self._kinds(other_tails))

    def _kinds(self, names: Iterable[str]) -> set[str]:
        return {relation for name in names for relation in self._stated.get(name, ())}

    def _like(self, relation: str) -> list[str]:
        if relation not in self._ends:
            return []
        if relation not in self._likenesses:
            self._likenesses[relation] = [
                other for other in self._ends if self._may_mean_the_same(relation, other)
            ]
        return self._likenesses[relation]

    def answers(self, formalization: Sequence[Triple], *, loosely: bool = False) -> set[str]:
        """Everything that "?" can stand for, by `evaluate_formalization` on all facts.

        Args:
            formalization: Triples.
            loosely: Let facts count whose relation may mean the same, where relations are words.
        """
        facts = self._facts(formalization, None)
        if loosely and self.is_worded:
            facts += [
                (head, relation, tail)
                for relation in dict.fromkeys(relation for _, relation, _ in formalization)
                for other in self._like(relation)
                for head, _, tail in self._of_relation[other]
            ]
        return evaluate_formalization(formalization, facts)

    def has_more_answers(self, formalization: Sequence[Triple], number: int) -> bool:
        """Whether there are more than so many answers.

        Some of the facts often show it already: more facts never make fewer answers.
        """
        few = evaluate_formalization(formalization, self._facts(formalization, _SAMPLE))
        return len(few) > number or len(self.answers(formalization)) > number

    def _facts(self, formalization: Sequence[Triple], most: int | None) -> list[Triple]:
        relations = dict.fromkeys(relation for _, relation, _ in formalization)
        return [
            fact for relation in relations for fact in self._of_relation.get(relation, [])[:most]
        ]

    def write(self, path: str | Path) -> None:
        """Write the facts, one JSON object a line; pages of entities come first."""
        rows: list[dict[str, object]] = [{"is_worded": self.is_worded}]
        rows += [{"entity": name, "address": address} for name, address in self.pages.items()]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        lines += [json.dumps(asdict(edge), ensure_ascii=False) for edge in self.edges]
        replace_text(Path(path), "".join(line + "\n" for line in lines))

    @classmethod
    def read(cls, path: str | Path) -> "KnowledgeGraph":
        """Read what `write` wrote.

        Raises:
            DataError: A row is neither a page nor a fact.
        """
        pages: dict[str, str] = {}
        edges: list[Edge] = []
        is_worded = False
        for line, row in read_rows(path):
            try:
                if "is_worded" in row:
                    is_worded = row["is_worded"]
                elif "entity" in row:
                    pages[row["entity"]] = row["address"]
                else:
                    edges.append(Edge(**row))
            except (TypeError, KeyError) as err:
                raise DataError(f"{str(path)!r}, line {line}: this is no fact ({err}).") from err
        return cls(edges, pages, is_worded=is_worded)


def span_of(text: str) -> str | None:
    """Words for the span that a number, date or year lies in; None for other texts.

    Years and dates lie in quarters of centuries, numbers in thirds of their power of ten.

    Example:
        >>> span_of("May 7, 1931"), span_of("1931"), span_of("3,411")
        ('a day between 1925 and 1949', 'a year between 1925 and 1949', 'between 1000 and 3999')
    """
    if (date := _DATE.fullmatch(text)) is not None:
        first = int(next(filter(None, date.groups()))) // 25 * 25
        return f"a day between {first} and {first + 24}"
    if _YEAR.fullmatch(text):
        first = int(text) // 25 * 25
        return f"a year between {first} and {first + 24}"
    if _NUMBER.fullmatch(text):
        digits = re.sub(r"\D", "", text).lstrip("0") or "0"
        power = 10 ** (len(digits) - 1)
        first = max(0, (int(digits[0]) - 1) // 3 * 3 + 1) if digits != "0" else 0
        return f"between {first * power} and {(first + 3) * power - 1}"
    return None
