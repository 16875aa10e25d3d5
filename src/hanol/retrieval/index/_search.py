"""BM25 over the full-text index.

A query is an OR of its tokens; user text is never query syntax. FTS5 scores every passage that
contains any of them, so a question made of common words would score half of the index. Tokens are
therefore added from the rarest on until together they occur in `_POSTINGS` passages; the rarest is
always used. Up to that size scores are exact. The other tokens matter little: FTS5 gives a token in
more than half of the passages a weight of almost zero.
"""

import sqlite3
from collections.abc import Sequence

from hanol.retrieval.index._cjk import query_tokens

_TITLE_WEIGHT = 2.0  # a word in the title counts as this many in the text
_POSTINGS = 10_000  # most passages to score, for all tokens together
_TOKENS = 256  # most distinct tokens of a query

Token = tuple[str, bool]  # and whether it is a prefix


def choose_tokens(db: sqlite3.Connection, query: str) -> list[Token]:
    """The tokens of a query that occur in the index, rarest first, up to the limit."""
    counted = []
    for token in query_tokens(query)[:_TOKENS]:
        if count := _document_count(db, token):
            counted.append((count, token))
    counted.sort()
    chosen: list[Token] = []
    total = 0
    for count, token in counted:
        total += count
        if chosen and total > _POSTINGS:
            break
        chosen.append(token)
    return chosen


def _document_count(db: sqlite3.Connection, token: Token) -> int:
    text, prefix = token
    if not prefix:
        noted = db.execute("SELECT passages FROM common WHERE term = ?", (text,)).fetchone()
        if noted is not None:
            return int(noted[0])
    where = "term >= ? AND term < ?" if prefix else "term = ?"
    values = (text, text + "\U0010ffff") if prefix else (text,)
    sql = f"SELECT sum(doc) FROM vocabulary WHERE {where}"  # noqa: S608 (two fixed texts)
    return db.execute(sql, values).fetchone()[0] or 0


def rank_bm25(
    db: sqlite3.Connection, tokens: Sequence[Token], limit: int
) -> list[tuple[int, float]]:
    """The best passages for some tokens as (id, score), best first, ties by id."""
    if not tokens:
        return []
    # Tokens are letters and digits only; the quotes keep AND, OR, NOT and NEAR from being syntax.
    match = " OR ".join(f'"{text}"*' if prefix else f'"{text}"' for text, prefix in tokens)
    rows = db.execute(
        "SELECT rowid, -bm25(words, ?, 1.0) AS score FROM words WHERE words MATCH ? "
        "ORDER BY score DESC, rowid LIMIT ?",
        (_TITLE_WEIGHT, match, limit),
    )
    return [(int(number), float(score)) for number, score in rows]
