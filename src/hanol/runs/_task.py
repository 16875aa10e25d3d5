"""Questions of a batch, and files of them."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hanol.errors import DataError
from hanol.files import safe_name
from hanol.rows import read_rows


@dataclass(frozen=True)
class Task:
    """A question for an agent.

    Args:
        id: Unique in its file.
        question: The text of the question.
        answer: The reference, if the file has one.
        files: Paths in the library that the question is about.
    """

    id: str
    question: str
    answer: str | list[str] | None = None
    files: tuple[str, ...] = ()

    @property
    def folder_name(self) -> str:
        """The id as a file name; long ones end in a hash."""
        return safe_name(self.id)


def read_tasks(path: str | Path) -> list[Task]:
    """Read questions: rows with "question", and "id", "answer", "files" where wanted.

    A row without an id gets one from its question and how often the question came before, so
    that equal questions are different tasks and other rows may be added later.

    Raises:
        DataError: A row has no question, or two have the same id.
    """
    tasks: dict[str, Task] = {}
    seen: Counter[str] = Counter()
    for line, row in read_rows(path):
        question = row.get("question")
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"{str(path)!r}, line {line}: `question` is missing or empty.")
        if (name := row.get("id")) in (None, ""):
            digest = hashlib.sha256(question.encode("utf-8", "replace")).hexdigest()[:12]
            seen[digest] += 1
            name = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        name = str(name)
        if name in tasks:
            raise DataError(f"{str(path)!r}, line {line}: the id {name!r} occurs twice.")
        files = row.get("files") or ()
        if isinstance(files, str) or not all(isinstance(file, str) for file in files):
            raise DataError(f"{str(path)!r}, line {line}: `files` is not a list of paths.")
        tasks[name] = Task(name, question, row.get("answer"), tuple(files))
    if not tasks:
        raise DataError(f"{str(path)!r} has no questions.")
    return list(tasks.values())
