"""The five tools as the model sees them: names and schemas of Tongyi DeepResearch, own wording.

The released checkpoints are trained on these names and argument shapes (arXiv 2510.24701), so they
drive our tools unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolSpec:
    """A tool's name, description and JSON schema, without the tool."""

    name: str
    description: str
    parameters: Mapping[str, Any]


def _texts(description: str) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "description": description,
    }


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

DEFAULT_TOOLS: tuple[ToolSpec, ...] = (
    SEARCH,
    VISIT,
    PYTHON_INTERPRETER,
    GOOGLE_SCHOLAR,
    PARSE_FILE,
)
