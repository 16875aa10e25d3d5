"""The tool protocol: what a tool is, gets and returns; and the five tools as the model sees them.

The released checkpoints are trained on the names and argument shapes of Tongyi DeepResearch (arXiv
2510.24701), so they drive our tools unchanged; the wording is ours.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hanol.engines import Engine, ToolSchema
from hanol.retrieval import Index, Source, SourceList


@dataclass(frozen=True)
class Observation:
    """The result of a tool call.

    Args:
        text: Text for the model with sources numbered [k]; the loop escapes and fences it.
        sources: The numbered sources, as in the run's list.
        addresses: Addresses that `visit` may open from now on.
        failed: Whether the tool failed; `text` then says why and what to try.
    """

    text: str
    sources: tuple[Source, ...] = ()
    addresses: tuple[str, ...] = ()
    failed: bool = False


@dataclass
class ToolContext:
    """What a run provides to its tools.

    Args:
        sources: Numbered sources of the run; tools add to it.
        index: The indexed folder, if there is one.
        engine: Reads long pages for `visit`; None takes the best passages instead.
        addresses: What `visit` may open: named by the user, by a search, or on a visited page.
        chance: Seed for random choices of a tool, from the run's seed and the earlier calls.
        deadline: Value of `time.monotonic` at which the run's time is used up.
    """

    sources: SourceList
    index: Index | None = None
    engine: Engine | None = None
    addresses: set[str] = field(default_factory=set)
    chance: str = ""
    deadline: float = math.inf

    def seconds_left(self) -> float:
        """Seconds that a call may take from now on."""
        return self.deadline - time.monotonic()


class Tool(ToolSchema, Protocol):
    """One tool, described to the model by a JSON schema."""

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run one call whose arguments match the schema. Failures are observations, not errors."""
        ...


@dataclass(frozen=True)
class ToolSpec:
    """A tool's name, description and JSON schema, without the tool."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class SpecifiedTool:
    """A tool that takes its name, description and schema from a `ToolSpec`."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    def __init_subclass__(cls, *, spec: ToolSpec) -> None:
        cls.name, cls.description, cls.parameters = spec.name, spec.description, spec.parameters


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": description}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SEARCH = ToolSpec(
    "search",
    "Search for passages. Takes several queries at once and returns, for each, the best matches "
    "with their address and an excerpt.",
    _object(query=_texts("Queries; several that complement each other work best.")),
)
VISIT = ToolSpec(
    "visit",
    "Open documents or pages by their address and return what they say about the goal.",
    _object(
        url=_texts("Addresses, as a search returned them or a visited page links them."),
        goal={"type": "string", "description": "What to find out there."},
    ),
)
GOOGLE_SCHOLAR = ToolSpec(
    "google_scholar",
    "Search scholarly publications. Takes several queries at once.",
    _object(query=_texts("Queries: titles, authors, topics.")),
)
PYTHON_INTERPRETER = ToolSpec(
    "PythonInterpreter",
    "Runs Python code in a sandbox without network and files, and returns what it prints. "
    "The arguments are always the empty object {}. The code follows right after them, inside "
    "the tool call, between <code> and </code>. Only what is printed by print() is returned; "
    "every call starts afresh.",
    # The code is no JSON argument: the parser adds it as `code`.
    {"type": "object", "properties": {}, "required": []},
)
PARSE_FILE = ToolSpec(
    "parse_file",
    "Read files of the user's folder: PDF, DOCX, PPTX, XLSX, CSV, TXT, HTML and the like.",
    _object(files=_texts("File names, relative to the folder.")),
)

DEFAULT_TOOLS = (SEARCH, VISIT, PYTHON_INTERPRETER, GOOGLE_SCHOLAR, PARSE_FILE)
