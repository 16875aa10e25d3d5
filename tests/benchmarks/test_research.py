"""The questions stand on what the documents say, and the measures on their definitions."""

import json
import math
import sys
from collections import Counter

import pytest

from _research_quality import (
    DOCUMENTS,
    FOLDERS,
    QUESTIONS,
    known_items,
    make_tasks,
    ndcg,
    plain,
    read_questions,
    recall,
    scores,
    write_corpora,
)
from hanol.retrieval import Passage, read_document

ROWS = read_questions()


def test_questions_are_complete_and_split_in_halves() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert len({row.question for row in ROWS}) == len(ROWS)
    corpora = Counter(row.corpus for row in ROWS)
    assert corpora.keys() == FOLDERS.keys()
    assert corpora["pdf"] >= 20
    assert corpora["korean"] >= 14
    assert corpora["pydoc"] >= 20
    assert corpora["docs"] >= 14
    for corpus in corpora:
        halves = Counter(row.split for row in ROWS if row.corpus == corpus)
        assert halves.keys() == {"tune", "test"}
        assert abs(halves["tune"] - halves["test"]) <= 1
    for row in ROWS:
        assert row.gold
        assert row.answer
        assert all((page is not None) == (row.corpus == "pdf") for _, page in row.gold)
        # A question that quotes its evidence asks for no search.
        assert len(row.evidence) < 20 or row.evidence.lower() not in row.question.lower()


def test_the_file_has_nothing_but_the_fields() -> None:
    rows = [json.loads(line) for line in QUESTIONS.read_text("utf-8").splitlines()]
    names = {"id", "corpus", "split", "question", "gold", "evidence", "answer"}
    assert all(row.keys() == names for row in rows)
    assert all(place.keys() == {"document", "page"} for row in rows for place in row["gold"])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, int | None], str]:
    """Text of each page of each corpus that is here."""
    folders = write_corpora(tmp_path_factory.mktemp("corpora"))
    found = {}
    for row in ROWS:
        if (home := FOLDERS[row.corpus]) not in folders:
            continue
        for name, _ in row.gold:
            if any(key[:2] == (home, name) for key in found):
                continue
            for page in read_document(folders[home] / name).pages:
                found[home, name, page.number] = plain(page.text)
    return found


@pytest.mark.parametrize("corpus", FOLDERS)
def test_the_evidence_stands_on_every_gold_page(corpus: str, pages: dict) -> None:
    home = FOLDERS[corpus]
    if home == "documents" and not DOCUMENTS.is_dir():
        pytest.skip(f"the {corpus} documents are not on this machine")
    if corpus == "pydoc" and sys.version_info[:2] != (3, 11):
        pytest.skip("the questions are about the manual of Python 3.11")
    missing = [
        (row.id, name, page)
        for row in ROWS
        if row.corpus == corpus
        for name, page in row.gold
        if plain(row.evidence) not in pages.get((home, name, page), "")
    ]
    assert missing == []


def passage(document: str, page: int | None, text: str) -> Passage:
    return Passage(0, "", document, page, document, text, 0, len(text), "")


def test_ndcg_and_recall_by_hand() -> None:
    gold = frozenset({"a", "b"})
    best = 1 + 1 / math.log2(3)
    assert ndcg(["a", "b", "c"], gold) == pytest.approx(1.0)
    assert ndcg(["c", "a", "d"], gold) == pytest.approx(1 / math.log2(3) / best)
    assert ndcg(["c"] * 10 + ["a"], gold) == 0.0
    assert recall(["c", "a"], gold) == 0.5
    assert recall(["x"] * 10 + ["a", "b"], gold) == 0.0
    assert recall([], gold) == 0.0


def test_a_page_counts_once_at_the_rank_of_its_first_passage() -> None:
    passages = [
        passage("a.pdf", 1, "one two"),
        passage("a.pdf", 1, "three four"),
        passage("a.pdf", 2, "five  six"),
        passage("b.pdf", 1, "seven"),
    ]
    row = ROWS[0].__class__("q", "pdf", "test", "?", (("a.pdf", 2),), "five six", "six")
    tasks = make_tasks([row], passages)
    got = scores(lambda *_: [0, 1, 3, 2], tasks, passages, {})
    assert got["nDCG passage"][0] == pytest.approx(1 / math.log2(5))
    assert got["nDCG page"][0] == pytest.approx(1 / math.log2(4))
    assert got["nDCG document"][0] == pytest.approx(1.0)
    elsewhere = ROWS[0].__class__("q", "pdf", "test", "?", (("b.pdf", 1),), "five six", "six")
    assert make_tasks([elsewhere], passages) == []


def test_known_items_ask_for_a_sentence_by_its_rare_words_and_are_the_same_each_time() -> None:
    filler = "The common words of every passage stand here and say nothing of interest at all."
    passages = [
        passage(
            f"{i}.txt",
            None,
            f"{filler} Item{i} alpha{i} beta{i} gamma{i} is what only this "
            f"passage number{i} tells, and no other one does.",
        )
        for i in range(60)
    ]
    items = known_items(passages, 10)
    assert items == known_items(passages, 10)
    assert len(items) == 10
    for item in items:
        number = item.gold[0][0].removesuffix(".txt")
        words = item.question.split()
        assert f"alpha{number}" in words
        assert "common" not in words
        assert item.evidence in plain(passages[int(number)].text)
    assert len(make_tasks(items, passages)) == 10
