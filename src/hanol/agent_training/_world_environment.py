"""The questions of a world as an environment: its pages in a real index, exact rewards."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any, Self

from hanol.agent_training._environment import ResearchEnvironment
from hanol.errors import SearchIndexError, UnknownNameError
from hanol.files import (
    sha256,
    whole_folder,
)
from hanol.retrieval import Index
from hanol.runs import Task
from hanol.tools import Tool, compact_tools
from hanol.worlds import AnyPage, GraphQuestion, World

DAY = date(2025, 1, 1)  # in prompts, so that the same training on another day is the same


class WorldEnvironment(ResearchEnvironment):
    """The questions of a world: its pages in a real index, 1.0 for the right answer.

    Args:
        world: The world.
        folder: Gets its pages and their index, or has them already; None makes a temporary one,
            which `close` deletes.
        tools: Makes the tools for the index.
        options: Options of `ResearchEnvironment`.

    Raises:
        SearchIndexError: The folder holds something else than the pages of this world.

    Example:
        >>> with WorldEnvironment(world) as environment:  # doctest: +SKIP
        ...     [task] = environment.tasks(world.questions(1))
        ...     rollout = asyncio.run(environment.rollout(engine, task))
    """

    def __init__(
        self,
        world: World[AnyPage],
        folder: str | os.PathLike[str] | None = None,
        *,
        tools: Callable[[Index], Sequence[Tool]] = compact_tools,
        **options: Any,
    ) -> None:
        self.world = world
        self._questions: dict[str, GraphQuestion] = {}
        with ExitStack() as stack:
            if folder is None:
                root = stack.enter_context(tempfile.TemporaryDirectory(prefix="hanol-world-"))
                folder = Path(root) / "pages"
            index = stack.enter_context(_indexed_pages(world, Path(folder)))
            options.setdefault("today", DAY)
            super().__init__(index, self._is_right, tools=tools(index), **options)
            self._open = stack.pop_all()

    def task(self, question: GraphQuestion) -> Task:
        """A question of the world as a task; the same question has the same id in any process."""
        text = f"{self.world.name} {question.text} {question.triples}"
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._questions[name] = question
        return Task(name, question.text, question.answer)

    def tasks(self, questions: Sequence[GraphQuestion]) -> list[Task]:
        """The tasks of several questions."""
        return [self.task(question) for question in questions]

    def question(self, task: Task) -> GraphQuestion:
        """The question that a task was made from.

        Raises:
            UnknownNameError: This environment made no such task.
        """
        if (question := self._questions.get(task.id)) is None:
            raise UnknownNameError("task of this world", task.id, list(self._questions)[:8])
        return question

    def close(self) -> None:
        """Close the index, and delete it with its pages if it was temporary."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_right(self, task: Task, answer: str | None) -> float:
        return float(answer is not None and self.world.is_right(self.question(task), answer))


def _indexed_pages(world: World[AnyPage], folder: Path) -> Index:
    """The index of a world's pages, which are written where the folder is missing or empty."""
    if folder.exists() and not folder.is_dir():
        raise SearchIndexError(f"{str(folder)!r} is a file. Name a folder for the pages.")
    if not folder.exists() or not any(folder.iterdir()):
        # All pages and their index or nothing, for other processes and after a kill. Where another
        # process is quicker, what it wrote is checked like any other folder.
        with whole_folder(folder, replace=False) as part:
            world.write(part)
            with Index.open(part) as index:
                index.add(isolated=False)
    wanted: dict[str, str | None] = {
        page.file_name: hashlib.sha256(page.markdown.encode()).hexdigest() for page in world.pages
    }
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    found = {file.name: _sha256(file) for file in files}
    if found != wanted:
        foreign = sorted(name for name in found if found[name] != wanted.get(name))
        raise SearchIndexError(
            f"{str(folder)!r} does not hold the pages of this world ({world.label}): "
            f"{len(foreign)} of its {len(found)} "
            f"documents are others (such as {foreign[:3]}), {len(wanted.keys() - found.keys())} "
            "pages are missing. Name another folder, or make the world that it is of."
        )
    with ExitStack() as stack:
        index = stack.enter_context(Index.open(folder))
        if {info.document: info.sha256 for info in index.documents()} != wanted:
            index.add(isolated=False)
        stack.pop_all()
    return index


def _sha256(file: Path) -> str | None:
    return sha256(file) if file.is_file() else None
