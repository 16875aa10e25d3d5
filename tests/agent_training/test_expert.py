"""The expert: right by reading alone, in every mode, also where a search or a tool fails it."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any, get_args

import pytest

from claims.deep_research.unreliable import UnreliableTool
from hanol.agent_training import Expert, WorldEnvironment
from hanol.agent_training.expert._expert import (
    SEARCH_WORDS,
)  # private: the words that the world's schema must contain
from hanol.engines import Message, Request, Sampling
from hanol.errors import DataError, EngineError
from hanol.rl import Rollout
from hanol.runs import Budget, Mode, ModelAnswered, RunEnded, ToolReturned
from hanol.tools import compact_tools
from hanol.worlds import RELATIONS, Encyclopedia, GraphQuestion

MODES = get_args(Mode)


def run(
    world: Encyclopedia,
    questions: Sequence[GraphQuestion],
    mode: Mode = "react",
    *,
    detours: float = 0.1,
    failures: float = 0.0,
    calls: int = 12,
) -> list[Rollout]:
    expert = Expert(world, questions, detours=detours)
    options: dict[str, Any] = {"mode": mode, "budget": Budget(model_calls=calls)}

    def tools(index: Any) -> list[Any]:
        return [
            UnreliableTool(tool, failures=failures, seed=1)
            for tool in compact_tools(index, shuffle=world.seed)
        ]

    with WorldEnvironment(world, tools=tools, **options) as environment:
        tasks = environment.tasks(questions)
        return asyncio.run(
            environment.rollouts(expert, tasks, seeds=range(len(tasks)), concurrency=1)
        )


def both_kinds(world: Encyclopedia, number: int) -> list[GraphQuestion]:
    return [
        *world.questions(number, seed=1, sets=True),
        *world.questions(number, described=True, seed=1, sets=True),
    ]


def last(rollout: Rollout) -> RunEnded:
    event = rollout.events[-1]
    assert isinstance(event, RunEnded)
    return event


def texts(rollout: Rollout) -> list[str]:
    return [event.text for event in rollout.events if isinstance(event, ModelAnswered)]


def assert_whole(rollouts: Sequence[Rollout]) -> None:
    """Right, with one citation each, of the passage that states the answer."""
    for rollout in rollouts:
        assert rollout.reward == 1.0, (rollout.task.question, rollout.problem, texts(rollout))
        counts = (last(rollout).citations or {})["counts"]
        assert counts["supported"] == sum(counts.values()) == 1, (rollout.task, texts(rollout))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("seed", "num_distractors"), [(0, 1), (1, 7), (2, 12)])
def test_every_answer_is_right_and_cited(mode: Mode, seed: int, num_distractors: int) -> None:
    world = Encyclopedia(seed, 100, num_distractors=num_distractors)
    questions = both_kinds(world, 25)
    rollouts = run(world, questions, mode)
    assert_whole(rollouts)
    # The pages of the path and nothing else, each once.
    for question, rollout in zip(questions, rollouts, strict=True):
        visited = [
            url
            for event in rollout.events
            if isinstance(event, ToolReturned) and event.name == "visit"
            for url in event.arguments["url"]
        ]
        assert visited == [world.page(address).file_name for address in question.path]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_it_fails_on_fewer_than_one_question_in_a_hundred_of_a_large_world(mode: Mode) -> None:
    world = Encyclopedia(100, 1000)
    rollouts = run(world, both_kinds(world, 200), mode)
    assert sum(rollout.reward == 1.0 for rollout in rollouts) >= 396
    assert_whole([rollout for rollout in rollouts if rollout.reward == 1.0])


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=[pytest.mark.slow] * (mode != "react")) for mode in MODES]
)
def test_a_detour_is_noticed_and_costs_one_turn(mode: Mode) -> None:
    world = Encyclopedia(3, 400)  # of few pages a bad query finds the right one, too
    questions = both_kinds(world, 10)
    straight = run(world, questions, mode, detours=0.0)
    astray = run(world, questions, mode, detours=1.0)
    assert_whole(astray)
    more = []
    for question, short, long in zip(questions, straight, astray, strict=True):
        more.append(len(texts(long)) - len(texts(short)))
        first = re.search(r'"query": \["([^"]*)"\]', texts(long)[0])
        assert first is not None
        assert first[1].split()[1:] == [question.relations[0]]
    # A page that the bad query happens to find is not searched for again.
    assert set(more) <= {0, 1}
    assert sum(more) >= 0.7 * len(questions)


def test_only_the_first_turn_of_a_detour_is_called_one() -> None:
    world = Encyclopedia(3, 60)
    [question] = world.questions(1, hops=2)
    expert = Expert(world, [question], detours=1.0)
    opening = (Message("system", "a"), Message("user", question.text))
    assert expert.is_detour(opening)
    wrong = Message("assistant", expert.turn(opening))
    results = Message("user", "<tool_response>\nNo results.\n</tool_response>")
    assert not expert.is_detour((*opening, wrong, results))
    assert question.entities[0] in expert.turn((*opening, wrong, results))
    assert not Expert(world, [question], detours=0.0).is_detour(opening)


def test_where_the_first_words_find_others_each_wording_is_tried() -> None:
    world = Encyclopedia(100, 1000)
    # Found by search: pages whose names share words with the one that is told come first.
    questions = [
        question
        for question in world.questions(200, described=True, seed=100)
        if question.text.endswith(("birthplace is Ralano Zorrow?", "spouse is Rarrow Bazeth?"))
    ]
    assert len(questions) == 2
    rollouts = run(world, questions, detours=0.0)
    assert_whole(rollouts)
    for rollout in rollouts:
        queries = [
            event.arguments["query"][0]
            for event in rollout.events
            if isinstance(event, ToolReturned) and event.name == "search"
        ]
        assert 2 <= len(queries) == len(set(queries))


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_that_fails_is_called_again(mode: Mode) -> None:
    world = Encyclopedia(4, 100)
    rollouts = run(world, both_kinds(world, 15), mode, failures=0.3, detours=0.2, calls=40)
    assert_whole(rollouts)
    failed = [
        event.name
        for rollout in rollouts
        for event in rollout.events
        if isinstance(event, ToolReturned) and event.failed
    ]
    assert {"search", "visit"} <= set(failed)


def test_the_report_of_a_round_has_every_finding_once() -> None:
    world = Encyclopedia(4, 100)
    questions = world.questions(10, hops=3)
    for question, rollout in zip(
        questions, run(world, questions, "markov", failures=0.3, calls=40), strict=True
    ):
        report = re.search(r"<report>\n(.*)\n</report>", texts(rollout)[-1])
        assert report is not None
        found = report[1].split(" ; ")
        assert [part.split(" is ")[0] for part in found] == list(question.relations)


def test_a_candidate_is_judged_by_what_its_line_states() -> None:
    world = Encyclopedia(5, 300)
    judged = 0
    for rollout, question in zip(
        run(world, asked := world.questions(30, hops=1, described=True), detours=0.0),
        asked,
        strict=True,
    ):
        [(_, relation, value)] = question.clauses
        wanted = f"{world.page(question.entities[0]).type} {relation} {value[2:]}"
        [found, *_] = [event.text for event in rollout.events if isinstance(event, ToolReturned)]
        lines = dict(re.findall(r"^(\d)\. (.*)$", found, re.MULTILINE))
        thought = texts(rollout)[1]
        assert f"{wanted} yes" in thought.split("\n")[1]
        for number, said, verdict in re.findall(r"^(\d)\. (.*?) (yes|no)\b", thought, re.MULTILINE):
            title = re.search(r"\[([^]]+)\]\([^)]+\)$", lines[number])
            assert title is not None
            assert said.startswith(title[1])
            candidate = said.removeprefix(title[1]).strip()
            assert (candidate == wanted) is (verdict == "yes")
            kind, _, fact = candidate.partition(" ")
            assert world.page(title[1]).type == kind
            assert fact == "none" or fact.partition(" ")[2] in lines[number]
            judged += 1
    assert judged > 60


def test_thoughts_quote_the_link_that_is_visited_next() -> None:
    world = Encyclopedia(5, 100)
    rollouts = run(world, both_kinds(world, 10), detours=0.0)
    visits = 0
    for text in (text for rollout in rollouts for text in texts(rollout)):
        if url := re.search(r'"url": \["([^"]*)"\]', text):
            thought = text.partition("</think>")[0]
            assert f"]({url[1]})" in thought
            visits += 1
    assert visits > 30


@pytest.mark.parametrize("options", [{"hops": 0, "described": True}, {"level": 1}], ids=str)
def test_questions_that_it_cannot_answer_are_refused(options: dict[str, Any]) -> None:
    world = Encyclopedia(5, 60)
    with pytest.raises(DataError, match="The expert cannot answer"):
        Expert(world, world.questions(1, **options))


def test_it_knows_only_its_questions() -> None:
    world = Encyclopedia(5, 60)
    expert = Expert(world, world.questions(3))
    request = Request((Message("user", "What is the capital of France?"),), Sampling(max_tokens=10))
    with pytest.raises(EngineError, match="does not know the question 'What is the capital"):
        asyncio.run(expert.complete(request))


def test_search_words_are_one_of_each_wording() -> None:
    checked = 0
    for relation in RELATIONS:
        if relation.kind == "entity":
            words = SEARCH_WORDS[relation.name].split()
            assert len(words) == len(relation.sentences)
            for word, sentence in zip(words, relation.sentences, strict=True):
                assert word in sentence.split()
            checked += 1
    assert checked == 21
