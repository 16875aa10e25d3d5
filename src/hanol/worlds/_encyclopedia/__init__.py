"""A seeded encyclopedia: pages that link to each other, and questions across them."""

from hanol.worlds._encyclopedia._descriptions import Level
from hanol.worlds._encyclopedia._graph import Split, Triple
from hanol.worlds._encyclopedia._page import Fact, Page, Setting
from hanol.worlds._encyclopedia._questions import Question
from hanol.worlds._encyclopedia._schema import RELATIONS, Relation, split_words
from hanol.worlds._encyclopedia._world import Encyclopedia

__all__ = [
    "RELATIONS",
    "Encyclopedia",
    "Fact",
    "Level",
    "Page",
    "Question",
    "Relation",
    "Setting",
    "Split",
    "Triple",
    "split_words",
]
