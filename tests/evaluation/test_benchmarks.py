"""Readers of question files, on rows written from their publishers' descriptions."""

import base64
import csv
import hashlib
import json
import warnings
from pathlib import Path

import pytest

from hanol.errors import DataError, UnknownNameError
from hanol.evaluation import BENCHMARKS, Question, read_benchmark
from hanol.rows import read_rows


def write_lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def cipher(text: str, key: bytes) -> str:
    data = text.encode()
    long_key = key * (len(data) // len(key) + 1)
    return base64.b64encode(bytes(a ^ b for a, b in zip(data, long_key, strict=False))).decode()


def read_questions(path: Path) -> list[Question]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the number of rows
        return read_benchmark("frames", path)


def test_questions_keep_ids_and_alternatives(tmp_path: Path) -> None:
    rows = [
        {"question": "수도는?", "answer": "서울", "level": 1},
        {"question": "수도는?", "answer": ["서울", "Seoul"]},
        {"id": 7, "question": "2+2?\u2028really?", "answer": 4},
    ]
    found = read_questions(write_lines(tmp_path / "q.jsonl", rows))
    assert [(item.id, item.question, item.answer) for item in found] == [
        ("1", "수도는?", "서울"),
        ("2", "수도는?", ("서울", "Seoul")),
        ("7", "2+2?\u2028really?", "4"),
    ]


@pytest.mark.parametrize("suffix", [".json", ".csv", ".tsv", ".jsonl"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = [{"question": 'a "b",\nc', "answer": "1\t2"}, {"question": "한글", "answer": "x"}]
    path = tmp_path / f"q{suffix}"
    match suffix:
        case ".json":
            path.write_text(json.dumps(rows), "utf-8")
        case ".jsonl":
            write_lines(path, rows)
        case _:
            with path.open("w", encoding="utf-8-sig", newline="") as file:
                delimiter = "\t" if suffix == ".tsv" else ","
                writer = csv.DictWriter(file, ["question", "answer"], delimiter=delimiter)
                writer.writeheader()
                writer.writerows(rows)
    assert [row for _, row in read_rows(path)] == rows


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("q.jsonl", '{"question": "a", "answer": "b"}\n\n{"question"', "q.jsonl', line 3: no JSON"),
        ("q.jsonl", "[1]\n", r"line 1: \[1\] is no object"),
        ("q.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("q.jsonl", '{"question": "a"}', "line 1: none of the keys answer, "),
        ("q.jsonl", '{"question": "", "answer": "b"}', "line 1: none of the keys question, "),
        ("q.jsonl", '{"question": ["a"], "answer": "b"}', "line 1: question and answer must be"),
        ("q.jsonl", '{"question": "a", "answer": [["b"]]}', "line 1: question and answer must be"),
        ("q.jsonl", '{"question": "a", "answer": []}', "line 1: question and answer must be"),
        (
            "q.jsonl",
            '{"id": 1, "question": "a", "answer": "b"}\n' * 2,
            "line 2: the id '1' stands there for the second time",
        ),
        ("q.json", '{"question": "a"}', "no JSON list"),
        ("q.json", "[1]", "item 1: 1 is no object"),
        ("q.csv", "question,answer\na,b\nc\n", "line 3: the row has another number of cells"),
        ("q.csv", 'question,answer\na,"b', "line 2: unexpected end of data"),
        ("q.txt", "a", "'.txt' is none of .jsonl"),
    ],
)
def test_broken_files_are_named_with_the_line(
    tmp_path: Path, name: str, content: str, match: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=match):
        read_questions(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be read"):
        read_questions(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}')
    with pytest.raises(DataError, match="could not be read"):
        read_questions(tmp_path / "latin.jsonl")


ROWS = {
    "gaia": {"task_id": "t1", "Question": "q", "Final answer": "a", "Level": 2},
    "webwalkerqa": {"Question": "q", "Answer": "a", "Root_Url": "https://x.org"},
    "browsecomp": {
        "problem": cipher("q", hashlib.sha256(b"canary-1").digest()),
        "answer": cipher("a", hashlib.sha256(b"canary-1").digest()),
        "canary": "canary-1",
    },
    "xbench-deepsearch": {
        "id": "t1",
        "prompt": cipher("q", b"canary-2"),
        "answer": cipher("a", b"canary-2"),
        "canary": "canary-2",
    },
    "simpleqa": {"problem": "q", "answer": "a", "metadata": "{}"},
    "frames": {"Prompt": "q", "Answer": "a"},
    "hle": {"id": "t1", "question": "q", "answer": "a", "image": ""},
}


@pytest.mark.parametrize("name", ROWS)
def test_columns_of_published_sets(tmp_path: Path, name: str) -> None:
    path = write_lines(tmp_path / "set.jsonl", [ROWS[name]])
    with pytest.warns(UserWarning, match=f"1 questions, but {name} has {BENCHMARKS[name].size}"):
        found = read_benchmark(name, path)
    assert [(item.question, item.answer) for item in found] == [("q", "a")]
    assert found[0].id == ("t1" if ROWS[name].keys() & {"id", "task_id"} else "1")


def test_the_right_size_gives_no_warning_and_images_are_left_out(tmp_path: Path) -> None:
    rows: list[object] = [{"id": i, "question": "q", "answer": "a"} for i in range(2154)]
    rows += [{"id": "p", "question": "q", "answer": "a", "image": "data:image/png;base64,AA"}]
    assert len(read_benchmark("hle", write_lines(tmp_path / "hle.jsonl", rows))) == 2154


def test_a_long_text_is_deciphered(tmp_path: Path) -> None:
    text = "긴 질문 " * 100
    key = hashlib.sha256(b"c").digest()
    row = {"problem": cipher(text, key), "answer": cipher("답", key), "canary": "c"}
    with pytest.warns(UserWarning, match="1 questions"):
        found = read_benchmark("browsecomp", write_lines(tmp_path / "b.jsonl", [row]))
    assert (found[0].question, found[0].answer) == (text, "답")


@pytest.mark.parametrize("problem", ["no base64!", base64.b64encode(b"\xff" * 9).decode()])
def test_what_cannot_be_deciphered(tmp_path: Path, problem: str) -> None:
    row = {"problem": problem, "answer": problem, "canary": "c"}
    with pytest.raises(DataError, match="line 1: could not be deciphered"):
        read_benchmark("browsecomp", write_lines(tmp_path / "b.jsonl", [row]))


def test_unknown_benchmark(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'browsecomp'"):
        read_benchmark("browscomp", tmp_path / "x.jsonl")
