"""Tools: what a model may call, and how its calls are read.

The tool protocol and schemas, one strict parser for turns and calls, search and visit over
documents and the web (`tools/web/`), a sandboxed Python interpreter (`tools/sandbox/`), and the
same tools over the Model Context Protocol.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.tools._compact import CompactSearch, CompactVisit, compact_tools
    from hanol.tools._dialogues import located_rows, messages_field, text_field
    from hanol.tools._escape import escape_observation, escape_restated, fence_observation
    from hanol.tools._grammar import block_constraint, turn_constraint
    from hanol.tools._mcp import serve_mcp
    from hanol.tools._tool import (
        DEFAULT_TOOLS,
        SEARCH,
        VISIT,
        Observation,
        Tool,
        ToolContext,
        ToolSpec,
    )
    from hanol.tools._toolbox import agent_tools, local_tools
    from hanol.tools._turn import Turn, parse_turn, render_call, render_turn
    from hanol.tools.sandbox._bwrap import SandboxLimits, sandbox_problem
    from hanol.tools.sandbox._human_eval import human_eval_verifier
    from hanol.tools.sandbox._sandbox import (
        PythonInterpreter,
        PythonResult,
        arun_python,
        run_python,
    )
    from hanol.tools.web._providers import SearchProvider, Searxng, Serper, WebResult, open_provider

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "DEFAULT_TOOLS",
    "SEARCH",
    "VISIT",
    "CompactSearch",
    "CompactVisit",
    "Observation",
    "PythonInterpreter",
    "PythonResult",
    "SandboxLimits",
    "SearchProvider",
    "Searxng",
    "Serper",
    "Tool",
    "ToolContext",
    "ToolSpec",
    "Turn",
    "WebResult",
    "agent_tools",
    "arun_python",
    "block_constraint",
    "compact_tools",
    "escape_observation",
    "escape_restated",
    "fence_observation",
    "human_eval_verifier",
    "local_tools",
    "located_rows",
    "messages_field",
    "open_provider",
    "parse_turn",
    "render_call",
    "render_turn",
    "run_python",
    "sandbox_problem",
    "serve_mcp",
    "text_field",
    "turn_constraint",
]
