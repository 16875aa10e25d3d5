"""How fast documents are indexed and found, and in how much memory."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from _bench import Report, Table, progress
from _research_peers import PEERS, Search, Texts, disk_bytes, lance, tantivy_bm25
from _research_quality import all_passages
from _research_text import queries, write
from hanol.retrieval import Index, SentenceEmbedder

WORDS = 500
WIDTH = 384  # numbers in a vector of MiniLM


# -- indexing


def index(report: Report, quick: bool) -> None:
    """Documents a minute, beside the peers on the same passages, and peak memory by corpus size."""
    number = 100 if quick else 2000
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "docs", number, WORDS)
        with Index.open(folder / "docs", index_folder=folder / "index") as index:
            first, again = index.add(), index.add()
            passages = all_passages(index)
        texts = Texts([p.title for p in passages], [p.text for p in passages])
        seconds = {
            "hanol: read, split, hash and store": first.seconds,
            "hanol, nothing has changed": again.seconds,
        }
        disk = {"hanol: read, split, hash and store": disk_bytes(folder / "index")}
        for title, build in peer_builders().items():
            begin = time.perf_counter()
            build(folder / title, texts)
            seconds[title] = time.perf_counter() - begin
            disk[title] = disk_bytes(folder / title)
    ours = number / first.seconds * 60
    report.figures["documents per minute"] = ours
    rows = [
        [
            title,
            f"{value:.2f} s",
            f"{number / value * 60:,.0f}",
            f"{len(passages) / value:,.0f}",
            f"{disk[title] / 1e6:.1f} MB" if title in disk else "",
        ]
        for title, value in seconds.items()
    ]
    report.tables.append(
        Table(
            f"Indexing {number:,} documents of {WORDS} words ({len(passages):,} passages)",
            ["", "time", "documents/min", "passages/s", "disk"],
            rows,
            "Synthetic text with word frequencies by Zipf's law. hanol reads files in two "
            "processes and stores each document in a transaction; the peers are handed hanol's "
            "passages as they lie in memory, so their time is that of the index alone.",
        )
    )
    memory(report, (50, 100) if quick else (1000, 4000))


def peer_builders() -> dict[str, Callable[[Path, Texts], dict[str, Search]]]:
    """The installed peers."""
    both = {"lancedb": ("LanceDB", lance), "tantivy": ("tantivy", tantivy_bm25)}
    return {both[name][0]: both[name][1] for name in PEERS}


def memory(report: Report, sizes: tuple[int, ...]) -> None:
    """Peak memory of an indexing process with its readers, by number of documents."""
    rows = []
    for number in sizes:
        with TemporaryDirectory() as name:
            write(Path(name) / "docs", number, WORDS)
            peak = peak_while_indexing(Path(name))
        report.figures[f"peak memory at {number} documents, bytes"] = peak
        rows.append([f"{number:,} documents", f"{peak / 1e6:.0f} MB"])
    growth = (
        report.figures[f"peak memory at {sizes[1]} documents, bytes"]
        / (report.figures[f"peak memory at {sizes[0]} documents, bytes"])
    )
    report.figures["peak memory, ratio of sizes"] = growth
    rows.append([f"{sizes[1] // sizes[0]} times the documents", f"{growth:.2f}x"])
    report.tables.append(
        Table(
            "Peak memory while indexing",
            ["", "indexing process and its readers"],
            rows,
            "Sum of the proportional set sizes of all processes, read every 50 ms; the interpreter "
            "and its imports are in it.",
        )
    )


def peak_while_indexing(folder: Path) -> int:
    """Bytes that a fresh process and its children hold at most while they index `folder`/docs."""
    peak, done = 0, threading.Event()

    def watch(pid: int) -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, tree_bytes(pid))

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pid = pool.submit(warm).result()
        watcher = threading.Thread(target=watch, args=(pid,))
        watcher.start()
        try:
            pool.submit(index_once, folder).result()
        finally:
            done.set()
            watcher.join()
    return peak


def warm() -> int:
    """Tells who will index."""
    return psutil.Process().pid


def index_once(folder: Path) -> int:
    """Index `folder`/docs into `folder`/index; gives the number of passages."""
    with Index.open(folder / "docs", index_folder=folder / "index") as index:
        return index.add().passages


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and its children now."""
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    except psutil.NoSuchProcess:  # a reader that ended meanwhile
        pass
    return total


# -- latency


class RandomVectors:
    """Random unit vectors for passages, so that 50,000 need no hour; MiniLM for queries if there.

    What is found means nothing, the time it takes is that of real vectors.
    """

    name = "random"

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._model: SentenceEmbedder | None = SentenceEmbedder("minilm")
        try:
            self._model.encode_query("warm up")
        except ImportError:
            self._model = None
        self.queries = "by MiniLM" if self._model else "at random (MiniLM is not installed)"

    def encode_documents(self, texts: object) -> np.ndarray:
        """One unit row each."""
        rows = self._rng.standard_normal((len(texts), WIDTH), dtype=np.float32)  # type: ignore[arg-type]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_query(self, text: str) -> np.ndarray:
        """One vector."""
        return self._model.encode_query(text) if self._model else self.encode_documents([text])[0]


def latency(report: Report, quick: bool) -> None:
    """Time to the ten best of 50,000 passages, hanol and its peers in turn."""
    documents, words, number = (20, 2000, 20) if quick else (1350, 4000, 200)
    embedder = RandomVectors()
    with TemporaryDirectory() as name, progress() as bar:
        folder = Path(name)
        write(folder / "docs", documents, words)
        with Index.open(folder / "docs", index_folder=folder / "index", embedder=embedder) as index:
            index.add()
            passages = all_passages(index)
            vectors = embedder.encode_documents(passages)
            texts = Texts([p.title for p in passages], [p.text for p in passages], vectors)
            searches: dict[str, Callable[[str], object]] = {
                "hanol bm25": lambda q: index.search(q, 10, "bm25"),
                "hanol dense": lambda q: index.search(q, 10, "dense"),
                "hanol hybrid": lambda q: index.search(q, 10, "hybrid"),
                "of that, the query's vector": embedder.encode_query,
            }
            disk = {"hanol hybrid": disk_bytes(folder / "index")}
            for title, build in peer_builders().items():
                found = build(folder / title, texts)
                disk[list(found)[-1]] = disk_bytes(folder / title)
                searches |= {key: timed(run, embedder) for key, run in found.items()}
            asked = queries([p.text for p in passages], number)
            for run in searches.values():
                run(asked[0])
            task = bar.add_task("queries", total=number)
            taken: dict[str, list[float]] = {title: [] for title in searches}
            for query in asked:
                for title, run in searches.items():
                    begin = time.perf_counter()
                    run(query)
                    taken[title].append(time.perf_counter() - begin)
                bar.advance(task)
    rows = []
    for title, values in taken.items():
        p95 = float(np.quantile(values, 0.95))
        report.figures[f"{title} median ms"] = 1e3 * median(values)
        report.figures[f"{title} p95 ms"] = 1e3 * p95
        rows.append(
            [
                title,
                *(f"{1e3 * median(values[half::2]):.2f}" for half in (0, 1)),
                f"{1e3 * median(values):.2f}",
                f"{1e3 * p95:.2f}",
                f"{median(taken['hanol hybrid']) / median(values):.2g}x",
                f"{disk[title] / 1e6:.0f} MB" if title in disk else "",
            ]
        )
    report.tables.append(
        Table(
            f"Time to the ten best of {len(passages):,} passages, milliseconds",
            ["", "3 to 5 words", "8 words in a row", "median", "p95", "hanol hybrid / it", "disk"],
            rows,
            f"{number} queries on synthetic text, one after another, everything on 2 cores; "
            f"passages have random unit vectors of {WIDTH}, queries get theirs {embedder.queries} "
            "and the time for that is in every row that searches vectors. All compare vectors "
            "exactly. hanol's results come with their text and highlights, the peers' are ids.",
        )
    )


def timed(search: Search, embedder: RandomVectors) -> Callable[[str], object]:
    """A peer's search, which needs the query's vector first unless it goes by words."""

    def run(query: str) -> object:
        return search(query, embedder.encode_query(query), 10)

    def words(query: str) -> object:
        return search(query, None, 10)

    by_words = search.__name__ == "words"
    return words if by_words else run
