"""The tools `search` and `google_scholar`: passages of the index, and hits of the web."""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

from hanol.errors import HanolError
from hanol.retrieval import Index, Passage, Source
from hanol.runs import in_thread
from hanol.tools._show import (
    best_of_documents,
    failure,
    joined,
    link,
    list_argument,
    one_line,
    place_of,
)
from hanol.tools._tool import GOOGLE_SCHOLAR, SEARCH, Observation, SpecifiedTool, ToolContext
from hanol.tools.web._providers import WebResult, check_query
from hanol.tools.web._web import Web

_QUERIES = 8  # of one call
_EXCERPT = 480  # characters shown of a passage
_POOL = 50  # passages looked at to find the best documents
_OFFLINE = "The web is off: these are documents of the user's folder, not of Google Scholar.\n"


class Search(SpecifiedTool, spec=SEARCH):
    """Searches the index, and the web where it is on, with `k` hits per query and place."""

    _scholar = False

    def __init__(self, web: Web | None = None, *, k: int = 10) -> None:
        self._web = web
        self._k = k

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Search for `arguments["query"]`, a list of queries, all at once."""
        queries = queries_of(arguments)
        if not queries:
            return failure("The query is empty. Give words, names or a topic.")
        if context.index is None and self._web is None:
            return failure("Nothing can be searched: no documents are indexed, the web is off.")
        found = await asyncio.gather(*(self._find(query, context) for query in queries))
        parts: list[Observation] = []
        # Numbers are given after everything has arrived: a repeated run gives the same.
        for query, (passages, results, problems) in zip(queries, found, strict=True):
            sources: list[Source] = []
            hits = [_passage(passage, context, sources) for passage in passages]
            hits += [_result(result, context, sources) for result in results]
            count = f"{len(hits)} result{'' if len(hits) == 1 else 's'}"
            note = _OFFLINE if self._scholar and self._web is None and not parts else ""
            lines = [f'{note}A search for "{one_line(query)}" found {count}.']
            lines += [f"{number}. {hit}" for number, hit in enumerate(hits, start=1)]
            lines += [f"Not searched everywhere: {problem}" for problem in problems]
            if not hits and not problems:
                lines.append("Try fewer words, other words, or another language.")
            addresses = (*(hit.address for hit in passages), *(hit.url for hit in results))
            text = "\n\n".join(lines)
            parts.append(Observation(text, tuple(sources), addresses, failed=bool(problems)))
        return joined(parts)

    async def _find(
        self, query: str, context: ToolContext
    ) -> tuple[list[Passage], list[WebResult], list[str]]:
        passages: list[Passage] = []
        results: list[WebResult] = []
        problems: list[str] = []
        try:
            if context.index is not None:
                passages = await in_thread(self._passages, context.index, query)
        except HanolError as err:
            problems.append(str(err))
        try:
            if self._web is not None:
                if context.index is not None:
                    check_query(query, context.sources)
                results = await self._web.search(query, scholar=self._scholar)
        except HanolError as err:
            problems.append(str(err))
        return passages, results[: self._k], problems

    def _passages(self, index: Index, query: str) -> list[Passage]:
        return index.search(query, self._k)


class Scholar(Search, spec=GOOGLE_SCHOLAR):
    """Searches publications through a provider; offline, the index, with titles and names first."""

    _scholar = True

    def _passages(self, index: Index, query: str) -> list[Passage]:
        if self._web is not None:
            return []
        best = {one.document: one for one in best_of_documents(index.search(query, _POOL))}
        words = query.casefold().split()
        named = [
            info
            for info in index.documents()
            if all(word in f"{info.title} {info.document}".casefold() for word in words)
        ][: self._k]
        first = [
            best.pop(info.document) if info.document in best else index.read(info.address)[0]
            for info in named
        ]
        return [*first, *best.values()][: self._k]


def queries_of(arguments: Mapping[str, Any]) -> list[str]:
    """The queries of a call: without blanks and repetitions, at most 8."""
    queries = list_argument(arguments, "query", 1000)
    return list(dict.fromkeys(" ".join(query.split()) for query in queries))[:_QUERIES]


def _passage(passage: Passage, context: ToolContext, sources: list[Source]) -> str:
    """A hit of the index, without its position; its source is added to `sources`."""
    sources.append(context.sources.cite_passage(passage))
    place = f", {where}" if (where := place_of(passage)) else ""
    start, end = passage.excerpt(_EXCERPT)
    before, after = "..." if start else "", "..." if end < len(passage.text) else ""
    return (
        f"{link(passage.title, passage.address)}\n{one_line(passage.document)}{place}\n"
        f"[{sources[-1].number}] {before}{' '.join(passage.text[start:end].split())}{after}"
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
