"""Research: the deep-research agent of Tongyi (arXiv 2510.24701) over one's own documents.

A `Researcher` turns a question into a stream of typed events: turns of the model, results of
tools, at last an answer whose citations were checked. The events of a run are its log, and the log
is all there is: reports, exports, resumed runs, replays and forks are computed from it.
"""

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
from hanol.research._run import GREEDY, Sampling
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
from hanol.research._tool import Observation, Tool, ToolContext
from hanol.research._toolbox import local_tools, web_tools
from hanol.research._turn import Turn, parse_turn, render_call, render_turn
from hanol.research._view import RunView, Step, call_title
from hanol.research._web import WebPolicy

__all__ = [
    "DEFAULT_TOOLS",
    "GREEDY",
    "Budget",
    "CompactSearch",
    "CompactVisit",
    "ContextRestarted",
    "Event",
    "Limits",
    "Mode",
    "ModelAnswered",
    "Observation",
    "OfficialRun",
    "Purpose",
    "PythonInterpreter",
    "PythonResult",
    "ReportUpdated",
    "Researcher",
    "RunEnded",
    "RunFolder",
    "RunStarted",
    "RunView",
    "Sample",
    "Sampling",
    "SearchProvider",
    "Searxng",
    "Segment",
    "Sentence",
    "Serper",
    "ShaperTask",
    "Step",
    "Task",
    "Termination",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolReturned",
    "ToolSchema",
    "ToolSpec",
    "Turn",
    "TurnRejected",
    "WebPolicy",
    "WebResult",
    "afork",
    "aheavy_research",
    "areplay",
    "aresume",
    "arun_batch",
    "arun_python",
    "call_title",
    "compact_tools",
    "escape_observation",
    "evaluate_formalization",
    "event_adapter",
    "events_of",
    "fence_observation",
    "fork",
    "heavy_research",
    "local_tools",
    "mcp_server",
    "official_run",
    "open_provider",
    "parse_turn",
    "read_official_runs",
    "read_qa",
    "read_tasks",
    "read_trajectories",
    "read_webshaper",
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
    "synthesize",
    "system_prompt",
    "transcript",
    "web_tools",
    "write_official_runs",
    "write_report",
]
