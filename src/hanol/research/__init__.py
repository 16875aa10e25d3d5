"""Research: the deep-research agent of Tongyi (arXiv 2510.24701) over one's own documents.

A `Researcher` turns a question into a stream of typed events: turns of the model, results of
tools, at last an answer whose citations were checked. The events of a run are its log, and the log
is all there is: reports, exports, resumed runs, replays and forks are computed from it.

Agents are also trained here, in the loop that serves a user: questions and trajectories are
synthesized, rollouts in a `ResearchEnvironment` are learned from. Names that need torch are
imported when they are used.
"""

from hanol.research._batch import arun_batch, fixed_date, run_batch, run_task
from hanol.research._export import events_of, official_run
from hanol.research._official import OfficialRun, read_official_runs, write_official_runs
from hanol.research._prompts import FORCED_ANSWER, system_prompt
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
from hanol.research._researcher import (
    Researcher,
    announced,
    default_tools,
    run_events,
    start_fields,
)
from hanol.research._run import AGENT_SAMPLING, GREEDY, OWN_SAMPLING, Run, Settings
from hanol.research._run_log import request_sha256
from hanol.research.modes._rollouts import aheavy_research, heavy_research, synthesize
from hanol.research.report._checked import AnswerSentence
from hanol.research.report._report import write_report
from hanol.research.report._view import RunStep, RunView, call_title

__all__ = [
    "AGENT_SAMPLING",
    "FORCED_ANSWER",
    "GREEDY",
    "OWN_SAMPLING",
    "AnswerSentence",
    "OfficialRun",
    "Researcher",
    "Run",
    "RunStep",
    "RunView",
    "Segment",
    "Settings",
    "afork",
    "aheavy_research",
    "announced",
    "areplay",
    "aresume",
    "arun_batch",
    "call_title",
    "default_tools",
    "events_of",
    "fixed_date",
    "fork",
    "heavy_research",
    "official_run",
    "read_official_runs",
    "replay",
    "request_sha256",
    "resume",
    "run_batch",
    "run_batch_on_ray",
    "run_events",
    "run_task",
    "segments",
    "start_fields",
    "synthesize",
    "system_prompt",
    "transcript",
    "write_official_runs",
    "write_report",
]
