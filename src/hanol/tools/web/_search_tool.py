"""The tool `search`: passages of the index, and hits of the web where it is on."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hanol.errors import HanolError
from hanol.retrieval import Passage, Source, SourceList
from hanol.tools._schemas import SEARCH
from hanol.tools._show import SEPARATOR, failure, link, list_argument, one_line, snippet
from hanol.tools._tool import Observation, ToolContext
from hanol.tools.web._providers import WebResult, check_query
from hanol.tools.web._web import Web

_QUERIES = 8  # of one call


@dataclass(frozen=True)
class QueryResult:
    """What one query gave."""

    query: str
    passages: list[Passage]
    results: list[WebResult]
    problems: list[str]


class Search:
    """Searches the index, and the web where it is on.

    Args:
        web: What to search besides the index; None keeps the web off.
        k: Hits per query and place.
    """

    name = SEARCH.name
    description = SEARCH.description
    parameters = SEARCH.parameters

    def __init__(self, web: Web | None = None, *, k: int = 10) -> None:
        self._web = web
        self._k = k

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Search for `arguments["query"]`, a list of queries, all at once."""
        queries = queries_of(arguments)
        if not queries:
            return failure("The query is empty. Give words that the passages should contain.")
        if context.index is None and self._web is None:
            return failure("There is nothing to search: no documents are indexed, the web is off.")
        found = await asyncio.gather(*(self._find(query, context) for query in queries))
        return _observation(found, context.sources)

    async def _find(self, query: str, context: ToolContext) -> QueryResult:
        local, (results, problems) = await asyncio.gather(
            self._local(query, context), web_results(query, self._web, context, self._k)
        )
        passages, reasons = local
        return QueryResult(query, passages, results, reasons + problems)

    async def _local(self, query: str, context: ToolContext) -> tuple[list[Passage], list[str]]:
        if context.index is None:
            return [], []
        try:
            return await asyncio.to_thread(context.index.search, query, self._k), []
        except HanolError as err:
            return [], [str(err)]


def queries_of(arguments: Mapping[str, Any]) -> list[str]:
    """The queries of a call: without blanks and repetitions, at most 8."""
    queries = list_argument(arguments, "query", 1000)
    return list(dict.fromkeys(" ".join(query.split()) for query in queries))[:_QUERIES]


async def web_results(
    query: str, web: Web | None, context: ToolContext, k: int, *, scholar: bool = False
) -> tuple[list[WebResult], list[str]]:
    """Hits of the web, and why there are none; nothing when it is off."""
    if web is None:
        return [], []
    try:
        if context.index is not None:
            check_query(query, context.sources)
        return (await web.search.search(query, scholar=scholar))[:k], []
    except HanolError as err:
        return [], [str(err)]


def _observation(found: list[QueryResult], source_list: SourceList) -> Observation:
    sources: list[Source] = []
    sections = [_section(one, source_list, sources) for one in found]
    addresses = [hit.address for one in found for hit in one.passages]
    addresses += [hit.url for one in found for hit in one.results]
    failed = not addresses and any(one.problems for one in found)
    return Observation(
        SEPARATOR.join(sections), tuple(sources), tuple(dict.fromkeys(addresses)), failed
    )


def _section(found: QueryResult, source_list: SourceList, sources: list[Source]) -> str:
    """The hits of one query; their sources are added to `sources`."""
    count = len(found.passages) + len(found.results)
    query = one_line(found.query)
    lines = [f'A search for "{query}" found {count} result{"" if count == 1 else "s"}.']
    for passage in found.passages:
        sources.append(source_list.cite_passage(passage))
        page = f", page {passage.page}" if passage.page is not None else ""
        number = len(lines)
        lines.append(
            f"{number}. {link(passage.title, passage.address)}\n"
            f"{one_line(passage.document)}{page}\n"
            f"[{sources[-1].number}] {snippet(passage)}"
        )
    for result in found.results:
        lines.append(f"{len(lines)}. {web_entry(result, source_list, sources)}")
    lines += [f"Not searched everywhere: {problem}" for problem in found.problems]
    if count == 0 and not found.problems:
        lines.append("Try fewer words, other words, or another language.")
    return "\n\n".join(lines)


def web_entry(result: WebResult, source_list: SourceList, sources: list[Source]) -> str:
    """One hit of the web, without its position; its source is added to `sources`."""
    lines = [link(result.title, result.url)]
    lines += [f"Date: {one_line(result.date)}"] if result.date else []
    lines += [f"Source: {one_line(result.source)}"] if result.source else []
    if result.snippet:
        sources.append(cite_text(source_list, result.snippet, result.url, result.title))
        lines.append(f"[{sources[-1].number}] {' '.join(result.snippet.split())}")
    return "\n".join(lines)


def cite_text(source_list: SourceList, text: str, address: str, title: str) -> Source:
    """Number a text that is its own document: a snippet of a search provider."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return source_list.cite(text, address=address, title=title, sha256=sha256)
