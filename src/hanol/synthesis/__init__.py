"""Synthesis: questions with exact answers from documents or worlds, and files of training data.

Questions are walks over a `hanol.worlds.KnowledgeGraph`, which says where each fact is stated.
"""

from hanol.synthesis._extract import (
    ExtractReport,
    abuild_graph,
    reported_world,
    world_graph,
    world_report,
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
from hanol.synthesis.reading._asking import written_questions
from hanol.synthesis.reading._lexicon import Lexicon
from hanol.synthesis.reading._rows import Reader, ReadingDocuments
from hanol.synthesis.reading._synthesize import ReadingReport, asynthesize_reading

__all__ = [
    "ExtractReport",
    "Lexicon",
    "QuestionReport",
    "Reader",
    "ReadingDocuments",
    "ReadingReport",
    "Replies",
    "abuild_graph",
    "asynthesize_questions",
    "asynthesize_reading",
    "check_questions",
    "folder_graph",
    "read_questions",
    "reported_world",
    "world_graph",
    "world_report",
    "write_questions",
    "write_webshaper",
    "written_questions",
]
