"""The encyclopedia: pages about invented entities, and questions with exact answers.

A world depends only on its seed and sizes, in every process. Names are composed of pieces, so that
they can be read and copied but not known beforehand; each split has its own names.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import get_args

from hanol.errors import ConfigError, UnknownNameError
from hanol.scoring import normalise, set_match
from hanol.worlds._encyclopedia._entities import draw_entities
from hanol.worlds._encyclopedia._page import WorldPage, draw_addresses, draw_page
from hanol.worlds._encyclopedia._questions import EncyclopediaWalker
from hanol.worlds._encyclopedia._schema import BY_NAME, DISTRACTORS, vocabulary
from hanol.worlds._graph import Edge, KnowledgeGraph
from hanol.worlds._walk import GraphQuestion, check_range
from hanol.worlds._world import Level, Split, World, distinct_questions

_FEWEST, _MOST = 16, 5_000  # two of each type; half of the opaque addresses
_LONGEST_ANSWER = 2_000  # characters; no answer of a world comes near
_LINK = re.compile(r"\[([^\]\[]*)\]\([^()]*\)")
_GAP, _ZEROS = re.compile(r"(?<=\d) (?=\d)"), re.compile(r"(?<=\d)\.0+\b")
_TRIES = 500  # draws in a row without a new question


class Encyclopedia(World[WorldPage]):
    """A world of pages.

    Args:
        seed: The same seed and sizes give the same pages.
        num_entities: Number of pages, from 16 to 5,000.
        split: The split whose names are used; no two splits share a name.
        num_distractors: Distractor sentences per page, from 0 to 12. One gives pages of about 50
            words, seven of about 120.

    Raises:
        ConfigError: A size is out of range.
        UnknownNameError: There is no such split.

    Example:
        >>> world = Encyclopedia(7, num_entities=100)
        >>> [question] = world.questions(1, hops=2)
        >>> world.is_right(question, " and ".join(question.answers))
        True
    """

    def __init__(
        self,
        seed: int,
        num_entities: int = 300,
        *,
        split: Split = "train",
        num_distractors: int = 1,
    ) -> None:
        check_range("num_entities", num_entities, _FEWEST, _MOST)
        check_range("num_distractors", num_distractors, 0, len(DISTRACTORS))
        if split not in get_args(Split):
            raise UnknownNameError("split", split, get_args(Split))
        self.seed, self.num_entities, self.split = seed, num_entities, split
        self.name = f"{split} {num_entities} {seed}"
        self.label = f"seed {seed}, {num_entities} entities, {split!r}"
        entities = draw_entities(self._rng("entities"), num_entities, split)
        addresses = draw_addresses(self._rng("addresses"), entities)
        rng = self._rng("pages")
        self.pages: tuple[WorldPage, ...] = tuple(
            draw_page(rng, entity, addresses, num_distractors) for entity in entities
        )

    @staticmethod
    def vocabulary() -> tuple[str, ...]:
        """Every word of the pages and questions of any world, as `split_words` splits them."""
        return vocabulary()

    @cached_property
    def graph(self) -> KnowledgeGraph:
        """The facts that the pages state, and the spans of their numbers and dates."""
        edges = []
        for page in self.pages:
            for fact in page.facts:
                relation = BY_NAME[fact.relation]
                for value in fact.values:
                    where = page.address, fact.sentence
                    edges.append(Edge(page.title, relation.name, value, *where))
                    if (span := relation.span_of(value)) is not None:
                        edge = Edge(page.title, relation.fuzzy_name, span, *where, is_span=True)
                        edges.append(edge)
        return KnowledgeGraph(edges, {page.title: page.address for page in self.pages})

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
            hops: Number of relations to follow, from 0 to 5; of several numbers, each is equally
                likely. 0 asks for the described entity itself: an intersection at levels 1 and 2.
            described: Describe the start by facts; always done at levels 1 and 2.
            level: 0 names the start, 1 describes it by two facts that only together decide, 2 by
                three such facts, at least one of them a span ("between 1925 and 1949").
            sets: Also ask for relations with several values; all of them are the answer.
            seed: The same seed gives the same questions.

        Raises:
            ConfigError: A number is out of range, or 0 hops from a named start.
            DataError: The world does not have that many such questions.
        """
        choices = (hops,) if isinstance(hops, int) else tuple(hops)
        described = described or level > 0
        self._walker.check(num_questions, choices, level, fewest_hops=0)
        if 0 in choices and not described:
            raise ConfigError(
                "`hops` is 0 and the start is named: nothing is asked for. Set `described`, or ask "
                "for at least 1 hop."
            )
        rng = self._rng(f"questions {seed} {choices} {described} {level} {sets}")

        def draw() -> GraphQuestion | None:
            return self._walker.draw_question(
                rng, hops=rng.choice(choices), is_described=described, level=level, sets=sets
            )

        where = (
            f"this world of {self.num_entities} entities (hops {choices}, level {level}). Ask for "
            "fewer, or make a world of more entities."
        )
        return distinct_questions(num_questions, draw, where, tries=_TRIES)

    def is_right(self, question: GraphQuestion, text: str) -> bool:
        """Whether a text names all answers to a question and nothing else.

        Args:
            question: A question about this world; aliases count as names.
            text: Case, links, citations, order and the format of numbers and dates do not matter;
                several answers are separated by commas, semicolons, lines or "and".
        """
        if len(text) > _LONGEST_ANSWER:
            return False
        answers = [_plain(answer) for answer in question.answers]
        return set_match(_plain(text), answers, aliases=self._aliases)

    @cached_property
    def _walker(self) -> EncyclopediaWalker:
        return EncyclopediaWalker(self.graph, {page.title: page.type for page in self.pages})

    @cached_property
    def _aliases(self) -> dict[str, str]:
        return {normalise(page.alias): page.title for page in self.pages if page.alias}

    def _rng(self, stream: str) -> Random:
        # Text seeds are hashed by SHA-512: the same in every process, unlike `hash`.
        return Random(f"encyclopedia {self.split} {self.num_entities} {self.seed} {stream}")  # noqa: S311


def _plain(text: str) -> str:
    """The text without Markdown links, with the digits of a number together: "12 34" is 1234."""
    return _GAP.sub("", _ZEROS.sub("", _LINK.sub(r"\1", text)))
