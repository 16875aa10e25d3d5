"""Synthesis: multi-hop questions from a knowledge graph, and training data from runs at them.

A graph comes from a world or from a folder of documents; random walks over it become questions
with unique answers; runs at these become trajectories and single steps to learn.
"""

from hanol.research._synthesis._actions import (
    areason,
    decision_rows,
    planning_rows,
    reasoning_rows,
)
from hanol.research._synthesis._extract import ExtractReport, aextract_graph
from hanol.research._synthesis._folder import folder_graph
from hanol.research._synthesis._formats import (
    shaper_task,
    write_qa,
    write_rows,
    write_trajectories,
    write_webshaper,
)
from hanol.research._synthesis._graph import Edge, KnowledgeGraph
from hanol.research._synthesis._questions import (
    SynthQuestion,
    check_questions,
    read_questions,
    write_questions,
)
from hanol.research._synthesis._replies import Replies
from hanol.research._synthesis._synthesize import QuestionReport, asynthesize_questions
from hanol.research._synthesis._trajectories import (
    Attempt,
    asynthesize_trajectories,
    official_lines,
    trajectory_rows,
)
from hanol.research._synthesis._worlds import (
    world_expert,
    world_graph,
    world_question,
    world_seed,
)

__all__ = [
    "Attempt",
    "Edge",
    "ExtractReport",
    "KnowledgeGraph",
    "QuestionReport",
    "Replies",
    "SynthQuestion",
    "aextract_graph",
    "areason",
    "asynthesize_questions",
    "asynthesize_trajectories",
    "check_questions",
    "decision_rows",
    "folder_graph",
    "official_lines",
    "planning_rows",
    "read_questions",
    "reasoning_rows",
    "shaper_task",
    "trajectory_rows",
    "world_expert",
    "world_graph",
    "world_question",
    "world_seed",
    "write_qa",
    "write_questions",
    "write_rows",
    "write_trajectories",
    "write_webshaper",
]
