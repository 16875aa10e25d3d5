"""The index of a folder: search, read, update."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from urllib.parse import unquote

from pydantic import BaseModel, TypeAdapter, ValidationError

from hanol.errors import AddressError, SearchIndexError
from hanol.files import open_inside
from hanol.retrieval.documents._remarks import Remark
from hanol.retrieval.index._cjk import highlight_spans, query_tokens
from hanol.retrieval.index._passage import Passage, doubt_of, format_address, parse_address
from hanol.retrieval.index._search import (
    choose_tokens,
    count_any,
    rank_bm25,
    reciprocal_rank_fusion,
)
from hanol.retrieval.index._store import Store, damaged

if TYPE_CHECKING:  # readers of documents and numpy, which a search by words does not need
    from hanol.retrieval.index._dense import Embedder, Vectors
    from hanol.retrieval.index._update import FileProgress, IndexReport

Mode = Literal["hybrid", "bm25", "dense"]

_POOL = 50  # best results of each ranking that are fused
_WEIGHTS = (1.0, 0.5)  # of words and meaning in "hybrid", tuned together with the fusion's constant
# With types, because SQLite stores any value in any column, and a stranger may have written it.
_PASSAGES = (
    "SELECT p.id, CAST(d.path AS TEXT) AS document, CAST(p.page AS INTEGER) AS page, "
    "CAST(d.title AS TEXT) AS title, substr(CAST(p.text AS TEXT), 1, 1000000) AS text, "
    "min(CAST(p.start AS INTEGER), 100000000) AS start, "  # of text, which is built up to there
    'min(CAST(p."end" AS INTEGER), 100000000) AS "end", CAST(d.sha256 AS TEXT) AS sha256, '
    "CAST(d.remarks AS TEXT) AS doubt "
    "FROM passages AS p JOIN documents AS d ON d.id = p.document "
)
_AMONG = "WHERE p.id IN (SELECT value FROM json_each(?))"
_REMARKS = """
SELECT CAST(path AS TEXT), CAST(remarks AS TEXT) FROM documents WHERE remarks IS NOT NULL
UNION ALL SELECT CAST(path AS TEXT), '[' || remark || ']' FROM unread ORDER BY 1
"""
_DOCUMENT = "SELECT id, path, CAST(sha256 AS TEXT) AS sha256 FROM documents WHERE path = ?"
_UNREADABLE = Remark("has remarks in the index that cannot be read", "run `hanol index --rebuild`")
_REMARK_LIST = TypeAdapter(tuple[Remark, ...])
_DOCUMENTS = """
SELECT CAST(path AS TEXT) AS document, CAST(title AS TEXT) AS title, CAST(kind AS TEXT) AS kind,
CAST(pages AS INTEGER) AS pages, CAST(sha256 AS TEXT) AS sha256, CAST(size AS INTEGER) AS size,
(SELECT count(*) FROM passages WHERE document = documents.id) AS passages
FROM documents ORDER BY path
"""


class DocumentInfo(BaseModel, frozen=True):
    """An indexed document; `Index.read(address)` gives its text."""

    document: str
    address: str
    title: str
    kind: str
    pages: int
    passages: int
    sha256: str
    size: int


class Index(AbstractContextManager["Index"]):
    """A folder of documents with its index. Open it with `Index.open`; it is thread-safe.

    Example:
        >>> with Index.open("notes") as index:  # doctest: +SKIP
        ...     index.add()
        ...     best = index.search("how are keys rotated", k=3)
    """

    def __init__(self, folder: Path, place: Path, embedder: "Embedder | None") -> None:
        self.folder = folder
        self._place = place
        self._embedder = embedder
        self._store: Store | None = None
        self._vectors: tuple[Any, Vectors] | None = None
        self._lock = threading.RLock()
        self._opened()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        index_folder: str | Path | None = None,
        embedder: "str | Embedder | None" = None,
        rebuild: bool = False,
    ) -> "Index":
        """Open a folder; without `rebuild`, nothing is written before `add`.

        Args:
            path: Folder of the documents.
            index_folder: Where the index is stored, for documents in a folder that cannot be
                written to; `.hanol` in `path` by default.
            embedder: For search by meaning: a pulled model such as "e5-small" or "minilm", name or
                folder of a sentence-transformers model, or your own object. By default the
                embedder that the index was made with, if any.
            rebuild: Delete the index first, such as one that is damaged; `add` makes it anew.

        Raises:
            SearchIndexError: There is no such folder, or its index was made by another version of
                hanol or with another embedder.
        """
        folder = Path(path).expanduser().resolve()
        if not folder.is_dir():
            raise SearchIndexError(
                f"There is no folder {str(path)!r}. Name a folder with documents."
            )
        place = folder / ".hanol"  # as it is: it may have come with the folder, and be a link
        if index_folder is not None:
            place = Path(index_folder).expanduser().resolve()
        if place == folder:
            raise SearchIndexError(
                f"`index_folder` is the folder of the documents itself, {place}. Name another one."
            )
        if rebuild and (made_with := Store.erase(place)) is not None:
            embedder = embedder or _sentence_embedder(made_with, from_index=True)
        if isinstance(embedder, str):
            embedder = _sentence_embedder(embedder)
        return cls(folder, place, embedder)

    def _opened(self) -> Store | None:
        """The store, opened if it is there by now."""
        if self._store is None and (store := Store.open(self._place)) is not None:
            try:
                self._check_belongs(store)
            except Exception:
                store.db.close()
                raise
            self._store = store
        return self._store

    def _check_belongs(self, store: Store) -> None:
        home = store.meta("folder")
        if home is not None and home != str(self.folder):
            raise SearchIndexError(
                f"The index {store.folder} belongs to {home}, not to {self.folder}. Name another "
                "place for this folder's index."
            )
        made_with = store.meta("embedder")
        if made_with is not None:
            self._embedder = self._embedder or _sentence_embedder(made_with, from_index=True)
            if self._embedder.name != made_with:
                raise SearchIndexError(
                    f"The index {store.folder} was made with the embedder {made_with!r}, not with "
                    f"{self._embedder.name!r}. Leave the embedder out to use the index's, or run "
                    "`hanol index --embedder none` to drop its vectors first."
                )

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Hold the lock; a damaged file is named with its cure."""
        with self._lock:
            try:
                yield
            except sqlite3.DatabaseError as err:
                # Errors of the module itself, such as of text that is no UTF-8, have no code.
                if getattr(err, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                    raise SearchIndexError(
                        f"The index {self._place} is locked by another process: try again."
                    ) from err
                raise damaged(self._place, err) from err

    def close(self) -> None:
        """Close the index; the index can be opened again."""
        with self._lock:
            if self._store is not None:
                self._store.db.close()
                self._store = None

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _db(self) -> sqlite3.Connection:
        store = self._opened()
        if store is None or not store.has("passages"):
            raise SearchIndexError(
                f"There is nothing indexed for {self.folder}. Run `hanol index {self.folder}`; it "
                "needs documents there, such as pdf, docx, html, md or txt files."
            )
        return store.db

    @property
    def version(self) -> str:
        """Hash of the indexed paths and contents, 64 hex digits."""
        digest = hashlib.sha256()
        for info in self.documents():
            digest.update(f"{len(info.document)}:{info.document}{info.sha256}".encode())
        return digest.hexdigest()

    def documents(self) -> list[DocumentInfo]:
        """The indexed documents, sorted by path."""
        with self._in_use():
            store = self._opened()
            rows = [] if store is None else store.db.execute(_DOCUMENTS).fetchall()
        return [
            DocumentInfo(**row, address=format_address(row["document"], row["sha256"], None))
            for row in rows
        ]

    def remarks(self) -> dict[str, tuple[Remark, ...]]:
        """What was not read, or may have been read wrong, by file; sound files are left out.

        Files that are in no index are there too, as the last `add` found them.
        """
        with self._in_use():
            store = self._opened()
            rows = [] if store is None else store.db.execute(_REMARKS).fetchall()
        found: dict[str, tuple[Remark, ...]] = {}
        for path, stored in rows:
            found[path] = (*found.get(path, ()), *_remarks(stored))
        return {path: remarks for path, remarks in found.items() if remarks}

    def add(
        self, *, on_file: "Callable[[FileProgress], None] | None" = None, isolated: bool = True
    ) -> "IndexReport":
        """Update the index from the folder.

        Only files whose size or time changed are hashed, and only those whose hash changed are
        read again. A killed process loses at most the last half second of work.

        Args:
            on_file: Called after each file.
            isolated: Read documents in child processes, which a hostile file may crash or stall.
                False reads in this process, which starts faster and has no limits of time and
                memory: for trusted texts.

        Raises:
            SearchIndexError: Another process is indexing, or the index cannot be written.
        """
        with self._in_use():
            self._store = self._opened() or Store.create(self._place)
            from hanol.retrieval.index._update import Update

            return Update(self._store, self.folder, self._embedder, on_file, isolated).run()

    def drop_vectors(self) -> None:
        """Go back to search by words only: forget the embedder and all vectors."""
        with self._in_use():
            if (store := self._opened()) is not None:
                with store.writer(), store.transaction():
                    store.db.execute("DELETE FROM vectors")
                    store.db.execute("DELETE FROM meta WHERE key IN ('embedder', 'width')")
            self._embedder = None

    def open_file(self, name: str) -> BinaryIO:
        """Open a file of the folder, as `hanol.files.open_inside`, but none of the index."""
        file = open_inside(self.folder, name)
        if Path(file.name).is_relative_to(self._place):  # with the logs of runs
            file.close()
            raise AddressError("is part of the index: it is not read")
        return file

    def search(self, query: str, k: int = 10, mode: Mode = "hybrid") -> list[Passage]:
        """Search for passages.

        Args:
            query: Search text in any language. Taken literally: there are no operators.
            k: Most results.
            mode: "bm25" searches by words, "dense" by meaning, "hybrid" by both, fused by rank;
                without an embedder "hybrid" is "bm25".

        Returns:
            Passages, best first. "bm25" leaves out passages that share no word with the query.

        Raises:
            SearchIndexError: Nothing is indexed, or "dense" was chosen without vectors.
        """
        if k < 1:
            raise SearchIndexError(f"`k` is {k}, but must be at least 1.")
        if mode not in ("hybrid", "bm25", "dense"):
            raise SearchIndexError(f"`mode` is {mode!r}, but must be 'hybrid', 'bm25' or 'dense'.")
        with self._in_use():
            db = self._db
            tokens, forms = choose_tokens(db, query)
            if mode == "hybrid" and not (self._store and self._store.has("vectors")):
                mode = "bm25"
            pool = max(k, _POOL)
            words = [] if mode == "dense" else rank_bm25(db, tokens, forms, pool, query)
            meaning = [] if mode == "bm25" else self._rank_dense(query, pool)
            ranking = words + meaning
            if mode == "hybrid":
                both = [[number for number, _ in ranked] for ranked in (words, meaning)]
                ranking = reciprocal_rank_fusion(both, _WEIGHTS)
            scores = dict(ranking[:k])
            rows = {row["id"]: row for row in self._rows(_AMONG, json.dumps(list(scores)))}
        return [
            _passage(
                row, score=score, highlights=highlight_spans(row["text"], tokens + forms)
            ).from_best_row()
            for number, score in scores.items()
            if (row := rows.get(number)) is not None
        ]

    def passage_counts(self, words: Sequence[str]) -> list[int]:
        """How many passages have each word or a form; of one that is split, its rarest part."""
        with self._in_use():
            return [
                min((count_any(self._db, token) for token in query_tokens(word)), default=0)
                for word in words
            ]

    def similarities(self, query: str, texts: Sequence[str]) -> list[float] | None:
        """Similarity in meaning of a query and some texts; None for an index without vectors."""
        with self._in_use():
            store = self._opened()
            if self._embedder is None or store is None or not store.has("vectors") or not texts:
                return None
            matrix = self._embedder.encode_documents(texts)
            return [float(x) for x in matrix @ self._embedder.encode_query(query)]

    def _rows(self, where: str, *values: object) -> list[sqlite3.Row]:
        return self._db.execute(_PASSAGES + where, values).fetchall()

    def _rank_dense(self, query: str, limit: int) -> list[tuple[int, float]]:
        assert self._store is not None
        if self._embedder is None or not self._store.has("vectors"):
            raise SearchIndexError(
                f"The index of {self.folder} has no vectors. Run `hanol index {self.folder} "
                "--embedder minilm`, or search with `bm25`."
            )
        # Changes when any connection, including this one, has written.
        db = self._store.db
        state = (db.execute("PRAGMA data_version").fetchone()[0], db.total_changes)
        if self._vectors is None or self._vectors[0] != state:
            from hanol.retrieval.index._dense import Vectors

            self._vectors = (state, Vectors(self._store))
        return self._vectors[1].rank(self._embedder.encode_query(query), limit)

    def read(self, address: str) -> list[Passage]:
        """All passages of a document or page, in order.

        Args:
            address: "doc://...", or the path of an indexed document, percent-encoded or not, as in
                links between documents.

        Raises:
            AddressError: It is not an address, or the document has no such page.
            SearchIndexError: The document is not indexed, or its content has changed since.
        """
        with self._in_use():
            named = address.encode("utf-8", "replace").decode()  # half characters fit no database
            row = self._document(named) or self._document(unquote(named))
            sha256, page = "", None  # of a path: with any content
            if row is None:
                sha256, path, page = parse_address(address)
                row = self._document(path)
            if row is None:
                raise SearchIndexError(
                    # Without its folder: models read this, too.
                    f"There is no document {path!r} in this index. "
                    "Search again to get the addresses that exist."
                )
            path = row["path"]
            if not row["sha256"].startswith(sha256):
                now = format_address(path, row["sha256"], page)
                raise SearchIndexError(
                    f"{path!r} has changed since {address!r} was given out, to {now!r}."
                )
            rows = self._rows("WHERE p.document = ? ORDER BY p.id", row["id"])
        found = [_passage(row) for row in rows if page in (None, row["page"])]
        pages = [row["page"] for row in rows if row["page"] is not None]
        if not found and not pages:
            raise AddressError(f"{path!r} has no pages; leave out '#p{page}'.")
        if not found:
            raise AddressError(
                f"{path!r} has no text on page {page}; its last page with text is {max(pages)}."
            )
        return found

    def _document(self, path: str) -> sqlite3.Row | None:
        found = self._db.execute(_DOCUMENT, (path,))
        row: sqlite3.Row | None = found.fetchone()
        return row


def _passage(row: sqlite3.Row, **found: Any) -> Passage:
    found["address"] = format_address(row["document"], row["sha256"], row["page"])
    return Passage(**{**row, **found, "doubt": _doubt(row["doubt"] or "[]", row["page"])})


@lru_cache(maxsize=10_000)  # the pages of a document follow each other
def _doubt(stored: str, page: int | None) -> str:
    return doubt_of(_remarks(stored), page)


@lru_cache(maxsize=100)
def _remarks(stored: str) -> tuple[Remark, ...]:
    try:
        return _REMARK_LIST.validate_json(stored)
    except ValidationError:  # an index of a stranger
        return (_UNREADABLE,)


def _sentence_embedder(name: str, **origin: bool) -> "Embedder":
    from hanol.retrieval.index._dense import SentenceEmbedder

    return SentenceEmbedder(name, **origin)
