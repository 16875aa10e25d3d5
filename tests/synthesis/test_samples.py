"""Readers of released samples, on rows written from the formats' descriptions."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.engines import Message
from hanol.errors import DataError
from hanol.research import OfficialRun, read_official_runs, write_official_runs
from hanol.synthesis import read_questions
from hanol.tools import located_rows, messages_field
from hanol.worlds import evaluate_formalization

DIALOGUE = [
    {"role": "system", "content": "You search."},
    {"role": "user", "content": "Who built it?"},
    {"role": "assistant", "content": '<tool_call>{"name": "search"}</tool_call>'},
    {"role": "user", "content": "<tool_response>\nx\n</tool_response>"},
    {"role": "assistant", "content": "<answer>Ada</answer>"},
]


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def dialogues(path: Path) -> list[tuple[Message, ...]]:
    """As recipes read them."""
    return [
        messages_field(row, "rollout" if "rollout" in row else "messages", place)
        for place, row in located_rows(path)
    ]


def test_dialogues_of_webdancer_and_parallelmuse(tmp_path: Path) -> None:
    inside = [{**message, "step_ppl": i} for i, message in enumerate(DIALOGUE)]
    rows = [
        {"type": "chatml", "task": "Who built it?", "messages": DIALOGUE, "functions": []},
        {"question": "Who?", "answer": "Ada", "rollout": inside},
        {"question": "Who?", "answer": "Ada", "rollout": DIALOGUE, "step_ppl": [1.5, 2.0]},
    ]
    for found in dialogues(lines(tmp_path / "r.jsonl", *rows)):
        assert [message.to_dict() for message in found] == DIALOGUE


def test_tool_roles_and_packed_dialogues_are_read(tmp_path: Path) -> None:
    packed = json.dumps([*DIALOGUE[:3], {"role": "tool", "content": "x"}])
    [found] = dialogues(lines(tmp_path / "t.jsonl", {"messages": packed}))
    assert found[3] == Message("user", "x")


def test_questions_of_three_releases(tmp_path: Path) -> None:
    info = {
        "Hop": "multi",
        "Domain": "edu",
        "Language": "en",
        "Difficulty_Level": "easy",
        "Source_Website": ["https://x.org"],
        "Golden_Path": ["root->a"],
    }
    rows = [
        {"question": "q1", "answer": "a1", "tag": "e2hqa"},
        {"question": "q2", "answer": 42},
        {"Question": "q3", "Answer": "a3", "Root_Url": "https://x.org", "Info": info},
    ]
    found = read_questions(lines(tmp_path / "q.jsonl", *rows))
    assert [(s.text, s.answer) for s in found] == [("q1", "a1"), ("q2", "42"), ("q3", "a3")]
    assert found[0].details == {"tag": "e2hqa"}
    assert found[2].details == {"Root_Url": "https://x.org", "Info": info}


SHAPER = {
    "id": 3,
    "question": "Which club?",
    "answer": "FC A",
    "urls": ["https://x.org"],
    "formalization": [["?", "plays_in", "V@City"], ["V@City", "lies_on", "C@Rhine"]],
}


def test_webshaper(tmp_path: Path) -> None:
    [task] = read_questions(lines(tmp_path / "w.jsonl", SHAPER))
    assert (task.id, task.text, task.answer) == ("3", "Which club?", "FC A")
    assert task.sources == ("https://x.org",)
    graph = [
        ("FC A", "plays_in", "Basel"),
        ("FC B", "plays_in", "Bern"),
        ("Basel", "lies_on", "Rhine"),
        ("Bern", "lies_on", "Aare"),
    ]
    assert evaluate_formalization(task.triples, graph) == {"FC A"}


RUN = OfficialRun(
    "Who?", "Ada", tuple(Message(m["role"], m["content"]) for m in DIALOGUE), "Ada", "answer"
)


def test_official_lines_go_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "iter1.jsonl"
    write_official_runs(path, [RUN, RUN])
    assert read_official_runs(path) == [RUN, RUN]
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert (
        rows
        == [
            {
                "question": "Who?",
                "answer": "Ada",
                "messages": DIALOGUE,
                "prediction": "Ada",
                "termination": "answer",
            }
        ]
        * 2
    )
    assert list(rows[0]) == ["question", "answer", "messages", "prediction", "termination"]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters()), st.text(st.characters()))
def test_any_text_survives_an_official_line(tmp_path_factory, text: str, prediction: str) -> None:
    path = tmp_path_factory.mktemp("run") / "iter1.jsonl"
    run = OfficialRun(text, "", (Message("user", text),), prediction, "answer not found")
    write_official_runs(path, [run, RUN])
    assert read_official_runs(path) == [run, RUN]


BROKEN = [
    (dialogues, {"task": "q"}, "`messages` is not a list"),
    (dialogues, {"messages": []}, "`messages` is not a list"),
    (dialogues, {"messages": "{"}, "is a string, but not JSON"),
    (dialogues, {"messages": ["x"]}, "message 0 of `messages` needs"),
    (dialogues, {"messages": [{"role": "bot", "content": "x"}]}, "message 0"),
    (dialogues, {"messages": [{"role": "user", "content": None}]}, "message 0"),
    (dialogues, {"messages": [{"role": ["user"], "content": "x"}]}, "message 0"),
    (dialogues, {"rollout": 5}, "`rollout` is not a list"),
    (read_questions, {"question": "q"}, "`answer` is None"),
    (read_questions, {"Question": {}, "Answer": "a"}, "`question` is missing"),
    (read_questions, {**SHAPER, "formalization": "x"}, "not a list of triples"),
    (read_questions, {**SHAPER, "formalization": [["a", "b"]]}, "not a list of triples"),
    (read_questions, {**SHAPER, "formalization": [["a", "b", 3]]}, "not a list of triples"),
    (read_official_runs, {"question": "q", "answer": "a", "messages": DIALOGUE}, "`prediction`"),
    (read_official_runs, ["question"], "is no object"),
]


@pytest.mark.parametrize(("reader", "row", "match"), BROKEN)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path: Path, reader, row, match) -> None:
    good = {
        "id": 1,
        "task": "q",
        "question": "q",
        "answer": "a",
        "messages": DIALOGUE,
        "formalization": SHAPER["formalization"],
        "urls": [],
        "prediction": "p",
        "termination": "answer",
    }
    path = lines(tmp_path / "rows.jsonl", good, row)
    with pytest.raises(DataError, match=rf"rows\.jsonl', line 2.*{match}"):
        reader(path)


GRAPH = [
    ("Ada", "born_in", "London"),
    ("Bob", "born_in", "Paris"),
    ("Cyd", "born_in", "London"),
    ("Dee", "born_in", "Rome"),
    ("Ada", "studied", "maths"),
    ("Bob", "studied", "maths"),
    ("Dee", "studied", "law"),
    ("London", "capital_of", "UK"),
    ("Paris", "capital_of", "France"),
]


@pytest.mark.parametrize(
    ("triples", "answer"),
    [
        # projection, in either direction
        ([("?", "born_in", "C@London")], {"Ada", "Cyd"}),
        ([("C@London", "born_in", "?")], {"Ada", "Cyd"}),
        ([("?", "born_in", "C@Ada")], {"London"}),
        # intersection
        ([("?", "born_in", "C@London"), ("?", "studied", "C@maths")], {"Ada"}),
        # union
        ([("?", "born_in", "C@London|Rome")], {"Ada", "Cyd", "Dee"}),
        ([("?", "born_in", "C@London|Rome"), ("?", "studied", "C@maths|law")], {"Ada", "Dee"}),
        # composition
        ([("?", "born_in", "V@X"), ("V@X", "capital_of", "C@France")], {"Bob"}),
        ([("V@X", "capital_of", "V@Y"), ("V@X", "born_in", "?")], {"Ada", "Bob", "Cyd"}),
        # nothing fits
        ([("?", "born_in", "C@Oslo")], set()),
        ([("?", "unknown", "C@London")], set()),
        ([("?", "born_in", "?")], set()),
        ([("?", "born_in", "C@London"), ("V@X", "capital_of", "C@Italy")], set()),
    ],
)
def test_formalizations_on_a_toy_graph(triples, answer: set[str]) -> None:
    assert evaluate_formalization(triples, GRAPH) == answer
    assert evaluate_formalization(triples[::-1], GRAPH[::-1]) == answer


def test_formalizations_that_ask_nothing() -> None:
    with pytest.raises(DataError, match="asks for nothing"):
        evaluate_formalization([("V@X", "r", "C@a")], GRAPH)
    with pytest.raises(DataError, match="'London' is neither"):
        evaluate_formalization([("?", "born_in", "London")], GRAPH)


names = st.sampled_from(list("abcdef"))
relations = st.sampled_from(["r", "s"])
graphs = st.lists(st.tuples(names, relations, names), max_size=15)
sets = st.sets(names, min_size=1, max_size=3)


def project(relation: str, entities: set[str], graph) -> set[str]:
    """R(S) as the paper writes it."""
    return {h for h, r, t in graph if r == relation and t in entities} | {
        t for h, r, t in graph if r == relation and h in entities
    }


@settings(deadline=None)
@given(graphs, relations, relations, sets, sets)
def test_triples_mean_the_set_operations_of_the_paper(graph, r1, r2, s1, s2) -> None:
    one, two = "C@" + "|".join(s1), "C@" + "|".join(s2)
    union = evaluate_formalization([("?", r1, "C@" + "|".join(s1 | s2))], graph)
    assert union == project(r1, s1 | s2, graph) == project(r1, s1, graph) | project(r1, s2, graph)
    both = evaluate_formalization([("?", r1, one), (two, r2, "?")], graph)
    assert both == project(r1, s1, graph) & project(r2, s2, graph)
    nested = evaluate_formalization([("?", r1, "V@X"), ("V@X", r2, one)], graph)
    assert nested == project(r1, project(r2, s1, graph), graph)
