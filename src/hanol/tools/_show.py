"""How tools show text: numbered sources, one line breaks nothing, cut by a token budget."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hanol.errors import HanolError
from hanol.retrieval import Passage, Source, SourceList
from hanol.tools._tool import Observation

SEPARATOR = "\n=======\n"  # between the results of one call, as in the official tools
_SNIPPET = 480  # characters
_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+|[^\W_]+")


def tokens_of(text: str) -> int:
    """An upper estimate of a text's tokens: 3 bytes each."""
    return math.ceil(len(text.encode()) / 3)


def one_line(text: str, limit: int = 200) -> str:
    """A title or the like, without line breaks and square brackets."""
    return " ".join(text.replace("[", "(").replace("]", ")").split())[:limit]


def link(title: str, address: str) -> str:
    """A Markdown link, whose address cannot end it."""
    return f"[{one_line(title) or 'untitled'}]({address.replace(' ', '%20').replace(')', '%29')})"


def snippet(passage: Passage) -> str:
    """The part of a passage around its first match, on one line."""
    start = 0
    if len(passage.text) > _SNIPPET and passage.highlights:
        start = max(0, min(passage.highlights[0][0] - 80, len(passage.text) - _SNIPPET))
    part = passage.text[start : start + _SNIPPET]
    before = "..." if start else ""
    after = "..." if start + _SNIPPET < len(passage.text) else ""
    return before + " ".join(part.split()) + after


def failure(error: HanolError | str) -> Observation:
    """A result that says what went wrong and what to try."""
    return Observation(str(error), failed=True)


def list_argument(arguments: Mapping[str, Any], name: str, most: int) -> list[str]:
    """The strings of a list argument, or the only one: without blanks and repetitions."""
    values = arguments.get(name, [])
    values = [values] if isinstance(values, str) else values
    return list(dict.fromkeys(value.strip() for value in values if value.strip()))[:most]


def numbered(
    passages: Sequence[Passage], source_list: SourceList, budget: int
) -> tuple[str, list[Source], int]:
    """Passages, each under its number.

    Args:
        passages: In order, of one document or several; text that a passage shares with the one
            before is shown once.
        source_list: Gives the numbers.
        budget: In tokens, estimated; the first passage is cut to it if need be.

    Returns:
        The text, the sources, and how many passages did not fit.
    """
    lines: list[str] = []
    sources: list[Source] = []
    last: Passage | None = None
    for place, passage in enumerate(passages):
        text = passage.text
        if last is not None and last.address != passage.address:
            last = None
        joined = last is not None and passage.start <= last.end
        if last is not None and joined:
            text = text[last.end - passage.start :]
        cost = tokens_of(text) + 8
        if cost > budget and sources:
            return "\n".join(lines), sources, len(passages) - place
        if last is None:
            lines += [f"(page {passage.page})"] if passage.page is not None else []
        elif not joined:
            lines.append("...")
        source = source_list.cite_passage(passage)
        # The first passage is shown even when it alone is too long, as far as it goes.
        shown = text.encode()[: budget * 3].decode("utf-8", "ignore") if cost > budget else text
        lines.append(f"[{source.number}] {shown.strip()}")
        sources.append(source)
        budget -= cost
        last = passage
    return "\n".join(lines), sources, 0


def rank(passages: Sequence[Passage], goal: str) -> list[int]:
    """Positions of the passages that share words with a goal, best first.

    BM25 within one document (k1 = 1.2, b = 0.75); Korean, Chinese and Japanese by pairs of
    characters.
    """
    wanted = set(_terms(goal))
    counts = [Counter(term for term in _terms(passage.text)) for passage in passages]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / len(lengths) if lengths else 0.0
    scores = [0.0] * len(passages)
    for term in wanted:
        having = sum(term in count for count in counts)
        weight = math.log(1 + (len(passages) - having + 0.5) / (having + 0.5))
        for place, count in enumerate(counts):
            if frequency := count[term]:
                scale = 1.2 * (0.25 + 0.75 * lengths[place] / mean)
                scores[place] += weight * frequency * 2.2 / (frequency + scale)
    order = sorted(range(len(passages)), key=lambda place: (-scores[place], place))
    return [place for place in order if scores[place] > 0]


def _terms(text: str) -> list[str]:
    terms = []
    for run in _RUN.findall(text.casefold()):
        if run[0] >= "\u3040":
            terms += [run[i : i + 2] for i in range(max(1, len(run) - 1))]
        else:
            terms.append(run)
    return terms
