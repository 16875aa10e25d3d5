"""Worlds: problems with exact answers, and the graph behind questions.

Pages with multi-hop questions across them, for research agents: of the `Encyclopedia`, about
invented entities, made from a seed; of the `Factbook`, real ones about countries. `KnowledgeGraph`
and `QuestionWalker`: facts of any source, and questions drawn from them. Sequence tasks for
comparing token mixers: palindrome, multi-query associative recall and stacks.
`open_problems`: problems with one right answer and a program that checks it (chains of operations
modulo a prime, countdown, word problems, sums, capitals, reasoning-gym, HumanEval, a user's file).
`small_tasks`: sums, word problems, capitals and instructions for small chat models.

Importing this room does not import torch; the sequence tasks do when they are called.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.worlds._encyclopedia._page import Fact, WorldPage
    from hanol.worlds._encyclopedia._schema import RELATIONS, Relation, split_words
    from hanol.worlds._encyclopedia._world import Encyclopedia
    from hanol.worlds._factbook._world import Factbook
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
    from hanol.worlds._open import is_world, open_world
    from hanol.worlds._problems._code import human_eval_task
    from hanol.worlds._problems._gym import gym_names, gym_verifier
    from hanol.worlds._problems._open import open_problems
    from hanol.worlds._problems._problem import MathProblem, ProblemSplit
    from hanol.worlds._problems._steps import ExactSteps, wrong_step
    from hanol.worlds._sequences import IGNORED, SequenceBatch, mqar, palindrome, stack
    from hanol.worlds._tasks import SmallTask, check_task, small_tasks
    from hanol.worlds._walk import GraphQuestion, QuestionWalker, template_question
    from hanol.worlds._world import AnyPage, Split, World

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "IGNORED",
    "LINKS",
    "MENTIONS",
    "RELATIONS",
    "SECTION",
    "SLOT",
    "AnyPage",
    "Edge",
    "Encyclopedia",
    "ExactSteps",
    "Fact",
    "Factbook",
    "GraphQuestion",
    "KnowledgeGraph",
    "MathProblem",
    "ProblemSplit",
    "QuestionWalker",
    "Relation",
    "SequenceBatch",
    "SmallTask",
    "Split",
    "Triple",
    "World",
    "WorldPage",
    "check_task",
    "evaluate_formalization",
    "gym_names",
    "gym_verifier",
    "human_eval_task",
    "is_world",
    "mqar",
    "open_problems",
    "open_world",
    "palindrome",
    "small_tasks",
    "span_of",
    "split_words",
    "stack",
    "template_question",
    "wrong_step",
]
