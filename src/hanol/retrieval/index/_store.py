"""The index on disk: one SQLite file with documents, passages, full-text index and vectors.

A document and its passages are added or removed in one transaction, so the file is consistent
whenever the process ends. Readers work while another process writes (write-ahead log); writers
exclude each other by a lock that the system releases when its holder dies.
"""

import fcntl
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hanol.errors import SearchIndexError, WriteError
from hanol.files import (
    read_text,
    replace_text,
    sha256,
)
from hanol.retrieval.index._cjk import index_text

_VERSION = 3  # of the schema and its content: tokenizer, passage lengths
_FILE = "index.sqlite"
_SUM = "index.sum"  # size, time and SHA-256 of that file as its last writer left it
_COMMON = 1000  # a token in more passages is common

# What version 2 lacked. Documents without remarks, not even an empty list, are read again.
_SINCE_2 = (
    "ALTER TABLE documents ADD COLUMN remarks TEXT",
    "CREATE TABLE unread (path TEXT NOT NULL, remark TEXT NOT NULL)",
)

# The full-text table stores no copy of the text (content=''), so deleting a row needs its text. The
# text is already tokenized and joined by spaces, so the tokenizer only splits at them.
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, title TEXT NOT NULL, kind TEXT NOT NULL, pages INTEGER NOT NULL,
    remarks TEXT
);
CREATE TABLE unread (path TEXT NOT NULL, remark TEXT NOT NULL);
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


# Its statements by the name of what they make, without spaces: a file that was brought up to date
# has other ones.
_MADE = {
    re.split(r"[\s(]+", statement.strip())[2 + ("VIRTUAL" in statement)]: "".join(statement.split())
    for statement in _SCHEMA.split(";")
    if statement.strip()
}


class Store:
    """An open index."""

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self.folder = folder
        self.db = db

    @classmethod
    def open(cls, folder: Path) -> "Store | None":
        """Open the index in a folder; None if there is none yet."""
        file = folder / _FILE
        _refuse_links(folder)
        if not file.is_file():
            return None
        # Without write access SQLite cannot keep its log, and nobody else can be writing.
        mode = "rw" if _writable(folder) else "ro&immutable=1"
        try:
            with _connected(file, mode) as db:
                tables = _tables(file, db)
                if not tables:
                    db.close()  # killed before its first transaction
                    return None
                _check_ours(file, tables)
                store = cls(folder, db)
                if store.meta("version") == "2" and mode == "rw":
                    store.upgrade()
                if (version := store.meta("version")) != str(_VERSION):
                    raise SearchIndexError(
                        f"The index {file} was made by another version of hanol (format "
                        f"{version}, this one reads {_VERSION}). {_REBUILD}"
                    )
                _check_schema(folder, db)
                _check_sum(folder)
                return store
        except sqlite3.DatabaseError as err:
            raise damaged(folder, err) from err

    @classmethod
    def erase(cls, folder: Path) -> str | None:
        """Delete the index in a folder, damaged or not; returns its embedder where that is read."""
        for path in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
            if _is_replaced(path):
                with suppress(OSError):  # a folder with something in it stays, and is named below
                    path.rmdir() if path.is_dir() else path.unlink()
        _refuse_links(folder)
        file, embedder = folder / _FILE, None
        if not file.is_file():
            return None
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(file)) as db:
            names = _tables(file, db)
            _check_ours(file, names)
            embedder = cls(folder, db).meta("embedder") if names else None
        with cls(folder, sqlite3.connect(":memory:")).alone():
            for name in (_SUM, f"{_FILE}-wal", f"{_FILE}-shm", _FILE):
                (folder / name).unlink(missing_ok=True)
        return embedder

    @classmethod
    def create(cls, folder: Path) -> "Store":
        """Create the index in a folder that has none."""
        _refuse_links(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _connected(folder / _FILE, "rwc") as db:
                store = cls(folder, db)
                db.execute("PRAGMA journal_mode = WAL")
                with store.transaction():
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    store.set_meta("version", str(_VERSION))
                return store
        except (OSError, sqlite3.OperationalError) as err:
            raise _not_writable(folder, err) from err

    def upgrade(self) -> None:
        """Bring an index of version 2 to this one."""
        with self.transaction():
            if self.meta("version") == "2":  # no other process was first
                for statement in _SINCE_2:
                    self.db.execute(statement)
                self.set_meta("version", str(_VERSION))

    def has(self, table: str) -> bool:
        """Whether a table has any row."""
        found = self.db.execute(f"SELECT 1 FROM {table} LIMIT 1")  # noqa: S608 - fixed names
        return found.fetchone() is not None

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
        with self.db:
            self.db.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Be the only writer within the block; check the file before, and note its hash after."""
        with self.alone():
            note = self.folder / _SUM
            noted = read_text(note, errors="replace") if note.exists() else ""
            if not noted:  # the last writer was killed
                (found,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
                if found != "ok":
                    raise damaged(self.folder, found)
            note.unlink(missing_ok=True)
            yield
            busy, *_ = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                stamp = _stamp(self.folder)
                same = noted.startswith(f"{stamp} ")
                with suppress(WriteError):
                    replace_text(note, noted if same else f"{stamp} {sha256(self.folder / _FILE)}")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the writers within the block."""
        if not _writable(self.folder):
            raise _not_writable(self.folder, "no permission")
        try:
            with (self.folder / "writer.pid").open("a+", errors="replace") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as err:
                    file.seek(0)
                    raise SearchIndexError(
                        f"Process {file.read() or 'unknown'} is indexing into {self.folder} "
                        "already. Wait until it ends."
                    ) from err
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield
        except sqlite3.OperationalError as err:
            raise _not_writable(self.folder, err) from err

    def put(self, path: str, size: int, mtime_ns: int, document: Mapping[str, Any]) -> None:
        """Add a document as `read_file` returns it, in place of the one at its path."""
        self.remove(path)
        row = self.db.execute(
            "INSERT INTO documents (path, size, mtime_ns, sha256, title, kind, pages, remarks) "
            "VALUES (:path, :size, :mtime_ns, :sha256, :title, :kind, :pages, :remarks)",
            {
                **document,
                "path": path,
                "size": size,
                "mtime_ns": mtime_ns,
                "remarks": json.dumps(document["remarks"]),
            },
        ).lastrowid
        title = index_text(document["title"])
        for page, start, end, text in document["passages"]:
            number = self.db.execute(
                'INSERT INTO passages (document, page, start, "end", text) VALUES (?, ?, ?, ?, ?)',
                (row, page, start, end, text),
            ).lastrowid
            words = (number, title, index_text(text))
            self.db.execute("INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", words)

    def remove(self, path: str) -> None:
        """Remove a document, if it is indexed."""
        # With types: SQLite stores any value in any column, and the file may be a stranger's.
        old = self.db.execute(
            "SELECT id, CAST(title AS TEXT) FROM documents WHERE path = ?", (path,)
        ).fetchone()
        if old is None:
            return
        row, title = old[0], index_text(old[1])
        texts = self.db.execute(
            "SELECT id, substr(CAST(text AS TEXT), 1, 1000000) FROM passages WHERE document = ?",
            (row,),
        )
        for number, text in texts.fetchall():
            self.db.execute(
                "INSERT INTO words (words, rowid, title, text) VALUES ('delete', ?, ?, ?)",
                (number, title, index_text(text)),
            )
            self.db.execute("DELETE FROM vectors WHERE passage = ?", (number,))
        self.db.execute("DELETE FROM passages WHERE document = ?", (row,))
        self.db.execute("DELETE FROM documents WHERE id = ?", (row,))

    def tidy(self) -> None:
        """Merge the full-text index into one segment, and store the counts of common tokens."""
        # Counting these during a search would take longer than the search itself.
        with self.transaction():
            self.db.execute("INSERT INTO words (words) VALUES ('optimize')")
            self.db.execute("DELETE FROM common")
            self.db.execute(
                "INSERT INTO common SELECT term, doc FROM vocabulary WHERE doc > ?", (_COMMON,)
            )
            self.set_meta("tidy", "yes")
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


_REBUILD = "Make it anew: run `hanol index --rebuild` on the folder."


def damaged(folder: Path, what: object) -> SearchIndexError:
    """The error for an index whose file is not what was written."""
    return SearchIndexError(f"The index {folder / _FILE} is damaged ({what}). {_REBUILD}")


def _tables(file: Path, db: sqlite3.Connection) -> set[str]:
    """The names of the tables; views and triggers, which compute without end, are not ours."""
    rows = [tuple(row) for row in db.execute("SELECT name, type FROM sqlite_master")]
    if odd := [name for name, kind in rows if kind not in ("table", "index")]:
        raise SearchIndexError(
            f"{file} has a view or a trigger, {odd[0]!r}, which hanol never makes: move it away."
        )
    return {name for name, _ in rows}


def _check_ours(file: Path, tables: set[str]) -> None:
    if tables and not tables >= {"meta", "documents", "passages", "words", "vectors"}:
        raise SearchIndexError(f"{file} is another program's database: move it away.")


def _check_schema(folder: Path, db: sqlite3.Connection) -> None:
    """Refuse columns and indexes that compute something, and tables of another form."""
    for name, table, made in db.execute("SELECT name, tbl_name, sql FROM sqlite_master"):
        is_own = str(table).startswith(("words_", "sqlite_"))  # of SQLite and its full-text search
        if made is not None and not is_own and "".join(str(made).split()) != _MADE.get(name):
            raise damaged(folder, f"{name!r} in it is not as hanol makes it")


def _check_sum(folder: Path) -> None:
    """Refuse a file that is not as its last writer left it; only one whose time differs is read."""
    note = folder / _SUM
    try:
        noted = read_text(note, errors="replace")
        stamp, _, known = noted.rpartition(" ")
        if stamp == _stamp(folder):
            return
        # Another process that begins to write drops the note first.
        if sha256(folder / _FILE) != known and read_text(note, errors="replace") == noted:
            raise damaged(folder, "its content has changed")
        time = stamp.rpartition(" ")[2]
        if time.isdecimal():  # of a copy: not read again
            os.utime(folder / _FILE, ns=(int(time),) * 2)
    except (OSError, OverflowError):
        return


def _stamp(folder: Path) -> str:
    status = (folder / _FILE).stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _is_replaced(path: Path) -> bool:
    """Whether a folder, a pipe or a file with another name elsewhere is where ours should be."""
    is_ours = path.name.startswith((_FILE, _SUM, "writer."))
    is_own = path.is_file() and path.stat().st_nlink == 1
    return is_ours and not path.is_symlink() and not is_own


def _refuse_links(folder: Path) -> None:
    """Refuse links in and of an index folder, which may have come with somebody's documents."""
    for path in (folder, *folder.iterdir()) if folder.is_dir() else ():
        if path != folder and _is_replaced(path):
            held = any(path.iterdir()) if path.is_dir() else False
            what = "a folder" if path.is_dir() else "a hard link" if path.is_file() else "a pipe"
            raise SearchIndexError(
                f"{path} is no file of hanol but {what}. "
                + (f"Move it away, then {_REBUILD[0].lower()}{_REBUILD[1:]}" if held else _REBUILD)
            )
        # Files that are neither, such as named pipes, would block for ever.
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            what = f"a symbolic link to {str(path.readlink())!r}" if path.is_symlink() else ""
            raise SearchIndexError(
                f"{path} is {what or 'neither a file nor a folder'}, which hanol does not "
                "follow: remove it, or put the index elsewhere with `--index`."
            )


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and os.access(folder / _FILE, os.W_OK)


def _not_writable(folder: Path, reason: object) -> SearchIndexError:
    return SearchIndexError(
        f"The index cannot be written to {folder} ({reason}). Make room there, or put it "
        "elsewhere: `--index` on the command line, `index_folder=` in Python."
    )


@contextmanager
def _connected(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection that is closed when the block fails, and stays open otherwise."""
    # Transactions are explicit; threads share the connection under a lock.
    db = sqlite3.connect(
        f"file:{quote(str(file))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=30,
    )
    try:
        db.row_factory = sqlite3.Row
        # A power cut may lose the last files, never more.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA mmap_size = 1073741824")
        db.execute("PRAGMA trusted_schema = OFF")  # the file may be somebody else's
        yield db
    except BaseException:
        db.close()
        raise
