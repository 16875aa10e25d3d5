"""The tool `visit`: what a document or a web page says about a goal."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urldefrag

from hanol.errors import AddressError, EngineError, HanolError
from hanol.retrieval import Index, Passage, Source
from hanol.tools._extract import Extract, extract
from hanol.tools._schemas import VISIT
from hanol.tools._show import SEPARATOR, list_argument, numbered, one_line, rank, tokens_of
from hanol.tools._tool import Observation, ToolContext
from hanol.tools.web._web import Web, addresses_in, read_page

_ADDRESSES = 8  # of one call
_POOL = 100  # hits of the index that are looked through for the document's
_WITH_NEIGHBOURS = 5  # best passages that are shown with the ones around them
_SHOWN_LINKS = 20


@dataclass(frozen=True)
class _Opened:
    """A document that was opened, not yet numbered."""

    address: str
    title: str
    passages: list[Passage]
    order: list[int]
    extract: Extract | None
    links: Mapping[str, str]


class Visit:
    """Opens documents of the index, and web pages where the web is on.

    Web pages open only at addresses that the user typed, a search returned, or a visited page
    links: a model cannot be talked into sending what it read to an address made for that.

    Args:
        web: None keeps the web off.
        budget: Tokens of passages that one address may give, estimated.
    """

    name = VISIT.name
    description = VISIT.description
    parameters = VISIT.parameters

    def __init__(self, web: Web | None = None, *, budget: int = 4_000) -> None:
        self._web = web
        self._budget = budget

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Open `arguments["url"]`, one address or several, for `arguments["goal"]`."""
        urls = list_argument(arguments, "url", _ADDRESSES)
        goal = str(arguments.get("goal", "")).strip()
        if not urls:
            return Observation("No address. Give one that a search returned.", failed=True)
        opened = await asyncio.gather(*(self._open(url, goal, context) for url in urls))
        # Numbers are given after everything has arrived, in the order of the call: a repeated run
        # gives the same.
        sections: list[str] = []
        sources: list[Source] = []
        addresses: list[str] = []
        for url, result in zip(urls, opened, strict=True):
            if isinstance(result, str):
                sections.append(f"{one_line(url, 500)} could not be opened: {result}")
                continue
            sections.append(self._show(result, goal, context, sources))
            addresses += [result.address, *result.links]
        return Observation(
            SEPARATOR.join(sections),
            tuple(sources),
            tuple(dict.fromkeys(addresses)),
            failed=not sources,
        )

    async def _open(self, url: str, goal: str, context: ToolContext) -> _Opened | str:
        """The document, or why it could not be opened."""
        try:
            if url.startswith("doc://") or (context.index is not None and "://" not in url):
                opened = await asyncio.to_thread(self._read_document, url, goal, context.index)
            else:
                opened = await self._fetch(url, goal, context)
        except HanolError as err:
            return str(err)
        if context.engine is None or not goal:
            return opened
        try:
            found = await extract(context.engine, opened.passages, goal)
        except EngineError:
            found = None  # the best passages serve as well
        return _Opened(
            opened.address, opened.title, opened.passages, opened.order, found, opened.links
        )

    def _read_document(self, address: str, goal: str, index: Index | None) -> _Opened:
        if index is None:
            raise AddressError("no documents are indexed here.")
        passages = index.read(address)
        places = {passage.id: place for place, passage in enumerate(passages)}
        hits = index.search(goal, _POOL) if goal else []
        order = [places[hit.id] for hit in hits if hit.id in places]
        order += [place for place in rank(passages, goal) if place not in set(order)]
        links = addresses_in("\n".join(passage.text for passage in passages)) if self._web else ()
        return _Opened(address, passages[0].title, passages, order, None, dict.fromkeys(links, ""))

    async def _fetch(self, url: str, goal: str, context: ToolContext) -> _Opened:
        if not url.startswith(("http://", "https://")):
            raise AddressError("it is no address; take one that a search returned.")
        if self._web is None:
            raise AddressError("the web is off; only documents (doc://...) can be visited.")
        listed(url, context.addresses)
        page = await asyncio.to_thread(read_page, await self._web.fetcher.fetch(url))
        order = await asyncio.to_thread(rank, page.passages, goal)
        return _Opened(page.url, page.title, page.passages, order, None, page.links)

    def _show(self, opened: _Opened, goal: str, context: ToolContext, sources: list[Source]) -> str:
        """The text of one opened document; its sources are added to `sources`."""
        lines = [f"{one_line(opened.title)} ({opened.address})"]
        lines.append(f"What it says about the goal: {one_line(goal, 500)}" if goal else "")
        if opened.extract is not None:
            lines += ["", "Evidence, word for word:"]
            for evidence in opened.extract.evidence:
                first = evidence.page.first
                source = context.sources.cite(
                    evidence.text,
                    address=first.address,
                    title=first.title,
                    sha256=first.sha256,
                    page=first.page,
                    start=evidence.start,
                    end=evidence.start + len(evidence.text),
                )
                sources.append(source)
                page = f"(page {first.page}) " if first.page is not None else ""
                lines.append(f"[{source.number}] {page}{evidence.text}")
            lines += ["", f"Summary, no source to cite: {opened.extract.summary}"]
        else:
            chosen = _choose(opened.passages, opened.order, self._budget)
            if goal and not opened.order:
                lines.append("No passage shares a word with the goal; this is the beginning.")
            text, shown, left = numbered(chosen, context.sources, self._budget)
            left += len(opened.passages) - len(chosen)
            sources += shown
            lines += ["", text]
            if left:
                lines.append(
                    f"({left} of {len(opened.passages)} passages are not shown: visit again with "
                    "a narrower goal, or one page.)"
                )
        named = [(url, label) for url, label in opened.links.items() if label][:_SHOWN_LINKS]
        if named:
            lines += ["", "Links:", *(f"- {one_line(label)}: {url}" for url, label in named)]
        return "\n".join(lines)


def listed(url: str, addresses: Collection[str]) -> None:
    """Let only addresses through that the run knows.

    Raises:
        AddressError: It stands in none of the places that addresses may come from.
    """
    if _plain(url) not in {_plain(address) for address in addresses}:
        raise AddressError(
            "it was neither named by the user, nor returned by a search, nor linked from a visited "
            "page. Search for the page instead."
        )


def _plain(url: str) -> str:
    return urldefrag(url).url.rstrip("/")


def _choose(passages: Sequence[Passage], order: Sequence[int], budget: int) -> list[Passage]:
    """All passages if they fit, else the best with their neighbours, in the document's order."""
    if sum(tokens_of(passage.text) + 8 for passage in passages) <= budget:
        return list(passages)
    wanted: list[int] = []
    for position, place in enumerate(order):
        around = (place, place - 1, place + 1) if position < _WITH_NEIGHBOURS else (place,)
        wanted += [near for near in around if 0 <= near < len(passages)]
    chosen: set[int] = set()
    for place in wanted or range(len(passages)):
        cost = tokens_of(passages[place].text) + 8
        if place in chosen or (cost > budget and chosen):
            continue
        chosen.add(place)
        budget -= cost
        if budget <= 0:
            break
    return [passages[place] for place in sorted(chosen)]
