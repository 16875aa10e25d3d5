"""The tools `search` and `google_scholar`: passages of the index, and hits of the web."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hanol.errors import HanolError
from hanol.retrieval import Index, Passage, Source
from hanol.tools._schemas import GOOGLE_SCHOLAR, SEARCH
from hanol.tools._show import failure, joined, link, list_argument, one_line, snippet
from hanol.tools._tool import Observation, ToolContext
from hanol.tools.web._providers import WebResult, check_query
from hanol.tools.web._web import Web

_QUERIES = 8  # of one call
_POOL = 50  # passages looked at to find the best documents
_OFFLINE = "The web is off: these are documents of the user's folder, not of Google Scholar.\n"


class Search:
    """Searches the index, and the web where it is on.

    Args:
        web: What to search besides the index; None keeps the web off.
        k: Hits per query and place.
    """

    name = SEARCH.name
    description = SEARCH.description
    parameters = SEARCH.parameters
    _blank = "The query is empty. Give words that the passages should contain."
    _nothing = "There is nothing to search: no documents are indexed, the web is off."
    _scholar = False

    def __init__(self, web: Web | None = None, *, k: int = 10) -> None:
        self._web = web
        self._k = k

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Search for `arguments["query"]`, a list of queries, all at once."""
        queries = queries_of(arguments)
        if not queries:
            return failure(self._blank)
        if context.index is None and self._web is None:
            return failure(self._nothing)
        found = await asyncio.gather(*(self._find(query, context) for query in queries))
        sources: list[Source] = []
        addresses: list[str] = []
        sections = []
        # Numbers are given after everything has arrived: a repeated run gives the same.
        for query, (passages, results, problems) in zip(queries, found, strict=True):
            lines = [self._headline(one_line(query), len(passages) + len(results))]
            lines += [_passage(passage, context, sources) for passage in passages]
            lines += [_result(result, context, sources) for result in results]
            numbered = [f"{number}. {line}" for number, line in enumerate(lines[1:], start=1)]
            problems = [f"Not searched everywhere: {problem}" for problem in problems]
            if not numbered and not problems:
                problems = ["Try fewer words, other words, or another language."]
            sections.append("\n\n".join([lines[0], *numbered, *problems]))
            addresses += [hit.address for hit in passages] + [hit.url for hit in results]
        failed = not addresses and any(problems for _, _, problems in found)
        return joined(sections, sources, addresses, failed=failed)

    async def _find(
        self, query: str, context: ToolContext
    ) -> tuple[list[Passage], list[WebResult], list[str]]:
        passages: list[Passage] = []
        results: list[WebResult] = []
        problems: list[str] = []
        try:
            if context.index is not None:
                passages = await asyncio.to_thread(self._passages, context.index, query)
        except HanolError as err:
            problems.append(str(err))
        try:
            if self._web is not None:
                if context.index is not None:
                    check_query(query, context.sources)
                results = await self._web.search.search(query, scholar=self._scholar)
        except HanolError as err:
            problems.append(str(err))
        return passages, results[: self._k], problems

    def _passages(self, index: Index, query: str) -> list[Passage]:
        return index.search(query, self._k)

    def _headline(self, query: str, count: int) -> str:
        return f'A search for "{query}" found {count} result{"" if count == 1 else "s"}.'


class Scholar(Search):
    """Searches publications through a provider; offline, the titles and texts of the index."""

    name = GOOGLE_SCHOLAR.name
    description = GOOGLE_SCHOLAR.description
    parameters = GOOGLE_SCHOLAR.parameters
    _blank = "The query is empty. Give a title, an author or a topic."
    _nothing = "Publications cannot be searched: the web is off, nothing is indexed."
    _scholar = True

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Search for `arguments["query"]`, a list of queries, all at once."""
        found = await super().run(arguments, context)
        return found if self._web or found.failed else replace(found, text=_OFFLINE + found.text)

    def _headline(self, query: str, count: int) -> str:
        return f'{"Publications" if self._web else "Documents"} for "{query}": {count}.'

    def _passages(self, index: Index, query: str) -> list[Passage]:
        """The best passage of each document; those with every word in their title first."""
        if self._web is not None:
            return []
        best: dict[str, Passage] = {}
        for passage in index.search(query, _POOL):
            best.setdefault(passage.document, passage)
        words = query.casefold().split()
        titled = [
            info
            for info in index.documents()
            if all(word in f"{info.title} {info.document}".casefold() for word in words)
        ][: self._k]
        first = [
            best.pop(info.document) if info.document in best else index.read(info.address)[0]
            for info in titled
        ]
        return [*first, *best.values()][: self._k]


def queries_of(arguments: Mapping[str, Any]) -> list[str]:
    """The queries of a call: without blanks and repetitions, at most 8."""
    queries = list_argument(arguments, "query", 1000)
    return list(dict.fromkeys(" ".join(query.split()) for query in queries))[:_QUERIES]


def _passage(passage: Passage, context: ToolContext, sources: list[Source]) -> str:
    """A hit of the index, without its position; its source is added to `sources`."""
    sources.append(context.sources.cite_passage(passage))
    page = f", page {passage.page}" if passage.page is not None else ""
    return (
        f"{link(passage.title, passage.address)}\n{one_line(passage.document)}{page}\n"
        f"[{sources[-1].number}] {snippet(passage)}"
    )


def _result(result: WebResult, context: ToolContext, sources: list[Source]) -> str:
    """A hit of the web, likewise; a snippet is its own document."""
    lines = [link(result.title, result.url)]
    lines += [f"Date: {one_line(result.date)}"] if result.date else []
    lines += [f"Source: {one_line(result.source)}"] if result.source else []
    if text := result.snippet:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        source = context.sources.cite(text, address=result.url, title=result.title, sha256=sha256)
        sources.append(source)
        lines.append(f"[{source.number}] {' '.join(text.split())}")
    return "\n".join(lines)
