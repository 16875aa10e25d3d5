"""Rows of chat files: what is learned of them, and which are left out."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hanol.errors import ConfigError, DataError
from hanol.training import ChatData, MessagesSection, SftRow, read_chats

chat = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("chat_model.py"))))
turns = chat.turns

HEADERS = (  # as Llama 3 writes
    "<s>{% for m in messages %}<|head|>{{ m.role }}<|head|>\n\n{{ m.content | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|head|>\n\n{% endif %}"
)
INSTRUCTIONS = (  # as Mistral writes; refuses what does not alternate
    "<s>{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>"
    "{% endif %}{% endfor %}"
)
THOUGHTS = (  # as Qwen3 writes: only the last turn keeps its thoughts
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{%- generation -%}{{ m.content }}<|im_end|>{%- endgeneration -%}{% else %}{{ m.content }}"
    "<|im_end|>{% endif %}\n{% endfor %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
TOOLS = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.name }}</call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def read(folder: Path, *rows: Any, tokenizer: Any = None, **options: Any) -> ChatData:
    file = chat.write_rows(folder / "rows.jsonl", rows)
    section = MessagesSection(path=str(file), held_out=options.pop("held_out", 0.0))
    return read_chats(section, tokenizer or chat.make_tokenizer(), options.pop("max_length", 500))


def learned(row: SftRow, tokenizer: Any) -> list[str]:
    """The stretches of a row that have labels."""
    found, before = [], False
    for token, is_learned in zip(row.input_ids, row.action_mask, strict=True):
        if is_learned:
            found[-1:] = [[*found[-1], token]] if before else [*found[-1:], [token]]
        before = is_learned
    return [tokenizer.decode(ids) for ids in found]


@pytest.mark.parametrize(
    ("template", "end", "expected"),
    [
        (chat.CHATML, "<|im_end|>", ["Hello.<|im_end|>", "Seoul, I think.<|im_end|>"]),
        (HEADERS, "<|eot|>", ["Hello.<|eot|>", "Seoul, I think.<|eot|>"]),
        (INSTRUCTIONS, "</s>", [" Hello.</s>", " Seoul, I think.</s>"]),
        (MARKED, "<|im_end|>", ["Hello.<|im_end|>", "Seoul, I think.<|im_end|>"]),
        (PLAIN, "</s>", [" Hello.", " Seoul, I think.</s>"]),
    ],
    ids=["chatml", "headers", "instructions", "marked", "plain"],
)
def test_only_the_turns_of_the_assistant_are_learned(
    tmp_path: Path, template: str, end: str, expected: list[str]
) -> None:
    tokenizer = chat.make_tokenizer(template, end)
    messages = turns("Hi", "Hello.", "The capital of Korea?", "Seoul, I think.")
    [row] = read(tmp_path, {"messages": messages}, tokenizer=tokenizer).train
    assert learned(row, tokenizer) == expected
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    # All of the conversation is read, without what follows the last end token.
    assert tokenizer.decode(row.input_ids).removesuffix(end) in whole
    assert "The capital of Korea?" in tokenizer.decode(row.input_ids)


def test_the_prompt_is_the_one_that_an_engine_renders(tmp_path: Path) -> None:
    tokenizer = chat.make_tokenizer()
    messages = turns("Hi", "\nHello.")  # its line break must not melt into that of the prompt
    [row] = read(tmp_path, {"messages": messages}).train
    prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"]
    assert list(row.input_ids[: len(prompt)]) == prompt
    assert row.action_mask == (False,) * len(prompt) + (True,) * (len(row.input_ids) - len(prompt))
    assert learned(row, tokenizer) == ["\nHello.<|im_end|>"]


def test_a_template_that_drops_thoughts_makes_a_row_of_each_turn(tmp_path: Path) -> None:
    tokenizer = chat.make_tokenizer(THOUGHTS)
    messages = turns("Hi", "<think>a</think>Hello.", "More", "<think>b</think>No.")
    rows = read(tmp_path, {"messages": messages}, tokenizer=tokenizer).train
    assert [learned(row, tokenizer) for row in rows] == [
        ["<think>a</think>Hello.<|im_end|>"],
        ["<think>b</think>No.<|im_end|>"],
    ]
    assert "<think>a" not in tokenizer.decode(rows[1].input_ids)


def test_tools_and_calls_are_rendered(tmp_path: Path) -> None:
    tokenizer = chat.make_tokenizer(TOOLS)
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]}
    messages = [*turns("Hi"), call, {"role": "tool", "content": "sun"}, *turns("", "Sun.")[1:]]
    row = {"messages": messages, "tools": [{"name": "look", "description": "Looks."}]}
    [found] = read(tmp_path, row, tokenizer=tokenizer).train
    assert learned(found, tokenizer) == ["<call>look</call><|im_end|>", "Sun.<|im_end|>"]
    assert "Looks." in tokenizer.decode(found.input_ids)


def test_prompts_and_completions(tmp_path: Path) -> None:
    tokenizer = chat.make_tokenizer()
    rows = [
        {"prompt": "2 + 2 =", "completion": " 4"},
        {"prompt": "", "completion": "free<|im_end|>"},
        {"prompt": turns("Hi", "Hello.", "2 + 2?"), "completion": turns("", "4")[1:]},
    ]
    found = read(tmp_path, *rows, tokenizer=tokenizer).train
    assert [tokenizer.decode(row.input_ids) for row in found[:2]] == [
        "2 + 2 = 4<|im_end|>",
        "<s>free<|im_end|>",
    ]
    assert [learned(row, tokenizer) for row in found] == [
        [" 4<|im_end|>"],
        ["free<|im_end|>"],
        ["4<|im_end|>"],  # what stands in the prompt was not written by the policy
    ]


HOSTILE: list[tuple[str, Any]] = [
    ("malformed", {"text": "no messages"}),
    ("malformed", {}),
    ("malformed", {"messages": "Hi"}),
    ("malformed", {"messages": []}),
    ("malformed", {"messages": [5]}),
    ("malformed", {"messages": [{"role": 3, "content": "x"}]}),
    ("malformed", {"messages": [{"role": "user", "content": 7}]}),
    ("malformed", {"messages": [{"content": "x"}]}),
    ("malformed", {"messages": [{"role": "user", "content": None}, *turns("", "Ho")[1:]]}),
    ("malformed", {"messages": turns("half \ud83d", "pair")}),
    ("malformed", {"messages": turns("Hi", "Ho"), "tools": "look"}),
    ("malformed", {"prompt": "x", "completion": 4}),
    ("malformed", {"prompt": "\udc00", "completion": "x"}),
    ("malformed", {"prompt": [{"role": "user"}, None], "completion": []}),
    ("no_answer", {"messages": turns("Only a question")}),
    ("no_answer", {"messages": turns("Hi", " \n ")}),
    ("no_answer", {"messages": [{"role": "assistant", "content": "to nobody"}]}),
    ("no_answer", {"prompt": "x", "completion": " "}),
    ("too_long", {"messages": turns("Hi", "long " * 200)}),
    ("template_refused", {"messages": [{"role": "clown", "content": "!"}, *turns("Hi", "Ho")]}),
]
LOOP = "{% for message in messages %}"
PICKY = chat.CHATML.replace(
    LOOP, LOOP + "{% if message.role == 'clown' %}{{ raise_exception('no clowns') }}{% endif %}"
)


@pytest.mark.parametrize(("reason", "row"), HOSTILE)
def test_a_row_that_cannot_be_learned_from_is_counted(
    tmp_path: Path, reason: str, row: Any
) -> None:
    tokenizer = chat.make_tokenizer(PICKY)
    found = read(tmp_path, row, {"messages": turns("Hi", "Ho")}, row, tokenizer=tokenizer)
    assert found.left_out == {reason: 2}
    assert found.rows == 3
    [kept] = found.train
    assert learned(kept, tokenizer) == ["Ho<|im_end|>"]
    assert "rows.jsonl', line 1: " in found.examples[reason]
    assert found.left_out_text().startswith(f"2 rows ({reason.replace('_', ' ')}): ")


def test_none_left(tmp_path: Path) -> None:
    rows = [row for _, row in HOSTILE]
    with pytest.raises(
        DataError, match=r"None of 20 rows .* 14 rows \(malformed\): .*line 1: it"
    ) as e:
        read(tmp_path, *rows, tokenizer=chat.make_tokenizer(PICKY))
    assert "1 rows (template refused)" in str(e.value)
    assert "no clowns" in str(e.value)
    assert "\n" not in str(e.value)
    with pytest.raises(DataError, match="None of 0 rows"):
        read(tmp_path)


def test_a_prompt_that_no_turn_begins_with_is_refused(tmp_path: Path) -> None:
    forced = chat.CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    with pytest.raises(DataError, match=r"template refused.*asks for an answer in another way"):
        read(tmp_path, {"messages": turns("Hi", "Ho")}, tokenizer=chat.make_tokenizer(forced))


def test_a_tokenizer_without_a_template_or_an_end(tmp_path: Path) -> None:
    row = {"messages": turns("Hi", "Ho")}
    with pytest.raises(DataError, match="no chat template, so conversations"):
        read(tmp_path, row, tokenizer=chat.make_tokenizer(None))
    endless = chat.make_tokenizer(PLAIN)
    endless.eos_token = None
    with pytest.raises(DataError, match="no end token"):
        read(tmp_path, row, tokenizer=endless)


def test_files_of_all_kinds_have_the_same_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"messages": turns("Hi", "Ho")},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"messages": [*turns("a", "b"), {"role": "tool", "content": "c", "name": "n"},
                      {"role": "assistant", "content": "d"}]},
    ]  # fmt: skip
    chat.write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.json").write_text(json.dumps(rows), "utf-8")
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    (tmp_path / "ignored.txt").write_text("nothing")
    tokenizer = chat.make_tokenizer(
        # An Arrow table gives every message each key: a template must not see them.
        chat.CHATML.replace(
            "{{ message.content }}", "{{ message.content }}{{ 'N' if 'name' in message }}"
        )
    )
    found = [
        read_chats(MessagesSection(path=str(tmp_path / name), held_out=0), tokenizer, 500).train
        for name in ("a.jsonl", "b.json", "c.parquet")
    ]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 3
    together = MessagesSection(path=[str(tmp_path), str(tmp_path / "a.jsonl")], held_out=0)
    assert read_chats(together, tokenizer, 500).train == found[0] * 4


def test_a_dataset_by_name(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    chat.write_rows(tmp_path / "train.jsonl", chat.conversations(4))
    section = MessagesSection(dataset=str(tmp_path), held_out=0)
    assert len(read_chats(section, chat.make_tokenizer(), 500).train) == 4
    with pytest.raises(DataError, match="could not be read"):
        read_chats(MessagesSection(dataset=str(tmp_path), split="no"), chat.make_tokenizer(), 500)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("missing.jsonl", None, "no such file or folder"),
        ("torn.jsonl", '{"messages": [', "line 1: no JSON"),
        ("list.jsonl", "[1]\n", "line 1: .* is no object"),
        ("broken.parquet", "PAR1 and nothing else", "broken.parquet' could not be read"),
        ("notes.txt", "hello", "none of .jsonl"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: str | None, text: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=text):
        read_chats(MessagesSection(path=str(tmp_path / name)), chat.make_tokenizer(), 500)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file in it is .jsonl"):
        read_chats(MessagesSection(path=str(tmp_path)), chat.make_tokenizer(), 500)


def test_rows_of_one_prompt_are_held_out_together(tmp_path: Path) -> None:
    rows = [
        {"messages": turns(f"Question {number % 60}", f"answer {number}")} for number in range(180)
    ]
    found = read(tmp_path, *rows, held_out=0.2)
    assert 15 <= len(found.held_out) <= 60
    assert len(found.held_out) % 3 == 0
    tokenizer = chat.make_tokenizer()

    def asked(side: list[SftRow]) -> set[str]:
        return {tokenizer.decode(row.input_ids).split("Question ")[1].split("<")[0] for row in side}

    assert not asked(found.train) & asked(found.held_out)
    assert read(tmp_path, *rows, held_out=0.2).held_out == found.held_out
    with pytest.raises(DataError, match=r"All \d+ usable rows are held out"):
        read(tmp_path, *rows[:1] * 2, held_out=0.9999)


def test_where_the_rows_come_from_is_said_once() -> None:
    for values in ({}, {"path": "a", "dataset": "b"}):
        with pytest.raises(ConfigError, match="either `path` or `dataset`"):
            MessagesSection(**values)
