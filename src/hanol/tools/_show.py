"""How tools show text: numbered sources, single lines, cut to a token budget."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hanol.errors import HanolError
from hanol.retrieval import Passage, Source, SourceList
from hanol.tools._tool import Observation

SEPARATOR = "\n=======\n"  # between the results of one call, as in the official tools


def tokens_of(text: str) -> int:
    """An upper estimate of a text's tokens: 3 bytes each."""
    return math.ceil(len(text.encode()) / 3)


def one_line(text: str, limit: int = 200) -> str:
    """A title or the like, without line breaks and square brackets."""
    return " ".join(text.replace("[", "(").replace("]", ")").split())[:limit]


def link(title: str, address: str) -> str:
    """A Markdown link, whose address cannot end it."""
    return f"[{one_line(title) or 'untitled'}]({address.replace(' ', '%20').replace(')', '%29')})"


def best_of_documents(passages: Iterable[Passage]) -> list[Passage]:
    """The first passage of each document, in order."""
    best: dict[str, Passage] = {}
    for passage in passages:
        best.setdefault(passage.document, passage)
    return list(best.values())


def place_of(passage: Passage) -> str:
    """The page of a passage, and why its text may be wrong; empty if there is nothing to say."""
    page = f"page {passage.page}" if passage.page is not None else ""
    doubt = f"doubtful: {one_line(passage.doubt)}" if passage.doubt else ""
    return "; ".join(filter(None, (page, doubt)))


def failure(error: HanolError | str) -> Observation:
    """A result that says what went wrong and what to try."""
    return Observation(str(error), failed=True)


def joined(parts: Sequence[Observation]) -> Observation:
    """The results of one call; it failed if one of them did and none found anything."""
    text = SEPARATOR.join(part.text for part in parts)
    sources = tuple(source for part in parts for source in part.sources)
    addresses = tuple(dict.fromkeys(address for part in parts for address in part.addresses))
    failed = not addresses and any(part.failed for part in parts)
    return Observation(text, sources, addresses, failed)


def list_argument(arguments: Mapping[str, Any], name: str, most: int) -> list[str]:
    """The strings of a list argument, or the only one: without blanks and repetitions."""
    values = arguments.get(name, [])
    values = [values] if isinstance(values, str) else values
    return list(dict.fromkeys(value.strip() for value in values if value.strip()))[:most]


def numbered(
    passages: Sequence[Passage], source_list: SourceList, budget: int
) -> tuple[str, list[Source], int]:
    """Passages under their numbers as far as a budget of tokens goes, and how many did not fit."""
    lines: list[str] = []
    sources: list[Source] = []
    last: Passage | None = None
    for count, passage in enumerate(passages):
        if last is not None and last.address != passage.address:
            last = None
        shared = -1 if last is None else last.end - passage.start
        text = passage.text[max(0, shared) :]
        cost = tokens_of(text) + 8
        if cost > budget and sources:
            return "\n".join(lines), sources, len(passages) - count
        if last is None and (place := place_of(passage)):
            lines.append(f"({place})")
        elif last is not None and shared < 0:
            lines.append("...")
        source = source_list.cite_passage(passage)
        # The first passage is shown even when it alone is too long, as far as it goes.
        shown = text.encode()[: budget * 3].decode("utf-8", "ignore") if cost > budget else text
        lines.append(f"[{source.number}] {shown.strip()}")
        sources.append(source)
        budget -= cost
        last = passage
    return "\n".join(lines), sources, 0
