"""The tool `google_scholar`: publications of the web where it is on, else documents at hand."""

import asyncio
from collections.abc import Mapping
from typing import Any

from hanol.errors import HanolError
from hanol.retrieval import Index, Passage, Source
from hanol.tools._schemas import GOOGLE_SCHOLAR
from hanol.tools._show import SEPARATOR, failure, link, one_line, snippet
from hanol.tools._tool import Observation, ToolContext
from hanol.tools.web._search_tool import queries_of, web_entry, web_results
from hanol.tools.web._web import Web

_POOL = 50  # passages looked at to find the best documents


class Scholar:
    """Searches publications through a provider; offline, the titles and texts of the index.

    Args:
        web: None keeps the web off.
        k: Hits per query.
    """

    name = GOOGLE_SCHOLAR.name
    description = GOOGLE_SCHOLAR.description
    parameters = GOOGLE_SCHOLAR.parameters

    def __init__(self, web: Web | None = None, *, k: int = 10) -> None:
        self._web = web
        self._k = k

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Search for `arguments["query"]`, a list of queries, all at once."""
        queries = queries_of(arguments)
        if not queries:
            return failure("The query is empty. Give a title, an author or a topic.")
        if self._web is not None:
            return await self._online(queries, self._web, context)
        if context.index is None:
            return failure("Publications cannot be searched: the web is off, nothing is indexed.")
        try:
            found = await asyncio.gather(
                *(asyncio.to_thread(_documents, context.index, q, self._k) for q in queries)
            )
        except HanolError as err:
            return failure(err)
        sources: list[Source] = []
        sections = []
        for query, passages in zip(queries, found, strict=True):
            lines = [f'Documents for "{one_line(query)}": {len(passages)}.']
            for passage in passages:
                sources.append(context.sources.cite_passage(passage))
                lines.append(
                    f"{len(lines)}. {link(passage.title, passage.address)}\n"
                    f"{one_line(passage.document)}\n[{sources[-1].number}] {snippet(passage)}"
                )
            sections.append("\n\n".join(lines))
        note = "The web is off: these are documents of the user's folder, not of Google Scholar.\n"
        addresses = tuple(dict.fromkeys(source.address for source in sources))
        return Observation(note + SEPARATOR.join(sections), tuple(sources), addresses)

    async def _online(self, queries: list[str], web: Web, context: ToolContext) -> Observation:
        found = await asyncio.gather(
            *(web_results(query, web, context, self._k, scholar=True) for query in queries)
        )
        sources: list[Source] = []
        sections = []
        for query, (results, problems) in zip(queries, found, strict=True):
            lines = [f'Publications for "{one_line(query)}": {len(results)}.']
            for result in results:
                lines.append(f"{len(lines)}. {web_entry(result, context.sources, sources)}")
            sections.append("\n\n".join([*lines, *problems]))
        addresses = tuple(dict.fromkeys(hit.url for results, _ in found for hit in results))
        failed = not addresses and any(problems for _, problems in found)
        return Observation(SEPARATOR.join(sections), tuple(sources), addresses, failed)


def _documents(index: Index, query: str, k: int) -> list[Passage]:
    """The best passage of each document; those whose title holds every word of the query first."""
    best: dict[str, Passage] = {}
    for passage in index.search(query, _POOL):
        best.setdefault(passage.document, passage)
    words = query.casefold().split()
    titled = [
        info
        for info in index.documents()
        if all(word in f"{info.title} {info.document}".casefold() for word in words)
    ][:k]
    first = [
        best.pop(info.document) if info.document in best else index.read(info.address)[0]
        for info in titled
    ]
    return [*first, *best.values()][:k]
