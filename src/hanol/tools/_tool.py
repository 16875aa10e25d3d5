"""The tool protocol: what a tool is, gets and returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hanol.engines import Engine, ToolSchema
from hanol.retrieval import Index, Source, SourceList


@dataclass(frozen=True)
class Observation:
    """The result of a tool call.

    Args:
        text: What the model reads, sources numbered [k]; not yet escaped or fenced, the loop does
            that.
        sources: The numbered texts behind it, as they stand in the list of sources.
        addresses: Addresses that `visit` may open from now on because this result names them.
        failed: The tool could not do what was asked; `text` says why and what to try.
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
        chance: Seed of what a tool leaves to chance: from the run's seed and the tool calls before.
    """

    sources: SourceList
    index: Index | None = None
    engine: Engine | None = None
    addresses: set[str] = field(default_factory=set)
    chance: str = ""


class Tool(ToolSchema, Protocol):
    """One tool, described to the model by a JSON schema."""

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run one call whose arguments match the schema. Failures are observations, not errors."""
        ...
