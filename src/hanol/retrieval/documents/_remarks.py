"""What readers tell beside the text: what they could not read, guessed or repaired, and tables."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal, TypeVar

T = TypeVar("T")
PICTURES = "if there are words in them, write these beside them or in the notes"


@dataclass(frozen=True)
class Remark:
    """What of a file was not read, or may have been read wrong.

    Args:
        reason: What is the matter, such as "has no text, only pictures or drawings".
        advice: What to do about it; may be empty.
        pages: Numbers of the pages that it concerns; empty for the whole document.
        part: Name of the part that it concerns, such as an attachment; may be empty.
        status: "failed" for a file that is in no index, "skipped" for a part that was not read,
            "doubtful" where the text may be wrong.
    """

    reason: str
    advice: str = ""
    pages: tuple[int, ...] = ()
    part: str = ""
    status: Literal["failed", "skipped", "doubtful"] = "skipped"

    @property
    def place(self) -> str:
        """Pages as people write them, and the part: "page 3", "pages 3-5, 9", "plan.zip"."""
        groups = groupby(enumerate(self.pages), key=lambda pair: pair[1] - pair[0])
        runs = ([number for _, number in run] for _, run in groups)
        shown = ", ".join(f"{run[0]}-{run[-1]}" if run[1:] else f"{run[0]}" for run in runs)
        pages = f"page{'s' * (len(self.pages) > 1)} {shown}" if shown else ""
        return ", ".join(filter(None, (pages, self.part)))

    def __str__(self) -> str:
        said = "; ".join(filter(None, (self.reason, self.advice)))
        return f"{self.place}: {said}" if self.place else said


@dataclass
class Grid:
    """A table as a reader found it: names of its columns, cells, and the lines it became."""

    page: int | None
    names: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


@dataclass
class Told:
    """What readers told; `page` is the number of the one at hand, `grids` None if not wanted."""

    page: int | None = None
    grids: list[Grid] | None = None
    _pages: dict[Remark, dict[int, None]] = field(default_factory=dict)

    def add(self, remark: Remark, pages: Iterable[int]) -> None:
        """Add a remark without pages, or further pages to the same words."""
        self._pages.setdefault(remark, {}).update(dict.fromkeys(pages))

    def remarks(self, *, paged: bool = True) -> tuple[Remark, ...]:
        """The remarks in order; for a document without pages, without their numbers."""
        return tuple(
            replace(one, pages=tuple(sorted(pages)) if paged else ())
            for one, pages in self._pages.items()
        )


_told: ContextVar[Told | None] = ContextVar("_told", default=None)


def remark(
    reason: str,
    advice: str = "",
    *,
    part: str = "",
    doubtful: bool = False,
    pages: Sequence[int] | None = None,
) -> None:
    """Note something for the user of the document that is being read; the same words count once.

    Args:
        reason: As in `Remark`, like `advice` and `part`.
        doubtful: The text may be wrong; otherwise something was not read.
        pages: As in `Remark`; by default the page at hand.
    """
    if (told := _told.get()) is not None:
        at_hand = [] if told.page is None else [told.page]
        one = Remark(reason, advice, (), part, "doubtful" if doubtful else "skipped")
        told.add(one, at_hand if pages is None else pages)


def hidden(what: str) -> None:
    """Note that the page at hand is or has something that its program hides."""
    remark(f"{what}, read all the same", "unhide it to see it", doubtful=True)


def told_now() -> Told:
    """Where the reader at hand tells; nobody may listen."""
    return _told.get() or Told()


def each_page(items: Iterable[T]) -> Iterator[T]:
    """Items that become a page each: what is told meanwhile is about that page."""
    told = told_now()
    for number, item in enumerate(items, 1):
        told.page = number
        yield item
    told.page = None


@contextmanager
def listening(*, grids: bool = False) -> Iterator[Told]:
    """Collect what the readers called inside tell."""
    told = Told(grids=[] if grids else None)
    token = _told.set(told)
    try:
        yield told
    finally:
        _told.reset(token)
