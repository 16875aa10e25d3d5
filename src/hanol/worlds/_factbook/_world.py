"""The factbook: real pages about countries, and questions with exact answers."""

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import get_args

from hanol.errors import ConfigError, MissingExtraError, UnknownNameError
from hanol.scoring import CITATION
from hanol.worlds._factbook._book import IS, NEIGHBOURS, Book, FactbookPage, the_book
from hanol.worlds._factbook._leads import HOW_TO_GET, installed_leads, read_leads
from hanol.worlds._factbook._names import Names, fold
from hanol.worlds._factbook._profiles import FieldRule, numbers, rules
from hanol.worlds._factbook._questions import FactbookWalker
from hanol.worlds._graph import KnowledgeGraph
from hanol.worlds._walk import GraphQuestion
from hanol.worlds._world import Level, Split, World, distinct_questions

_LONGEST_ANSWER = 600  # characters; a list of everything is no answer
_TRIES = 20_000  # draws in a row without a new question
_LINK = re.compile(r"\[([^\]\[]*)\]\([^()]*\)")
_DATE = re.compile(r"\b\d{4} \d{1,2} \d{1,2}\b")  # as `fold` writes it
_CODE = re.compile(r"(?<![\w.])\.[a-z]{2}\b")  # ".it" is no "it"
_ASIDE = re.compile(r"\([^()]*\b\d{4}\b[^()]*\)")  # "(July 2015 est.)"


class Factbook(World[FactbookPage]):
    """The World Factbook of 2015, one page a country or territory, bundled with hanol; and leads of
    Wikipedia's articles, one page each, where their package is installed.

    Every page belongs to one split. Questions of "train" need pages of "train" only; those of
    "dev" and "test" start at pages of their own split. Pages are the same in all splits.

    Args:
        split: Which questions are drawn.
        leads: Whether leads are added; None adds them where they are installed. A file has others:
            an object of {title: {"extract", "description", "topic"}}, as the package's file is.

    Raises:
        MissingExtraError: `leads` is true, and they are not installed.
        DataError: Their file cannot be read.
        UnknownNameError: There is no such split.

    Example:
        >>> world = Factbook(leads=False)
        >>> [question] = world.questions(1, hops=2)
        >>> world.is_right(question, question.answers[0])
        True
    """

    def __init__(self, split: Split = "train", *, leads: bool | Path | None = None) -> None:
        if split not in get_args(Split):
            raise UnknownNameError("split", split, get_args(Split))
        self.split = split
        if isinstance(leads, Path):
            added = read_leads(leads)
        else:
            added = () if leads is False else installed_leads()
        self._book: Book = the_book(added)
        self.num_leads = len(self._book.leads)
        if leads is True and not self.num_leads:
            raise MissingExtraError(f"Wikipedia's leads are not installed: {HOW_TO_GET}")
        self.name = f"{split} {self.num_leads} leads"
        self.label = f"factbook, {self.num_leads} leads"
        self.pages = self._book.pages

    @property
    def graph(self) -> KnowledgeGraph:
        """The facts that the pages state, and what follows about neighbours."""
        return self._book.graph

    def questions(
        self,
        num_questions: int,
        *,
        hops: int | Sequence[int] = (1, 2, 3),
        described: bool = False,
        level: Level = 0,
        sets: bool = False,
        seed: int = 0,
    ) -> list[GraphQuestion]:
        """Draw different questions.

        Args:
            num_questions: Number of questions, at least 1.
            hops: Number of facts that an answer takes, from 1 to 5; of several numbers, each is
                equally likely. A superlative or a comparison takes two: who the neighbours are, and
                how large.
            described: Start at a country with a value: "the country whose capital is ..."; takes
                at least 2 hops.
            level: 0; there are no other levels.
            sets: Also ask for all neighbours of a country.
            seed: The same seed gives the same questions.

        Returns:
            Questions with `details["steps"]`: which fact to read on which page, in order, and what
            follows.

        Raises:
            ConfigError: A number is out of range.
            DataError: There are not that many such questions.
        """
        choices = (hops,) if isinstance(hops, int) else tuple(hops)
        self._walker.check(num_questions, choices, level)
        if level or (described and min(choices) < 2):
            raise ConfigError(
                f"`level` is {level} and the fewest `hops` are {min(choices)}, but the factbook "
                "has level 0 only, and described starts from 2 hops on."
            )
        rng = Random(f"factbook {self.name} {seed} {choices} {described} {sets}")  # noqa: S311

        def draw() -> GraphQuestion | None:
            some = rng.choice(choices)
            return self._walker.draw_question(rng, hops=some, described=described, sets=sets)

        where = f"the factbook (hops {choices}, split {self.split!r}). Ask for fewer."
        return distinct_questions(num_questions, draw, where, tries=_TRIES)

    def is_right(self, question: GraphQuestion, text: str) -> bool:
        """Whether a text gives the answer, in a sentence too, and no other one.

        Args:
            question: A question of the factbook.
            text: Of the names that are possible answers, the right ones must be in it, and no
                others but those in the question and on the way to the answer; a number or date
                must be right in value. Other names of a country, the surname of a person and the
                code of a currency count; case, accents, links, citations and articles do not
                matter, and large measures may be rounded by 1 %.
        """
        if len(text) > _LONGEST_ANSWER:
            return False
        text = _LINK.sub(r"\1", CITATION.sub("", text))
        relation = self._asked_for(question)
        if relation is None:  # a question of someone else
            return question.is_right(text)
        if relation.kind == "number":
            return _is_number(text, question, relation.tolerance)
        if relation.kind == "date":
            return set(_DATE.findall(fold(text))) == {fold(question.answers[0])}
        wanted = set(question.answers)
        if relation.kind == "code":
            return set(_CODE.findall(text.lower())) - set(_CODE.findall(question.text)) == wanted
        names = self._possible(relation, wanted)
        known = names.in_text(question.text) | {*question.entities}
        return names.in_text(text) - (known - wanted) == wanted

    def _asked_for(self, question: GraphQuestion) -> FieldRule | None:
        names = [name for head, name, tail in question.triples if "?" in (head, tail)]
        if IS in names:
            return rules()[NEIGHBOURS]
        return rules().get(names[-1]) if names else None

    def _possible(self, relation: FieldRule, wanted: set[str]) -> Names:
        """The names of all values of a relation; of equal names those of the wanted ones."""
        if relation.kind == "country":
            return self._book.countries
        found = (about.get(relation.name) for about in self._book.facts.values())
        values = sorted(
            (fact.values for fact in found if fact), key=lambda values: values[0] not in wanted
        )
        return Names((name, named[0]) for named in values for name in named)

    @cached_property
    def _walker(self) -> FactbookWalker:
        if self.split == "train":
            return FactbookWalker(self._book, _is_train, _is_train)
        return FactbookWalker(self._book, lambda t: split_of(t) == self.split, lambda t: True)


def split_of(title: str) -> Split:
    """The split of a page: one in ten for dev, two in ten for test."""
    number = hashlib.sha256(f"factbook {title}".encode()).digest()[0] % 10
    return "test" if number < 2 else "dev" if number == 2 else "train"


def _is_train(title: str) -> bool:
    return split_of(title) == "train"


def _is_number(text: str, question: GraphQuestion, tolerance: float) -> bool:
    """Whether a text has the number, and no others but years and those of the question."""
    [wanted] = numbers(question.answers[0])
    known = set(numbers(question.text))
    found = [number for number in numbers(_ASIDE.sub("", text)) if number not in known]
    is_year = wanted.is_integer() and 1_000 <= wanted < 2_100
    if not is_year:
        found = [number for number in found if not (1_900 <= number < 2_100)] or found
    return bool(found) and all(abs(number - wanted) <= tolerance * wanted for number in found)
