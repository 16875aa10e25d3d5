"""Worlds: seeded generators of problems with exact answers, and the graph behind questions.

`Encyclopedia`: pages about invented entities and multi-hop questions across them, for research
agents. `KnowledgeGraph` and `QuestionWalker`: facts of any source, and questions drawn from them.
Sequence tasks for comparing token mixers: palindrome, multi-query associative recall and stacks.

Importing this room does not import torch: the names that need it are imported when they are used.
"""

import importlib as _importlib
import typing as _typing

from hanol.worlds._encyclopedia._page import Fact, WorldPage
from hanol.worlds._encyclopedia._schema import RELATIONS, Relation, split_words
from hanol.worlds._encyclopedia._world import Encyclopedia
from hanol.worlds._graph import (
    LINKS,
    MENTIONS,
    SECTION,
    SLOT,
    Edge,
    KnowledgeGraph,
    Triple,
    evaluate_formalization,
    span_of,
)
from hanol.worlds._walk import GraphQuestion, QuestionWalker, template_question

if _typing.TYPE_CHECKING:
    from hanol.worlds._sequences import IGNORED as IGNORED
    from hanol.worlds._sequences import SequenceBatch as SequenceBatch
    from hanol.worlds._sequences import mqar as mqar
    from hanol.worlds._sequences import palindrome as palindrome
    from hanol.worlds._sequences import stack as stack

_NEED_TORCH = ("IGNORED", "SequenceBatch", "mqar", "palindrome", "stack")


def __getattr__(name: str) -> _typing.Any:
    if name in _NEED_TORCH:
        return getattr(_importlib.import_module("hanol.worlds._sequences"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "IGNORED",
    "LINKS",
    "MENTIONS",
    "RELATIONS",
    "SECTION",
    "SLOT",
    "Edge",
    "Encyclopedia",
    "Fact",
    "GraphQuestion",
    "KnowledgeGraph",
    "QuestionWalker",
    "Relation",
    "SequenceBatch",
    "Triple",
    "WorldPage",
    "evaluate_formalization",
    "mqar",
    "palindrome",
    "span_of",
    "split_words",
    "stack",
    "template_question",
]
