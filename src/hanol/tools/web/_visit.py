"""The tool `visit`: what a document or a web page says about a goal."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hanol.errors import AddressError, EngineError, HanolError
from hanol.retrieval import Index, Passage, Source, find_addresses, rank_texts
from hanol.runs import in_thread
from hanol.tools._extract import extract
from hanol.tools._show import (
    failure,
    joined,
    list_argument,
    numbered,
    one_line,
    place_of,
    tokens_of,
)
from hanol.tools._tool import VISIT, Observation, SpecifiedTool, ToolContext
from hanol.tools.web._web import Opened, Web

_ADDRESSES = 8  # of one call
_POOL = 100  # hits of the index that are looked through for the document's
_WITH_NEIGHBOURS = 5  # best passages that are shown with the ones around them
_SHOWN_LINKS = 20


class Visit(SpecifiedTool, spec=VISIT):
    """Opens documents of the index, and web pages where the web is on.

    Web pages open only at addresses that the user typed, a search returned, or a visited page
    links: a model cannot be talked into sending what it read to an address made for that.
    """

    def __init__(self, web: Web | None = None, *, budget: int = 4_000) -> None:
        self._web = web
        self._budget = budget

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Open `arguments["url"]`, one address or several, for `arguments["goal"]`."""
        urls = list_argument(arguments, "url", _ADDRESSES)
        goal = str(arguments.get("goal", "")).strip()
        if not urls:
            return failure("No address. Give one that a search returned.")
        opened = await asyncio.gather(*(self._open(url, goal, context) for url in urls))
        # Numbers are given after everything has arrived: a repeated run gives the same.
        return joined(
            [
                one if isinstance(one, Observation) else self._show(one, goal, context)
                for one in opened
            ]
        )

    async def _open(self, url: str, goal: str, context: ToolContext) -> Opened | Observation:
        """The document, or why it could not be opened."""
        try:
            if url.startswith("doc://") or (context.index is not None and "://" not in url):
                opened = await in_thread(self._read_document, url, goal, context.index)
            elif not url.startswith(("http://", "https://")):
                raise AddressError("it is not an address; take one that a search returned.")
            elif self._web is None:
                raise AddressError("the web is off; only documents (doc://...) can be visited.")
            else:
                opened = await self._web.open(url, context)
        except HanolError as err:
            return failure(f"{one_line(url, 500)} could not be opened: {err}")
        texts = [passage.text for passage in opened.passages]
        ranked = await in_thread(rank_texts, texts, goal)
        opened.order = list(dict.fromkeys([*opened.order, *ranked]))
        if context.engine is not None and goal:
            with suppress(EngineError):  # the best passages serve as well
                opened.extract = await extract(context.engine, opened.passages, goal)
        return opened

    def _read_document(self, address: str, goal: str, index: Index | None) -> Opened:
        if index is None:
            raise AddressError("no documents are indexed here.")
        passages = index.read(address)
        opened = Opened(address, passages[0].title, passages)
        places = {passage.id: place for place, passage in enumerate(passages)}
        hits = index.search(goal, _POOL) if goal else []
        opened.order = [places[hit.id] for hit in hits if hit.id in places]
        if self._web is not None:
            found = find_addresses("\n".join(passage.text for passage in passages))
            opened.links = {url: "" for url in found if url.startswith("http")}
        return opened

    def _show(self, opened: Opened, goal: str, context: ToolContext) -> Observation:
        sources: list[Source] = []
        lines = [f"{one_line(opened.title)} ({opened.address})"]
        lines.append(f"What it says about the goal: {one_line(goal, 500)}" if goal else "")
        if opened.extract is not None:
            evidence, summary = opened.extract
            lines += ["", "Evidence, word for word:"]
            for part in evidence:
                sources.append(context.sources.cite_passage(part))
                page = f"({place}) " if (place := place_of(part)) else ""
                lines.append(f"[{sources[-1].number}] {page}{part.text}")
            lines += ["", f"Summary, no source to cite: {summary}"]
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
        return Observation("\n".join(lines), tuple(sources), (opened.address, *opened.links))


def _choose(passages: Sequence[Passage], order: Sequence[int], budget: int) -> list[Passage]:
    """All passages if they fit, else the best with their neighbours, in the document's order."""
    costs = [tokens_of(passage.text) + 8 for passage in passages]
    if sum(costs) <= budget:
        return list(passages)
    wanted: list[int] = []
    for position, place in enumerate(order):
        around = (place, place - 1, place + 1) if position < _WITH_NEIGHBOURS else (place,)
        wanted += [near for near in around if 0 <= near < len(passages)]
    chosen: set[int] = set()
    for place in dict.fromkeys(wanted or range(len(passages))):
        if costs[place] <= budget or not chosen:
            chosen.add(place)
            budget -= costs[place]
    return [passages[place] for place in sorted(chosen)]
