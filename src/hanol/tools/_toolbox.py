"""The standard sets of tools."""

from collections.abc import Sequence

from hanol.errors import ToolError
from hanol.retrieval import Index
from hanol.tools._compact import compact_tools
from hanol.tools._parse_file import ParseFile
from hanol.tools._tool import Tool
from hanol.tools.sandbox._bwrap import sandbox_problem
from hanol.tools.sandbox._sandbox import PythonInterpreter
from hanol.tools.web._providers import SearchProvider, open_provider
from hanol.tools.web._search_tool import Scholar, Search
from hanol.tools.web._visit import Visit
from hanol.tools.web._web import RATE, Web


def local_tools(index: Index) -> list[Tool]:
    """The tools over a folder of documents: search, visit, google_scholar, parse_file.

    None of them touches the network. `PythonInterpreter` is made on its own, as it depends on the
    machine's sandbox.

    Raises:
        SearchIndexError: Nothing is indexed.
    """
    index.search("a", 1)  # says how to index, before a run is started
    return _tools(None)


def agent_tools(
    index: Index | None,
    *,
    web: str | SearchProvider | Sequence[str | SearchProvider] | None = None,
    web_rate: float = RATE,
    web_consent: bool = False,
    python: bool | None = None,
    unsafe_python: bool = False,
    compact: bool = False,
) -> list[Tool]:
    """The tools of a research agent, as its user allows them.

    Args:
        index: The documents, if there are any.
        web: Provider of the web search, or what `open_provider` takes; None leaves the web off.
            With it, search and visit reach both documents and web pages. With several providers,
            the next is asked when one fails.
        web_rate: Web searches per second, at most.
        web_consent: Whether the web may be used next to documents: queries, which the model words
            after reading them, go to the provider.
        python: Whether to offer Python; None offers it where it can be isolated.
        unsafe_python: Whether Python may run without isolation.
        compact: Only search and visit, with short results, for models with a small context.

    Raises:
        ToolError: The settings exclude each other, or there is no consent.
        SearchIndexError: Nothing is indexed.
    """
    if compact:
        if index is None or web is not None:
            raise ToolError("Compact tools are for documents: turn the web off.")
        return list(compact_tools(index))
    tools: list[Tool] = []
    if web is not None:
        if index is not None and not web_consent:
            raise ToolError(
                "With the web on, words of your documents may reach the search provider inside "
                "queries. Agree with `web_consent=True` (`--web-consent`), or leave the web off."
            )
        named = web if isinstance(web, Sequence) and not isinstance(web, str) else [web]
        providers = [open_provider(one) if isinstance(one, str) else one for one in named]
        tools = _tools(Web(providers, rate=web_rate))
    elif index is not None:
        tools = local_tools(index)
    if python is None:
        python = unsafe_python or sandbox_problem() is None
    return [*tools, PythonInterpreter(unsafe=unsafe_python)] if python else tools


def _tools(web: Web | None) -> list[Tool]:
    return [Search(web), Visit(web), Scholar(web), ParseFile(web)]
