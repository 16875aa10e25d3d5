"""Updates an index from its folder."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from hanol.retrieval.documents._reading import FoundFile, read_all, remarks_on_others, walk
from hanol.retrieval.documents._remarks import Remark
from hanol.retrieval.documents.pdf._ocr import languages
from hanol.retrieval.index._dense import Embedder, fill_vectors
from hanol.retrieval.index._store import Store

Status = Literal["added", "changed", "unchanged", "removed", "failed"]
_Result = tuple[str, Status, str | None]  # path and reason

_COMMIT_SECONDS = 0.5  # most finished work that a kill can lose
# A file written this recently may be written again within the same tick of the file system's clock:
# its time is not trusted, and it is hashed again next time.
_SETTLED_NS = 2_000_000_000
_COUNTED = ("added", "changed", "removed", "unchanged", "ignored")
# The last column: was it read by another version, or with pages that OCR may read by now?
_KNOWN = """
SELECT CAST(path AS TEXT), size, mtime_ns, CAST(sha256 AS TEXT),
remarks IS NULL OR (? AND kind = 'pdf' AND remarks != '[]') FROM documents
"""
_TOTALS = """
SELECT (SELECT count(*) FROM documents) AS documents, (SELECT count(*) FROM passages) AS passages
"""


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

    @property
    def remark(self) -> Remark:
        """The reason and what to do, apart."""
        name = " ".join(Path(self.document).name.split())  # as in the message, on one line
        reason = self.reason.removeprefix(f"{name} ").removesuffix(".")
        why, _, what_to_do = reason.rpartition(": ")
        return Remark(why or reason, what_to_do if why else "", status="failed")


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


@dataclass
class Update:
    """One update of an index from its folder; see `Index.add` for the arguments."""

    store: Store
    folder: Path
    embedder: Embedder | None
    on_file: Callable[[FileProgress], None] | None
    isolated: bool
    _todo: list[FoundFile] = field(default_factory=list)
    _failed: list[FailedFile] = field(default_factory=list)
    _others: list[str] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    _done: int = 0
    _total: int = 0

    def run(self) -> IndexReport:
        """Index new and changed files, remove deleted ones, embed what has no vector."""
        began = time.monotonic()
        with self.store.writer():
            if self.store.folder.parent != self.folder:
                self.store.set_meta("folder", str(self.folder))
            self._look()
            self._read()
            if self.store.meta("tidy") != "yes":  # also after an earlier run that was killed
                self.store.tidy()
            self._note()
            embedded = 0 if self.embedder is None else fill_vectors(self.store, self.embedder)
        return IndexReport(
            **self._counts,
            **self.store.db.execute(_TOTALS).fetchone(),
            failed=tuple(self._failed),
            embedded=embedded,
            seconds=time.monotonic() - began,
        )

    def _look(self) -> None:
        """Find deleted, refused, unchanged (by size and time) and other files."""
        rows = self.store.db.execute(_KNOWN, (self.store.meta("ocr") != languages(),))
        known = {
            path: (size, 0, "") if again else (size, mtime_ns, sha256)
            for path, size, mtime_ns, sha256, again in rows
        }
        gone = set(known)
        seen: list[_Result] = []
        for found in walk(self.folder, skip=self.store.folder):
            if found.other:
                self._counts["ignored"] += 1
                self._others.append(found.path)
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
        with self.store.transaction():
            if gone or self._todo:
                self.store.set_meta("tidy", "no")
            for path in gone:
                self.store.remove(path)
        self._total = len(gone) + len(seen) + len(self._todo)
        self._report([(path, "removed", None) for path in sorted(gone)])
        self._report(seen)

    def _read(self) -> None:
        """Read the remaining files; commit about twice a second."""
        answers = read_all(self.folder, self._todo, isolated=self.isolated)
        done: list[_Result] | None = None
        while done != []:
            done = []
            until = time.monotonic() + _COMMIT_SECONDS
            with self.store.transaction():
                for found, answer in answers:
                    done.append((found.path, *self._put(found, answer)))
                    if time.monotonic() > until:
                        break
            self._report(done)  # only after the commit

    def _note(self) -> None:
        """Store which files are not in the index, and why."""
        notes = [(one.document, one.remark) for one in self._failed]
        notes += remarks_on_others(self.folder, self._others)
        rows = [(path, json.dumps(vars(remark))) for path, remark in notes]
        stored = [tuple(row) for row in self.store.db.execute("SELECT path, remark FROM unread")]
        if (stored, self.store.meta("ocr")) == (rows, languages()):
            return  # a file that is not written needs no new checksum
        with self.store.transaction():
            self.store.set_meta("ocr", languages())
            self.store.db.execute("DELETE FROM unread")
            self.store.db.executemany("INSERT INTO unread VALUES (?, ?)", rows)

    def _put(self, found: FoundFile, answer: dict[str, Any]) -> tuple[Status, str | None]:
        mtime_ns = found.mtime_ns if time.time_ns() - found.mtime_ns > _SETTLED_NS else 0
        if "error" in answer:
            self.store.remove(found.path)
            return "failed", answer["error"]
        if "passages" not in answer:
            self.store.db.execute(
                "UPDATE documents SET size = ?, mtime_ns = ? WHERE path = ?",
                (found.size, mtime_ns, found.path),
            )
            return "unchanged", None
        self.store.put(found.path, found.size, mtime_ns, answer)
        return ("added" if found.known is None else "changed"), None

    def _report(self, results: list[_Result]) -> None:
        for document, status, reason in results:
            if status == "failed":
                self._failed.append(FailedFile(document=document, reason=reason or "unknown"))
            else:
                self._counts[status] += 1
            self._done += 1
            if self.on_file is not None:
                self.on_file(FileProgress(document, status, reason, self._done, self._total))
