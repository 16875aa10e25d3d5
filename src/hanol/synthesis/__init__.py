"""Synthesis: questions with exact answers from documents or worlds, and files of training data.

Questions are walks over a `hanol.worlds.KnowledgeGraph`, which says where each fact is stated.
Journeys are walks over a `ReasoningTree` of a model's own steps, wrong turns and the way back
included; from the same trees come shortcuts and the controls that a comparison needs.
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
from hanol.synthesis.journeys._critique import apropose_critique, propose_critique
from hanol.synthesis.journeys._grow import agrow_tree, grow_tree
from hanol.synthesis.journeys._judge import (
    JudgedStep,
    ModelJudge,
    ScorerJudge,
    StepJudge,
    VerifierJudge,
)
from hanol.synthesis.journeys._measure import (
    JudgeScores,
    ThoughtScores,
    score_judge,
    score_thoughts,
)
from hanol.synthesis.journeys._published import LongThought, read_long_thoughts
from hanol.synthesis.journeys._rewrite import RewriteCheck, arewrite, validate_rewrite
from hanol.synthesis.journeys._rows import PairedThoughts, paired_rows, token_matched
from hanol.synthesis.journeys._synthesize import JourneyReport, asynthesize_journeys
from hanol.synthesis.journeys._tree import ReasoningNode, ReasoningTree
from hanol.synthesis.journeys._walk import JourneyEvent, Walk, journey, shortcut
from hanol.synthesis.journeys._write import TreeSettings
from hanol.synthesis.reading._asking import written_questions
from hanol.synthesis.reading._lexicon import Lexicon
from hanol.synthesis.reading._rows import Reader, ReadingDocuments
from hanol.synthesis.reading._synthesize import ReadingReport, asynthesize_reading

__all__ = [
    "ExtractReport",
    "JourneyEvent",
    "JourneyReport",
    "JudgeScores",
    "JudgedStep",
    "Lexicon",
    "LongThought",
    "ModelJudge",
    "PairedThoughts",
    "QuestionReport",
    "Reader",
    "ReadingDocuments",
    "ReadingReport",
    "ReasoningNode",
    "ReasoningTree",
    "Replies",
    "RewriteCheck",
    "ScorerJudge",
    "StepJudge",
    "ThoughtScores",
    "TreeSettings",
    "VerifierJudge",
    "Walk",
    "abuild_graph",
    "agrow_tree",
    "apropose_critique",
    "arewrite",
    "asynthesize_journeys",
    "asynthesize_questions",
    "asynthesize_reading",
    "check_questions",
    "folder_graph",
    "grow_tree",
    "journey",
    "paired_rows",
    "propose_critique",
    "read_long_thoughts",
    "read_questions",
    "reported_world",
    "score_judge",
    "score_thoughts",
    "shortcut",
    "token_matched",
    "validate_rewrite",
    "world_graph",
    "world_report",
    "write_questions",
    "write_webshaper",
    "written_questions",
]
