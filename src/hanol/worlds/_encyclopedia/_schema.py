"""The language of the encyclopedia: types, relations, sentences, and their vocabulary.

A relation has a type at both ends, which differ unless it is symmetric; so a triple means the same
whichever end is known, as in WebShaper's knowledge projections. Sentences put the subject before
the value, because a causal model can only look up a key that it has read, and mostly avoid the
relation's noun, so that matching words is not enough to read a page.

Source: the shape of the world follows arXiv 2510.24701 (Tongyi DeepResearch) and 2507.15061
(WebShaper); types, relations and sentences are our choice.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import Literal

EntityType = Literal["person", "city", "river", "company", "work", "award", "school", "event"]
ValueKind = Literal["entity", "word", "number", "date", "year"]

# Share of a world's entities; the remainder from rounding are persons.
SHARES: dict[EntityType, float] = {
    "person": 0.25,
    "city": 0.15,
    "river": 0.07,
    "company": 0.15,
    "work": 0.15,
    "award": 0.07,
    "school": 0.08,
    "event": 0.08,
}

# 20 beginnings and 20 endings make 400 pieces, of which no two are the same.
_BEGINNINGS = (
    *("Ba", "Bre", "Co", "Da", "Dri", "Fa", "Ga", "Gle", "Ha", "Jo"),
    *("Ka", "Lu", "Mo", "Ne", "Po", "Ra", "Su", "Te", "Vi", "Zo"),
)
_ENDINGS = (
    *("bin", "calo", "dor", "fen", "gath", "hild", "jun", "kesh", "lano", "mir"),
    *("nvik", "pel", "quess", "rrow", "sten", "tavi", "ulm", "vane", "xar", "zeth"),
)
PIECES = tuple(beginning + ending for beginning in _BEGINNINGS for ending in _ENDINGS)

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
FIRST_YEAR, LAST_YEAR = 1900, 1999
DAYS = 28  # every month has that many
TWO_DIGITS = tuple(f"{number:02d}" for number in range(100))


@dataclass(frozen=True)
class Relation:
    """One kind of fact.

    Args:
        name: A noun, unique among the relations; plural if `is_set`.
        head: Type of the entities it describes.
        kind: Kind of its values.
        sentences: Sentences that state it, with `{s}` for the subject and `{o}` for the value.
        tail: Type of the values, if they are entities.
        words: The possible values, if they are words.
        is_set: Whether a page names one to three values instead of one.
        is_symmetric: Whether it holds in both directions and both pages state it.
        is_anchor: Whether every page of the type states it.
    """

    name: str
    head: EntityType
    kind: ValueKind
    sentences: tuple[str, ...]
    tail: EntityType | None = None
    words: tuple[str, ...] = ()
    is_set: bool = False
    is_symmetric: bool = False
    is_anchor: bool = False

    @property
    def fuzzy_name(self) -> str:
        """Name of the relation to a range that contains the number, date or year."""
        return f"{self.name} {'range' if self.kind == 'number' else 'period'}"

    def span_of(self, value: str) -> str | None:
        """A third of all numbers or a quarter of a century that contains a value, if it is one.

        "10 00 and 39 99" for "12 34", "1925 and 1949" for "1931".
        """
        if self.kind == "number":
            first = 1 + (int(value[0]) - 1) // 3 * 3
            return f"{first}0 00 and {first + 2}9 99"
        if self.kind in ("date", "year"):
            first = FIRST_YEAR + (int(value[-4:]) - FIRST_YEAR) // 25 * 25
            return f"{first} and {first + 24}"
        return None


def _link(
    name: str,
    head: EntityType,
    tail: EntityType,
    *predicates: str,
    is_set: bool = False,
    is_anchor: bool = False,
) -> Relation:
    sentences = tuple(f"{{s}} {predicate} {{o}}." for predicate in predicates)
    symmetric = head == tail
    return Relation(name, head, "entity", sentences, tail, (), is_set, symmetric, is_anchor)


_anchor = partial(_link, is_anchor=True)


def _word(name: str, head: EntityType, words: str, *predicates: str) -> Relation:
    sentences = tuple(f"{{s}} {predicate} {{o}}." for predicate in predicates)
    return Relation(name, head, "word", sentences, words=tuple(words.split()))


def _amount(name: str, head: EntityType, kind: ValueKind, *predicates: str) -> Relation:
    """A relation whose predicates contain the position of the value."""
    return Relation(name, head, kind, tuple(f"{{s}} {predicate}." for predicate in predicates))


# An anchor leads from every page to a city and from there to a person, or the other way round: each
# connected part of a world holds both, so parts can be joined by a new birthplace.
RELATIONS: tuple[Relation, ...] = (
    _anchor(
        *("birthplace", "person", "city"),
        *("was born in", "first saw the light in", "came into the world in"),
    ),
    _link("spouse", "person", "person", "is married to", "shares a home with", "took the hand of"),
    _link("employer", "person", "company", "works for", "earns a living at", "is paid by"),
    _link("college", "person", "school", "studied at", "took a degree at", "was taught at"),
    _link("awards", "person", "award", "won", "was honoured with", "has received", is_set=True),
    _amount("birthday", "person", "date", "was born on {o}", "has been alive since {o}"),
    _word(
        *("profession", "person"),
        "painter baker lawyer doctor singer pilot teacher farmer sculptor chemist",
        *("is active as a", "is known as a", "earns money as a"),
    ),
    _link("waterway", "city", "river", "lies on", "stands on the banks of", "is crossed by"),
    _anchor("mayor", "city", "person", "is governed by", "elected", "is led by"),
    _link("twin", "city", "city", "is paired with", "exchanges guests with"),
    _amount("population", "city", "number", "counts {o} inhabitants", "is home to {o} people"),
    _anchor("mouth", "river", "city", "ends at", "meets the sea near", "flows out at"),
    _link("discoverer", "river", "person", "was first mapped by", "was found by"),
    _amount("length", "river", "number", "runs for {o} miles", "extends over {o} miles"),
    _link("founder", "company", "person", "was started by", "was set up by", "goes back to"),
    _anchor(
        "headquarters", "company", "city", "is based in", "has its main office in", "is run from"
    ),
    _word(
        *("industry", "company"),
        "glass steel paper timber textiles shipping mining banking brewing furniture",
        *("makes its money in", "does business in"),
    ),
    _link("rival", "company", "company", "competes with", "shares its market with"),
    _anchor("author", "work", "person", "was written by", "is from the pen of", "was composed by"),
    _link("publisher", "work", "company", "was brought out by", "was printed by"),
    _word(
        *("genre", "work"),
        "novel poem tragedy comedy satire ballad memoir fable romance thriller",
        *("is read as a", "counts as a"),
    ),
    _amount("release", "work", "year", "appeared in {o}", "came out in {o}"),
    _anchor("donor", "award", "company", "is paid for by", "is funded by"),
    _word(
        *("field", "award"),
        "physics medicine music botany history logic drama geology sports law",
        *("honours achievements in", "goes to the best in"),
    ),
    _amount("value", "award", "number", "comes with {o} crowns", "brings its winner {o} crowns"),
    _link("rector", "school", "person", "is headed by", "is directed by"),
    _anchor("campus", "school", "city", "gives its courses in", "is located in"),
    _amount("enrolment", "school", "number", "has {o} students", "teaches {o} students"),
    _anchor("host", "event", "city", "took place in", "was held in"),
    _link("organizer", "event", "company", "was planned by", "was arranged by"),
    _link("guests", "event", "person", "welcomed", "was attended by", is_set=True),
    _amount("opening", "event", "date", "began on {o}", "was opened on {o}"),
)
BY_NAME: dict[str, Relation] = {relation.name: relation for relation in RELATIONS}
BY_FUZZY_NAME: dict[str, Relation] = {relation.fuzzy_name: relation for relation in RELATIONS}
OF_TYPE: dict[EntityType, tuple[Relation, ...]] = {
    head: tuple(relation for relation in RELATIONS if relation.head == head) for head in SHARES
}

INTRODUCTIONS: dict[EntityType, str] = {
    head: f"{{s}} is {'an' if head[0] in 'ae' else 'a'} {head}." for head in SHARES
}
ALIASES = ("{s} is also called {o}.", "{s} also goes by the name of {o}.")
# Distractor sentences: they state nothing that a question asks for.
DISTRACTORS = (
    "Little else is known about {s}.",
    "Many old stories mention {s}, and not all of them agree.",
    "Some of the papers on {s} were lost in a fire long ago.",
    "The name of {s} can be found in a few letters.",
    "A small picture of {s} hangs in a library.",
    "Those who write about {s} like to add details of their own.",
    "In a survey, half of the people had never heard of {s}.",
    "What is told about {s} on other pages should be checked.",
    "A longer text about {s} is in preparation, but it may take years.",
    "Children sometimes draw {s} without having seen it.",
    "There is a song about {s}, though few still know it.",
    "Every now and then a reader asks for more about {s}.",
)

# A question asks for "{x}", a chain such as "the mayor of the birthplace of Babin Bacalo".
ASK_ONE = ("What is {x}?", "Which is {x}?", "Name {x}.")
ASK_SET = ("What are {x}?", "Which are {x}?", "Name {x}.")
ASK_ENTITY = ("Which is {x}?", "Name {x}.", "Find {x}.")
CLAUSE_IS, CLAUSE_INCLUDES = "whose {r} is {o}", "whose {r} include {o}"
CLAUSE_BETWEEN = "whose {r} is between {o}"
_JOINTS = "the of and , to ? . # [ ] ( ) : wiki doc"


def split_words(text: str) -> list[str]:
    """Split a page or question into words, numbers and marks, the entries of the vocabulary."""
    return re.findall(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]", text)


def vocabulary() -> tuple[str, ...]:
    """Every word of every page and question, for all seeds and settings, sorted."""
    texts = [*INTRODUCTIONS.values(), *ALIASES, *DISTRACTORS, *ASK_ONE, *ASK_SET, *ASK_ENTITY]
    texts += [_JOINTS, CLAUSE_IS, CLAUSE_INCLUDES, CLAUSE_BETWEEN, *SHARES, *MONTHS, *PIECES]
    for relation in RELATIONS:
        texts += [relation.name, *relation.words, *relation.sentences]
    texts += [*TWO_DIGITS, *map(str, range(1, DAYS + 1))]
    texts += map(str, range(FIRST_YEAR, LAST_YEAR + 1))
    plain = (re.sub(r"\{\w\}", " ", text) for text in texts)
    return tuple(sorted({word for text in plain for word in split_words(text)}))
