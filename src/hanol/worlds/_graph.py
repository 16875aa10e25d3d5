"""A knowledge graph whose facts say where they are stated, and exact answers to questions.

Source: (head, relation, tail, address, snippet) as the graphs of arXiv 2507.02592 (WebSailor) keep
them; questions on it are triples in the form of arXiv 2507.15061 (WebShaper).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from hanol.errors import DataError
from hanol.rows import read_rows, replace_rows

Triple = tuple[str, str, str]
Neighbours = Mapping[str, Mapping[str, set[str]]]  # by relation, then by either end of a fact

SLOT = "…"  # in a relation: the position of the tail, if it is not the end
LINKS, MENTIONS, SECTION = "links to", "mentions", "has a section called"
_GENERIC = (LINKS, MENTIONS, SECTION)  # our own relations, which have one meaning each
_SAMPLE = 200  # facts per relation that are tried before all of them
_YEAR = re.compile(r"(1\d{3}|20\d{2})")
_DATE = re.compile(r"(\d{4})-\d\d?-\d\d?|[A-Z][a-z]+ \d{1,2}, (\d{4})|\d{1,2} [A-Z][a-z]+ (\d{4})")
_NUMBER = re.compile(r"\d{1,3}(?:[, ]\d{3})+|\d+")


@dataclass(frozen=True)
class Edge:
    """A fact.

    Args:
        head: Name of an entity.
        relation: Words that make a sentence between the names, such as "was born in"; `SLOT` marks
            the position of a tail that is not at the end, as in "has … inhabitants". In a world,
            the name of the relation.
        tail: Name of an entity, or a word, number or date.
        address: Address of the document that states the fact.
        snippet: The sentence that states it.
        is_span: Whether the tail is a range that contains a number or date.
        is_implied: Whether a better fact joins the same two names: it is true, so it counts for
            answers, but no question uses it.
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
        """Head, relation and tail."""
        return self.head, self.relation, self.tail


class KnowledgeGraph:
    """Facts, and the pages that entities have.

    Args:
        edges: Facts; of equal ones the first is kept.
        pages: Address of the page of each entity that has one.
        is_worded: Whether relations are words of documents, two of which may mean the same.
    """

    def __init__(
        self, edges: Iterable[Edge], pages: dict[str, str], *, is_worded: bool = False
    ) -> None:
        self.is_worded = is_worded
        self.edges: tuple[Edge, ...] = tuple(
            {edge.triple: edge for edge in reversed(list(edges))}.values()
        )[::-1]
        self.pages = pages
        self._loose: dict[str, dict[str, set[str]]] = {}

    @cached_property
    def at(self) -> dict[str, tuple[Edge, ...]]:
        """The facts about each entity or value, at either end, without implied ones."""
        found: dict[str, list[Edge]] = {}
        for edge in self.edges:
            for end in () if edge.is_implied else dict.fromkeys((edge.head, edge.tail)):
                found.setdefault(end, []).append(edge)
        return {name: tuple(edges) for name, edges in found.items()}

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """Names with facts about them; everything else is a word, number or date."""
        return tuple(dict.fromkeys(edge.head for edge in self.edges if not edge.is_implied))

    @cached_property
    def _is_entity(self) -> frozenset[str]:
        return frozenset((*self.entities, *self.pages))

    def is_entity(self, name: str) -> bool:
        """Whether a name is that of an entity."""
        return name in self._is_entity

    @cached_property
    def _neighbours(self) -> Neighbours:
        return _neighbours_of(edge.triple for edge in self.edges)

    @cached_property
    def _sample(self) -> Neighbours:
        """The first facts of each relation."""
        seen: Counter[str] = Counter()
        few = []
        for edge in self.edges:
            seen[edge.relation] += 1
            if seen[edge.relation] <= _SAMPLE:
                few.append(edge.triple)
        return _neighbours_of(few)

    def followed(self, names: Iterable[str], relation: str) -> set[str]:
        """Where a relation leads from entities or values, in either direction."""
        facts = self._neighbours.get(relation, {})
        return {there for name in names for there in facts.get(name, ())}

    @cached_property
    def _ends(self) -> dict[str, tuple[set[str], set[str]]]:
        """Heads and tails of each relation, except our own."""
        ends: dict[str, tuple[set[str], set[str]]] = {}
        for edge in self.edges:
            if edge.relation not in _GENERIC:
                heads, tails = ends.setdefault(edge.relation, (set(), set()))
                heads.add(edge.head)
                tails.add(edge.tail)
        return ends

    @cached_property
    def _stated(self) -> dict[str, set[str]]:
        """The relations of each head, except our own."""
        stated: dict[str, set[str]] = {}
        for relation, (heads, _) in self._ends.items():
            for head in heads:
                stated.setdefault(head, set()).add(relation)
        return stated

    def _may_mean_the_same(self, one: str, other: str) -> bool:
        """Whether two relations may be the same in different words."""
        # They have no head in common, because nobody states a fact twice. And they join the same
        # kinds of things: they share a tail, or their heads or tails share a third relation.
        (heads, tails), (other_heads, other_tails) = self._ends[one], self._ends[other]
        if one == other or not heads.isdisjoint(other_heads):
            return False
        first, second = self._kinds(heads) - {one}, self._kinds(other_heads) - {other}
        if first and second and first.isdisjoint(second):
            return False
        return bool(tails & other_tails or self._kinds(tails) & self._kinds(other_tails))

    def _kinds(self, names: Iterable[str]) -> set[str]:
        return {relation for name in names for relation in self._stated.get(name, ())}

    def _loosely(self, relation: str) -> dict[str, set[str]]:
        """The facts of a relation and of all that may mean the same."""
        if relation not in self._loose:
            merged = {name: set(ends) for name, ends in self._neighbours.get(relation, {}).items()}
            for other in self._ends if relation in self._ends else ():
                if self._may_mean_the_same(relation, other):
                    for name, ends in self._neighbours[other].items():
                        merged.setdefault(name, set()).update(ends)
            self._loose[relation] = merged
        return self._loose[relation]

    def answers(self, formalization: Sequence[Triple], *, loosely: bool = False) -> set[str]:
        """Everything that "?" can stand for, by `evaluate_formalization` on all facts.

        Args:
            formalization: Triples.
            loosely: Also count facts whose relation may mean the same, where relations are words.
        """
        facts = self._neighbours
        if loosely and self.is_worded:
            facts = {relation: self._loosely(relation) for _, relation, _ in formalization}
        return _evaluate(formalization, facts)

    def has_more_answers(self, formalization: Sequence[Triple], number: int) -> bool:
        """Whether there are more than `number` answers.

        A sample of the facts often shows it already: more facts never make fewer answers.
        """
        few = _evaluate(formalization, self._sample)
        return len(few) > number or len(self.answers(formalization)) > number

    def write(self, path: str | Path) -> None:
        """Write the pages of entities and the facts as JSON lines."""
        rows: list[dict[str, object]] = [{"is_worded": self.is_worded}]
        rows += [{"entity": name, "address": address} for name, address in self.pages.items()]
        replace_rows(path, [*rows, *map(asdict, self.edges)])

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
                raise DataError(f"{str(path)!r}, line {line}: this is not a fact ({err}).") from err
        return cls(edges, pages, is_worded=is_worded)


def evaluate_formalization(triples: Sequence[Triple], graph: Iterable[Triple]) -> set[str]:
    """Answers of a formalised question on a knowledge graph.

    A triple stands for the knowledge projection R(S) = {u : R(u, v) or R(v, u), v in S} of
    WebShaper (arXiv 2507.15061, section 3): a relation holds in either direction. Triples that
    share a variable intersect. The union R(S1 ∪ S2) is one triple whose constant names several
    entities, "C@a|b".

    Args:
        triples: Each end is a variable "V@X", a constant "C@text", or what is asked: "?".
        graph: Facts (head, relation, tail).

    Returns:
        Every entity that "?" can stand for.

    Raises:
        DataError: "?" does not occur, or an end is none of the three kinds.
    """
    return _evaluate(triples, _neighbours_of(graph))


def _neighbours_of(facts: Iterable[Triple]) -> Neighbours:
    """A relation holds in either direction, so each fact counts twice."""
    found: dict[str, dict[str, set[str]]] = {}
    for head, relation, tail in facts:
        ends = found.setdefault(relation, {})
        ends.setdefault(head, set()).add(tail)
        ends.setdefault(tail, set()).add(head)
    return found


def _evaluate(triples: Sequence[Triple], neighbours: Neighbours) -> set[str]:
    ends = [end for subject, _, thing in triples for end in (subject, thing)]
    for end in ends:
        if end != "?" and not end.startswith(("V@", "C@")):
            raise DataError(f"{end!r} is neither a variable (V@X), a constant (C@text) nor '?'.")
    if "?" not in ends:
        raise DataError("The formalisation asks for nothing: '?' stands in none of its triples.")
    # Rows of a growing join: a value for each variable seen so far.
    rows: list[dict[str, str]] = [{}]
    waiting = list(triples)
    while waiting and rows:
        # The triple with the most ends known keeps the join small.
        known = [
            sum(_values(end, rows[0]) is not None for end in triple[::2]) for triple in waiting
        ]
        chosen = waiting.pop(known.index(max(known)))
        facts = neighbours.get(chosen[1], {})
        extended = (new for row in rows for new in _extended(row, chosen, facts))
        rows = list({tuple(sorted(row.items())): row for row in extended}.values())
    return {row["?"] for row in rows}


def _values(end: str, row: Mapping[str, str]) -> list[str] | None:
    """What an end of a triple can be; None for a variable without value."""
    if end.startswith("C@"):
        return [end[2:], *end[2:].split("|")]
    return [row[end]] if end in row else None


def _extended(
    row: Mapping[str, str], triple: Triple, facts: Mapping[str, set[str]]
) -> Iterator[dict[str, str]]:
    """A row with the values that the triple's variables take in the facts of its relation."""
    first, _, second = triple
    if _values(first, row) is None:
        first, second = second, first
    starts = _values(first, row)
    for start in facts if starts is None else starts:
        with_start = dict(row) if first.startswith("C@") else {**row, first: start}
        allowed = _values(second, with_start)
        for entity in facts.get(start, ()):
            if allowed is None:
                yield {**with_start, second: entity}
            elif entity in allowed:
                yield with_start


def span_of(text: str) -> str | None:
    """Words for a range that contains a number, date or year; None for other texts.

    The range of a year or date is a quarter of a century, that of a number a third of its power of
    ten.

    Example:
        >>> span_of("May 7, 1931"), span_of("1931"), span_of("3,411")
        ('a day between 1925 and 1949', 'a year between 1925 and 1949', 'between 1000 and 3999')
    """
    if (date := _DATE.fullmatch(text) or _YEAR.fullmatch(text)) is not None:
        first = int(next(filter(None, date.groups()))) // 25 * 25
        return f"a {'year' if date.re is _YEAR else 'day'} between {first} and {first + 24}"
    if _NUMBER.fullmatch(text):
        digits = re.sub(r"\D", "", text).lstrip("0") or "0"
        power = 10 ** (len(digits) - 1)
        first = max(0, (int(digits[0]) - 1) // 3 * 3 + 1) if digits != "0" else 0
        return f"between {first * power} and {(first + 3) * power - 1}"
    return None
