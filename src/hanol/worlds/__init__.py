"""Worlds: seeded generators of problems with exact answers.

Sequence tasks on which token mixers are compared: palindrome, multi-query associative recall, and
stacks; each with an oracle that solves it from the visible tokens alone. `Brainstorm`: sequences
in which some tokens are a free choice and the others are determined, for decoding. `Encyclopedia`:
pages about invented entities and multi-hop questions across them, for research agents.
"""

from hanol.worlds._brainstorm import Brainstorm, BrainstormBatch
from hanol.worlds._encyclopedia import (
    RELATIONS,
    Encyclopedia,
    Fact,
    Page,
    Question,
    Relation,
    split_words,
)
from hanol.worlds._sequences import IGNORED, SequenceBatch, mqar, oracle, palindrome, stack

__all__ = [
    "IGNORED",
    "RELATIONS",
    "Brainstorm",
    "BrainstormBatch",
    "Encyclopedia",
    "Fact",
    "Page",
    "Question",
    "Relation",
    "SequenceBatch",
    "mqar",
    "oracle",
    "palindrome",
    "split_words",
    "stack",
]
