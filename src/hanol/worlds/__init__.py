"""Worlds: seeded generators of problems with exact answers.

Sequence tasks on which token mixers are compared: palindrome, multi-query associative recall, and
stacks; each with an oracle that solves it from the visible tokens alone.
"""

from hanol.worlds._sequences import IGNORED, SequenceBatch, mqar, oracle, palindrome, stack

__all__ = ["IGNORED", "SequenceBatch", "mqar", "oracle", "palindrome", "stack"]
