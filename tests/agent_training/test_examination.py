"""The examination: full marks for the expert, none for guesses, each fault where it belongs."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from hanol.agent_training import (
    Examination,
    Expert,
    ReadingExpert,
    WorldEnvironment,
    examine,
)
from hanol.engines import Message, Request, ScriptedEngine
from hanol.errors import DataError, EngineError
from hanol.rl import Rollout
from hanol.runs import Mode, ModelAnswered
from hanol.tools import SEARCH, VISIT, parse_turn, turn_constraint
from hanol.worlds import Encyclopedia, Factbook, GraphQuestion

SIZES: dict[str, Any] = {"seed": 3, "num_questions": 5, "num_entities": 60}


def world() -> tuple[Encyclopedia, list[GraphQuestion]]:
    """What `examine` will ask about."""
    made = Encyclopedia(3, 60, split="test", num_distractors=1)
    kinds = [made.questions(5, hops=hops, seed=3) for hops in (1, 2, 3)]
    kinds.append(made.questions(5, hops=(1, 2), described=True, seed=3))
    return made, [question for kind in kinds for question in kind]


def expert(change: Callable[[str], str] = str) -> ScriptedEngine:
    knows = Expert(*world(), detours=0.0)
    return ScriptedEngine(lambda request: change(knows.turn(request.messages)))


@pytest.mark.parametrize("mode", ["react", "markov"])
def test_the_expert_gets_full_marks(mode: Mode) -> None:
    told: list[Rollout] = []
    result = examine(expert(), **SIZES, mode=mode, on_rollout=told.append)
    assert result.accuracy == {"1": 1.0, "2": 1.0, "3": 1.0, "described": 1.0}
    assert set(result.intervals.values()) == {(0.5655, 1.0)}  # five of five
    assert (result.format_errors, result.cited) == (0.0, 1.0)
    assert set(result.skills.values()) == {1.0}
    assert (result.questions, result.broken) == (20, 0)
    assert len(told) == 20


def test_the_expert_reads_the_factbook() -> None:
    world = Factbook("test", leads=False)
    told: list[Rollout] = []
    result = examine(
        None, world=world, seed=1, num_questions=8, hops=(1, 2, 3), max_calls=8,
        on_rollout=told.append,
    )  # fmt: skip
    assert result.accuracy == {"1": 1.0, "2": 1.0, "3": 1.0}
    assert result.format_errors == 0.0
    assert result.skills["right page"] == result.skills["next hop"] == 1.0
    assert result.cited > 0.8  # a number of neighbours stands in no page
    assert all("[" in rollout.events[-1].answer for rollout in told)  # type: ignore[union-attr]


def test_calls_of_the_reading_expert_are_those_that_the_grammar_allows() -> None:
    llguidance = pytest.importorskip("llguidance")
    world = Factbook("train", leads=False)
    told: list[Rollout] = []
    examine(None, world=world, seed=1, num_questions=6, hops=(2, 4), on_rollout=told.append)
    turns = [e.text for rollout in told for e in rollout.events if isinstance(e, ModelAnswered)]
    assert len(turns) > 30
    grammar = turn_constraint([SEARCH, VISIT], 8_192).text
    tokenizer = llguidance.LLTokenizer("byte")
    for turn in turns:
        assert len(parse_turn(turn).think) < 512  # thoughts of small models have 128 tokens
        matcher = llguidance.LLMatcher(tokenizer, grammar)
        assert matcher.validate_tokens([*turn.encode()]) == len(turn.encode()), turn


def test_a_reading_expert_is_asked_its_own_questions_only() -> None:
    world = Factbook("test", leads=False)
    with pytest.raises(DataError, match="cannot answer 'Who\\?': it knows questions that"):
        ReadingExpert([GraphQuestion("Who?", ("Ada",))])
    knows = ReadingExpert(world.questions(1))
    with pytest.raises(EngineError, match="does not know the question 'Why\\?'"):
        knows.turn([Message("user", "Why?")])


def test_a_reading_expert_plans_first_and_answers_nothing_that_it_did_not_see() -> None:
    question = Factbook("train", leads=False).questions(1, hops=2, described=True, seed=2)[0]
    knows = ReadingExpert([question])
    talk = [Message("user", question.text)]
    reads = [read for step in question.details["steps"] for read in step["read"]]
    plan = [f'{n}. {read["name"]}: "{read["sought"]}".' for n, read in enumerate(reads, start=1)]
    assert parse_turn(knows.turn(talk)).think == " ".join(plan)
    turns = []
    while "<answer>" not in (turn := knows.turn(talk)):
        turns.append(turn)
        talk += [Message("assistant", turn), Message("user", "No results.")]
    assert len(turns) == len({*turns}) > 1  # one search after another
    answer = parse_turn(turn).answer
    assert "do not say it" in answer
    assert question.answers[0] not in answer


def test_a_reading_expert_links_what_it_opens_and_compares_one_number_after_another() -> None:
    world = Factbook("train", leads=False)
    drawn = world.questions(400, hops=2, seed=1)
    asked = [q for q in drawn if re.search("neighbour.*(?:largest|smallest) (?:pop|area)", q.text)]
    asked = [question for question in asked if len(question.sources) > 3][:4]
    assert {"largest", "smallest"} == {
        w for q in asked for w in ("largest", "smallest") if w in q.text
    }
    with WorldEnvironment(world) as environment:
        for question in asked:
            knows = ReadingExpert([question])
            rollout = asyncio.run(environment.rollout(knows, environment.task(question)))
            turns = [e.text for e in rollout.events if isinstance(e, ModelAnswered)]
            thoughts = [parse_turn(turn).think for turn in turns]
            start, *near = question.sources
            assert re.fullmatch(rf"I open \[.+\]\({re.escape(start)}\)\.", thoughts[1])
            assert all(f"]({page})" in thoughts[2] for page in near)
            said = re.findall(r"(\d[\d,]+)(?: sq km)?(, yes|, no|)[;.]", thoughts[-1])
            values = [int(number.replace(",", "")) for number, _ in said]
            best = min if "smallest" in question.text else max
            leads = [n == best(values[: i + 1]) for i, n in enumerate(values)]
            assert len(values) == len(near)
            assert [word == ", yes" for _, word in said[1:]] == leads[1:]
            assert world.is_right(question, str(parse_turn(turns[-1]).answer))


def test_a_kind_that_is_wrong_is_wrong_alone() -> None:
    _, questions = world()
    long = {question.text for question in questions if question.hops == 3}
    knows = Expert(*world(), detours=0.0)

    def write(request: Request) -> str:
        text = knows.turn(request.messages)
        asked = next(m.content for m in request.messages if m.role == "user")
        return text.replace("<answer>\n", "<answer>\nnot ") if asked in long else text

    result = examine(ScriptedEngine(write), **SIZES)
    assert result.accuracy == {"1": 1.0, "2": 1.0, "3": 0.0, "described": 1.0}
    assert result.intervals["3"] == (0.0, 0.4345)
    assert result.skills["right answer"] == 0.75
    assert result.skills["right page"] == 1.0
    assert result.cited == 1.0  # of the right ones


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(" [", " ") if "<answer>" in text else text,
        lambda text: text.replace(" [", " [9") if "<answer>" in text else text,
    ],
    ids=["none", "invented"],
)
def test_right_answers_with_wrong_citations_are_not_cited(change: Callable[[str], str]) -> None:
    def changed(text: str) -> str:
        head, mark, answer = text.partition("<answer>")
        return head + (change(mark + answer) if mark else "")

    result = examine(expert(changed), **SIZES)
    if "[9" in change("<answer>\na [1]\n</answer>"):
        assert result.accuracy["1"] == 1.0
    assert result.cited == 0.0


def test_a_model_that_writes_nothing_of_use() -> None:
    result = examine(ScriptedEngine(lambda request: "the of and"), **SIZES, max_calls=6)
    assert set(result.accuracy.values()) == {0.0}
    assert result.format_errors == 1.0
    assert result.cited == 0.0
    assert result.skills["call format"] == 0.0
    assert result.skills["right answer"] == 0.0
    assert result.broken == 0


def test_what_breaks_is_counted_apart() -> None:
    knows = Expert(*world(), detours=0.0)
    _, questions = world()
    fatal = questions[0].text

    def write(request: Request) -> str:
        if any(message.content == fatal for message in request.messages):
            raise EngineError("gone")
        return knows.turn(request.messages)

    result = examine(ScriptedEngine(write), **SIZES)
    assert result.broken == 1
    assert result.questions == 20
    assert result.accuracy == {"1": 1.0, "2": 1.0, "3": 1.0, "described": 1.0}


def test_where_everything_breaks_there_is_a_result_all_the_same() -> None:
    def write(request: Request) -> str:
        raise EngineError("gone")

    result = examine(ScriptedEngine(write), **SIZES)
    assert result.broken == 20
    assert result.accuracy == result.intervals == {}
    assert Examination.model_validate_json(result.model_dump_json()) == result


def test_kinds_can_be_chosen() -> None:
    result = examine(expert(), **SIZES, hops=(2,))
    assert list(result.accuracy) == ["2", "described"]
    assert result.questions == 10


def test_the_same_seed_asks_the_same_and_answers_come_back_in_order() -> None:
    def asked(concurrency: int) -> list[str]:
        told: list[Rollout] = []
        examine(expert(), **SIZES, concurrency=concurrency, on_rollout=told.append)
        return [rollout.task.question for rollout in told]

    one = asked(1)
    assert one == [question.text for question in world()[1]]
    assert sorted(asked(8)) == sorted(one)


def test_the_sampling_seed_changes_the_seeds_of_the_runs_and_not_the_questions() -> None:
    def seeds(sampling_seed: int) -> list[int | None]:
        knows, found = Expert(*world(), detours=0.0), []

        def write(request: Request) -> str:
            found.append(request.sampling.seed)
            return knows.turn(request.messages)

        examine(ScriptedEngine(write), **SIZES, sampling_seed=sampling_seed, concurrency=1)
        return found

    first, again, other = seeds(0), seeds(0), seeds(7)
    assert first == again
    assert len(first) == len(other)
    assert set(first).isdisjoint(other)


def test_a_world_that_is_too_small_says_so() -> None:
    with pytest.raises(DataError, match="Only .* of 5000 different questions"):
        examine(expert(), seed=3, num_questions=5000, num_entities=60)
