"""Ranking: BM25 over the full-text index, and the fusion of rankings.

A query is an OR of its tokens, and of their inflections for less; user text is never query syntax.
FTS5 scores every passage with any of them, half of the index for common words. So tokens are added
from the rarest on until together they occur in `_POSTINGS` passages; the others would weigh almost
nothing.
"""

import json
import sqlite3
from collections.abc import Sequence

from hanol.retrieval.index._cjk import (
    index_text,
    inflections,
    one_syllable_stems,
    query_phrases,
    query_tokens,
)

_TITLE_WEIGHT = 2.0  # a word in the title counts as this many in the text
# A score counts this much more where "1.2.3" stands as it is and not as its parts, times the square
# of its share of the query.
_PHRASE_WEIGHT = 2.0
# What "dogs" counts of a word "dog" of the query: chosen of 0 to 1 on half of the benchmark's
# questions, where an index of stems, for which both are one word, found no more.
_FORM_WEIGHT = 0.7
_POSTINGS = 10_000  # most passages to score, for all tokens together
_TOKENS = 256  # most distinct tokens of a query
# The paper on the fusion uses 60, for many rankings of equal quality. With two rankings, one of
# which may know only one language, the first ranks must count for more: 5 was chosen on half of the
# benchmark's questions, together with the weights in `_index.py`.
_RANK_OFFSET = 5

_COUNTS = (
    "SELECT value, coalesce((SELECT CAST(passages AS INTEGER) FROM common WHERE term = value), "
    "(SELECT doc FROM vocabulary WHERE term = value)) FROM json_each(?)"
)
_COUNT = "SELECT sum(doc) FROM vocabulary WHERE term >= ? AND term < ?"

Token = tuple[str, bool]  # and whether it is a prefix


def choose_tokens(db: sqlite3.Connection, query: str) -> tuple[list[Token], list[Token]]:
    """The tokens of a query that occur in the index, and other forms of its words, up to the limit.

    The rarest come first, and forms get what tokens leave of the limit, at most a quarter of it.
    """
    tokens = query_tokens(query)[:_TOKENS]
    forms = _forms(tokens, query)
    counts = count_passages(db, [*tokens, *forms])
    found = sorted((count, token) for token in tokens if (count := counts[token]))
    rarest = found[0][0] if found else 0  # it stays, however common
    chosen, left = _fitting(found, max(_POSTINGS, rarest))
    found = sorted((count, form) for form in forms if (count := counts[form]))
    return chosen, _fitting(found, min(left, _POSTINGS // 4))[0]


def _forms(tokens: Sequence[Token], query: str = "") -> list[Token]:
    forms = [(form, False) for text, _ in tokens for form in inflections(text)]
    forms += [(stem, True) for stem in one_syllable_stems(query)]
    return [form for form in dict.fromkeys(forms) if form not in tokens]


def _fitting(counts: Sequence[tuple[int, Token]], left: int) -> tuple[list[Token], int]:
    """Tokens that occur as often together as there is room, and the room that is left."""
    chosen: list[Token] = []
    for count, token in counts:
        if count <= left:
            chosen.append(token)
            left -= count
    return chosen, left


def count_passages(db: sqlite3.Connection, tokens: Sequence[Token]) -> dict[Token, int]:
    """How many passages have each of some tokens."""
    words = json.dumps([text for text, prefix in tokens if not prefix])
    counts = {(text, False): count or 0 for text, count in db.execute(_COUNTS, (words,))}
    for text, prefix in tokens:
        if prefix:
            counts[text, True] = db.execute(_COUNT, (text, text + "\U0010ffff")).fetchone()[0] or 0
    return counts


def count_any(db: sqlite3.Connection, token: Token) -> int:
    """How many passages have a token or another form of it, at least."""
    return max(count_passages(db, [token, *_forms([token])]).values())


def rank_bm25(
    db: sqlite3.Connection,
    tokens: Sequence[Token],
    forms: Sequence[Token],
    limit: int,
    query: str,
) -> list[tuple[int, float]]:
    """The best passages for some tokens of a query as (id, score), best first, ties by id."""
    if not tokens and not forms:
        return []
    factor, values = "1", list[float | str]()
    for phrase in query_phrases(query):
        factor += " + ? * (rowid IN (SELECT rowid FROM words WHERE words MATCH ?))"
        share = len(phrase) / max(1, len(tokens))
        values += [_PHRASE_WEIGHT * share**2, f'"{" ".join(phrase)}"']
    score = f"-bm25(words, {_TITLE_WEIGHT}, 1.0)"
    sql = f"SELECT rowid AS id, {score} * ({factor}) AS score FROM words WHERE words MATCH ?"  # noqa: S608
    values.append(_any_of(tokens))
    if forms:
        sql = (
            f"SELECT id, sum(score) AS score FROM ({sql} UNION ALL SELECT rowid, {score} * "  # noqa: S608
            f"{_FORM_WEIGHT} FROM words WHERE words MATCH ?) GROUP BY id"
        )
        values.append(_any_of(forms))
    rows = db.execute(f"{sql} ORDER BY score DESC, id LIMIT ?", (*values, limit))
    return [(int(number), float(score)) for number, score in rows]


def _any_of(tokens: Sequence[Token]) -> str:
    # Tokens are letters and digits only; the quotes keep AND, OR, NOT and NEAR from being syntax.
    quoted = (f'"{text}"*' if prefix else f'"{text}"' for text, prefix in tokens)
    return " OR ".join(quoted) or '""'


def rank_texts(texts: Sequence[str], query: str) -> list[int]:
    """Positions of the texts that share words with a query, best first: BM25 among themselves."""
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE VIRTUAL TABLE words USING fts5(title, text, tokenize='ascii')")
        rows = enumerate(map(index_text, texts))
        db.executemany("INSERT INTO words (rowid, title, text) VALUES (?, '', ?)", rows)
        tokens = query_tokens(query)[:_TOKENS]
        found = rank_bm25(db, tokens, _forms(tokens, query), len(texts), query)
    db.close()
    return [number for number, _ in found]


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[int]], weights: Sequence[float] | None = None
) -> list[tuple[int, float]]:
    """Fuse rankings of ids: the score of an id is the sum of weight / (5 + rank).

    Ranks start at 1; an id missing from a ranking gets nothing from it. Ties keep the order of
    first appearance. Source: Cormack, Clarke and Büttcher, SIGIR 2009.

    Args:
        rankings: Ids, best first.
        weights: Weight of each ranking; all 1 by default.

    Example:
        >>> [i for i, _ in reciprocal_rank_fusion([[7, 8], [8, 9]])]
        [8, 7, 9]
    """
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + weight / (_RANK_OFFSET + rank)
    return sorted(scores.items(), key=lambda entry: -entry[1])
