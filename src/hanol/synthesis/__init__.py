"""Synthesis: questions with exact answers from documents or worlds, and files of training data.

Questions are walks over a `hanol.worlds.KnowledgeGraph`, which says where each fact is stated.
"""

from hanol.synthesis._extract import ExtractReport, abuild_graph, aextract_graph
from hanol.synthesis._folder import folder_graph
from hanol.synthesis._formats import (
    Sample,
    ShaperTask,
    read_qa,
    read_trajectories,
    read_webshaper,
    shaper_task,
    write_qa,
    write_trajectories,
    write_webshaper,
)
from hanol.synthesis._questions import (
    SynthQuestion,
    check_questions,
    read_questions,
    write_questions,
)
from hanol.synthesis._replies import Replies
from hanol.synthesis._synthesize import QuestionReport, asynthesize_questions
from hanol.synthesis._worlds import world_graph, world_question, world_seed

__all__ = [
    "ExtractReport",
    "QuestionReport",
    "Replies",
    "Sample",
    "ShaperTask",
    "SynthQuestion",
    "abuild_graph",
    "aextract_graph",
    "asynthesize_questions",
    "check_questions",
    "folder_graph",
    "read_qa",
    "read_questions",
    "read_trajectories",
    "read_webshaper",
    "shaper_task",
    "world_graph",
    "world_question",
    "world_seed",
    "write_qa",
    "write_questions",
    "write_trajectories",
    "write_webshaper",
]
