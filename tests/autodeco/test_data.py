"""Rows: what is read, what is refused by line, what is learned from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from hanol.autodeco import Row, read_rows, tokenize, write_rows
from hanol.errors import DataError

CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def write(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts))
    return path


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def with_begin_token(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy that puts the begin token before every text, as Llama's does."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def test_both_forms_are_read(tmp_path) -> None:
    rows = read_rows(
        write(
            tmp_path,
            {"prompt": "2+2=", "completion": "4", "answer": 4, "source": "sums"},
            b"",
            {
                "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": "yo"},
                ]
            },
            {"messages": [user("a prompt to sample for")]},
        )
    )
    assert rows[0] == Row("2+2=", "4", answer="4", extra={"source": "sums"}, line=1)
    assert rows[1].completion == "yo"
    assert rows[1].messages == ({"role": "user", "content": "hi"},)
    assert rows[1].line == 3
    assert rows[2].completion == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1]", "is no object"),
        (b"{}", 'needs either "prompt" or "messages"'),
        (
            b'{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}',
            'needs either "prompt" or "messages"',
        ),
        (b'{"prompt": 3, "completion": "a"}', "`prompt`: .*valid string"),
        (b'{"prompt": "a", "completion": ["b"]}', "`completion`: .*valid string"),
        (b'{"prompt": "\\ud800", "completion": "a"}', "`prompt`: .*surrogates not allowed"),
        (b'{"messages": []}', "`messages`: .*at least 1 item"),
        (b'{"messages": [{"role": "root", "content": "a"}]}', "`messages.0.role`: .*'user'"),
        (b'{"messages": [{"role": "user", "content": null}]}', "`messages.0.content`: "),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "no message before"),
        (b'{"prompt": "a", "completion_ids": [1, -1]}', "`completion_ids.1`: "),
        (b'{"prompt": "a", "completion_ids": [true]}', "`completion_ids.0`: "),
        (b'{"prompt": "a", "answer": {}}', "`answer`: .*valid string"),
        (
            b'{"messages": [{"role": "user", "content": "a"}, '
            b'{"role": "assistant", "content": "b"}], "completion": "c"}',
            "which one is to be learned",
        ),
    ],
)
def test_a_hostile_line_is_named(line: bytes, message: str, tmp_path) -> None:
    path = write(tmp_path, {"prompt": "fine", "completion": "fine"}, line)
    with pytest.raises(DataError, match=rf"line 2: .*{message}"):
        read_rows(path)


def test_missing_and_empty_files(tmp_path) -> None:
    with pytest.raises(DataError, match="could not be read: 'utf-8' codec"):
        read_rows(write(tmp_path, b"\xff\xfe"))
    with pytest.raises(DataError, match="No such file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no rows"):
        read_rows(write(tmp_path, b"\n\n"))


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(prompt=TEXT, completion=TEXT, answer=st.none() | TEXT)
def test_written_rows_are_read_back(tmp_path_factory, prompt, completion, answer) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [Row(prompt, completion, answer=answer, completion_ids=(3, 1), extra={"k": [1]}, line=1)]
    assert read_rows(write_rows(rows, path)) == rows


def test_only_the_completion_is_learned(byte_tokenizer) -> None:
    row = tokenize([Row("ab", "cd")], byte_tokenizer).rows[0]
    prompt, completion = byte_tokenizer("ab").input_ids, byte_tokenizer("cd").input_ids
    end = byte_tokenizer.eos_token_id
    assert row.input_ids == [*prompt, *completion, end]
    assert row.labels == [-100, -100, *completion, end]
    assert row.num_labels == 3


def test_the_end_token_is_appended_once(byte_tokenizer) -> None:
    end = byte_tokenizer.eos_token_id
    for completion in ("cd", "cd<eos>"):
        ids = tokenize([Row("ab", completion)], byte_tokenizer).rows[0].input_ids
        assert ids.count(end) == 1
    # What was sampled and cut has no end, and must not teach one.
    sampled = tokenize([Row("ab", "c", completion_ids=(7, 8))], byte_tokenizer).rows[0]
    assert sampled.labels == [-100, -100, 7, 8]


def test_only_a_doubled_begin_token_goes(byte_tokenizer) -> None:
    begin = byte_tokenizer.bos_token_id
    plain = byte_tokenizer("ab").input_ids
    # The official code drops the first token whatever it is: here "a" would be lost.
    assert tokenize([Row("ab", "c")], byte_tokenizer).rows[0].input_ids[:2] == plain
    beginning = with_begin_token(byte_tokenizer)
    for prompt in ("ab", "<bos>ab"):
        ids = tokenize([Row(prompt, "c")], beginning).rows[0].input_ids
        assert ids[:3] == [begin, *plain]
        assert ids.count(begin) == 1


def test_conversations_go_through_the_template(byte_tokenizer) -> None:
    row = Row(messages=({"role": "user", "content": "hi"},), completion="yo", line=4)
    with pytest.raises(DataError, match="Line 4: .*no chat template"):
        tokenize([row], byte_tokenizer)
    chatting = with_begin_token(byte_tokenizer)
    chatting.chat_template = CHAT
    ids = tokenize([row], chatting).rows[0].input_ids
    assert chatting.decode(ids) == "<bos>[user]hi[assistant]yo<eos>"
    chatting.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(DataError, match="Line 4: the chat template refused it: no system role"):
        tokenize([row], chatting)


def test_every_turn_of_a_given_conversation_is_learned(byte_tokenizer, tmp_path) -> None:
    chatting = with_begin_token(byte_tokenizer)
    chatting.chat_template = CHAT
    talk = [("user", "a?"), ("assistant", "b"), ("user", "c?"), ("assistant", "d")]
    messages = [{"role": role, "content": content} for role, content in talk]
    [row] = read_rows(write(tmp_path, {"messages": messages}))
    rows = tokenize(row.turns, chatting).rows
    assert [chatting.decode(row.input_ids) for row in rows] == [
        "<bos>[user]a?[assistant]b<eos>",
        "<bos>[user]a?[assistant]b[user]c?[assistant]d<eos>",
    ]
    learned = [chatting.decode([i for i in row.labels if i >= 0]) for row in rows]
    assert learned == ["b<eos>", "d<eos>"]
    for kept in (replace(row, completion=""), replace(row, completion_ids=(7,))):
        assert kept.turns == [kept]  # sampled, or to be: the rest is its prompt


def test_empty_and_too_long_rows_are_counted(byte_tokenizer) -> None:
    rows = [Row("a", ""), Row("a", " \n"), Row("a", "bcd"), Row("a", "b" * 9), Row("", "bcd")]
    found = tokenize(rows, byte_tokenizer, max_length=5)
    assert (found.num_empty, found.num_too_long) == (2, 1)
    assert [len(row.input_ids) for row in found.rows] == [5, 5]
    # An empty prompt starts from the begin token, so that the first token is learned too.
    assert found.rows[1].num_labels == 4


def test_a_base_without_tokenizer_is_an_error(byte_tokenizer) -> None:
    with pytest.raises(DataError, match="no tokenizer"):
        tokenize([Row("a", "b")], None)
    endless = with_begin_token(byte_tokenizer)
    endless.eos_token = None
    with pytest.raises(DataError, match="no end token"):
        tokenize([Row("a", "b")], endless)
