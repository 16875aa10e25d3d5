"""The searches that hanol's is compared with: LanceDB, tantivy, and FTS5 with its own tokenizer.

All of them are given hanol's passages. Each search takes a query, its vector where it wants one,
and k, and gives places in the list of passages, best first.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

Search = Callable[[str, Any, int], list[int]]
PEERS = tuple(name for name in ("lancedb", "tantivy") if find_spec(name))


@dataclass(frozen=True)
class Texts:
    """Passages as every search is given them; `vectors` are unit rows, or None for word search."""

    titles: Sequence[str]
    texts: Sequence[str]
    vectors: np.ndarray | None = None


def lance(folder: Path, texts: Texts, *, cjk: bool = False) -> dict[str, Search]:
    """A LanceDB table with its native full-text index; vectors are searched exactly, as ours are.

    Args:
        folder: New folder of the database.
        texts: What to index; the title stands before the text in one column.
        cjk: Index pairs of characters in place of stemmed English words.
    """
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of every query
    import lancedb
    import pyarrow as pa
    from lancedb.index import FTS
    from lancedb.rerankers import RRFReranker

    columns: dict[str, Any] = {
        "id": pa.array(range(len(texts.texts)), pa.int64()),
        "text": pa.array([f"{a}\n{b}" for a, b in zip(texts.titles, texts.texts, strict=True)]),
    }
    if texts.vectors is not None:
        flat = pa.array(texts.vectors.astype(np.float32).ravel())
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, texts.vectors.shape[1])
    table = lancedb.connect(folder).create_table("passages", pa.table(columns))
    ngrams: dict[str, Any] = {
        "base_tokenizer": "ngram",
        "ngram_min_length": 2,
        "ngram_max_length": 2,
    }
    ngrams |= {"ngram_max_length": 2, "stem": False, "remove_stop_words": False}
    table.create_index("text", config=FTS(**ngrams) if cjk else FTS())
    reranker = RRFReranker()

    def words(query: str, _: Any, k: int) -> list[int]:
        return _ids(table.search(query, query_type="fts").select(["id"]).limit(k))

    def dense(_: str, vector: Any, k: int) -> list[int]:
        return _ids(table.search(vector, query_type="vector").select(["id"]).limit(k))

    def hybrid(query: str, vector: Any, k: int) -> list[int]:
        both = table.search(query_type="hybrid").vector(vector).text(query)
        return _ids(both.rerank(reranker).select(["id"]).limit(k))

    searches: dict[str, Search] = {"LanceDB FTS": words}
    if texts.vectors is not None:
        searches |= {"LanceDB vectors": dense, "LanceDB hybrid": hybrid}
    return searches


def _ids(query: Any) -> list[int]:
    return [int(i) for i in query.to_arrow()["id"].to_pylist()]


def tantivy_bm25(folder: Path, texts: Texts, *, cjk: bool = False) -> dict[str, Search]:
    """A tantivy index on disk with its default tokenizer, title and text as two fields."""
    import tantivy

    tokenizer = "pairs" if cjk else "default"
    builder = tantivy.SchemaBuilder().add_integer_field("id", stored=True)
    for field in ("title", "text"):
        builder.add_text_field(field, tokenizer_name=tokenizer)
    folder.mkdir(parents=True)
    index = tantivy.Index(builder.build(), path=str(folder))
    pairs = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.ngram(2, 2)).filter(
        tantivy.Filter.lowercase()
    )
    index.register_tokenizer("pairs", pairs.build())
    writer = index.writer(heap_size=128 << 20, num_threads=2)
    for i, (title, text) in enumerate(zip(texts.titles, texts.texts, strict=True)):
        writer.add_document(tantivy.Document(id=i, title=title, text=text))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def words(query: str, _: Any, k: int) -> list[int]:
        if cjk:  # as single terms: the parser would make one phrase of a word's pairs
            runs = re.findall(r"\w+", query)
            query = " ".join(run[i : i + 2] for run in runs for i in range(max(1, len(run) - 1)))
        parsed, _ = index.parse_query_lenient(query, ["title", "text"])
        hits = searcher.search(parsed, k).hits
        return [int(searcher.doc(address)["id"][0]) for _, address in hits]

    return {"tantivy BM25": words}


def plain_fts5(texts: Texts, weight: float = 1.0) -> Search:
    """SQLite's FTS5 with its own unicode61 tokenizer: what there is without pairs of characters."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(title, text)")
    rows = enumerate(zip(texts.titles, texts.texts, strict=True))
    db.executemany(
        "INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", ((i, a, b) for i, (a, b) in rows)
    )

    def words(query: str, _: Any, k: int) -> list[int]:
        terms = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", query))
        ranked = f"ORDER BY bm25(words, {weight}, 1.0) LIMIT ?"
        found = db.execute(f"SELECT rowid FROM words WHERE words MATCH ? {ranked}", (terms, k))
        return [row for (row,) in found]

    return words


def disk_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
