"""Research: the deep-research agent of Tongyi (arXiv 2510.24701) over one's own documents.

A `Researcher` turns a question into a stream of typed events: turns of the model, results of
tools, at last an answer whose citations were checked. The events of a run are its log, and the log
is all there is: reports, exports, resumed runs, replays and forks are computed from it.

Agents are also trained here, in the loop that serves a user: questions and trajectories are
synthesized, rollouts in a `ResearchEnvironment` are learned from. Names that need torch are
imported when they are used.
"""

import importlib as _importlib
import typing as _typing

from hanol.research._batch import Task, arun_batch, read_tasks, run_batch
from hanol.research._budget import Budget
from hanol.research._bwrap import Limits, sandbox_problem
from hanol.research._call import ToolCall
from hanol.research._checked import Sentence
from hanol.research._compact import CompactSearch, CompactVisit, compact_tools
from hanol.research._escape import escape_observation, fence_observation
from hanol.research._events import (
    ContextRestarted,
    Event,
    Mode,
    ModelAnswered,
    Purpose,
    ReportUpdated,
    RunEnded,
    RunStarted,
    Termination,
    ToolReturned,
    TurnRejected,
    event_adapter,
)
from hanol.research._export import events_of, official_run
from hanol.research._log import RunFolder
from hanol.research._mcp import mcp_server, serve_mcp
from hanol.research._prompts import system_prompt
from hanol.research._providers import SearchProvider, Searxng, Serper, WebResult, open_provider
from hanol.research._python_tool import PythonInterpreter
from hanol.research._ray import run_batch_on_ray
from hanol.research._replay import (
    Segment,
    afork,
    areplay,
    aresume,
    fork,
    replay,
    resume,
    segments,
    transcript,
)
from hanol.research._report import write_report
from hanol.research._researcher import Researcher
from hanol.research._rollouts import aheavy_research, heavy_research, synthesize
from hanol.research._run import GREEDY, OWN_SAMPLING, Sampling
from hanol.research._samples import (
    OfficialRun,
    Sample,
    ShaperTask,
    evaluate_formalization,
    read_official_runs,
    read_qa,
    read_trajectories,
    read_webshaper,
    write_official_runs,
)
from hanol.research._sandbox import PythonResult, arun_python, run_python
from hanol.research._schemas import DEFAULT_TOOLS, ToolSchema, ToolSpec
from hanol.research._synthesis import (
    Attempt,
    Edge,
    ExtractReport,
    KnowledgeGraph,
    QuestionReport,
    Replies,
    SynthQuestion,
    aextract_graph,
    areason,
    asynthesize_questions,
    asynthesize_trajectories,
    check_questions,
    decision_rows,
    folder_graph,
    official_lines,
    planning_rows,
    read_questions,
    reasoning_rows,
    shaper_task,
    trajectory_rows,
    world_expert,
    world_graph,
    world_question,
    world_seed,
    write_qa,
    write_questions,
    write_rows,
    write_trajectories,
    write_webshaper,
)
from hanol.research._tool import Observation, Tool, ToolContext
from hanol.research._toolbox import local_tools, web_tools
from hanol.research._training._environment import ResearchEnvironment, WorldEnvironment
from hanol.research._training._grpo_settings import GrpoSettings
from hanol.research._training._rollout import Rollout, SampledTurn, TokenSegment, join_turns
from hanol.research._training._simulate import ResultCache, SteadyTool, UnreliableTool
from hanol.research._training._skills import (
    SkillRate,
    Skills,
    measure_skills,
    skill_rates,
    visit_rates,
)
from hanol.research._turn import Turn, parse_turn, render_call, render_turn
from hanol.research._view import RunView, Step, call_title
from hanol.research._web import WebPolicy

if _typing.TYPE_CHECKING:
    from hanol.research._training._agent_model import ResearcherNeeds as ResearcherNeeds
    from hanol.research._training._agent_model import researcher_needs as researcher_needs
    from hanol.research._training._examination import Examination as Examination
    from hanol.research._training._examination import examine as examine
    from hanol.research._training._expert import Expert as Expert
    from hanol.research._training._grpo import GrpoTrainer as GrpoTrainer
    from hanol.research._training._recipe import ResearcherRecipe as ResearcherRecipe
    from hanol.research._training._recipe import SftSettings as SftSettings
    from hanol.research._training._recipe import read_researcher_recipe as read_researcher_recipe
    from hanol.research._training._rows import expert_rows as expert_rows
    from hanol.research._training._sft import SftRow as SftRow
    from hanol.research._training._sft import train_sft as train_sft
    from hanol.research._training._stages import RunResult as RunResult
    from hanol.research._training._stages import StageResult as StageResult
    from hanol.research._training._tokenizer import encyclopedia_tokenizer as encyclopedia_tokenizer
    from hanol.research._training._train import train_researcher as train_researcher
    from hanol.research._training._trl import TrlRollouts as TrlRollouts

_HEAVY = {
    "Examination": "_examination",
    "Expert": "_expert",
    "GrpoTrainer": "_grpo",
    "ResearcherNeeds": "_agent_model",
    "ResearcherRecipe": "_recipe",
    "RunResult": "_stages",
    "SftRow": "_sft",
    "SftSettings": "_recipe",
    "StageResult": "_stages",
    "TrlRollouts": "_trl",
    "encyclopedia_tokenizer": "_tokenizer",
    "examine": "_examination",
    "expert_rows": "_rows",
    "read_researcher_recipe": "_recipe",
    "researcher_needs": "_agent_model",
    "train_researcher": "_train",
    "train_sft": "_sft",
}


def __getattr__(name: str) -> _typing.Any:
    if name in _HEAVY:
        return getattr(_importlib.import_module(f"{__name__}._training.{_HEAVY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DEFAULT_TOOLS",
    "GREEDY",
    "OWN_SAMPLING",
    "Attempt",
    "Budget",
    "CompactSearch",
    "CompactVisit",
    "ContextRestarted",
    "Edge",
    "Event",
    "ExtractReport",
    "GrpoSettings",
    "KnowledgeGraph",
    "Limits",
    "Mode",
    "ModelAnswered",
    "Observation",
    "OfficialRun",
    "Purpose",
    "PythonInterpreter",
    "PythonResult",
    "QuestionReport",
    "Replies",
    "ReportUpdated",
    "ResearchEnvironment",
    "Researcher",
    "ResultCache",
    "Rollout",
    "RunEnded",
    "RunFolder",
    "RunStarted",
    "RunView",
    "Sample",
    "SampledTurn",
    "Sampling",
    "SearchProvider",
    "Searxng",
    "Segment",
    "Sentence",
    "Serper",
    "ShaperTask",
    "SkillRate",
    "Skills",
    "SteadyTool",
    "Step",
    "SynthQuestion",
    "Task",
    "Termination",
    "TokenSegment",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolReturned",
    "ToolSchema",
    "ToolSpec",
    "Turn",
    "TurnRejected",
    "UnreliableTool",
    "WebPolicy",
    "WebResult",
    "WorldEnvironment",
    "aextract_graph",
    "afork",
    "aheavy_research",
    "areason",
    "areplay",
    "aresume",
    "arun_batch",
    "arun_python",
    "asynthesize_questions",
    "asynthesize_trajectories",
    "call_title",
    "check_questions",
    "compact_tools",
    "decision_rows",
    "escape_observation",
    "evaluate_formalization",
    "event_adapter",
    "events_of",
    "fence_observation",
    "folder_graph",
    "fork",
    "heavy_research",
    "join_turns",
    "local_tools",
    "mcp_server",
    "measure_skills",
    "official_lines",
    "official_run",
    "open_provider",
    "parse_turn",
    "planning_rows",
    "read_official_runs",
    "read_qa",
    "read_questions",
    "read_tasks",
    "read_trajectories",
    "read_webshaper",
    "reasoning_rows",
    "render_call",
    "render_turn",
    "replay",
    "resume",
    "run_batch",
    "run_batch_on_ray",
    "run_python",
    "sandbox_problem",
    "segments",
    "serve_mcp",
    "shaper_task",
    "skill_rates",
    "synthesize",
    "system_prompt",
    "trajectory_rows",
    "transcript",
    "visit_rates",
    "web_tools",
    "world_expert",
    "world_graph",
    "world_question",
    "world_seed",
    "write_official_runs",
    "write_qa",
    "write_questions",
    "write_report",
    "write_rows",
    "write_trajectories",
    "write_webshaper",
]
