"""Passages of documents, and the numbered sources of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydantic import BaseModel


@dataclass(frozen=True)
class Passage:
    """A passage of a document.

    Args:
        id: Number of the passage in its index.
        address: Address of its page, "doc://<8 hex>/<relative path>#p<page>". The hex digits are
            from the hash of the content; "#p" is missing for documents without pages.
        document: Path relative to the indexed folder, with "/" on every system.
        page: Page, slide or sheet, from 1; None for formats without pages.
        title: Title of the document, or its file name.
        text: Text of the passage.
        start: Its first character in the text of the page (or of a document without pages).
        end: Its last character, exclusive.
        sha256: Hash of the document's bytes, 64 hex digits.
        score: Higher is better; comparable only within one search.
        highlights: Spans of `text` in characters that matched the query.
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


@dataclass(frozen=True)
class PageText:
    """A page joined from its passages; `first` has its address and title."""

    text: str
    first: Passage


def join_pages(passages: Sequence[Passage]) -> list[PageText]:
    """Join overlapping passages into one text per page, in which their spans stay valid."""
    pages: list[PageText] = []
    for _, group in groupby(passages, key=lambda passage: passage.page):
        of_page = list(group)
        parts: list[str] = []
        end = 0
        for passage in of_page:
            parts.append(" " * (passage.start - end))
            parts.append(passage.text[max(0, end - passage.start) :])
            end = max(end, passage.end)
        pages.append(PageText("".join(parts), of_page[0]))
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


class SourceList:
    """The numbered sources of one run. The same text at the same address keeps its number."""

    def __init__(self) -> None:
        self._sources: dict[int, Source] = {}
        self._numbers: dict[tuple[str, str], int] = {}

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
        number = self._numbers.get((address, text), len(self._sources) + 1)
        if number not in self._sources:
            self.add(
                Source(
                    number=number,
                    address=address,
                    title=title,
                    page=page,
                    start=start,
                    end=end,
                    sha256=sha256,
                    text=text,
                )
            )
        return self._sources[number]

    def cite_passage(self, passage: Passage) -> Source:
        """`cite` for a passage of an index."""
        return self.cite(
            passage.text,
            address=passage.address,
            title=passage.title,
            sha256=passage.sha256,
            page=passage.page,
            start=passage.start,
            end=passage.end,
        )

    def add(self, source: Source) -> None:
        """Add a source that already has a number, as when a run is resumed."""
        self._sources[source.number] = source
        self._numbers[(source.address, source.text)] = source.number

    def copy(self) -> "SourceList":
        """An independent copy."""
        other = SourceList()
        other._sources, other._numbers = dict(self._sources), dict(self._numbers)
        return other

    def __getitem__(self, number: int) -> Source:
        return self._sources[number]

    def __contains__(self, number: object) -> bool:
        return number in self._sources

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources.values())

    def __len__(self) -> int:
        return len(self._sources)
