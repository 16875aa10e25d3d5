"""Worlds: seeded generators of problems with exact answers.

Sequence tasks on which token mixers are compared: palindrome, multi-query associative recall, and
stacks; each with an oracle that solves it from the visible tokens alone. `Brainstorm`: sequences
in which some tokens are a free choice and the others are determined, for decoding.
"""

from hanol.worlds._brainstorm import Brainstorm, BrainstormBatch
from hanol.worlds._sequences import IGNORED, SequenceBatch, mqar, oracle, palindrome, stack

__all__ = [
    "IGNORED",
    "Brainstorm",
    "BrainstormBatch",
    "SequenceBatch",
    "mqar",
    "oracle",
    "palindrome",
    "stack",
]
