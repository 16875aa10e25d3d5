"""Splits Markdown or plain text into sentences, with their positions.

English, Korean, Chinese and Japanese punctuation. Code, headings, table rows and list items are
spans of their own; a citation behind the full stop belongs to the sentence before it.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from hanol.retrieval.citations import _words
from hanol.scoring import CITATION

SpanKind = Literal["sentence", "heading", "code", "table_head", "source"]

_NUMBERS = re.compile(r"(\d+)(?:\s*(?:[-–—‐−~〜]|to\b)\s*[\^#]?(\d+))?")
_LONGEST_WORD = 64  # characters; abbreviations are shorter
_RANGE = 100  # [1-9999] is not a list of sources

_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r"\s*#{1,6}\s")
_RULE = re.compile(r"\s*([-=*_])(\s*\1)+\s*$")
_TABLE_RULE = re.compile(r"\s*\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?\s*)?$")
_TABLE_ROW = re.compile(r"\s*\|.*\|\s*$")
_ITEM = re.compile(r"\s*+(?:>\s?)*+\s*+(?:[-*+•·]|\d{1,3}[.)])\s+|\s*(?:>\s?)+")
_SOURCES = re.compile(
    r"\W*(sources?|references?|bibliography|citations?|출처|참고\s?문헌|참고\s?자료|参考文献|出典|来源)\W*$",
    re.IGNORECASE,
)
_FOOTNOTE = re.compile(r"\[\^?\d{1,9}\]:\s")  # an entry of a list of sources
# Inside of these no sentence ends: inline code, addresses, link targets; citations stay visible.
_OPAQUE = re.compile(
    rf"(?P<cited>{CITATION.pattern})|`[^`\n]+`"
    r"|(?:https?|doc)://[^\s)\]>]*[^\s)\]>.,;:!?]|(?<=\])\([^)\s]{1,2000}\)"
)
_QUOTED = re.compile(r'"[^"\n]{1,400}"|“[^”]{1,400}”|「[^」]{1,400}」|『[^』]{1,400}』')
_FULL_STOPS = "。！？．।॥။។؟۔"  # end a sentence whatever follows
_STOPS = f".!?{_FULL_STOPS}"
_CLOSERS = "\"'”’)」』】）》*_"
_END = re.compile(
    rf"(?P<stop>[.!?…]+|[{_FULL_STOPS}]+)[{re.escape(_CLOSERS)}]*(?P<cited>(?:\s*{CITATION.pattern})*)"
    rf"[{re.escape(_CLOSERS)}]*(?P<space>\s+|$)?"
)


def citation_numbers(bracket: str) -> list[int]:
    """The numbers within the brackets of a `CITATION`, each once; ranges are written out.

    Example:
        >>> citation_numbers("2, 5-7")
        [2, 5, 6, 7]
    """
    numbers: list[int] = []
    for match in _NUMBERS.finditer(unicodedata.normalize("NFKC", bracket)):
        ends = [int(number) for number in match.groups(match[1])]
        low, high = ends
        numbers += range(low, high + 1) if low <= high < low + _RANGE else ends
    return list(dict.fromkeys(numbers))


@dataclass(frozen=True)
class SentenceSpan:
    """A sentence, heading, code block or table row.

    Args:
        start: Its first character.
        end: Behind its last character.
        kind: "source" is an entry of a list of sources; a row of a table is a "sentence", its
            first row a "table_head".
        starts_block: Whether it begins a paragraph or list item.
    """

    start: int
    end: int
    kind: SpanKind
    starts_block: bool = True


def split_sentences(text: str) -> list[SentenceSpan]:
    """The sentences, headings, code blocks and table rows of Markdown or plain text, in order.

    Example:
        >>> text = "Dr. Kim came at 3.5 s [1]. 끝났다."
        >>> [text[span.start : span.end] for span in split_sentences(text)]
        ['Dr. Kim came at 3.5 s [1].', '끝났다.']
    """
    spans: list[SentenceSpan] = []
    sources = False
    for start, end, kind in _blocks(text):
        if kind == "heading":
            sources = _SOURCES.match(text[start:end]) is not None
        is_prose = kind == "sentence" and not _TABLE_ROW.match(text[start:end])
        if not is_prose or sources or _FOOTNOTE.match(text, start):
            spans.append(SentenceSpan(start, end, "source" if is_prose else kind))
        else:
            spans += [
                SentenceSpan(*span, "sentence", starts_block=i == 0)
                for i, span in enumerate(_sentences(text, start, end))
            ]
    return spans


def _blocks(answer: str) -> Iterator[tuple[int, int, SpanKind]]:
    """Paragraphs, list items and other blocks without their markers."""
    paragraph: list[int] = []
    at, code = 0, -1
    lines = answer.splitlines(keepends=True)

    def flush() -> Iterator[tuple[int, int, SpanKind]]:
        if paragraph:
            text = answer[paragraph[0] : paragraph[1]]
            yield paragraph[0], paragraph[0] + len(text.rstrip()), "sentence"
            paragraph.clear()

    for number, line in enumerate(lines):
        start, at = at, at + len(line)
        end = start + len(line.rstrip())
        if code >= 0 or _FENCE.match(line):
            yield from flush()
            if code >= 0 and _FENCE.match(line):
                yield code, end, "code"
                code = -1
            elif code < 0:
                code = start
            continue
        after = lines[number + 1] if number + 1 < len(lines) else ""
        if end == start or _RULE.match(line) or _TABLE_RULE.match(line):
            yield from flush()
        elif _HEADING.match(line) or _SOURCES.match(line):
            yield from flush()
            yield start, end, "heading"
        elif _TABLE_ROW.match(line):
            yield from flush()
            yield start, end, "table_head" if _TABLE_RULE.match(after) else "sentence"
        elif (item := _ITEM.match(line)) is not None or not paragraph:
            yield from flush()
            paragraph[:] = [start + (item.end() if item else 0), at]
        else:
            paragraph[1] = at
    if code >= 0:
        yield code, len(answer.rstrip()), "code"
    yield from flush()


def _sentences(answer: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    text = answer[start:end]
    masked = _mask(text)
    stops = [found.end() for found in _END.finditer(masked) if _ends(masked, found)]
    for begin, stop in pairwise([0, *stops, len(text)]):
        if piece := text[begin:stop].strip():
            at = start + text.index(piece, begin)
            yield at, at + len(piece)


def _mask(text: str) -> str:
    """The text with everything that must not end a sentence replaced, character by character."""
    text = _OPAQUE.sub(lambda match: match["cited"] or "x" * len(match[0]), text)
    # Stops inside of a quotation end nothing, except the last one, just before the closing mark.
    return _QUOTED.sub(
        lambda match: re.sub(rf"[{_STOPS}](?!.$)", "x", match[0], flags=re.DOTALL), text
    )


def _ends(text: str, match: "re.Match[str]") -> bool:
    stop, after = match["stop"], text[match.end() : match.end() + 1]
    if stop[0] in _FULL_STOPS:
        closed = text[match.end("stop") : match.end("stop") + 1] in {*_CLOSERS}
        return not (closed and after in {*"とってのをがはにでも、，"})  # the sentence goes on
    if match["space"] is None and not match["cited"]:
        return False  # a decimal, a version, a file name
    if after.islower():
        return False  # "approx. five", "Yahoo! has"
    if stop != ".":
        return True
    word = re.search(r"[\w.]*$", text[max(0, match.start() - _LONGEST_WORD) : match.start()])
    assert word is not None
    last = word[0].lower().lstrip("(")
    if last in _words.ABBREVIATIONS or (len(word[0]) == 1 and word[0].isupper()):
        return not after  # an initial, "Dr."
    if last in _words.NUMBERED_ABBREVIATIONS and after.isdigit():
        return False
    return last not in _words.ENDING_ABBREVIATIONS or not after or after.isupper()
