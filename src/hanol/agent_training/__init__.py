"""Agent training: research agents, trained in the loop that serves a user, stage by stage.

Rollouts in a `ResearchEnvironment` are learned from; a recipe names the stages.
"""

from hanol.agent_training._actions import (
    areason,
    decision_rows,
    planning_rows,
    reasoning_rows,
    write_trajectories,
)
from hanol.agent_training._environment import ResearchEnvironment
from hanol.agent_training._examination import EXAM_SAMPLING, Examination, examine
from hanol.agent_training._skills import measure_skills, skill_rates
from hanol.agent_training._trajectories import (
    Attempt,
    asynthesize_trajectories,
    official_lines,
    trajectory_rows,
)
from hanol.agent_training._world_environment import WorldEnvironment
from hanol.agent_training.expert._expert import Expert
from hanol.agent_training.expert._quoting import QuotingExpert
from hanol.agent_training.expert._reading import ReadingExpert, expert_of
from hanol.agent_training.expert._tokenizer import encyclopedia_tokenizer
from hanol.agent_training.stages._recipe import ResearcherRecipe
from hanol.agent_training.stages._rows import expert_rows
from hanol.agent_training.stages._stages import ResearcherResult, StageResult, kind_label
from hanol.agent_training.stages._train import train_researcher

__all__ = [
    "EXAM_SAMPLING",
    "Attempt",
    "Examination",
    "Expert",
    "QuotingExpert",
    "ReadingExpert",
    "ResearchEnvironment",
    "ResearcherRecipe",
    "ResearcherResult",
    "StageResult",
    "WorldEnvironment",
    "areason",
    "asynthesize_trajectories",
    "decision_rows",
    "encyclopedia_tokenizer",
    "examine",
    "expert_of",
    "expert_rows",
    "kind_label",
    "measure_skills",
    "official_lines",
    "planning_rows",
    "reasoning_rows",
    "skill_rates",
    "train_researcher",
    "trajectory_rows",
    "write_trajectories",
]
