"""Synthesis: questions with exact answers from documents or worlds, and files of training data.

Questions are walks over a `hanol.worlds.KnowledgeGraph`, which says where each fact is stated.
"""

from hanol.synthesis._extract import (
    ExtractReport,
    abuild_graph,
    reported_world,
    world_graph,
    world_report,
    world_seed,
)
from hanol.synthesis._folder import folder_graph
from hanol.synthesis._questions import (
    check_questions,
    read_questions,
    write_questions,
    write_webshaper,
)
from hanol.synthesis._replies import Replies
from hanol.synthesis._synthesize import QuestionReport, asynthesize_questions

__all__ = [
    "ExtractReport",
    "QuestionReport",
    "Replies",
    "abuild_graph",
    "asynthesize_questions",
    "check_questions",
    "folder_graph",
    "read_questions",
    "reported_world",
    "world_graph",
    "world_report",
    "world_seed",
    "write_questions",
    "write_webshaper",
]
