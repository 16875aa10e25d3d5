"""Search and visit in few words: one line a result, for models with a small window.

A causal model recalls best what follows a key it has read, so a line starts with what the page is
and its best sentence, and ends with the link. Only what was visited is numbered for citations.
Of a long document only the sentences that fit the query or the goal are shown.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any
from urllib.parse import quote

from hanol.errors import AddressError, HanolError
from hanol.retrieval import Index, Passage, Source, rank_texts, split_sentences
from hanol.tools._show import (
    best_of_documents,
    failure,
    joined,
    link,
    list_argument,
    one_line,
    tokens_of,
)
from hanol.tools._tool import SEARCH, VISIT, Observation, SpecifiedTool, Tool, ToolContext
from hanol.tools.web._search_tool import queries_of

_HEADING = re.compile(r"^#+[ \t]+(.*?)[ \t#]*$", re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]]*)\]\([^()\s]*\)")
_BREAKING = re.compile(r"[\s()%]")  # would end a link or its line, or not come back
_PASSAGES = 3  # that are looked at for each hit: a document may have several
_ADDRESSES = 4  # of one call
_WHOLE = 600  # tokens of a document that is shown whole, overlaps of its passages included
_FITTING, _LONGEST = 3, 300  # sentences of a longer one, and characters of each
_EXCERPT = 150  # characters of a sentence in a hit


_SEARCH = replace(SEARCH, description=f"{SEARCH.description} Each hit is one line.")
_VISIT = replace(VISIT, description=f"{VISIT.description} Shows short documents whole.")


class CompactSearch(SpecifiedTool, spec=_SEARCH):
    """Searches the index by words; a hit is one line, and a document one hit.

    Args:
        k: Hits per query.
        shuffle: Seed of the order in which hits are shown, so that a policy which is trained on
            them reads them instead of taking the first; None keeps the best first.
    """

    def __init__(self, *, k: int = 5, shuffle: int | None = None) -> None:
        self._k = k
        self._shuffle = shuffle

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Search for `arguments["query"]`, a list of queries."""
        queries = queries_of(arguments)
        if not queries or context.index is None:
            return failure("The query is empty." if context.index else "Nothing is indexed.")
        parts: list[Observation] = []
        for query in queries:
            try:
                found = context.index.search(query, _PASSAGES * self._k, mode="bm25")
            except HanolError as err:
                return failure(err)
            hits = best_of_documents(found)[: self._k]
            if self._shuffle is not None:
                Random(f"{self._shuffle} {query}").shuffle(hits)  # noqa: S311 - not for secrets
            lines = [f"{n}. {_line(hit)}" for n, hit in enumerate(hits, start=1)]
            addresses = tuple(hit.address for hit in hits)
            parts.append(Observation("\n".join(lines) or "No results.", addresses=addresses))
        return joined(parts)


class CompactVisit(SpecifiedTool, spec=_VISIT):
    """Opens documents of the index, by address or path: short ones are shown whole, of long ones
    the sentences that fit the goal, behind the title.
    """

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Open `arguments["url"]`, one address or several."""
        urls = list_argument(arguments, "url", _ADDRESSES)
        if not urls or context.index is None:
            return failure("The address is empty." if context.index else "Nothing is indexed.")
        sections: list[str] = []
        sources: list[Source] = []
        for url in urls:
            try:
                passages = context.index.read(url)
            except AddressError:
                sections.append("No page. Take a link of the results.")
                continue
            except HanolError as err:
                sections.append(f"No page. {err}")
                continue
            goal = str(arguments.get("goal", ""))
            is_long = sum(tokens_of(passage.text) for passage in passages) > _WHOLE
            shown = _fitting(passages, goal) if is_long else _whole(passages)
            for passage, text in shown:
                sources.append(context.sources.cite_passage(passage))
                sections.append(f"[{sources[-1].number}] {text}{_doubt(passage)}")
        return Observation("\n".join(sections), tuple(sources), failed=not sources)


def compact_tools(index: Index, *, k: int = 5, shuffle: int | None = None) -> Sequence[Tool]:
    """Search and visit over a folder of documents, in few words; see `CompactSearch`.

    Raises:
        SearchIndexError: Nothing is indexed.
    """
    index.search("a", 1)  # says how to index, before a run is started
    return [CompactSearch(k=k, shuffle=shuffle), CompactVisit()]


def _whole(passages: Sequence[Passage]) -> Iterator[tuple[Passage, str]]:
    """Passages with their texts; what ends the passage before is shown once."""
    page, end = None, 0
    for passage in passages:
        yield passage, _body(passage, max(0, end - passage.start) if passage.address == page else 0)
        page, end = passage.address, passage.end


def _fitting(passages: Sequence[Passage], goal: str) -> Iterator[tuple[Passage, str]]:
    """The passages that have the best sentences for a goal, with these, in their order."""
    where: dict[str, Passage] = {}  # what passages share counts once
    for passage in passages:
        for span in split_sentences(passage.text):
            if span.kind != "heading":
                text = " ".join(passage.text[span.start : span.end].split())
                where.setdefault(text, passage)
    texts = list(where)
    best = rank_texts(texts, goal)[:_FITTING] or range(_FITTING)
    chosen: dict[int, list[str]] = {}
    for number in sorted(best):
        chosen.setdefault(where[texts[number]].id, []).append(_cut(texts[number], _LONGEST))
    for passage in passages:
        if passage.id in chosen:
            yield passage, f"{passage.title}: {' '.join(chosen[passage.id])}"


def _cut(sentence: str, length: int) -> str:
    return sentence if len(sentence) <= length else f"{sentence[:length]} ..."


def _body(passage: Passage, start: int = 0) -> str:
    """The text on one line, without the title; other headings stand before their sections."""

    def shown(heading: "re.Match[str]") -> str:
        return " " if heading[1] == passage.title else f" {heading[1]}: "

    return " ".join(_HEADING.sub(shown, passage.text[start:]).split())


def _line(hit: Passage) -> str:
    """What the page is, its best sentence if another fits the query better, and the link."""
    text = _LINK.sub(r"\1", _body(hit))
    spans = split_sentences(text)
    sentences = [_cut(text[span.start : span.end], _EXCERPT) for span in spans] or [""]
    words = {hit.text[start:end].casefold() for start, end in hit.highlights}

    def matches(sentence: str) -> int:
        said = sentence.casefold()
        whole = set(re.findall(r"\w+", said))  # other scripts have particles, or no spaces
        return sum(word in (whole if word.isascii() else said) for word in words)

    best = max(sentences, key=matches)  # the first of equals
    first = sentences[0] if hit.start == 0 else ""  # what the page is
    shown = first if first and matches(best) == matches(first) else f"{first} {best}".strip()
    path = _BREAKING.sub(lambda sign: quote(sign[0]), hit.document)
    return f"{shown} {link(hit.title, path)}{_doubt(hit)}"


def _doubt(passage: Passage) -> str:
    return f" (doubtful: {one_line(passage.doubt)})" if passage.doubt else ""
