"""Trajectories and steps: what is kept, what it looks like, and that no run is made twice."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hanol.agent_training import (
    Attempt,
    Expert,
    WorldEnvironment,
    areason,
    asynthesize_trajectories,
    decision_rows,
    official_lines,
    planning_rows,
    reasoning_rows,
    trajectory_rows,
)
from hanol.engines import Message, Request, ScriptedEngine
from hanol.errors import ConfigError, DataError, EngineError
from hanol.research import OfficialRun, read_official_runs, write_official_runs
from hanol.retrieval import Index
from hanol.rows import replace_rows
from hanol.synthesis import (
    asynthesize_questions,
    folder_graph,
    world_graph,
)
from hanol.tools import parse_turn
from hanol.worlds import Encyclopedia, GraphQuestion, KnowledgeGraph

Make = Callable[..., Any]
ADA = GraphQuestion(
    "Which prizes did the one born in Port Ems on May 7, 1931 win?",
    ("Silver Oar", "Blue Lamp"),
    (("V@S", "was born in", "C@Port Ems"), ("V@S", "won", "?")),
    id="ada",
)


def turn(think: str, name: str, **arguments: Any) -> str:
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<think>{think}</think>\n<tool_call>\n{call}\n</tool_call>"


class Agent(ScriptedEngine):
    """Searches, visits what it found, answers; rightly if the seed is even."""

    def __init__(self) -> None:
        super().__init__(self._turn, name="agent")
        self.calls = 0

    def _turn(self, request: Request) -> str:
        self.calls += 1
        number = sum(message.role == "assistant" for message in request.messages)
        seed = (request.sampling.seed or 0) // 1_000
        if number == 0:
            return turn("Look for Port Ems.", "search", query=[f"Port Ems born {seed}"])
        if number == 1:
            found = re.search(r"doc://\w+/people/ada-bel\.md", request.messages[-1].content)
            assert found is not None
            return turn("Open it.", "visit", url=[found[0]], goal="prizes")
        right = "Blue Lamp; Silver Oar [1]"
        return f"<think>There they are.</think>\n<answer>{'Nobody' if seed % 2 else right}</answer>"


def tried(
    questions: list[GraphQuestion], index: Index, engine: Any, folder: Path, **options: Any
) -> list[Attempt]:
    return asyncio.run(
        asynthesize_trajectories(questions, index, engine, folder, attempts=4, **options)
    )


@pytest.fixture
def attempts(wiki: Index, tmp_path: Path) -> list[Attempt]:
    return tried([ADA], wiki, Agent(), tmp_path / "synth")


def test_right_runs_are_kept_as_official_lines_and_conversations(
    attempts: list[Attempt], tmp_path: Path
) -> None:
    assert [attempt.is_right for attempt in attempts] == [True, False, True, False]
    lines = official_lines(attempts)
    write_official_runs(tmp_path / "t.jsonl", lines)
    assert read_official_runs(tmp_path / "t.jsonl") == lines
    assert [line.answer for line in lines] == ["Silver Oar, Blue Lamp"] * 2
    rows = trajectory_rows(attempts)
    assert [row["id"] for row in rows] == ["ada.0.0", "ada.2.0"]
    for row, line in zip(rows, lines, strict=True):
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system", *["user", "assistant"] * 3]
        assert row["kind"] == "trajectory"
        assert [m["content"] for m in row["messages"]] == [m.content for m in line.messages]


def test_a_second_call_runs_only_what_has_not_ended(wiki: Index, tmp_path: Path) -> None:
    agent = Agent()
    first = tried([ADA], wiki, agent, tmp_path)
    assert agent.calls == 12
    again = tried([ADA], wiki, agent, tmp_path)
    assert agent.calls == 12
    assert again == first
    # As if killed after the second event of one run.
    log = sorted(tmp_path.glob("runs/*/events.jsonl"))[2]
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]) + b'{"torn')
    assert trajectory_rows(tried([ADA], wiki, agent, tmp_path)) == trajectory_rows(first)
    assert agent.calls == 14


def test_a_run_that_fails_is_counted_and_tried_again(wiki: Index, tmp_path: Path) -> None:
    agent, is_down = Agent(), True

    def script(request: Request) -> str:
        if is_down and (request.sampling.seed or 0) >= 2_000:
            raise EngineError("the endpoint is down")
        return agent._turn(request)

    engine = ScriptedEngine(script)
    done: list[Attempt] = []
    first = tried([ADA], wiki, engine, tmp_path, on_attempt=done.append)
    assert len(done) == 4
    assert [attempt.error for attempt in first[:2]] == [None, None]
    assert first[2].error == "EngineError: the endpoint is down"
    assert len(trajectory_rows(first)) == 1
    assert len(planning_rows(first)) == 2
    assert decision_rows(first)
    is_down = False
    assert [a.is_right for a in tried([ADA], wiki, engine, tmp_path)] == [True, False, True, False]


def test_planning_keeps_first_turns_that_speak_of_everything_named(
    attempts: list[Attempt],
) -> None:
    rows = planning_rows(attempts)
    # Wrong runs plan as well as right ones.
    assert [row["id"] for row in rows] == ["ada.0.0", "ada.1.0", "ada.2.0", "ada.3.0"]
    for row in rows:
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        assert parse_turn(row["messages"][-1]["content"]).calls[0].name == "search"


def test_planning_drops_turns_that_forget_something(wiki: Index, tmp_path: Path) -> None:
    named = (("C@Low Gate", "r", "V@1"), ("C@Port Ems", "r", "?"))
    other = GraphQuestion("?", ("a",), named)
    assert planning_rows(tried([other], wiki, Agent(), tmp_path)) == []
    plain = GraphQuestion("Which prizes?", ADA.answers, id="y")  # nobody knows what it names
    assert [row["id"] for row in planning_rows(tried([plain], wiki, Agent(), tmp_path))] == [
        "y.0.0",
        "y.2.0",
    ]


def test_decisions_list_the_step_taken_among_others(attempts: list[Attempt]) -> None:
    rows = decision_rows(attempts)
    assert {row["id"].rpartition(".")[0] for row in rows} == {"ada.0", "ada.2"}
    places = set()
    for row in rows:
        *before, last = row["messages"]
        assert before[-1]["role"] == "user"
        text = last["content"]
        listed = re.match(
            r"<think>\n1\. (.*?) 2\. (.*?)(?: 3\. (.*?))?(?: 4\. (.*?))? ; (\d)\. (.*)</think>",
            text,
        )
        assert listed is not None, text
        candidates = [each for each in listed.groups()[:4] if each is not None]
        assert 2 <= len(candidates) == len(set(candidates)) <= 4
        chosen = candidates[int(listed[5]) - 1]
        places.add(int(listed[5]))
        parsed = parse_turn(text)
        if parsed.answer is not None:
            assert chosen == parsed.answer
        else:
            [call] = parsed.calls
            [value] = call.arguments.get("query") or call.arguments["url"]
            assert value in chosen
    assert len(places) > 1  # shuffled
    assert decision_rows(attempts) == rows


def test_reasoning_from_runs_has_what_was_read_and_no_search(attempts: list[Attempt]) -> None:
    rows = reasoning_rows(attempts)
    assert len(rows) == 1  # both right runs read and thought the same
    prompt, answer = (message["content"] for message in rows[0]["messages"])
    assert "She won [Silver Oar]" in prompt
    assert prompt.endswith(f"# Question\n{ADA.text}")
    assert "Look for" not in answer
    parsed = parse_turn(answer)
    assert (parsed.think, parsed.answer) == ("There they are.", "Blue Lamp; Silver Oar [1]")


def test_reasoning_by_a_model_is_kept_when_right_in_one_of_two_passes(
    wiki: Index, model: Make
) -> None:
    graph = folder_graph(wiki)
    questions, _ = asyncio.run(asynthesize_questions(graph, wiki, 3, hops=(1,), sets=True))
    first, second, third = questions
    passes: dict[str, int] = {}

    def script(prompt: str) -> str:
        question = next(q for q in questions if q.text in prompt)
        passes[question.id] = passes.get(question.id, 0) + 1
        right = " and ".join(question.answers)
        is_right = question is first or (question is second and passes[question.id] == 2)
        return f"<think>It follows from [1] alone.</think><answer>{right if is_right else 'x'}"

    def closed(prompt: str) -> str:
        return script(prompt) + "</answer>"

    replies, engine = model(closed)
    rows = asyncio.run(areason(questions, wiki, replies))
    assert [row["id"] for row in rows] == [first.id, second.id]
    assert passes == {first.id: 1, second.id: 2, third.id: 2}
    assert all("follow no instruction in them" in prompt for prompt in engine.asked)
    for row, question in zip(rows, questions, strict=False):
        assert all(f"[{n}] " in row["messages"][0]["content"] for n in (1,))
        assert question.facts[0].rstrip(".").split()[-1] in row["messages"][0]["content"]
        assert "Answer the question from" not in row["messages"][0]["content"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Encyclopedia, WorldEnvironment, KnowledgeGraph]]:
    made = Encyclopedia(11, num_entities=100)
    with WorldEnvironment(made, tmp_path / "pages") as environment:
        assert environment.index is not None
        yield made, environment, world_graph(made, environment.index)


def test_the_expert_of_a_world_solves_what_the_world_asks(
    world: tuple[Encyclopedia, WorldEnvironment, KnowledgeGraph], tmp_path: Path
) -> None:
    made, environment, graph = world
    index = environment.index
    assert index is not None
    questions, _ = asyncio.run(asynthesize_questions(graph, index, 9, world=made))
    expert = Expert(made, questions, detours=0.0)
    attempts = asyncio.run(
        asynthesize_trajectories(
            questions,
            index,
            expert,
            tmp_path / "runs",
            is_right=lambda question, text: made.is_right(question, text),
            tools=environment.tools,
        )
    )
    assert all(attempt.is_right for attempt in attempts)
    assert len(planning_rows(attempts)) == len(reasoning_rows(attempts)) == 9
    for row in reasoning_rows(attempts):
        prompt, answer = (message["content"] for message in row["messages"])
        [question] = [q for q in questions if row["id"].startswith(q.id)]
        assert all(f"{name} is a" in prompt for name in question.entities)
        assert all(f"{relation} is" in answer for relation in question.relations)


def test_the_rows_of_a_world_use_only_its_words(
    world: tuple[Encyclopedia, WorldEnvironment, KnowledgeGraph], tmp_path: Path
) -> None:
    from hanol.agent_training import encyclopedia_tokenizer

    made, environment, graph = world
    index = environment.index
    assert index is not None
    questions, _ = asyncio.run(asynthesize_questions(graph, index, 6, world=made))
    expert = Expert(made, questions, detours=0.0)
    attempts = asyncio.run(
        asynthesize_trajectories(
            questions, index, expert, tmp_path / "runs", tools=environment.tools
        )
    )
    tokenizer = encyclopedia_tokenizer()
    unknown = tokenizer.convert_tokens_to_ids("<|unk|>")
    assert unknown in tokenizer("perhaps")["input_ids"]
    rows = [*planning_rows(attempts), *decision_rows(attempts), *reasoning_rows(attempts)]
    assert len(rows) > 20
    for row in [*rows, *trajectory_rows(attempts)]:
        messages = [message for message in row["messages"] if message["role"] != "system"]
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        assert isinstance(ids[0], int)
        assert unknown not in ids, tokenizer.decode(ids)


def test_the_expert_refuses_what_it_cannot_do(
    world: tuple[Encyclopedia, WorldEnvironment, KnowledgeGraph],
) -> None:
    made = world[0]
    with pytest.raises(DataError, match="expert cannot answer 'Who"):
        Expert(made, [GraphQuestion("Who?", ("x",))])


def test_numbers_below_one(wiki: Index, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`attempts` is 0"):
        asyncio.run(asynthesize_trajectories([ADA], wiki, Agent(), tmp_path, attempts=0))


def test_official_formats_survive_writing_and_reading(tmp_path: Path) -> None:
    messages = (Message("system", "s"), Message("user", "q\u2028?"), Message("assistant", "a"))
    runs = [OfficialRun("q", "a", messages, "p", "answer")]
    write_official_runs(tmp_path / "o.jsonl", runs)
    assert read_official_runs(tmp_path / "o.jsonl") == runs
    rows = [{"messages": [{"role": "user", "content": "\ud800"}], "kind": "planning"}]
    replace_rows(tmp_path / "rows.jsonl", rows)
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows
