"""Reading data: questions about real sentences, and which sentence answers each."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from hanol.cli import app
from hanol.engines import Request, ScriptedEngine
from hanol.errors import ConfigError, DataError
from hanol.research import sentence_prompt, sentences_of
from hanol.retrieval import Index, Passage
from hanol.synthesis import (
    Lexicon,
    Reader,
    ReadingDocuments,
    Replies,
    asynthesize_reading,
    written_questions,
)
from hanol.synthesis.reading._rules import drafts  # private: one rule alone
from hanol.synthesis.reading._statements import statements  # private: one passage alone
from hanol.synthesis.reading._wording import keywords, reworded  # private: one wording alone

TOWNS = {
    "Port Arlen": "The harbour of Port Arlen has 14 cranes. It was built in 1887.",
    "Mirrow": "Mirrow is a mining town that sells its copper. Its mayor is Ada Finch.",
    "Tessel": "To visit Tessel, take the ferry at the eastern quay. It holds 60 passengers.",
    "Gorrin": "If the river floods, the gates of Gorrin are closed by the wardens.",
    "Hale": "The market of Hale is held because the abbey needed a place to sell wool.",
    "Ostrel": "You can reach Ostrel by crossing the long bridge. The bridge was opened in 1923.",
}
OPTIONS = """# Settings

- cache_size (integer)
- Sets the amount of memory for pages. The default is 64 megabytes.

- prune(path)
- Remove the directories below a path that hold no file.

Population: 12,400 people (1990)

| Colour | Meaning |
|---|---|
| amber | The engine waits for a permit from the yard. |
"""


@pytest.fixture
def towns(tmp_path: Path) -> Path:
    folder = tmp_path / "towns"
    folder.mkdir()
    for name, text in TOWNS.items():
        about = f"{name} lies far from the capital and sends its goods there by ship every week."
        (folder / f"{name}.txt").write_text(f"{name}\n\n{text}\n\n{about}\n", "utf-8")
    return folder


def indexed(folder: Path) -> Index:
    index = Index.open(folder)
    index.add(isolated=False)
    return index


def passage(text: str, title: str = "T") -> Passage:
    return Passage(1, "doc://0", "t.txt", None, title, text, 0, len(text), "0" * 64)


READER = Reader(sentences_of, sentence_prompt)


def made(folder: Path, number: int = 40, **options: Any) -> list[dict[str, Any]]:
    with indexed(folder) as index:
        corpus = ReadingDocuments("towns", index, options.pop("held_out", 0.0))
        rows, _ = asyncio.run(asynthesize_reading([corpus], number, READER, **options))
    return rows


def test_rows_hold_the_sentence_that_answers_among_others(towns: Path) -> None:
    rows = made(towns)
    assert {row["meta"]["document"] for row in rows} == {f"{name}.txt" for name in TOWNS}
    kinds = {kind for row in rows for kind in row["meta"]["kinds"]}
    assert len(kinds) >= 3
    for row in rows:
        assert 2 <= len(row["prompts"]) <= READER.num_sentences
        assert len(set(row["prompts"])) == len(row["prompts"])
        assert 1 <= len(row["continuations"]) == len(row["answers"]) <= READER.num_questions
        town = row["meta"]["document"].removesuffix(".txt")
        for question, answer in zip(row["continuations"], row["answers"], strict=True):
            assert question.startswith(" ")
            prompt = row["prompts"][answer]
            assert prompt.startswith(f"{town}: ")
            assert prompt.endswith("\nQuestion:")
    others = [
        row for row in rows if any(not p.startswith(row["prompts"][0][:4]) for p in row["prompts"])
    ]
    assert others, "sentences of other passages are among them"


def test_held_out_documents_are_never_shown_in_rows_to_train_on(towns: Path) -> None:
    rows = made(towns, held_out=0.4)
    sides: dict[bool, set[str]] = {False: set(), True: set()}
    for row in rows:
        shown = {name for name in TOWNS for p in row["prompts"] if p.startswith(f"{name}: ")}
        sides[row["meta"]["held_out"]] |= shown
    assert sides[False]
    assert sides[True]
    assert not sides[False] & sides[True]


def test_the_same_seed_makes_the_same_rows(towns: Path) -> None:
    assert made(towns, seed=3) == made(towns, seed=3)
    assert made(towns, seed=3) != made(towns, seed=4)


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("Mirrow is a town that sells copper.", "Which town sells copper?", None),
        ("The pump holds 14 valves in a row.", "how many valves", "14"),
        ("To open the lid, press the red button twice.", "open the lid", None),
        ("If the fuse is broken, the lamp stays dark.", "the fuse is broken", None),
        ("We use a queue to order the jobs of the day.", "order the jobs", None),
        ("The lock was invented in 1778 by a smith.", "lock invented", "1778"),
    ],
)
def test_rules_turn_sentences_into_questions(text: str, question: str, answer: str | None) -> None:
    found = [
        draft
        for seed in range(20)
        for statement in statements(passage(text), "")
        for draft in drafts(statement, "", Lexicon(), Random(seed))
    ]
    words = set(question.lower().rstrip("?").split())
    match = [d for d in found if words <= set(d.text.lower().rstrip("?").split())]
    assert match
    assert all(draft.answer == text for draft in match)
    if answer is not None:
        assert answer in {draft.exact for draft in match}


def test_items_entries_and_rows_are_told_apart() -> None:
    found = list(statements(passage(OPTIONS), ""))
    items = {one.item: one.text for one in found if one.item and one.is_first}
    assert items == {
        "cache_size": "Sets the amount of memory for pages.",
        "prune()": "Remove the directories below a path that hold no file.",
    }
    assert [one.text for one in found if one.kind == "entry"] == [
        "Population: 12,400 people (1990)"
    ]
    rows = [one.text for one in found if one.kind == "row"]
    assert "amber | The engine waits for a permit from the yard." in rows


def test_it_is_named_in_question_and_answer() -> None:
    text = "The Lark is a small engine from the north. It was built in 1887 by two brothers."
    [_, second] = statements(passage(text, "The Lark"), "The Lark")
    assert second.text.startswith("It was built")
    assert second.answer == "The Lark was built in 1887 by two brothers."


def test_what_cannot_stand_alone_is_not_asked_about() -> None:
    texts = (
        "They were moved to the other side later.",
        "See the chapter on wool for the whole list of prices.",
        "x = y + z and w = x + y are the rules (1) of it.",
        "and so the end of another sentence comes here.",
    )
    assert [one for text in texts for one in statements(passage(text), "")] == []


def test_wordings_keep_names_and_numbers() -> None:
    rng = Random(0)
    text = "How many files does Port Arlen delete in 14 days?"
    for _ in range(30):
        other = reworded(text, Lexicon(), rng, 1.0)
        assert "Port Arlen" in other
        assert "14" in other
        assert "delete" not in other
        assert len(keywords(other, rng).split()) >= 2


def test_a_folder_without_wordnet_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.noun"):
        Lexicon(tmp_path)


def test_wordnet_gives_synonyms_and_base_forms(tmp_path: Path) -> None:
    files = {
        "index.noun": "  1 licence\nsmith n 1 0 1 0 00000001\nblacksmith n 1 0 1 0 00000001\n",
        "index.verb": "take v 1 0 1 1 00000007\n",
        "index.adj": "",
        "index.adv": "",
        "verb.exc": "took take\n",
        "cntlist.rev": "smith%1:18:00:: 1 9\nblacksmith%1:18:00:: 1 3\n",
        "data.noun": "00000001 18 n 02 smith 0 blacksmith 0 000 | a worker in metal\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, "latin-1")
    lexicon = Lexicon(tmp_path)
    assert lexicon.other_word("smiths", Random(0)) == "blacksmiths"
    assert lexicon.base("took") == "take"
    assert lexicon.base("smith") is None
    assert lexicon.is_person("Smith")


def test_written_questions_come_first(towns: Path, tmp_path: Path) -> None:
    line = {
        "question": "Who governs the mining town with the copper?",
        "document": "Mirrow.txt",
        "answer": "Its mayor is Ada Finch.",
    }
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps(line) + "\n", "utf-8")
    with indexed(towns) as index:
        corpus = ReadingDocuments("towns", index, 0.0)
        written = list(written_questions(file, [corpus]))
        assert [(draft.text, draft.answer) for draft, _ in written] == [
            (line["question"], line["answer"])
        ]
        rows, _ = asyncio.run(asynthesize_reading([corpus], 5, READER, written=written))
    [row] = [row for row in rows if "written" in row["meta"]["kinds"]]
    assert row["continuations"] == [f" {line['question']}"]
    assert row["prompts"][row["answers"][0]].endswith("Its mayor is Ada Finch.\nQuestion:")
    file.write_text('{"question": "?"}\n', "utf-8")
    with pytest.raises(DataError, match="document"):
        list(written_questions(file, []))


def test_a_models_questions_are_filtered_and_asked_once(towns: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(request: Request) -> str:
        asked.append(request.messages[-1].text)
        text = request.messages[-1].text.rpartition("Text: ")[2].partition("\nQuestion:")[0]
        if "cranes" in text:
            return "Question: How many lifting machines stand at the harbour?"
        return text + "?"  # repeats the sentence

    def rows() -> list[dict[str, Any]]:
        replies = Replies(ScriptedEngine(answer), tmp_path / "replies.jsonl")
        return made(towns, 5, model=replies, model_share=1.0)

    first = rows()
    assert [r["continuations"] for r in first if r["meta"]["kinds"] == ["model"]] == [
        [" How many lifting machines stand at the harbour?"]
    ]
    number = len(asked)
    assert rows() == first
    assert len(asked) == number


def test_nothing_to_ask_about_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("한국어 문장만 있다.\n", "utf-8")
    with pytest.raises(DataError, match="Nothing could be asked"):
        made(tmp_path)
    with pytest.raises(ConfigError, match="share"):
        made(tmp_path, model_share=1.5)


def test_command_writes_rows_held_out_rows_and_a_report(towns: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "rows.jsonl"
    arguments = ["synth", "reading", str(towns), "--output", str(output), "--num-rows", "20"]
    result = CliRunner().invoke(app, [*arguments, "--held-out", "0.4", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    for name, key in (("rows.jsonl", "questions"), ("rows.held-out.jsonl", "held_out")):
        lines = (output.parent / name).read_text("utf-8").splitlines()
        assert len(lines) == report["rows"][key == "held_out"] > 0
        assert all(json.loads(line)["meta"]["held_out"] is (key == "held_out") for line in lines)
    assert json.loads((output.parent / "rows.report.json").read_text("utf-8")) == report
    assert "rows to train on" in CliRunner().invoke(app, arguments).stdout
