"""Skills are read off the events of real runs; each fault lowers the one rate it belongs to."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence

import pytest

from claims.deep_research.unreliable import UnreliableTool
from hanol.agent_training import Expert, WorldEnvironment, measure_skills, skill_rates
from hanol.agent_training._skills import Skill  # private: one skill alone
from hanol.engines import Engine, Request, ScriptedEngine
from hanol.retrieval import Index
from hanol.rl import Rollout
from hanol.runs import Mode
from hanol.tools import Tool, compact_tools
from hanol.worlds import Encyclopedia, GraphQuestion


def share(hits: int, trials: int) -> float | None:
    return hits / trials if trials else None


@pytest.fixture(scope="module")
def world() -> Encyclopedia:
    return Encyclopedia(11, 200, split="dev")


@pytest.fixture(scope="module")
def environment(world: Encyclopedia) -> Iterator[WorldEnvironment]:
    with WorldEnvironment(world) as made:
        yield made


@pytest.fixture(scope="module")
def question(world: Encyclopedia) -> GraphQuestion:
    """Three pages to read, the last of which states a word, a date or a number."""
    return world.questions(1, hops=[3])[0]


def run(environment: WorldEnvironment, engine: Engine, question: GraphQuestion) -> Rollout:
    return asyncio.run(environment.rollout(engine, environment.task(question)))


def call(name: str, **arguments: object) -> str:
    block = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{block}\n</tool_call>"


def visit(world: Encyclopedia, address: str, think: str = "") -> str:
    name = world.page(address).file_name
    return f"<think>{think}</think>\n" + call("visit", url=[name], goal="it")


def rates(
    environment: WorldEnvironment, turns: Sequence[str], question: GraphQuestion
) -> dict[Skill, float | None]:
    rollout = run(environment, ScriptedEngine(turns), question)
    return skill_rates([measure_skills(rollout, question, environment.world)])


@pytest.mark.parametrize("mode", ["react", "markov"])
@pytest.mark.parametrize("described", [False, True], ids=["named", "described"])
def test_the_expert_has_all_skills(world: Encyclopedia, mode: Mode, described: bool) -> None:
    questions = world.questions(12, hops=(1, 2, 3), described=described)
    expert = Expert(world, questions, detours=0.0)
    with WorldEnvironment(world, mode=mode) as environment:
        rollouts = asyncio.run(
            environment.rollouts(
                expert, environment.tasks(questions), seeds=range(12), concurrency=4
            )
        )
    right = [(r, q) for r, q in zip(rollouts, questions, strict=True) if r.reward == 1.0]
    assert len(right) >= 9  # a start that is described may be missing among the first hits
    measured = [measure_skills(rollout, question, world) for rollout, question in right]
    found = skill_rates(measured)
    pages = sum(question.hops for _, question in right)
    assert found["right page"] == found["query copy"] == found["right answer"]
    assert found["right page"] == share(len(right), len(right))
    assert found["extraction"] == share(pages, pages)
    assert found["next hop"] == share(pages - len(right), pages - len(right))
    assert found["call format"] == 1.0


def test_what_is_right_up_to_a_point_counts_up_to_there(
    environment: WorldEnvironment, question: GraphQuestion
) -> None:
    world, (first, second, _) = environment.world, question.path
    turns = [
        call("search", query=[question.entities[0]]),
        visit(world, first),
        visit(world, second, f"It is {question.entities[1]}."),
        visit(world, first, f"It is {question.entities[2]}."),  # knows the page, opens another
        "<answer>no idea</answer>",
    ]
    assert rates(environment, turns, question) == {
        "call format": share(5, 5),
        "query copy": share(1, 1),
        "right page": share(1, 1),
        "extraction": share(2, 2),
        "next hop": share(1, 2),
        "right answer": share(0, 1),
    }


def _wrong_query(world: Encyclopedia, question: GraphQuestion) -> list[str]:
    return [call("search", query=["weather"]), "<answer>rain</answer>"]


def _half_a_name(world: Encyclopedia, question: GraphQuestion) -> list[str]:
    return [call("search", query=[question.entities[0].split()[0]]), "<answer>rain</answer>"]


def _other_page_first(world: Encyclopedia, question: GraphQuestion) -> list[str]:
    """The second page before the first: the way was not followed."""
    start = question.entities[0]
    turns = [call("search", query=[start]), visit(world, question.path[1])]
    return [*turns, visit(world, question.path[0]), "<answer>rain</answer>"]


def _no_such_page(world: Encyclopedia, question: GraphQuestion) -> list[str]:
    start = question.entities[0]
    return [
        call("search", query=[start]),
        call("visit", url=["doc-none.md"], goal="it"),
        "<answer>rain</answer>",
    ]


def _broken_calls(world: Encyclopedia, question: GraphQuestion) -> list[str]:
    return [
        "<tool_call>\n{search\n</tool_call>",
        call("search", query=[question.entities[0]]),
        call("open", url="x"),
        "I think it is rain.",
        "<answer>rain</answer>",
    ]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (_wrong_query, {"query copy": share(0, 1), "right page": share(0, 1)}),
        (_half_a_name, {"query copy": share(0, 1)}),
        (
            _other_page_first,
            {
                "query copy": share(1, 1),
                "right page": share(1, 1),
                "extraction": share(0, 1),
                "next hop": share(0, 1),
            },
        ),
        (_no_such_page, {"right page": share(0, 1), "extraction": None, "next hop": None}),
        (_broken_calls, {"call format": share(2, 5), "query copy": share(1, 1)}),
    ],
    ids=["query", "half", "order", "address", "format"],
)
def test_each_fault_shows_in_its_own_rate(
    environment: WorldEnvironment,
    question: GraphQuestion,
    script: Callable[[Encyclopedia, GraphQuestion], list[str]],
    expected: dict[Skill, float | None],
) -> None:
    found = rates(environment, script(environment.world, question), question)
    assert {name: found[name] for name in expected} == expected
    assert found["right answer"] == share(0, 1)


def test_full_addresses_are_the_pages_that_they_lead_to(
    environment: WorldEnvironment, question: GraphQuestion
) -> None:
    file_name = environment.world.page(question.path[0]).file_name
    address = next(
        info.address for info in environment.index.documents() if info.document == file_name
    )
    assert address.startswith("doc://")
    turns = [call("visit", url=address, goal="it"), "<answer>rain</answer>"]
    assert rates(environment, turns, question)["right page"] == share(1, 1)


def test_a_visit_that_failed_is_none(world: Encyclopedia, question: GraphQuestion) -> None:
    def flaky(index: Index) -> Sequence[Tool]:
        return [UnreliableTool(tool, failures=1.0) for tool in compact_tools(index)]

    turns = [visit(world, question.path[0]), "<answer>rain</answer>"]
    with WorldEnvironment(world, tools=flaky) as environment:
        assert rates(environment, turns, question)["right page"] == share(0, 1)


def test_values_are_found_as_whole_words_however_they_are_spaced(
    environment: WorldEnvironment,
) -> None:
    world = environment.world
    [asked] = [
        q
        for q in world.questions(60, hops=1)
        if all(part.isdecimal() for part in next(iter(q.answers)).split())
    ][:1]
    number = next(iter(asked.answers))

    def extracts(text: str) -> bool:
        turns = [visit(world, asked.path[0]), f"<think>{text}</think><answer>{text}</answer>"]
        return rates(environment, turns, asked)["extraction"] == 1.0

    assert extracts(f"it is {number}")
    assert extracts(f"it is {number.replace(' ', '')}, I read")
    assert extracts(f"it is {number.replace(' ', ',')}.")
    assert not extracts(f"it is 1{number}")
    assert not extracts(f"it is {number}0")


def test_a_rollout_that_broke_off_has_no_skills_but_counts(
    environment: WorldEnvironment, question: GraphQuestion
) -> None:
    def fail(request: Request) -> str:
        raise RuntimeError("out of memory")

    rollout = run(environment, ScriptedEngine(fail), question)
    found = skill_rates([measure_skills(rollout, question, environment.world)])
    assert rollout.reward is None
    assert found["call format"] is None
    assert found["right answer"] == found["right page"] == share(0, 1)


def test_rates_pool_the_trials_of_all_rollouts(
    environment: WorldEnvironment, question: GraphQuestion
) -> None:
    world = environment.world
    good = [call("search", query=[question.entities[0]]), visit(world, question.path[0])]
    measured = [
        measure_skills(run(environment, ScriptedEngine(turns), question), question, world)
        for turns in ([*good, "<answer>rain</answer>"], ["<answer>rain</answer>"])
    ]
    found = skill_rates(measured)
    assert found["call format"] == share(4, 4)
    assert found["right page"] == share(1, 2)
    assert found["right page"] == 0.5
    assert found["next hop"] == share(0, 1)
    assert all(rate is None for rate in skill_rates([]).values())
