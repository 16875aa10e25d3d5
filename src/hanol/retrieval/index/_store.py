"""The index on disk: one SQLite file with documents, passages, full-text index and vectors.

A document and its passages are added or removed in one transaction, so the file is consistent
whenever the process ends. Readers work while another process writes (write-ahead log); writers
exclude each other by a lock that the system releases when its holder dies.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hanol.errors import SearchIndexError
from hanol.retrieval.index._cjk import index_text

_VERSION = 1  # of the schema and its content: tokenizer, passage lengths
_FILE = "index.sqlite"
_COMMON = 1000  # a token in more passages is common

# The full-text table stores no copy of the text (content=''), so deleting a row needs its text. The
# text is already tokenized and joined by spaces, so the tokenizer only splits at them.
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, title TEXT NOT NULL, kind TEXT NOT NULL, pages INTEGER NOT NULL
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL REFERENCES documents,
    page INTEGER, start INTEGER NOT NULL, "end" INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX passages_of ON passages (document, id);
CREATE TABLE vectors (passage INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(title, text, content='', tokenize='ascii');
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(words, row);
CREATE TABLE common (term TEXT PRIMARY KEY, passages INTEGER NOT NULL) WITHOUT ROWID;
"""


class Store:
    """An open index."""

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self.folder = folder
        self.db = db

    @classmethod
    def open(cls, folder: Path) -> "Store | None":
        """Open the index in a folder; None if there is none yet.

        Raises:
            SearchIndexError: It was made by another version, or cannot be read.
        """
        file = folder / _FILE
        if not file.is_file():
            return None
        # Without write access SQLite cannot keep its log, and nobody else can be writing.
        mode = "rw" if _writable(folder) else "ro&immutable=1"
        try:
            store = cls(folder, _connect(file, mode))
            with _closed_on_error(store.db):
                version = store.meta("version") if store._has_schema() else None
        except sqlite3.DatabaseError as err:
            raise SearchIndexError(f"The index {file} cannot be read ({err}). {_REBUILD}") from err
        if version is None:  # killed before its first transaction
            store.close()
            return None
        if version != str(_VERSION):
            store.close()
            raise SearchIndexError(
                f"The index {file} was made by another version of hanol (format {version}, this "
                f"one reads {_VERSION}). {_REBUILD}"
            )
        return store

    @classmethod
    def create(cls, folder: Path) -> "Store":
        """Open the index in a folder, or create it.

        Raises:
            SearchIndexError: The folder cannot be written, or `open` fails.
        """
        if (store := cls.open(folder)) is not None:
            return store
        try:
            folder.mkdir(parents=True, exist_ok=True)
            db = _connect(folder / _FILE, "rwc")
            store = cls(folder, db)
            with _closed_on_error(db):
                db.execute("PRAGMA journal_mode = WAL")
                with store.transaction():
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    store.set_meta("version", str(_VERSION))
        except (OSError, sqlite3.OperationalError) as err:
            raise _not_writable(folder, err) from err
        return store

    def _has_schema(self) -> bool:
        return (
            self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
            is not None
        )

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def meta(self, key: str) -> str | None:
        """A stored property of the index."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row and str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Store a property of the index."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything in the block, or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:  # SQLite has rolled back by itself when the disk is full
                self.db.execute("ROLLBACK")
            raise

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Be the only writer within the block.

        Raises:
            SearchIndexError: Another process (or object) is writing, the index is not writable, or
                the disk is full.
        """
        if not _writable(self.folder):
            raise _not_writable(self.folder, "no permission")
        pid_file = self.folder / "writer.pid"
        lock = sqlite3.connect(self.folder / "writer.lock", timeout=0, isolation_level=None)
        try:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as err:
                pid = pid_file.read_text() if pid_file.exists() else "unknown"
                raise SearchIndexError(
                    f"Process {pid} is indexing into {self.folder} already. Wait until it ends."
                ) from err
            pid_file.write_text(str(os.getpid()))
            yield
        except sqlite3.OperationalError as err:
            raise _not_writable(self.folder, err) from err
        finally:
            lock.close()

    def put(self, path: str, size: int, mtime_ns: int, document: Mapping[str, Any]) -> None:
        """Add a document, replacing the one at its path.

        Args:
            path: Path relative to the indexed folder.
            size: Size of the file in bytes.
            mtime_ns: Modification time of the file.
            document: What `documents._worker.read` returns.
        """
        self.remove(path)
        row = self.db.execute(
            "INSERT INTO documents (path, size, mtime_ns, sha256, title, kind, pages) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                path,
                size,
                mtime_ns,
                *(document[key] for key in ("sha256", "title", "kind", "pages")),
            ),
        ).lastrowid
        title = index_text(document["title"])
        for page, start, end, text in document["passages"]:
            number = self.db.execute(
                'INSERT INTO passages (document, page, start, "end", text) VALUES (?, ?, ?, ?, ?)',
                (row, page, start, end, text),
            ).lastrowid
            self.db.execute(
                "INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)",
                (number, title, index_text(text)),
            )

    def remove(self, path: str) -> None:
        """Remove a document, if it is indexed."""
        found = self.db.execute(
            "SELECT id, title FROM documents WHERE path = ?", (path,)
        ).fetchone()
        if found is None:
            return
        row, title = found[0], index_text(found[1])
        texts = self.db.execute("SELECT id, text FROM passages WHERE document = ?", (row,))
        for number, text in texts.fetchall():
            self.db.execute(
                "INSERT INTO words (words, rowid, title, text) VALUES ('delete', ?, ?, ?)",
                (number, title, index_text(text)),
            )
            self.db.execute("DELETE FROM vectors WHERE passage = ?", (number,))
        self.db.execute("DELETE FROM passages WHERE document = ?", (row,))
        self.db.execute("DELETE FROM documents WHERE id = ?", (row,))

    def touch(self, path: str, size: int, mtime_ns: int) -> None:
        """Update the time of a file whose content has not changed."""
        self.db.execute(
            "UPDATE documents SET size = ?, mtime_ns = ? WHERE path = ?", (size, mtime_ns, path)
        )

    def known(self) -> dict[str, tuple[int, int, str]]:
        """Size, modification time and hash of every indexed document, by path."""
        rows = self.db.execute("SELECT path, size, mtime_ns, sha256 FROM documents")
        return {path: (size, mtime_ns, sha256) for path, size, mtime_ns, sha256 in rows}

    def counts(self) -> tuple[int, int]:
        """Number of documents and passages."""
        row = self.db.execute(
            "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM passages)"
        ).fetchone()
        return int(row[0]), int(row[1])

    def tidy(self) -> None:
        """Merge the full-text index into one segment, and store the counts of common tokens:
        counting them during a search would take longer than the search itself.
        """
        with self.transaction():
            self.db.execute("INSERT INTO words (words) VALUES ('optimize')")
            self.db.execute("DELETE FROM common")
            self.db.execute(
                "INSERT INTO common SELECT term, doc FROM vocabulary WHERE doc > ?", (_COMMON,)
            )
            self.set_meta("tidy", "yes")
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


_REBUILD = "Delete it and run `hanol index` on the folder again."


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and os.access(folder / _FILE, os.W_OK)


def _not_writable(folder: Path, reason: object) -> SearchIndexError:
    return SearchIndexError(
        f"The index cannot be written to {folder} ({reason}). Make room there, or put it "
        "elsewhere: `--index` on the command line, `index_folder=` in Python."
    )


def _connect(file: Path, mode: str) -> sqlite3.Connection:
    # Transactions are explicit; threads share the connection under a lock.
    db = sqlite3.connect(
        f"file:{quote(str(file))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30,
    )
    with _closed_on_error(db):
        # A power cut may lose the last files, never more.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA mmap_size = 1073741824")
    return db


@contextmanager
def _closed_on_error(db: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        db.close()
        raise
