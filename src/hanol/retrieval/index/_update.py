"""Updates an index from its folder."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from hanol.retrieval.documents._reading import FoundFile, read_all, walk
from hanol.retrieval.index._dense import Embedder, fill_vectors
from hanol.retrieval.index._store import Store

Status = Literal["added", "changed", "unchanged", "removed", "failed"]
_Result = tuple[str, Status, str | None]  # path and reason

_COMMIT_SECONDS = 0.5  # most finished work that a kill can lose
# A file written this recently may be written again within the same tick of the file system's clock:
# its time is not trusted, and it is hashed again next time.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class FileProgress:
    """Progress after one file: its result, the reason of a failure, files done and all files."""

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
    """The result of `Index.add`: numbers of files, and what is in the index now.

    Args:
        removed: Files that no longer exist.
        unchanged: Files that did not have to be read again.
        failed: Files that could not be read; their older text was removed from the index.
        ignored: Files whose suffix is not that of a document.
        embedded: Passages that got a vector.
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
    embedder: Embedder | None,
    on_file: Callable[[FileProgress], None] | None,
    *,
    isolated: bool,
) -> IndexReport:
    """Index new and changed files, remove deleted ones; see `Index.add`."""
    began = time.monotonic()
    with store.writer():
        with store.transaction():
            if store.folder.parent != folder:
                store.set_meta("folder", str(folder))
            if embedder is not None:
                store.set_meta("embedder", embedder.name)
        run = _Run(store, folder, on_file)
        run.look()
        run.read(isolated)
        if store.meta("tidy") != "yes":  # also after an earlier run that was killed
            store.tidy()
        embedded = 0 if embedder is None else fill_vectors(store, embedder)
    documents, passages = store.counts()
    return IndexReport(
        **run.counts,
        failed=tuple(run.failed),
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
        self._todo: list[FoundFile] = []
        self._done = self._total = 0
        self.counts = dict.fromkeys(("added", "changed", "removed", "unchanged", "ignored"), 0)
        self.failed: list[FailedFile] = []

    def look(self) -> None:
        """Find deleted, refused, unchanged (by size and time) and other files."""
        known = self._store.known()
        gone = set(known)
        seen: list[_Result] = []
        for found in walk(self._folder, skip=self._store.folder):
            if found is None:
                self.counts["ignored"] += 1
                continue
            size, mtime_ns, sha256 = known.get(found.path, (None, None, None))
            if found.reason is not None:
                seen.append((found.path, "failed", found.reason))
                continue
            gone.discard(found.path)
            if (size, mtime_ns) == (found.size, found.mtime_ns):
                seen.append((found.path, "unchanged", None))
            else:
                self._todo.append(replace(found, known=sha256))
        with self._store.transaction():
            if gone or self._todo:
                self._store.set_meta("tidy", "no")
            for path in gone:
                self._store.remove(path)
        self._total = len(gone) + len(seen) + len(self._todo)
        self._report([(path, "removed", None) for path in sorted(gone)])
        self._report(seen)

    def read(self, isolated: bool) -> None:
        """Read the remaining files; commit about twice a second."""
        answers = read_all(self._folder, self._todo, isolated=isolated)
        done: list[_Result] | None = None
        while done != []:
            done = []
            until = time.monotonic() + _COMMIT_SECONDS
            with self._store.transaction():
                for found, answer in answers:
                    done.append((found.path, *self._put(found, answer)))
                    if time.monotonic() > until:
                        break
            self._report(done)  # only after the commit

    def _put(self, found: FoundFile, answer: dict[str, Any]) -> tuple[Status, str | None]:
        mtime_ns = found.mtime_ns if time.time_ns() - found.mtime_ns > _SETTLED_NS else 0
        if "error" in answer:
            self._store.remove(found.path)
            return "failed", answer["error"]
        if "passages" not in answer:
            self._store.touch(found.path, found.size, mtime_ns)
            return "unchanged", None
        self._store.put(found.path, found.size, mtime_ns, answer)
        return ("added" if found.known is None else "changed"), None

    def _report(self, results: list[_Result]) -> None:
        for document, status, reason in results:
            if status == "failed":
                self.failed.append(FailedFile(document=document, reason=reason or "unknown"))
            else:
                self.counts[status] += 1
            self._done += 1
            if self._on_file is not None:
                self._on_file(FileProgress(document, status, reason, self._done, self._total))
