"""Items, and files of others: Label Studio, the official JSON of DITING."""

import json
from collections import Counter
from pathlib import Path

import pytest

from hanol.errors import DataError, MissingSourceError
from hanol.evaluation import (
    Item,
    Judgement,
    read_items,
    read_label_studio,
    read_official,
    write_official,
)

SHARED = Path(__file__).parents[4] / "shared" / "data" / "diting"
POINTER = "<Sea><Chapter 3><Sentence 9>"


def export(tmp_path: Path, **changes: object) -> Path:
    def choice(name: str, score: int) -> dict:
        return {"from_name": name, "type": "choices", "value": {"choices": [f"{score}分"]}}

    def annotation(by: object, *scores: int, **more: object) -> dict:
        names = ("term_appropriateness", "localization_strategy", "fluency")
        return {"completed_by": by, "result": list(map(choice, names, scores)), **more}

    comment = {"from_name": "comments", "value": {"text": ["ask ann@example.org about 词"]}}
    first = annotation({"id": 9, "email": "bob@example.org", "first_name": "Bob"}, 2, 1, 2)
    first["result"].append(comment)
    task = {
        "id": 17,
        "data": {
            "model": "m1",
            "instruction": f'其中"心细如发"是成语。源语言:中文 文本:{POINTER}',
            "model_output": "Answer: [A careful man.]",
            "ground_truth": "A meticulous man.",
        },
        "annotations": [
            first,
            annotation({"id": 4}, 0, 0, 0),
            annotation(9, 1, 1, 1, was_cancelled=True),
        ],
        "drafts": [{"user": "carol@example.org", "result": [choice("fluency", 1)]}],
        "predictions": [],
    } | changes
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task], ensure_ascii=False))
    return path


def test_label_studio_keeps_scores_and_drops_people(tmp_path: Path) -> None:
    (item,) = read_label_studio(export(tmp_path))
    assert (item.id, item.task, item.system, item.suite) == ("17", "idiom", "m1", "diting")
    assert (item.candidate, item.candidate_raw) == ("A careful man.", "Answer: [A careful man.]")
    assert item.source is None
    assert item.source_ref == {"novel": "Sea", "chapter": "Chapter 3", "sentence": "Sentence 9"}
    assert item.meta["human"] == {"sp": 1, "g_1": 0.5, "g_2": 1, "total": 2.5, "n_annotators": 2}
    assert [one["annotator"] for one in item.meta["annotations"]] == ["A1", "A0"]
    assert item.meta["term"] == "心细如发"
    said = json.dumps(item.model_dump())
    assert "example.org" not in said
    assert "Bob" not in said
    assert "[mail]" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"instruction": "x"}}, "task 17: `data.model_output` is missing"),
        ({"data": None}, "task 17: it has no `data`"),
        ({"annotations": [{"completed_by": 1, "result": [
            {"from_name": "fluency", "value": {"choices": ["good"]}}]}]}, "'good' of 'g_2' is no"),
    ],
)  # fmt: skip
def test_label_studio_names_the_task_that_is_wrong(
    tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_label_studio(export(tmp_path, **changes))


@pytest.mark.skipif(not SHARED.exists(), reason="the public sample is not here")
def test_the_public_sample() -> None:
    items = read_label_studio(SHARED / "metricalign_sample.labelstudio.json")
    assert Counter(item.task for item in items) == {
        "idiom": 18,
        "terminology": 35,
        "tense": 34,
        "zero": 18,
    }
    assert len({item.system for item in items}) == 23
    assert sum(item.meta["human"]["n_annotators"] == 2 for item in items) == 81
    mean = sum(item.meta["human"]["total"] for item in items) / len(items)
    assert mean == pytest.approx(2.7476, abs=1e-4)
    lines = (SHARED / "metricalign_sample.jsonl").read_text("utf-8").splitlines()
    flat = list(map(json.loads, lines))
    for item, row in zip(items, flat, strict=True):
        assert (item.id, item.candidate, item.source_ref) == (
            str(row["id"]),
            row["hypothesis"],
            row["source_ref"],
        )
        assert [one["annotator"] for one in item.meta["annotations"]] == [
            one["annotator"] for one in row["annotations"]
        ]
    assert "@" not in json.dumps([item.meta["annotations"] for item in items])


def official(tmp_path: Path, **changes: object) -> Path:
    row = {"model": "m", "instruction": "翻译。 上下文:他来了。 文本:他走了。",
           "model_output": "He left.",
           "ground_truth": "He has left.", "task": "tense"} | changes  # fmt: skip
    path = tmp_path / "in.json"
    path.write_text(json.dumps([row]))
    return path


def test_official_input(tmp_path: Path) -> None:
    (item,) = read_official(official(tmp_path))
    assert isinstance(item, Item)
    assert (item.id, item.task, item.source, item.context) == ("1", "tense", "他走了。", "他来了。")
    assert item.reference == "He has left."
    with pytest.raises(DataError, match="item 1: `task` is 'poetry'"):
        read_official(official(tmp_path, task="poetry"))
    with pytest.raises(DataError, match="item 1: `model_output` is missing"):
        read_official(official(tmp_path, model_output=None))


def test_official_output_round_trip(tmp_path: Path) -> None:
    row = {"task_type": "idiom", "model": "m", "task": "翻译。 文本:马马虎虎", "origin": "马马虎虎",
           "target": "So so.", "specific": 2, "general_1": 1, "general_2": 2,
           "process": [{"role": "judge", "content": "fine"}]}  # fmt: skip
    path, again = tmp_path / "out.json", tmp_path / "again.json"
    path.write_text(json.dumps([row], ensure_ascii=False))
    (judged,) = read_official(path)
    assert isinstance(judged, Judgement)
    assert (judged.status, judged.total, dict(judged.scores)) == (
        "ok",
        5,
        {"sp": 2, "g_1": 1, "g_2": 2},
    )
    write_official([judged], again)
    assert json.loads(again.read_text()) == [row]
    assert (
        Judgement.from_dict(json.loads(json.dumps(judged.to_dict()))).to_dict() == judged.to_dict()
    )


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (" Answer: He left. ", "He left."),
        ("answer： [He left.]", "He left."),
        ("[He left.]", "He left."),
        ("[1] He left [2]", "[1] He left [2]"),
        ("Answer: Answer: He left.", "Answer: He left."),
        ("He said: Answer: no", "He said: Answer: no"),
    ],
)
def test_candidates_are_cleaned_once(raw: str, cleaned: str) -> None:
    item = Item(id="1", candidate=raw)
    assert (item.candidate, item.candidate_raw) == (cleaned, raw)
    assert Item(**item.model_dump()) == item


def test_sources_are_text_and_no_pointers() -> None:
    assert Item(id="1", candidate="x", source="他走了。").with_source().source == "他走了。"
    for given in ({}, {"source_ref": {"novel": "a"}}, {"source": POINTER}):
        item = Item(id="7", candidate="x", **given)
        with pytest.raises(MissingSourceError, match="Item '7' needs its `source` text"):
            item.with_source()
        assert item.with_source(lambda one: f"text of {one.id}").source == "text of 7"
        with pytest.raises(MissingSourceError):
            item.with_source(lambda one: None)


def test_items_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"candidate": "a"}\n{"id": 5, "candidate": "b", "system": "s"}\n')
    assert [(item.id, item.system) for item in read_items(path)] == [("1", None), ("5", "s")]
    path.write_text('{"id": "a", "text": "b"}\n')
    with pytest.raises(DataError, match="line 1: Item 'a': `candidate`"):
        list(read_items(path))
