"""What was tried when search was tuned, on the tune half of the questions alone.

Everything is computed from the passages by FTS5 and exact dot products, so that a row is one
choice changed and the rest as it is.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from _bench import Report, Table, progress
from _research_quality import Corpus, MiniLM, corpora, make_tasks, scores, tasks_of
from hanol.retrieval import Passage
from hanol.retrieval.documents import _split
from hanol.retrieval.index._cjk import index_text, query_tokens

POOL = 50
Ranked = list[tuple[int, float]]
Fuse = Callable[[Ranked, Ranked], Iterable[int]]


def tuning(report: Report, quick: bool) -> None:
    """Title weight, passage size and the rule of fusion."""
    with corpora(quick) as (_, found), progress() as bar:
        variants = list(passage_variants(quick)) + list(title_variants(quick))
        fusions = fusion_variants(quick) if MiniLM.installed else {}
        task = bar.add_task("tuning", total=(len(variants) + len(fusions)) * len(found))
        rows = []
        for name, size, weight in variants:
            cells = [_bm25_scores(corpus, key, size, weight) for key, corpus in found.items()]
            rows.append([name, *_means(cells)])
            bar.advance(task, len(found))
        searches = {key: (_words(corpus.passages), corpus) for key, corpus in found.items()}
        for name, fuse in fusions.items():
            cells = []
            for key, (words, corpus) in searches.items():
                cells.append(_fused_scores(words, corpus, key, fuse))
                bar.advance(task)
            rows.append([name, *_means(cells)])
    report.tables.append(
        Table(
            "What was tried, tune half",
            ["", "nDCG page", "nDCG passage", "recall page", "known items, nDCG page"],
            rows,
            "Means over the sets of questions. BM25 rows change one choice of title weight 2 and "
            "passages of 200 tokens; passages of other sizes are other passages, so compare them "
            "by page. RRF (c, w): words give 1 / (c + rank), vectors w / (c + rank). Sum (a): the "
            "BM25 score by the best one and the cosine by the largest, weighted 1 - a and a.",
        )
    )


def passage_variants(quick: bool) -> Iterable[tuple[str, int, float]]:
    """Sizes in tokens; overlap and earliest end in proportion."""
    for size in (200,) if quick else (100, 150, 200, 300, 400):
        yield f"bm25, passages of {size} tokens", size, 2.0


def title_variants(quick: bool) -> Iterable[tuple[str, int, float]]:
    """What a word of the title counts."""
    for weight in () if quick else (0.0, 1.0, 4.0):
        yield f"bm25, title weight {weight:g}", 200, weight


def fusion_variants(quick: bool) -> dict[str, Fuse]:
    """Rules to make one ranking of two."""
    pairs = [(60, 1.0)] if quick else [(c, w) for c in (60, 20, 10, 5, 2) for w in (1.0, 0.5)]
    rules: dict[str, Fuse] = {"words alone": lambda words, _: [i for i, _ in words]}
    rules["vectors alone"] = lambda _, dense: [i for i, _ in dense]
    rules |= {f"RRF ({c}, {w:g})": _rrf(c, w) for c, w in pairs}
    return rules | {f"sum ({a:g})": _sum(a) for a in (() if quick else (0.2, 0.3, 0.4, 0.5))}


def _rrf(offset: int, weight: float) -> Fuse:
    def fuse(words: Ranked, dense: Ranked) -> list[int]:
        total: dict[int, float] = {}
        for share, ranking in ((1.0, words), (weight, dense)):
            for rank, (item, _) in enumerate(ranking, start=1):
                total[item] = total.get(item, 0.0) + share / (offset + rank)
        return sorted(total, key=lambda item: -total[item])

    return fuse


def _sum(alpha: float) -> Fuse:
    def fuse(words: Ranked, dense: Ranked) -> list[int]:
        total: dict[int, float] = {}
        for share, ranking in ((1 - alpha, words), (alpha, dense)):
            top = max((score for _, score in ranking), default=1.0) or 1.0
            for item, score in ranking:
                total[item] = total.get(item, 0.0) + share * score / top
        return sorted(total, key=lambda item: -total[item])

    return fuse


def _words(passages: list[Passage], weight: float = 2.0) -> Callable[[str, int], Ranked]:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(title, text, tokenize='ascii')")
    db.executemany(
        "INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)",
        ((i, index_text(p.title), index_text(p.text)) for i, p in enumerate(passages)),
    )

    def search(query: str, limit: int) -> Ranked:
        terms = " OR ".join(f'"{t}"*' if prefix else f'"{t}"' for t, prefix in query_tokens(query))
        found = db.execute(
            "SELECT rowid, -bm25(words, ?, 1.0) AS score FROM words WHERE words MATCH ? "
            "ORDER BY score DESC, rowid LIMIT ?",
            (weight, terms, limit),
        )
        return [(int(row), float(score)) for row, score in found]

    return search


def _resplit(corpus: Corpus, size: int) -> list[Passage]:
    """The same pages in passages of another size."""
    if size == 200:
        return corpus.passages
    pages: dict[tuple[str, int | None], list[Passage]] = {}
    for passage in corpus.passages:
        pages.setdefault((passage.document, passage.page), []).append(passage)
    names = ("_SIZE", "_OVERLAP", "_EARLIEST", "_LAST")
    usual = {name: getattr(_split, name) for name in names}
    for name in names:
        setattr(_split, name, usual[name] * size // 200)
    try:
        return [
            Passage(0, "", first.document, first.page, first.title, text[a:b], a, b, "")
            for parts in pages.values()
            for first, text in [(parts[0], _joined(parts))]
            for a, b in _split.split_passages(text)
        ]
    finally:
        for name in names:
            setattr(_split, name, usual[name])


def _joined(parts: list[Passage]) -> str:
    """The text of a page from its overlapping passages."""
    text = ""
    for part in parts:
        text = text.ljust(part.start)[: part.start] + part.text
    return text


def _bm25_scores(corpus: Corpus, key: str, size: int, weight: float) -> Any:
    passages = _resplit(corpus, size)
    search = _words(passages, weight)
    return _scores(corpus, key, passages, lambda q, _, k: [i for i, _ in search(q, k)])


def _fused_scores(words: Callable[[str, int], Ranked], corpus: Corpus, key: str, fuse: Fuse) -> Any:
    matrix = corpus.texts.vectors
    assert matrix is not None

    def search(query: str, vector: Any, k: int) -> list[int]:
        cosines = matrix @ vector
        nearest = np.argsort(-cosines)[:POOL]
        dense = [(int(i), float(cosines[i])) for i in nearest]
        return list(fuse(words(query, POOL), dense))[:k]

    return _scores(corpus, key, corpus.passages, search)


def _scores(corpus: Corpus, key: str, passages: list[Passage], search: Any) -> Any:
    """By group: means of the three measures on the tune half."""
    groups = {}
    for group, tasks in tasks_of(key, corpus, 100).items():
        half = [task.question for task in tasks if task.question.split == "tune"]
        again = make_tasks(half, passages)
        asked = [task.question.question for task in again]
        vectors = (
            dict(zip(asked, MiniLM().encode_documents(asked), strict=True))
            if MiniLM.installed
            else {}
        )
        got = scores(search, again, passages, vectors)
        groups[group] = [float(got[m].mean()) for m in ("nDCG page", "nDCG passage", "recall page")]
    return groups


def _means(cells: list[dict[str, list[float]]]) -> list[str]:
    merged = {group: values for cell in cells for group, values in cell.items()}
    written = np.mean([v for g, v in merged.items() if not g.startswith("items")], 0)
    items = np.mean([v[0] for g, v in merged.items() if g.startswith("items")])
    return [*(f"{value:.3f}" for value in written), f"{items:.3f}"]
