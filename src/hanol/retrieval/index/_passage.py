"""Passages of documents, their addresses, and the numbered sources of a run.

An address is "doc://<8 hex>/<relative path>#p<page>". The hex digits are from the hash of the
content; "#p" is missing for documents without pages.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from pydantic import BaseModel

from hanol.errors import AddressError
from hanol.retrieval.documents._remarks import Remark
from hanol.retrieval.documents._split import split_passages

if TYPE_CHECKING:  # with the readers of documents
    from hanol.retrieval.documents._documents import Document

_IN_TEXT = re.compile(r"(?:https?|doc)://[^\s<>\"')\]]+")
_ADDRESS = re.compile(r"doc://([0-9a-f]{8})/(.+?)(?:#p(\d+))?", re.DOTALL)


def format_address(document: str, sha256: str, page: int | None) -> str:
    """The address of a document or one of its pages, with a percent-encoded path."""
    place = "" if page is None else f"#p{page}"
    return f"doc://{sha256[:8]}/{quote(document, safe='/')}{place}"


def parse_address(address: str) -> tuple[str, str, int | None]:
    """Hash, path and page of an address; its path need not be percent-encoded."""
    match = _ADDRESS.fullmatch(address.strip())
    if match is None:
        raise AddressError(
            f"{address!r} is not the address of a document. Addresses come from a search and look "
            'like "doc://0a1b2c3d/folder/report.pdf#p3".'
        )
    return match[1], unquote(match[2]), int(match[3]) if match[3] else None


def find_addresses(text: str) -> list[str]:
    """The addresses of documents and web pages in a text, each once."""
    return list(dict.fromkeys(found.rstrip(".,;:!?") for found in _IN_TEXT.findall(text)))


@dataclass(frozen=True)
class Passage:
    """A passage of a document.

    Args:
        id: Number of the passage in its index.
        address: Address of its page, "doc://<8 hex>/<relative path>#p<page>".
        document: Path relative to the indexed folder, with "/" on every system.
        page: Page, slide or sheet, from 1; None for formats without pages.
        title: Title of the document, or its file name.
        text: Text of the passage.
        start: Its first character in the text of the page (or of a document without pages).
        end: Its last character, exclusive.
        sha256: Hash of the document's bytes, 64 hex digits.
        score: Higher is better; comparable only within one search.
        highlights: Spans of `text` in characters that matched the query.
        doubt: Why its text may be wrong, such as "read by OCR from how it looks: letters may be
            wrong"; empty for a page that was read without doubt.
    """

    id: int
    address: str
    document: str
    page: int | None
    title: str
    text: str
    start: int
    end: int
    sha256: str
    score: float = 0.0
    highlights: tuple[tuple[int, int], ...] = ()
    doubt: str = ""

    def excerpt(self, size: int) -> tuple[int, int]:
        """The span of at most `size` characters of `text` with the most matches."""

        def matches(at: int) -> int:
            return sum(at <= start and end <= at + size for start, end in self.highlights)

        best = max([max(0, start - 40) for start, _ in self.highlights] or [0], key=matches)
        best = max(0, min(best, len(self.text) - size))
        return best, min(best + size, len(self.text))

    def from_best_row(self) -> "Passage":
        """In a table, the passage from the first of the rows with the most matches on.

        Each row names its columns, so those before it are not needed to understand it.
        """
        begins = [0, *(found.end() for found in re.finditer("\n", self.text))]
        # behind the name of a group of rows
        names = {self.text[at:].partition(": ")[0].rpartition("; ")[2] for at in begins[1:]}
        if len(begins) < 4 or len(names) > 1:
            return self

        def matches(at: int) -> int:
            end = self.text.find("\n", at) % (len(self.text) + 1)
            inside = (self.text[a:b].lower() for a, b in self.highlights if at <= a < end)
            return len(set(inside))

        cut = max(begins, key=matches)
        moved = tuple((a - cut, b - cut) for a, b in self.highlights if a >= cut)
        return replace(self, text=self.text[cut:], start=self.start + cut, highlights=moved)


def document_passages(
    document: "Document", name: str, sha256: str, address: str | None = None
) -> list[Passage]:
    """The passages of a document that is in no index.

    Args:
        document: The document.
        name: Its path or web address.
        sha256: Hash of its bytes.
        address: Address of every passage; by default that of its page.
    """
    return [
        Passage(
            id=0,
            address=address or format_address(name, sha256, page.number),
            document=name,
            page=page.number,
            title=document.title,
            text=page.text[start:end],
            start=start,
            end=end,
            sha256=sha256,
            doubt=doubt_of(document.remarks, page.number),
        )
        for page in document.pages
        for start, end in page.passages or split_passages(page.text)
    ]


def doubt_of(remarks: Sequence[Remark], page: int | None) -> str:
    """Why the text of a page may be wrong, in a few words; empty if nothing says so."""
    doubts = [one for one in remarks if one.status == "doubtful"]
    return "; ".join(one.reason for one in doubts if not one.pages or page in one.pages)


def join_pages(passages: Sequence[Passage]) -> list[Passage]:
    """Join overlapping passages into one a page, in whose text their spans stay valid."""
    pages: list[Passage] = []
    for _, group in groupby(passages, key=lambda passage: passage.page):
        of_page = list(group)
        text = ""
        for passage in of_page:
            text = text.ljust(passage.start)
            text += passage.text[len(text) - passage.start :]
        pages.append(replace(of_page[0], text=text, start=0, end=len(text)))
    return pages


class Source(BaseModel, frozen=True):
    """A retrieved text that answers cite by its number in square brackets."""

    number: int
    address: str
    title: str
    page: int | None = None
    start: int | None = None
    end: int | None = None
    sha256: str
    text: str


class SourceList(dict[int, Source]):
    """The numbered sources of one run. The same text at the same address keeps its number."""

    def cite(
        self,
        text: str,
        *,
        address: str,
        title: str,
        sha256: str,
        page: int | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> Source:
        """Return the source of a retrieved text, with a new number if it is new."""
        for source in self.values():
            if (source.address, source.text) == (address, text):
                return source
        place = {"address": address, "title": title, "page": page, "start": start, "end": end}
        return self.add(Source(number=len(self) + 1, text=text, sha256=sha256, **place))

    def cite_passage(self, passage: Passage) -> Source:
        """`cite` for a passage of an index."""
        fields = ("text", "address", "title", "sha256", "page", "start", "end")
        return self.cite(**{name: getattr(passage, name) for name in fields})

    def add(self, source: Source) -> Source:
        """Add a source that already has a number, as when a run is resumed."""
        self[source.number] = source
        return source

    def copy(self) -> "SourceList":
        """An independent copy."""
        return SourceList(self)
