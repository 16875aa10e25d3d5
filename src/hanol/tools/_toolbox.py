"""The standard sets of tools."""

from collections.abc import Sequence

from hanol.retrieval import Index
from hanol.tools._parse_file import ParseFile
from hanol.tools._tool import Tool
from hanol.tools.web._providers import SearchProvider, WebSearch
from hanol.tools.web._scholar import Scholar
from hanol.tools.web._search_tool import Search
from hanol.tools.web._visit import Visit
from hanol.tools.web._web import Web, WebPolicy


def local_tools(index: Index) -> list[Tool]:
    """The tools over a folder of documents: search, visit, google_scholar, parse_file.

    None of them touches the network. `PythonInterpreter` is made on its own, as it depends on the
    machine's sandbox.

    Raises:
        SearchIndexError: Nothing is indexed.
    """
    index.search("a", 1)  # says how to index, before a run is started
    return _tools(None)


def web_tools(
    provider: SearchProvider | Sequence[SearchProvider],
    index: Index | None = None,
    *,
    policy: WebPolicy | None = None,
) -> list[Tool]:
    """The same tools with web access: search and visit reach both documents and web pages.

    Args:
        provider: Web search provider; with several, the next is used when one fails.
        index: The documents of the run, if there are any.
        policy: Consent to use both at once.

    Raises:
        ToolError: There are documents and no consent, or no provider.
    """
    (policy or WebPolicy()).check(index)
    providers = provider if isinstance(provider, Sequence) else [provider]
    return _tools(Web(WebSearch(providers)))


def _tools(web: Web | None) -> list[Tool]:
    return [Search(web), Visit(web), Scholar(web), ParseFile(web)]
