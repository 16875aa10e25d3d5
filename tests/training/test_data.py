"""Text sources, the split, tokenizers, corpora and packed rows."""

import json
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol import models
from hanol.errors import DataError, TrainingError
from hanol.training import (
    DataSection,
    bits_per_byte,
    check_no_leak,
    documents,
    is_held_out,
    read_recipe,
)
from hanol.training.pretraining._data import (
    Corpus,
    train_tokenizer,
    write_corpus,
)  # private: tokens on disk, without training
from hanol.training.pretraining._packing import (
    IGNORED,
    PackedSteps,
)  # private: packed rows, without training

TEXTS = [f"def f{i}(x):\n    return x + {i}\n" * (1 + i % 5) for i in range(40)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(TEXTS), 300)


def test_bits_per_byte_of_a_model_that_knows_nothing(tokenizer) -> None:
    model = models.build("llama-3m", vocab_size=len(tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)
    texts = ["def f(x):\n", "두 번째", ""]
    # Every token after the begin token is scored, the end token too.
    num_tokens = sum(len(tokenizer(t, add_special_tokens=False).input_ids) + 1 for t in texts)
    wanted = num_tokens * np.log2(len(tokenizer)) / sum(len(t.encode()) for t in texts)
    for context in (4, 512):
        assert bits_per_byte(model, tokenizer, texts, context=context) == pytest.approx(wanted)
    with pytest.raises(DataError, match="no text"):
        bits_per_byte(model, tokenizer, [])


def test_bits_per_byte_does_not_depend_on_the_neighbours(tokenizer) -> None:
    model = models.build("kimi-linear-3m", vocab_size=len(tokenizer))
    each = [bits_per_byte(model, tokenizer, [text]) * len(text) for text in TEXTS[:6]]
    together = bits_per_byte(model, tokenizer, TEXTS[:6]) * sum(map(len, TEXTS[:6]))
    assert together == pytest.approx(sum(each), rel=1e-5)


def test_standard_library_is_there_and_split_by_module() -> None:
    found = list(documents(DataSection(source="stdlib")))
    groups = {d.group for d in found}
    assert {"json", "ast", "asyncio"} <= groups
    assert any(g.startswith("pydoc:") for g in groups)
    assert sum(len(d.text) for d in found) > 5_000_000
    held_out = {g for g in groups if is_held_out(g, 0.05)}
    assert 0 < len(held_out) < len(groups) / 5
    assert [d.group for d in found] == [d.group for d in documents(DataSection(source="stdlib"))]


@given(st.text(max_size=30))
def test_held_out_grows_with_the_share(name: str) -> None:
    answers = [is_held_out(name, share) for share in (0.001, 0.2, 0.9)]
    assert answers == sorted(answers)


def test_folder_jsonl_and_parquet_give_the_same_texts(tmp_path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    rows = ["first text", "두 번째", "third\n"]
    for i, text in enumerate(rows):
        (folder / f"{i}.txt").write_text(text, "utf-8")
    (folder / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"body": t}) + "\n" for t in rows))
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"body": rows}), tmp_path / "rows.parquet")
    for source, path in (("folder", folder), ("jsonl", "rows.jsonl"), ("parquet", "rows.parquet")):
        data = DataSection(source=source, path=str(tmp_path / path), text_column="body")
        assert [d.text for d in documents(data)] == rows


def test_data_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"other": 1}\n')
    cases = [
        ("folder", "nowhere", "no such folder"),
        ("jsonl", "nowhere.jsonl", "no JSON lines file"),
        ("jsonl", "bad.jsonl", "line 2: not a JSON object with the key 'text'"),
    ]
    for source, path, text in cases:
        with pytest.raises(DataError, match=text):
            list(documents(DataSection(source=source, path=str(tmp_path / path))))


def test_json_lines_with_marks_and_empty_lines(tmp_path) -> None:
    file = tmp_path / "rows.jsonl"
    data = DataSection(source="jsonl", path=str(file))
    for content in (
        b'{"text": "a"}\n\n{"text": "b"}\n\n',
        b'\xef\xbb\xbf{"text": "a"}\r\n \t\r\n{"text": "b"}',
        b'\xef\xbb\xbf{"text": "a"}\n\xef\xbb\xbf{"text": "b"}\n',
        b'\n{"text": "a"}\n{"id": 7, "text": "b"}\n\n\n',
    ):
        file.write_bytes(content)
        assert [d.text for d in documents(data)] == ["a", "b"]
    file.write_bytes('{"text": "a"}\n'.encode("utf-16"))
    with pytest.raises(DataError, match="line"):
        list(documents(data))


@pytest.mark.parametrize("value", [None, ["x", "y"], {"a": 1}, 7, True])
def test_what_is_no_text_is_not_trained_on(tmp_path, value) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ("fine", value))
    )
    rows = ["fine", value] if value is None else [value]
    pq.write_table(pa.table({"text": rows}), tmp_path / "rows.parquet")
    for source in ("jsonl", "parquet"):
        data = DataSection(source=source, path=str(tmp_path / f"rows.{source}"))
        with pytest.raises(DataError, match=r"'text' is .*, not a text"):
            list(documents(data))


@pytest.mark.parametrize(("begin", "expected"), [(None, [2, 3, 1]), (0, [0, 2, 3, 1])])
def test_a_tokenizer_without_begin_token(tmp_path, begin, expected) -> None:
    class Tokenizer:
        bos_token_id, eos_token_id = begin, 1

        def __len__(self) -> int:
            return 10

        def __call__(self, batch, **kwargs):
            return SimpleNamespace(input_ids=[[2, 3] for _ in batch])

    write_corpus(tmp_path, iter(["a", "b"]), Tokenizer())
    assert [Corpus(tmp_path).document(i).tolist() for i in (0, 1)] == [expected, expected]
    Tokenizer.eos_token_id = None
    with pytest.raises(DataError, match="no end token"):
        write_corpus(tmp_path / "x", iter(["a"]), Tokenizer())


@given(st.text())
@settings(max_examples=200)
def test_every_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = train_tokenizer(iter(TEXTS), 300)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tokenizer_is_the_same_every_time(tokenizer) -> None:
    again = train_tokenizer(iter(TEXTS), 300)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id] == [0, 1, 2]


@pytest.fixture(scope="module")
def corpus(tokenizer, tmp_path_factory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, iter(TEXTS), tokenizer)
    return Corpus(folder)


def recipe(tmp_path, stages: list[dict], seed: int = 0):
    import yaml

    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "kind": "pretrain",
                "name": "x",
                "model": {"preset": "tiny"},
                "data": {"source": "stdlib"},
                "stages": stages,
                "optim": {"adamw_lr": 0.1},
                "schedule": {"warmup_tokens": 0, "decay_tokens": 0},
                "seed": seed,
            }
        )
    )
    return read_recipe(path)


def test_corpus_keeps_texts_and_bytes(corpus, tokenizer) -> None:
    for i in (0, 7, 39):
        ids = corpus.document(i)
        assert (ids[0], ids[-1]) == (0, 1)
        assert tokenizer.decode(ids[1:-1].tolist()) == TEXTS[i]
    assert corpus.num_bytes == sum(len(t.encode()) for t in TEXTS)


def test_no_text_is_an_error(tmp_path, tokenizer) -> None:
    with pytest.raises(DataError, match="no documents on one side"):
        write_corpus(tmp_path / "x", iter([]), tokenizer)


def test_rows_are_the_documents_of_each_epoch(corpus, tmp_path) -> None:
    total = len(corpus.tokens)
    stages = [
        {"tokens": total, "sequence_length": 16, "batch_tokens": 32},
        {"tokens": 2 * total, "sequence_length": 64, "batch_tokens": 256},
    ]
    plan = PackedSteps(corpus, recipe(tmp_path, stages), parts=1)
    items = [plan[i] for i in range(len(plan))]
    assert items[0]["input_ids"].shape == (2, 16)
    assert items[-1]["input_ids"].shape == (4, 64)
    first = Counter(
        torch.cat([i["input_ids"].flatten() for i in items if len(i["labels"]) == 2]).tolist()
    )
    epoch = Counter(np.asarray(corpus.tokens).tolist())
    assert first >= epoch, "every token of an epoch is in a row"
    assert first.total() - epoch.total() < 32, "and none twice, but to fill the last batch"
    for item in items:
        ids, positions, labels = item["input_ids"], item["position_ids"], item["labels"]
        assert (ids[positions == 0] != IGNORED).all()
        assert (labels[positions == 0] == IGNORED).all()
        assert torch.equal(labels[positions > 0], ids[positions > 0])
        # A begin token starts a document, and nothing else in the middle of a row does.
        assert torch.equal(ids[:, 1:] == 0, positions[:, 1:] == 0)


def test_parts_make_up_the_same_batch(corpus, tmp_path) -> None:
    stages = [{"tokens": 2000, "sequence_length": 20, "batch_tokens": 80}]
    whole = PackedSteps(corpus, recipe(tmp_path, stages), parts=1)
    halves = PackedSteps(corpus, recipe(tmp_path, stages), parts=2)
    assert len(halves) == 2 * len(whole)
    both = torch.cat([halves[14]["input_ids"], halves[15]["input_ids"]])
    assert torch.equal(both, whole[7]["input_ids"])
    with pytest.raises(TrainingError, match="4 rows cannot be shared by 3 parts"):
        PackedSteps(corpus, recipe(tmp_path, stages), parts=3)


def test_rows_of_a_batch_come_from_different_documents(corpus, tmp_path) -> None:
    stages = [{"tokens": len(corpus.tokens), "sequence_length": 8, "batch_tokens": 64}]
    plan = PackedSteps(corpus, recipe(tmp_path, stages), parts=1)
    stream = torch.from_numpy(np.asarray(corpus.tokens).astype(np.int64))
    assert len(plan) * 64 >= len(stream)
    starts = [plan._steps[1].row_start(row) for row in range(8, 16)]
    assert min(abs(a - b) for a, b in pairwise(starts)) > 8 * (len(plan) * 8 // 4)


def test_seed_orders_the_documents(corpus, tmp_path) -> None:
    stages = [{"tokens": 500, "sequence_length": 50, "batch_tokens": 100}]
    rows = [
        PackedSteps(corpus, recipe(tmp_path, stages, seed), 1)[0]["input_ids"] for seed in (1, 1, 2)
    ]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


@pytest.mark.parametrize("name", ["kimi-linear-3m", "llama-3m", "mla-3m"])
def test_packed_documents_do_not_leak(name: str) -> None:
    check_no_leak(models.build(name, vocab_size=300), 300)


def test_a_leaking_model_is_refused() -> None:
    model = models.build("llama-3m", vocab_size=300)
    forward = model.forward
    model.forward = lambda position_ids, **kw: forward(**kw)
    with pytest.raises(TrainingError, match="Packed documents leak"):
        check_no_leak(model, 300)
