"""Updates an index from its folder."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from hanol.retrieval.documents._documents import KINDS
from hanol.retrieval.documents._reading import FoundFile, read_all, walk
from hanol.retrieval.index._dense import Embedder, fill_vectors
from hanol.retrieval.index._store import Store

Status = Literal["added", "changed", "unchanged", "removed", "failed"]

_COMMIT_SECONDS = 0.5  # most finished work that a kill can lose
# A file written this recently may be written again within the same tick of the file system's clock:
# its time is not trusted, and it is hashed again next time.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class FileProgress:
    """Progress after one file.

    Args:
        document: Path relative to the folder.
        status: Its result.
        reason: Why it failed.
        done: Number of files done, including this one.
        total: Number of files.
    """

    document: str
    status: Status
    reason: str | None
    done: int
    total: int


class FailedFile(BaseModel, frozen=True):
    """A file that is not in the index, and why."""

    document: str
    reason: str


class IndexReport(BaseModel, frozen=True):
    """The result of `Index.add`.

    Args:
        added: New files.
        changed: Files with new content.
        removed: Files that no longer exist and were removed from the index.
        unchanged: Files that did not have to be read again.
        failed: Files that could not be read; their older text was removed from the index.
        ignored: Files whose suffix is not that of a document.
        documents: Documents in the index now.
        passages: Passages in the index now.
        embedded: Passages that got a vector.
        seconds: Total time.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    failed: tuple[FailedFile, ...]
    ignored: int
    documents: int
    passages: int
    embedded: int
    seconds: float


def update(
    store: Store,
    folder: Path,
    start: Path,
    embedder: Embedder | None,
    on_file: Callable[[FileProgress], None] | None,
    *,
    isolated: bool = True,
) -> IndexReport:
    """Index new and changed files under `start`, remove deleted ones; see `Index.add`."""
    began = time.monotonic()
    with store.writer():
        with store.transaction():
            if store.folder.parent != folder:
                store.set_meta("folder", str(folder))
            if embedder is not None:
                store.set_meta("embedder", embedder.name)
        run = _Run(store, folder, on_file)
        run.look(start)
        run.read(isolated)
        if store.meta("tidy") != "yes":  # also after an earlier run that was killed
            store.tidy()
        embedded = 0 if embedder is None else fill_vectors(store, embedder)
    documents, passages = store.counts()
    return IndexReport(
        **run.counts,
        failed=tuple(run.failed),
        ignored=run.ignored,
        documents=documents,
        passages=passages,
        embedded=embedded,
        seconds=time.monotonic() - began,
    )


class _Run:
    """One update of an index from a folder."""

    def __init__(
        self, store: Store, folder: Path, on_file: Callable[[FileProgress], None] | None
    ) -> None:
        self._store = store
        self._folder = folder
        self._on_file = on_file
        self._todo: list[tuple[FoundFile, str | None]] = []  # with the hash that is indexed
        self._done = self._total = 0
        self.counts = {"added": 0, "changed": 0, "removed": 0, "unchanged": 0}
        self.failed: list[FailedFile] = []
        self.ignored = 0

    def look(self, start: Path) -> None:
        """Find deleted, refused, unchanged (by size and time) and other files."""
        known = self._store.known()
        scope = "" if start == self._folder else start.relative_to(self._folder).as_posix()
        gone = {
            path for path in known if not scope or path == scope or path.startswith(f"{scope}/")
        }
        refused, unchanged = [], []
        for found in walk(self._folder, start, skip=self._store.folder, kinds=KINDS):
            if found is None:
                self.ignored += 1
                continue
            size, mtime_ns, sha256 = known.get(found.path, (None, None, None))
            if found.reason is not None:
                refused.append(found)
                continue
            gone.discard(found.path)
            if (size, mtime_ns) == (found.size, found.mtime_ns):
                unchanged.append(found.path)
            else:
                self._todo.append((found, sha256))
        self._total = len(gone) + len(refused) + len(unchanged) + len(self._todo)
        with self._store.transaction():
            if gone or self._todo:
                self._store.set_meta("tidy", "no")
            for path in gone:
                self._store.remove(path)
        for path in sorted(gone):
            self._report(path, "removed")
        for found in refused:
            self._report(found.path, "failed", found.reason)
        for path in unchanged:
            self._report(path, "unchanged")

    def read(self, isolated: bool) -> None:
        """Read the remaining files; commit about twice a second."""
        answers = read_all(self._todo, self._place, isolated=isolated)
        ended = False
        while not ended:
            done: list[tuple[str, Status, str | None]] = []
            with self._store.transaction():
                ended = self._store_some(answers, done)
            for entry in done:  # only after the commit
                self._report(*entry)

    def _place(self, job: tuple[FoundFile, str | None]) -> tuple[str, str | None]:
        return str(self._folder / job[0].path), job[1]

    def _store_some(
        self,
        answers: Iterator[tuple[tuple[FoundFile, str | None], dict[str, Any]]],
        done: list[tuple[str, Status, str | None]],
    ) -> bool:
        until = time.monotonic() + _COMMIT_SECONDS
        for (found, known), answer in answers:
            done.append((found.path, *self._put(found, known, answer)))
            if time.monotonic() > until:
                return False
        return True

    def _put(
        self, found: FoundFile, known: str | None, answer: dict[str, Any]
    ) -> tuple[Status, str | None]:
        mtime_ns = found.mtime_ns if time.time_ns() - found.mtime_ns > _SETTLED_NS else 0
        if "error" in answer:
            self._store.remove(found.path)
            return "failed", answer["error"]
        if "passages" not in answer:
            self._store.touch(found.path, found.size, mtime_ns)
            return "unchanged", None
        self._store.put(found.path, found.size, mtime_ns, answer)
        return ("added" if known is None else "changed"), None

    def _report(self, document: str, status: Status, reason: str | None = None) -> None:
        if status == "failed":
            self.failed.append(FailedFile(document=document, reason=reason or "unknown"))
        else:
            self.counts[status] += 1
        self._done += 1
        if self._on_file is not None:
            self._on_file(FileProgress(document, status, reason, self._done, self._total))
