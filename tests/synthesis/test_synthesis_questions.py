"""Questions: one answer on the whole graph, no clause too many, nothing simpler finds it."""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanol.agent_training import WorldEnvironment
from hanol.errors import ConfigError, DataError
from hanol.retrieval import Index
from hanol.runs import read_tasks
from hanol.synthesis import (
    QuestionReport,
    asynthesize_questions,
    check_questions,
    folder_graph,
    read_questions,
    world_graph,
    write_questions,
    write_webshaper,
)
from hanol.synthesis._filters import (  # private: one filter alone
    has_shortcut,
    is_searchable,
    problem_of,
    shape,
    superfluous,
    wording_problem,
)
from hanol.worlds import (
    RELATIONS,
    Edge,
    Encyclopedia,
    GraphQuestion,
    KnowledgeGraph,
    evaluate_formalization,
    template_question,
)

Make = Callable[..., Any]
Made = tuple[list[GraphQuestion], QuestionReport]


def made(graph: KnowledgeGraph, index: Index, number: int, **options: Any) -> Made:
    return asyncio.run(asynthesize_questions(graph, index, number, **options))


def brute_force(triples: tuple[tuple[str, str, str], ...], graph: KnowledgeGraph) -> set[str]:
    """Try everything for every variable: the definition, with facts read in both directions."""
    facts = {edge.triple for edge in graph.edges}
    facts |= {(tail, relation, head) for head, relation, tail in facts}
    names = sorted({end for head, _, tail in facts for end in (head, tail)})
    ends = [end for head, _, tail in triples for end in (head, tail)]
    variables = sorted({end for end in ends if not end.startswith("C@")} - {"?"})
    found = set()
    for answer in names:
        for values in itertools.product(names, repeat=len(variables)):
            row = {"?": answer, **dict(zip(variables, values, strict=True))}
            filled = {(row.get(h, h[2:]), r, row.get(t, t[2:])) for h, r, t in triples}
            if filled <= facts:
                found.add(answer)
                break
    return found


@pytest.mark.parametrize("sets", [False, True])
@pytest.mark.parametrize("hops", [1, 2])
def test_questions_of_a_folder_are_unique_by_brute_force(
    wiki: Index, sets: bool, hops: int
) -> None:
    graph = folder_graph(wiki)
    questions, report = made(graph, wiki, 6, hops=(hops,), sets=sets)
    assert report.kept == len(questions) > 0
    for question in questions:
        assert question.hops == hops
        assert brute_force(question.triples, graph) == set(question.answers)
        for left_out in range(len(question.triples)):
            rest = tuple(t for i, t in enumerate(question.triples) if i != left_out)
            if any("?" in triple for triple in rest):
                assert len(brute_force(rest, graph)) > len(question.answers)
        assert all(name in question.text for name in question.constants)
        assert not any(f"“{answer}”" in question.text for answer in question.answers)
        assert question.sources
        assert question.facts


def test_the_same_seed_gives_the_same_questions(wiki: Index) -> None:
    graph = folder_graph(wiki)
    first, again, other = (made(graph, wiki, 5, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("level", [0, 1, 2])
def test_questions_of_a_world_are_the_worlds_and_stand_every_filter(
    tmp_path: Path, level: int
) -> None:
    world = Encyclopedia(4, num_entities=300)
    with WorldEnvironment(world, tmp_path / "pages") as environment:
        index = environment.index
        assert index is not None
        graph = world_graph(world, index)
        questions, report = made(graph, index, 12, world=world, hops=(1, 2, 3), level=level)
        assert report.kept == 12
        assert report.drawn == 12 + sum(report.dropped.values())
        addresses = {page.title: graph.pages[page.title] for page in world.pages}
        for question in questions:
            assert world.graph.answers(question.triples) == set(question.answers)
            assert world.is_right(question, " and ".join(question.answers))
            assert question.level == level
            if level:
                hits = index.search(question.text, 10, mode="bm25")
                [answer] = question.answers
                assert addresses.get(answer) not in [hit.address for hit in hits]


def test_level_two_tells_spans_and_three_clauses(tmp_path: Path) -> None:
    """Teams of which no two facts decide: 4 colours x 4 towns x 2 spans of years."""
    edges = []
    for number, (colour, town, late) in enumerate(itertools.product(range(4), range(4), range(2))):
        name, year = f"Team {number}", 1925 + 25 * late
        for relation, tail in (("wears", f"Colour {colour}"), ("plays in", f"Town {town}")):
            edges.append(Edge(name, relation, tail, f"doc://{number}", ""))
        span = f"a year between {year} and {year + 24}"
        for tail in (str(year + number % 25), span):
            edges.append(
                Edge(name, "was founded in", tail, f"doc://{number}", "", is_span=tail == span)
            )
        edges.append(Edge(name, "is led by", f"Coach {number}", f"doc://{number}", ""))
    graph = KnowledgeGraph(edges, {})
    (tmp_path / "a.md").write_text("# Other\n\nNothing of the kind.\n")
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        questions, _ = made(graph, index, 5, hops=(1,), level=2)
    for question in questions:
        clauses = [t for t in question.triples if "C@" in t[0] + t[2]]
        assert len(clauses) == 3
        assert any("between" in tail for _, _, tail in clauses)
        assert not any(tail[2:].isdecimal() for _, _, tail in clauses)
        assert " was founded in a year between 19" in question.text
        assert brute_force_size(question, graph) == 1


def brute_force_size(question: GraphQuestion, graph: KnowledgeGraph) -> int:
    """Answers by going through all teams: one hop from a described start."""
    facts = {edge.triple for edge in graph.edges}
    told = [(r, tail[2:]) for head, r, tail in question.triples if tail != "?"]
    teams = {head for head, _, _ in facts if all((head, r, v) in facts for r, v in told)}
    [asked] = [r for _, r, tail in question.triples if tail == "?"]
    return len({tail for head, r, tail in facts if head in teams and r == asked})


GRAPH = KnowledgeGraph(
    [
        Edge("a", "knows", "b", "doc://a", ""),
        Edge("b", "likes", "c", "doc://b", ""),
        Edge("d", "likes", "e", "doc://d", ""),
        Edge("a", "met", "e", "doc://a", ""),
        Edge("d", "knows", "f", "doc://d", ""),
    ],
    {name: f"doc://{name}" for name in "abcdef"},
)


def draft(
    *triples: tuple[str, str, str], answers: str, hops: int = 2, **fields: Any
) -> GraphQuestion:
    text = template_question(triples, is_page=True)
    return GraphQuestion(text, tuple(answers), triples, hops, 0, path=("doc://b",), **fields)


def test_each_filter_finds_its_fault() -> None:
    good = draft(("C@a", "knows", "V@1"), ("V@1", "likes", "?"), answers="c")
    assert problem_of(good, GRAPH, ()) is None
    assert problem_of(good, GRAPH, {shape(good.triples)}) == "repeated"
    wrong = draft(("C@a", "knows", "V@1"), ("V@1", "likes", "?"), answers="e")
    assert problem_of(wrong, GRAPH, ()) == "shortcut"  # "a" met "e"
    wrong = draft(("C@a", "knows", "V@1"), ("V@1", "likes", "?"), answers="f")
    assert problem_of(wrong, GRAPH, ()) == "not_unique"
    beside = draft(("C@d", "likes", "?"), ("V@1", "met", "?"), answers="e")
    assert has_shortcut(beside, GRAPH)
    told = draft(("C@d", "likes", "?"), answers="d", hops=1)
    assert problem_of(told, GRAPH, ()) == "answer_in_question"
    # Whom "b" knows says nothing new about it; without "a", two are liked by somebody known.
    needless = ("V@1", "knows", "V@2")
    assert superfluous((*good.triples, needless), GRAPH, 1) == needless
    assert superfluous(good.triples, GRAPH, 1) is None


def test_words_that_may_mean_the_same_make_no_question(tmp_path: Path) -> None:
    """Mo "comes from" the town that Al "was born in": who was born there is not asked."""
    facts = [
        ("Al Ash", "was born in", "Low Gate"),
        ("Al Ash", "works for", "Red Mill"),
        ("Mo Elm", "comes from", "Low Gate"),
        ("Mo Elm", "works for", "Red Mill"),
        ("Red Mill", "lies in", "Low Gate"),  # of another kind: nothing works for a person
        ("Red Mill", "was sold by", "Bo Fir"),
    ]
    edges = [Edge(*fact, "doc://x", "") for fact in facts]
    born = (("?", "was born in", "C@Low Gate"),)
    lies = (("?", "lies in", "C@Low Gate"),)
    worded = KnowledgeGraph(edges, {}, is_worded=True)
    assert worded.answers(born) == {"Al Ash"}
    assert worded.answers(born, loosely=True) == {"Al Ash", "Mo Elm"}
    assert worded.answers(lies, loosely=True) == {"Red Mill"}
    asked = draft(*born, answers="", hops=1)
    asked = replace(asked, answers=("Al Ash",))
    assert problem_of(asked, worded, ()) == "ambiguous_words"
    assert problem_of(asked, KnowledgeGraph(edges, {}), ()) is None
    worded.write(tmp_path / "graph.jsonl")
    assert KnowledgeGraph.read(tmp_path / "graph.jsonl").answers(born, loosely=True) == {
        "Al Ash",
        "Mo Elm",
    }


def test_questions_about_a_written_world_are_right_by_the_worlds_own_facts(
    tmp_path: Path,
) -> None:
    """The folder's reader sees three wordings of each relation; the world knows what they mean."""
    world = Encyclopedia(7, num_entities=150)
    world.write(tmp_path / "pages")
    name = {
        sentence.removeprefix("{s} ").removesuffix(" {o}."): relation.name
        for relation in RELATIONS
        for sentence in relation.sentences
    }
    with Index.open(tmp_path / "pages") as index:
        index.add(isolated=False)
        graph = folder_graph(index)
        questions, report = made(graph, index, 40, hops=(1, 2))
    stated = [edge.triple for edge in world.graph.edges]
    generic = [edge.triple for edge in graph.edges if edge.relation not in name]
    right = 0
    for question in questions:
        meant = [(head, name.get(r, r), tail) for head, r, tail in question.triples]
        answers = evaluate_formalization(meant, [*stated, *generic])
        right += answers == set(question.answers)
    assert report.dropped["ambiguous_words"] > 0
    assert len(questions) == 40
    assert right == 40


def test_one_hop_from_a_named_start_is_no_shortcut() -> None:
    assert not has_shortcut(draft(("C@d", "likes", "?"), answers="e", hops=1), GRAPH)


def test_a_question_that_one_search_answers_is_seen(tmp_path: Path) -> None:
    (tmp_path / "owl.md").write_text("# Grey Owl\n\nGrey Owl eats the mice of Low Gate.\n")
    (tmp_path / "fog.md").write_text("# Thick Fog\n\nNothing to see.\n")
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        pages = {info.title: info.address for info in index.documents()}
        graph = KnowledgeGraph([], pages)
        text = "Who eats the mice of Low Gate?"
        found = GraphQuestion(text, ("Grey Owl",), (), 1, 1, path=("doc://x",))
        hidden = GraphQuestion(text, ("Thick Fog",), (), 1, 1, path=(pages["Grey Owl"],))
        stated = GraphQuestion(text, ("Thick Fog",), (), 2, 1, path=(pages["Grey Owl"],))
        assert is_searchable(found, graph, index)
        assert not is_searchable(hidden, graph, index)
        assert is_searchable(stated, graph, index)


@given(st.permutations(["V@1", "V@2", "V@S", "V@9"]), st.randoms(use_true_random=False))
def test_shape_is_blind_to_variables_and_order_only(names: list[str], rng: Any) -> None:
    one, two, three, four = names
    triples = [("C@x", "r", one), (one, "s", two), (three, "r", two), (two, "t", "?")]
    plain = [("C@x", "r", "V@A"), ("V@A", "s", "V@B"), ("V@C", "r", "V@B"), ("V@B", "t", "?")]
    rng.shuffle(triples)
    assert shape(triples) == shape(plain)
    turned = [(tail, r, head) if r == "s" else (head, r, tail) for head, r, tail in triples]
    assert shape(turned) != shape(plain)
    other = [("C@y" if head == "C@x" else head, r, tail) for head, r, tail in triples]
    assert shape(other) != shape(plain)
    assert four not in {end for triple in triples for end in triple}


def test_what_a_model_knows_by_heart_is_dropped_and_counted(wiki: Index, model: Make) -> None:
    graph = folder_graph(wiki)
    plain, _ = made(graph, wiki, 6, hops=(1,))
    known = plain[0]
    replies, engine = model(
        lambda prompt: f"<think>?</think> {known.answers[0]}." if known.text in prompt else "no"
    )
    questions, report = made(graph, wiki, 6, hops=(1,), closed_book=replies)
    assert report.dropped["closed_book"] == 1
    assert known.text not in [question.text for question in questions]
    assert len(questions) == 6
    assert len(engine.asked) == 7


def test_a_models_wording_is_taken_only_if_it_asks_the_same(wiki: Index, model: Make) -> None:
    graph = folder_graph(wiki)
    plain, _ = made(graph, wiki, 3, hops=(1,), seed=3)
    wordings = {
        plain[0].text: f"Could you find what {' and '.join(plain[0].constants)} leads to?",
        plain[1].text: "Which is it?",
        plain[2].text: f"Is {plain[2].constants[0]} not {plain[2].answers[0]}?",
    }
    replies, _ = model(
        lambda prompt: next(text for puzzle, text in wordings.items() if puzzle in prompt)
    )
    questions, report = made(graph, wiki, 3, hops=(1,), seed=3, wording=replies)
    assert questions[0].text == wordings[plain[0].text]
    assert [q.text for q in questions[1:]] == [q.text for q in plain[1:]]
    assert (report.reworded, report.refused_wordings) == (1, 2)
    assert questions[0].triples == plain[0].triples


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Where was Ada Bel born?", None),
        ("Where was ada-bel born?", None),
        ("Where was Adabel born?", "constant"),
        ("Was Ada Bel born in Port Ems?", "answer"),
        ("Was Ada Bel born in Port Emsland?", None),
        ("Ada Bel", "form"),
        ("Ada Bel?\nPort", "form"),
        ("Ada Bel " * 200 + "?", "form"),
    ],
)
def test_wording_problems(text: str, problem: str | None) -> None:
    assert wording_problem(text, ["Ada Bel"], ["Port Ems"]) == problem


def test_numbers_and_names_in_words() -> None:
    triples = [("V@S", "has … inhabitants", "C@between 100 and 399"), ("C@X", "knows", "V@S")]
    assert template_question([*triples, ("V@S", "saw", "?")], is_page=False) == (
        "A has between 100 and 399 inhabitants. “X” knows A. A saw B. What is B?"
    )


def test_a_set_with_answers_that_are_not_unique_is_refused() -> None:
    good = GraphQuestion("Who?", ("c",), (("C@a", "knows", "V@1"), ("V@1", "likes", "?")))
    many = GraphQuestion("Which?", ("c",), (("V@1", "likes", "?"),))
    check_questions([good, GraphQuestion("What?", tuple("EcbD"), many.triples)], GRAPH)
    with pytest.raises(DataError, match=r"1 of 2 .* not unique.*'Which\?'.*4 fit: b, c, d, e"):
        check_questions([good, many], GRAPH)
    check_questions([good, many])  # nothing is known about what they are made from
    twice = GraphQuestion("who", ("e",))
    with pytest.raises(DataError, match=r"1 of 2 questions .* not unique"):
        check_questions([good, twice])


def test_too_little_to_ask_about(wiki: Index) -> None:
    graph = folder_graph(wiki)
    with pytest.raises(DataError, match=r"No question was found.*Use fewer hops"):
        made(graph, wiki, 3, hops=(5,), level=2)
    questions, _ = made(graph, wiki, 500, hops=(1,))
    assert 0 < len(questions) < 500
    for wrong in ({"hops": ()}, {"hops": (6,)}, {"level": 3}):
        with pytest.raises(ConfigError):
            made(graph, wiki, 3, **wrong)
    with pytest.raises(ConfigError, match="`num_questions` is 0"):
        made(graph, wiki, 0)


def test_files_are_read_by_batches_and_by_the_official_reader(wiki: Index, tmp_path: Path) -> None:
    questions, _ = made(folder_graph(wiki), wiki, 8, hops=(1, 2), sets=True)
    path = tmp_path / "questions.jsonl"
    write_questions(path, questions)
    assert read_questions(path) == questions
    assert [task.answer for task in read_tasks(path)] == [q.answer for q in questions]
    write_webshaper(tmp_path / "shaper.jsonl", questions)
    official = read_questions(tmp_path / "shaper.jsonl")
    for read, question in zip(official, questions, strict=True):
        assert (read.id, read.text) == (question.id, question.text)
        assert read.answers == (", ".join(question.answers),)
        assert (read.sources, read.triples) == (question.sources, question.triples)
    with pytest.raises(DataError, match="'7' has no `formalization`"):
        write_webshaper(tmp_path / "no.jsonl", [GraphQuestion("q", ("a",), id="7")])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"question": " "}, "`question` is missing"),
        ({"question": "a?"}, "`answer` is None"),
        ({"question": "a?", "answer": []}, "`answer` is"),
        ({"question": "a?", "answer": "b", "formalization": [["x", "y"]]}, "not a list of triples"),
        ({"question": "a?", "answer": "b", "formalization": "no"}, "not a list of triples"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "x?", "answer": "y"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=f"line 2: .*{problem}"):
        read_questions(path)
    path.write_text("")
    with pytest.raises(DataError, match="no questions"):
        read_questions(path)
