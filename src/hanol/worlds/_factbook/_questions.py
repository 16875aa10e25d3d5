"""Questions about the factbook: chains of facts from page to page, and the way to their answers.

A chain starts at a named page, at the only country with a value, at the only common neighbour of
two countries, or at one of two that has more of something; it goes on by relations to other pages
and by superlatives among neighbours, and ends with a fact. Its hops are the facts that it takes.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from hanol.worlds._factbook._book import (
    IS,
    MOST_NEIGHBOURS,
    NEIGHBOURS,
    Book,
    neighbour_with,
    role,
    role_of_two,
)
from hanol.worlds._factbook._names import fold, the
from hanol.worlds._factbook._profiles import FieldRule, rules
from hanol.worlds._graph import Edge
from hanol.worlds._walk import GraphQuestion, QuestionWalker

_TWO = 0.3  # of the chains that are long enough: share that starts at two countries
_LEADS = 0.35  # of the others, where there are leads: share that starts at one
_VALUES = 0.5  # of the others: share that starts at the country with a value
_SUPERLATIVES = 0.5  # share of the steps between start and end
_MOST_PAGES = 8  # that a question may need
_COMPARATIVES = {
    "largest": "larger",
    "smallest": "smaller",
    "longest": "longer",
    "highest": "higher",
    "lowest": "lower",
    "most": "more",
}


@dataclass
class _Chain:
    """A question so far.

    Args:
        start: Where its walk starts.
        here: What it has reached.
        phrase: What that is called in the question.
        hops: Facts that it takes.
        path: Facts of the walk.
        clauses: Facts about what is on the way, by number.
        steps: What to read, in order.
        met: What was reached before, and `here`.
        asks: Questions for what is reached, where it is the end.
    """

    start: str
    here: str
    phrase: str
    hops: int = 0
    path: list[Edge] = field(default_factory=list)
    clauses: list[tuple[int, Edge]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    met: list[str] = field(default_factory=list)
    asks: tuple[str, ...] = ()

    @property
    def told(self) -> set[str]:
        """The lines that state what the question itself says."""
        return {edge.snippet for _, edge in self.clauses}


class FactbookWalker(QuestionWalker):
    """Draws questions about the factbook.

    Args:
        book: The pages and facts.
        may_start: Whether a question may start at a page.
        may_read: Whether it may need a page.
    """

    def __init__(
        self, book: Book, may_start: Callable[[str], bool], may_read: Callable[[str], bool]
    ) -> None:
        super().__init__(book.graph)
        self._book, self._may_read = book, may_read
        about = [title for title in book.facts if may_start(title)]
        self._countries = [title for title in about if title in book.profiles]
        self._leads = [title for title in about if title in book.leads]
        self._bordered = [title for title in self._countries if book.near(title)[1:]]
        self._facts = {edge.triple: edge for edge in self._graph.edges}
        self._first = {edge.triple[:2]: edge for edge in reversed(self._graph.edges)}

    def draw_question(
        self, rng: Random, *, hops: int, described: bool, sets: bool
    ) -> GraphQuestion | None:
        """Try to draw a question; None where a random choice led nowhere."""
        chain = self._begun(rng, hops, described)
        while chain is not None and chain.hops < hops - 1:
            is_superlative = self._book.near(chain.here) and rng.random() < _SUPERLATIVES
            chain = (self._superlative if is_superlative else self._linked)(rng, chain)
        if chain is None or chain.hops > hops:
            return None
        if chain.hops < hops:
            return self._ended(rng, chain, sets=sets)
        return self._asked(chain, rng.choice(chain.asks), chain.met)

    # -- starts

    def _begun(self, rng: Random, hops: int, described: bool) -> _Chain | None:
        if hops > 2 and not described and self._bordered and rng.random() < _TWO:
            return rng.choice((self._common, self._more_of_two))(rng)
        if self._leads and not described and rng.random() < _LEADS:
            title = rng.choice(self._leads)
            is_work = {"maker", "year"} & self._book.facts[title].keys()
            return _Chain(title, title, f'"{title}"' if is_work else title, met=[title])
        title = rng.choice(self._countries)
        if hops > 1 and (described or rng.random() < _VALUES):
            return self._by_value(rng, title)
        return _Chain(title, title, the(title), met=[title])

    def _by_value(self, rng: Random, title: str) -> _Chain | None:
        """The country whose capital is ..."""
        known = [fact for fact in self._book.facts[title].values() if fact.rule.start]
        if not known:
            return None
        fact = rng.choice(known)
        clause = self._first[title, fact.rule.name]
        phrase = fact.rule.start.format(v=fact.values[0])
        is_told = title in self._book.countries.in_text(phrase)
        if is_told or self.fitting(title, [clause]) != {title}:
            return None
        chain = _Chain(title, title, phrase, hops=1, clauses=[(0, clause)], met=[title])
        return self._reading(chain, [title], fact.rule.name)

    def _common(self, rng: Random) -> _Chain | None:
        """The country that borders both ... and ..."""
        start = rng.choice(self._bordered)
        between = rng.choice(self._book.near(start))
        others = [title for title in self._book.near(between) if title != start]
        other = rng.choice(others) if others else between
        if len(near := self._book.near(other)) < 2 or {*near} & {*self._book.near(start)} != {
            between
        }:
            return None
        first, second = (self._facts[one, NEIGHBOURS, between] for one in (start, other))
        phrase = f"the country that borders both {the(start)} and {the(other)}"
        chain = _Chain(start, between, phrase, 2, [first], [(1, second)], met=[start, between])
        so = f"The country that borders both is {between}."
        return self._reading(chain, [start, other], NEIGHBOURS, so)

    def _more_of_two(self, rng: Random) -> _Chain | None:
        """Whichever of ... and ... has the larger population."""
        one = rng.choice(self._bordered)
        two = sorted((one, rng.choice(self._book.near(one))))
        name, words = _measure(rng)
        edge = self._first.get((" and ".join(two), role_of_two(words)))
        if edge is None:
            return None
        more = re.sub(r"^\w+", lambda word: _COMPARATIVES[word[0]], words)
        phrase = f"whichever of {' and '.join(map(the, two))} has the {more}"
        chain = _Chain(edge.head, edge.tail, phrase, 2, [edge], met=[edge.tail])
        others = [one, *(title for title in two if title != one)]
        return self._reading(chain, others, name, f"Of the two, {edge.tail} has the {more}.", words)

    # -- steps

    def _superlative(self, rng: Random, chain: _Chain) -> _Chain | None:
        """Go on to the neighbour with the most or least of something."""
        name, words = _measure(rng)
        near, before = self._book.near(chain.here), chain.phrase
        # Of a long phrase one could not tell what has the most.
        phrase = f"the neighbour with the {words} among those of {before}"
        if chain.hops == 0:
            phrase = f"the neighbour of {before} with the {words}"
        self._reading(chain, [chain.here], NEIGHBOURS)
        if self._go(chain, neighbour_with(words), phrase, 2) is None:
            return None
        chain.asks = (
            f"Which neighbour of {before} has the {words}?",
            f"Which country is {phrase}?",
            f"Name {phrase}.",
        )
        return self._reading(chain, near, name, f"{chain.here} has the {words} of them.", words)

    def _linked(self, rng: Random, chain: _Chain) -> _Chain | None:
        """Go on to another page that a fact names."""
        known = [fact for fact in self._book.facts[chain.here].values() if fact.rule.phrase]
        known = [fact for fact in known if fact.values[0] in self._book.facts]
        if not known:
            return None
        rule = rng.choice(known).rule
        self._reading(chain, [chain.here], rule.name)
        return self._go(chain, rule.name, rule.phrase.format(x=chain.phrase), 1)

    def _ended(self, rng: Random, chain: _Chain, *, sets: bool) -> GraphQuestion | None:
        """Ask for a fact of what is reached."""
        is_short = sets and 2 <= len(self._book.near(chain.here)) <= MOST_NEIGHBOURS
        told = chain.told if chain.hops == 1 else ()  # the line that tells the start tells no more
        known: list[FieldRule] = [
            fact.rule
            for name, fact in self._book.facts[chain.here].items()
            if (is_short or name != NEIGHBOURS)
            and fact.line not in told
            and not fact.values[0].startswith("0 ")  # no coast
        ]
        if not known:
            return None
        rule, before = rng.choice(known), list(chain.met)
        text = rng.choice(rule.asks).format(x=chain.phrase)
        self._reading(chain, [chain.here], rule.name)
        if self._go(chain, rule.name, "", 1) is None:
            return None
        return self._asked(chain, text, before, is_set=rule.name == NEIGHBOURS)

    def _go(self, chain: _Chain, name: str, phrase: str, hops: int) -> _Chain | None:
        """Follow a relation to something new."""
        if (edge := self._first.get((chain.here, name))) is None:
            return None
        edges = [edge]
        if edge.tail == role(name, chain.here):
            edges.append(self._first[edge.tail, IS])
        chain.path += edges
        chain.here, chain.phrase, chain.hops = edges[-1].tail, phrase, chain.hops + hops
        if chain.here in chain.met:
            return None
        chain.met.append(chain.here)
        return chain

    def _reading(
        self, chain: _Chain, titles: Sequence[str], name: str, so: str = "", words: str = ""
    ) -> _Chain:
        """Note what has to be read, what the question calls it, and what follows from it."""
        found = [self._book.facts[title][name] for title in titles]
        read = [
            {
                "page": self._book.files[fact.head],
                "title": fact.head,
                "name": words or name,
                "sought": fact.rule.label or name,
                "fact": fact.line,
                "note": fact.note,
            }
            for fact in found
        ]
        chain.steps.append({"read": read, "so": so})
        return chain

    def _asked(
        self, chain: _Chain, text: str, on_the_way: Sequence[str], *, is_set: bool = False
    ) -> GraphQuestion | None:
        """The question of a whole chain, if it has one answer and may need its pages."""
        read = [one for step in chain.steps for one in step["read"]]
        pages = tuple(dict.fromkeys(one["page"] for one in read))
        is_allowed = all(self._may_read(self._book.titles[page]) for page in pages)
        if not is_allowed or len(pages) > _MOST_PAGES:
            return None
        question = self.question(chain.start, chain.path, chain.clauses, (), 0, text)
        answers = self._graph.answers(question.triples)
        is_told = any(f" {fold(answer)} " in f" {fold(text)} " for answer in answers)
        if is_told or (len(answers) != 1 and not is_set):
            return None
        return replace(
            question,
            answers=tuple(sorted(answers)),
            hops=chain.hops,
            entities=tuple(on_the_way),
            path=tuple(self._book.files[title] for title in on_the_way),
            sources=pages,
            facts=tuple(one["fact"] for one in read),
            details={"steps": chain.steps},
        )


def _measure(rng: Random) -> tuple[str, str]:
    rule = rng.choice([rule for rule in rules().values() if rule.measures])
    return rule.name, rng.choice([*rule.measures])
