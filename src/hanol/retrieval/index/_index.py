"""The index of a folder: search, read, update."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel

from hanol.errors import AddressError, SearchIndexError
from hanol.retrieval.index._address import Address, format_address, parse_address
from hanol.retrieval.index._cjk import highlight_spans
from hanol.retrieval.index._dense import Embedder, SentenceEmbedder, Vectors
from hanol.retrieval.index._fusion import reciprocal_rank_fusion
from hanol.retrieval.index._passage import Passage
from hanol.retrieval.index._search import choose_tokens, rank_bm25
from hanol.retrieval.index._store import Store
from hanol.retrieval.index._update import FileProgress, IndexReport, update

Mode = Literal["hybrid", "bm25", "dense"]

_POOL = 50  # best results of each ranking that are fused
_WEIGHTS = (1.0, 0.5)  # of words and meaning in "hybrid", tuned together with the fusion's constant
_COLUMNS = (
    'SELECT p.id, d.path, p.page, d.title, p.text, p.start, p."end", d.sha256 '
    "FROM passages AS p JOIN documents AS d ON d.id = p.document "
)
_AMONG = "WHERE p.id IN (SELECT value FROM json_each(?))"


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

    def __init__(self, folder: Path, place: Path, embedder: Embedder | None) -> None:
        self.folder = folder
        self._place = place
        self._embedder = embedder
        self._store: Store | None = None
        self._vectors: tuple[Any, Vectors] | None = None
        self._lock = threading.RLock()
        self._open_store()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        index_folder: str | Path | None = None,
        embedder: str | Embedder | None = None,
    ) -> "Index":
        """Open a folder; nothing is written before `add`.

        Args:
            path: Folder of the documents.
            index_folder: Where the index is stored, for documents in a folder that cannot be
                written to; `.hanol` in `path` by default.
            embedder: For search by meaning: name or folder of a sentence-transformers model,
                "minilm" for the packaged one, or your own object. By default the embedder that
                the index was made with, if any.

        Raises:
            SearchIndexError: There is no such folder, or its index was made by another version of
                hanol or with another embedder.
        """
        folder = Path(path).expanduser().resolve()
        if not folder.is_dir():
            raise SearchIndexError(
                f"There is no folder {str(path)!r}. Name a folder with documents."
            )
        place = (
            folder / ".hanol" if index_folder is None else Path(index_folder).expanduser().resolve()
        )
        if place == folder:
            raise SearchIndexError(
                f"`index_folder` is the folder of the documents itself, {place}. Name another one."
            )
        if isinstance(embedder, str):
            embedder = SentenceEmbedder(embedder)
        return cls(folder, place, embedder)

    def _open_store(self) -> None:
        if self._store is not None:
            return
        if (store := Store.open(self._place)) is None:
            return
        try:
            self._check_belongs(store)
        except Exception:
            store.close()
            raise
        self._store = store

    def _check_belongs(self, store: Store) -> None:
        home = store.meta("folder")
        if home is not None and home != str(self.folder):
            raise SearchIndexError(
                f"The index {store.folder} belongs to {home}, not to {self.folder}. Name another "
                "place for this folder's index."
            )
        made_with = store.meta("embedder")
        if made_with is None or (self._embedder and self._embedder.name == made_with):
            return
        if self._embedder is not None:
            raise SearchIndexError(
                f"The index {store.folder} was made with the embedder {made_with!r}, not with "
                f"{self._embedder.name!r}. Leave the embedder out to use the index's, or delete "
                "the index and run `hanol index` with the new one."
            )
        self._embedder = SentenceEmbedder(made_with)

    def close(self) -> None:
        """Close the index; the index can be opened again."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _db(self) -> sqlite3.Connection:
        self._open_store()
        if self._store is None or not self._has_passages(self._store):
            raise SearchIndexError(
                f"There is nothing indexed for {self.folder}. Run `hanol index {self.folder}`."
            )
        return self._store.db

    @staticmethod
    def _has_passages(store: Store) -> bool:
        return store.db.execute("SELECT 1 FROM passages LIMIT 1").fetchone() is not None

    @property
    def version(self) -> str:
        """Hash of the indexed content, 64 hex digits: the same files at the same paths give it."""
        with self._lock:
            self._open_store()
            rows: Iterable[tuple[str, str]] = ()
            if self._store is not None:
                rows = self._store.db.execute("SELECT path, sha256 FROM documents ORDER BY path")
            digest = hashlib.sha256()
            for path, sha256 in rows:
                digest.update(f"{len(path)}:{path}{sha256}".encode())
            return digest.hexdigest()

    def documents(self) -> list[DocumentInfo]:
        """The indexed documents, sorted by path."""
        with self._lock:
            self._open_store()
            if self._store is None:
                return []
            rows = self._store.db.execute(
                "SELECT path, title, kind, pages, "
                "(SELECT count(*) FROM passages WHERE document = documents.id), sha256, size "
                "FROM documents ORDER BY path"
            ).fetchall()
        return [
            DocumentInfo(
                document=path,
                address=format_address(path, sha256, None),
                title=title,
                kind=kind,
                pages=pages,
                passages=passages,
                sha256=sha256,
                size=size,
            )
            for path, title, kind, pages, passages, sha256, size in rows
        ]

    def add(
        self,
        path: str | Path | None = None,
        *,
        on_file: Callable[[FileProgress], None] | None = None,
        isolated: bool = True,
    ) -> IndexReport:
        """Update the index from the folder.

        Only files whose size or time changed are hashed, and only those whose hash changed are
        read again. A killed process loses at most the last half second of work.

        Args:
            path: A file or folder inside, to update only that.
            on_file: Called after each file.
            isolated: Read documents in child processes, which a hostile file may crash or stall.
                False reads in this process, which starts faster: for trusted texts.

        Raises:
            AddressError: `path` is outside of the folder.
            SearchIndexError: Another process is indexing, or the index cannot be written.
        """
        start = self.folder if path is None else (self.folder / Path(path)).resolve()
        if not start.is_relative_to(self.folder):
            raise AddressError(f"{str(path)!r} is outside of {self.folder}.")
        with self._lock:
            self._open_store()
            if self._store is None:
                self._store = Store.create(self._place)
            return update(
                self._store, self.folder, start, self._embedder, on_file, isolated=isolated
            )

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
        with self._lock:
            db = self._db
            tokens = choose_tokens(db, query)
            limit = max(k, _POOL)
            if mode == "bm25" or (mode == "hybrid" and not self._has_vectors()):
                ranking = rank_bm25(db, tokens, k)
            elif mode == "dense":
                ranking = self._rank_dense(query, k)
            else:
                words, meaning = rank_bm25(db, tokens, limit), self._rank_dense(query, limit)
                ranking = reciprocal_rank_fusion(
                    [[i for i, _ in words], [i for i, _ in meaning]], _WEIGHTS
                )[:k]
            scores = dict(ranking)
            found = {
                row[0]: _passage(row, scores[row[0]], highlight_spans(row[4], tokens))
                for row in self._rows(_AMONG, (json.dumps(list(scores)),))
            }
        return [found[number] for number in scores if number in found]

    def _rows(self, where: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self._db.execute(_COLUMNS + where, values).fetchall()

    def _has_vectors(self) -> bool:
        assert self._store is not None
        return self._store.db.execute("SELECT 1 FROM vectors LIMIT 1").fetchone() is not None

    def _rank_dense(self, query: str, limit: int) -> list[tuple[int, float]]:
        assert self._store is not None
        if self._embedder is None or not self._has_vectors():
            raise SearchIndexError(
                f"The index of {self.folder} has no vectors. Run `hanol index {self.folder} "
                "--embedder minilm`, or search with `bm25`."
            )
        # Changes when any connection, including this one, has written.
        state = (
            self._store.db.execute("PRAGMA data_version").fetchone()[0],
            self._store.db.total_changes,
        )
        if self._vectors is None or self._vectors[0] != state:
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
        with self._lock:
            wanted = self._named(address) or parse_address(address)
            row = self._db.execute(
                "SELECT id, sha256, path FROM documents WHERE path = ?", (wanted.document,)
            ).fetchone()
            if row is None:
                raise SearchIndexError(
                    f"There is no document {wanted.document!r} in the index of {self.folder}. "
                    "Search again to get the addresses that exist."
                )
            number, sha256, path = row
            if not sha256.startswith(wanted.hash):
                now = format_address(path, sha256, wanted.page)
                raise SearchIndexError(
                    f"{path!r} has changed since {address!r} was given out, to {now!r}."
                )
            if wanted.page is None:
                rows = self._rows("WHERE p.document = ? ORDER BY p.id", (number,))
            else:
                where = "WHERE p.document = ? AND p.page = ? ORDER BY p.id"
                rows = self._rows(where, (number, wanted.page))
            if not rows and wanted.page is not None:
                pages = self._db.execute(
                    "SELECT max(page) FROM passages WHERE document = ?", (number,)
                ).fetchone()[0]
                raise AddressError(
                    f"{path!r} has no text on page {wanted.page}; its last page with text is "
                    f"{pages}."
                    if pages is not None
                    else f"{path!r} has no pages; leave out '#p{wanted.page}'."
                )
        return [_passage(row) for row in rows]

    def _named(self, path: str) -> Address | None:
        """The address of the document with this path, with any content; None if there is none."""
        path = path.encode("utf-8", "replace").decode()  # half characters fit no database
        for name in (path, unquote(path)):
            row = self._db.execute("SELECT 1 FROM documents WHERE path = ?", (name,)).fetchone()
            if row is not None:
                return Address("", name, None)
        return None

    def neighbours(self, passage: Passage, before: int = 1, after: int = 1) -> list[Passage]:
        """The passages just before and after a passage in its document, in order.

        Raises:
            SearchIndexError: The document has changed since.
        """
        with self._lock:
            row = self._db.execute(
                "SELECT document FROM passages WHERE id = ?", (passage.id,)
            ).fetchone()
            if row is None:
                raise SearchIndexError(
                    f"{passage.document!r} has changed since {passage.address!r} was given out."
                )
            earlier = self._rows(
                "WHERE p.document = ? AND p.id < ? ORDER BY p.id DESC LIMIT ?",
                (row[0], passage.id, before),
            )
            found = [_passage(row) for row in earlier][::-1]
            later = self._rows(
                "WHERE p.document = ? AND p.id > ? ORDER BY p.id LIMIT ?",
                (row[0], passage.id, after),
            )
            return found + [_passage(row) for row in later]


def _passage(
    row: tuple[Any, ...], score: float = 0.0, highlights: tuple[tuple[int, int], ...] = ()
) -> Passage:
    number, path, page, title, text, start, end, sha256 = row
    return Passage(
        id=number,
        address=format_address(path, sha256, page),
        document=path,
        page=page,
        title=title,
        text=text,
        start=start,
        end=end,
        sha256=sha256,
        score=score,
        highlights=highlights,
    )
