"""What every world of pages is: pages, facts, questions with exact answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from hanol.errors import DataError, UnknownNameError
from hanol.files import whole_folder
from hanol.worlds._graph import KnowledgeGraph, Triple
from hanol.worlds._walk import GraphQuestion

Split = Literal["train", "dev", "test"]
Level = Literal[0, 1, 2]


class AnyPage(Protocol):
    """A page of a world."""

    @property
    def title(self) -> str:
        """The name of what it is about, which no other page has."""
        ...

    @property
    def address(self) -> str:
        """What the facts of the world's graph call it."""
        ...

    @property
    def file_name(self) -> str:
        """Name of its file."""
        ...

    @property
    def markdown(self) -> str:
        """Its file: a heading, text, links to other files."""
        ...


PageT = TypeVar("PageT", bound=AnyPage, covariant=True)


class World(ABC, Generic[PageT]):
    """Pages that state the facts of a graph, and questions about them.

    `name` tells it from others of its kind: equal names and kinds have equal pages. `label` tells a
    reader the same.
    """

    name: str
    label: str
    pages: Sequence[PageT]
    split: Split

    @property
    @abstractmethod
    def graph(self) -> KnowledgeGraph:
        """The facts that the pages state."""

    @abstractmethod
    def questions(
        self,
        num_questions: int,
        *,
        hops: int | Sequence[int] = (1, 2, 3),
        described: bool = False,
        level: Level = 0,
        sets: bool = False,
        seed: int = 0,
    ) -> list[GraphQuestion]:
        """Draw different questions with unique answers; the same seed gives the same ones."""

    @abstractmethod
    def is_right(self, question: GraphQuestion, text: str) -> bool:
        """Whether a text answers a question of this world."""

    def page(self, address: str) -> PageT:
        """The page at an address, or with a title.

        Raises:
            UnknownNameError: There is no such page; the message names some that exist.
        """
        if (page := self._by_name.get(address)) is None:
            raise UnknownNameError("page", address, [page.address for page in self.pages[:8]])
        return page

    def write(self, folder: str | Path) -> list[Path]:
        """Write every page as a Markdown file, its title as the heading.

        Args:
            folder: Created if missing. It must be empty, because an index of two worlds' pages
                would answer the questions of neither.

        Returns:
            The files, in the order of the pages.

        Raises:
            DataError: The folder is not empty.
            WriteError: It cannot be made, or the disk is full; then no page is left.
        """
        folder = Path(folder)
        if folder.is_dir() and any(folder.iterdir()):
            raise DataError(f"{str(folder)!r} is not empty. Name a new folder for the pages.")
        with whole_folder(folder) as part:
            for page in self.pages:
                (part / page.file_name).write_text(page.markdown, "utf-8")
        return [folder / page.file_name for page in self.pages]

    @cached_property
    def _by_name(self) -> dict[str, PageT]:
        return {name: page for page in self.pages for name in (page.title, page.address)}


def distinct_questions(
    number: int, draw: Callable[[], GraphQuestion | None], where: str, *, tries: int
) -> list[GraphQuestion]:
    """Draw until there are so many different questions.

    Raises:
        DataError: So many draws in a row gave no new one.
    """
    found: dict[tuple[Triple, ...], GraphQuestion] = {}
    failures = 0
    while len(found) < number:
        question = draw()
        if question is not None and question.triples not in found:
            found[question.triples] = question
            failures = 0
        elif (failures := failures + 1) == tries:
            so_many = f"{len(found)} of {number} different questions"
            raise DataError(f"Only {so_many} were found in {where}")
    return list(found.values())
