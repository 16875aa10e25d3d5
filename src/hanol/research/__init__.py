"""Research: the deep-research agent of Tongyi (arXiv 2510.24701) over one's own documents.

A `Researcher` turns a question into a stream of typed events: turns of the model, results of
tools, at last an answer whose citations were checked. The events of a run are its log, and the log
is all there is: reports, exports, resumed runs, replays and forks are computed from it.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.research._batch import arun_batch, fixed_date, run_batch, run_batch_on_ray, run_task
    from hanol.research._form import Turns
    from hanol.research._official import (
        OfficialRun,
        official_run,
        read_official_runs,
        write_official_runs,
    )
    from hanol.research._prompts import FORCED_ANSWER, is_small, system_prompt
    from hanol.research._replay import (
        Segment,
        afork,
        areplay,
        aresume,
        asynthesize,
        fork,
        replay,
        resume,
        segments,
        synthesize,
        transcript,
    )
    from hanol.research._researcher import Researcher, RunSetup, default_tools
    from hanol.research._run import AGENT_SAMPLING, GREEDY, OWN_SAMPLING, Run, Settings
    from hanol.research._run_log import request_sha256
    from hanol.research.asking._answer import Answer, CitedSentence, Evidence
    from hanol.research.asking._ask import aask, ask
    from hanol.research.asking._prompt import REFUSAL, TitledText, reader_messages, reader_text
    from hanol.research.asking._rank import sentence_prompt, sentences_of
    from hanol.research.modes._heavy import aheavy_research, heavy_research
    from hanol.research.report._report import write_report
    from hanol.research.report._view import AnswerSentence, RunStep, RunView, call_title

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "AGENT_SAMPLING",
    "FORCED_ANSWER",
    "GREEDY",
    "OWN_SAMPLING",
    "REFUSAL",
    "Answer",
    "AnswerSentence",
    "CitedSentence",
    "Evidence",
    "OfficialRun",
    "Researcher",
    "Run",
    "RunSetup",
    "RunStep",
    "RunView",
    "Segment",
    "Settings",
    "TitledText",
    "Turns",
    "aask",
    "afork",
    "aheavy_research",
    "areplay",
    "aresume",
    "arun_batch",
    "ask",
    "asynthesize",
    "call_title",
    "default_tools",
    "fixed_date",
    "fork",
    "heavy_research",
    "is_small",
    "official_run",
    "read_official_runs",
    "reader_messages",
    "reader_text",
    "replay",
    "request_sha256",
    "resume",
    "run_batch",
    "run_batch_on_ray",
    "run_task",
    "segments",
    "sentence_prompt",
    "sentences_of",
    "synthesize",
    "system_prompt",
    "transcript",
    "write_official_runs",
    "write_report",
]
