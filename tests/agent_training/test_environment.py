"""Rollouts: tokens exactly as drawn, faults that are nobody's lesson, nothing lost by a kill."""

import asyncio
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import LlamaConfig, PreTrainedTokenizerFast

from claims.deep_research.unreliable import UnreliableTool
from hanol import models
from hanol.agent_training import Expert, ResearchEnvironment, WorldEnvironment
from hanol.agent_training._environment import (
    rollout_folder,
)  # private: names the folder that a killed rollout leaves
from hanol.engines import CheckpointEngine, Completion, Engine, Request, ScriptedEngine, Usage
from hanol.errors import (
    ConfigError,
    DataError,
    EngineError,
    RunError,
    SearchIndexError,
    UnknownNameError,
)
from hanol.retrieval import Index
from hanol.rl import Rollout
from hanol.runs import Budget, Mode, RunEnded, RunFolder, Task, ToolReturned
from hanol.sampling import Sampling
from hanol.tools import SEARCH, Observation, ToolContext, compact_tools
from hanol.worlds import Encyclopedia

TASK = Task("rain", "Where does it rain?", "Everywhere")
SEARCH_TURN = '<tool_call>\n{"name": "search", "arguments": {"query": ["rain"]}}\n</tool_call>'
ANSWER = "<answer>Everywhere</answer>"


class Notes:
    """A tool named search that does what it is told to."""

    name, description, parameters = SEARCH.name, SEARCH.description, SEARCH.parameters

    def __init__(self, act: Callable[[], Any] | None = None) -> None:
        self._act = act

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        if self._act is not None:
            await self._act()
        return Observation(f"note on {arguments['query'][0]}")


def exact(task: Task, answer: str | None) -> float:
    return float(answer is not None and answer.startswith(str(task.answer)))


def environment(
    reward: Callable[[Task, str | None], Any] = exact, **options: Any
) -> ResearchEnvironment:
    return ResearchEnvironment(None, reward, **{"tools": [Notes()], **options})


def with_bytes(script: Callable[[Request], str]) -> ScriptedEngine:
    """An engine whose tokens are bytes, with log-probabilities that no rounding keeps."""

    def complete(request: Request) -> Completion:
        read = "".join(f"{m.role}\n{m.content}\n" for m in request.messages) + "assistant\n"
        text = script(request)
        ids = tuple(text.encode())
        logprobs = tuple(-1 / (3 + (len(read) + i) % 97) for i in range(len(ids)))
        return Completion.of(
            text,
            usage=Usage(len(read), len(ids)),
            prompt_ids=tuple(read.encode()),
            ids=ids,
            logprobs=logprobs,
        )

    return ScriptedEngine(complete)


def searches_then_answers(searches: int) -> Callable[[Request], str]:
    def write(request: Request) -> str:
        turn = sum(message.role == "assistant" for message in request.messages)
        return SEARCH_TURN.replace("rain", f"rain {turn}") if turn < searches else ANSWER

    return write


def refuses(request: Request) -> str:
    raise AssertionError("the model was asked")


def run(made: ResearchEnvironment, engine: Engine, task: Task = TASK, **options: Any) -> Rollout:
    return asyncio.run(made.rollout(engine, task, **options))


def ended(rollout: Rollout) -> RunEnded:
    last = rollout.events[-1]
    assert isinstance(last, RunEnded)
    return last


# --- The world -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> Encyclopedia:
    return Encyclopedia(3, 120)


@pytest.fixture(scope="module")
def in_world(world: Encyclopedia) -> Iterator[WorldEnvironment]:
    with WorldEnvironment(world) as made:
        yield made


@pytest.mark.parametrize("mode", ["react", "markov"])
def test_the_expert_is_rewarded_in_the_real_index(world: Encyclopedia, mode: Mode) -> None:
    questions = world.questions(10, hops=(1, 2, 3))
    with WorldEnvironment(world, mode=mode) as made:
        tasks = made.tasks(questions)
        done = asyncio.run(
            made.rollouts(Expert(world, questions), tasks, seeds=range(10), concurrency=4)
        )
    assert [rollout.task for rollout in done] == tasks
    assert [rollout.reward for rollout in done] == [1.0] * 10
    assert all(rollout.has_answer and rollout.problem is None for rollout in done)


def test_the_answer_decides_the_reward_not_its_form(in_world: WorldEnvironment) -> None:
    [question] = in_world.world.questions(1, hops=1)
    task = in_world.task(question)
    [answer] = question.answers

    def reward(text: str) -> float | None:
        return run(in_world, ScriptedEngine([f"<answer>{text}</answer>"]), task).reward

    assert reward(answer) == reward(f"{answer.upper()} [1][2]") == 1.0
    assert reward("nobody knows") == reward(f"{answer} and more") == 0.0


def test_prompts_of_a_world_are_the_same_on_every_day(in_world: WorldEnvironment) -> None:
    [task] = in_world.tasks(in_world.world.questions(1))
    rollout = run(in_world, with_bytes(searches_then_answers(1)), task)
    assert "Current date: 2025-01-01" in bytes(rollout.turns[0].prompt_ids).decode()


def test_tasks_are_the_questions(in_world: WorldEnvironment) -> None:
    questions = in_world.world.questions(8, sets=True)
    tasks = in_world.tasks(questions)
    assert len({task.id for task in tasks}) == 8
    assert [in_world.question(task) for task in tasks] == questions
    for task, question in zip(tasks, questions, strict=True):
        answers = task.answer if isinstance(task.answer, list) else [task.answer]
        assert set(answers) == set(question.answers)
        assert task.question == question.text
    with pytest.raises(UnknownNameError, match="'stranger'"):
        in_world.question(Task("stranger", "?"))


def test_ids_of_tasks_are_the_same_in_every_process(in_world: WorldEnvironment) -> None:
    code = (
        "from hanol.agent_training import WorldEnvironment\n"
        "from hanol.worlds import Encyclopedia\n"
        "world = Encyclopedia(3, 120)\n"
        "with WorldEnvironment(world) as made:\n"
        "    print(*(task.id for task in made.tasks(world.questions(5, sets=True))))\n"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    tasks = in_world.tasks(in_world.world.questions(5, sets=True))
    assert done.stdout.split() == [task.id for task in tasks]
    other = Encyclopedia(4, 120).questions(1)[0]
    assert in_world.task(other).id not in done.stdout


def test_a_folder_is_written_once_and_used_again(world: Encyclopedia, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "world"
    with WorldEnvironment(world, folder) as made:
        version = made.index.version
    times = {file: file.stat().st_mtime_ns for file in folder.glob("*.md")}
    assert len(times) == 120
    with WorldEnvironment(world, folder) as made:
        assert made.index.version == version
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*.md")} == times
    assert [file.name for file in folder.parent.iterdir()] == ["world"]


def test_a_temporary_folder_is_deleted(world: Encyclopedia) -> None:
    with WorldEnvironment(world) as made:
        folder = made.index.folder
        assert folder.is_dir()
    assert not folder.exists()
    assert not folder.parent.exists()


def _other_seed(folder: Path) -> None:
    Encyclopedia(4, 120).write(folder)


def _edited(folder: Path) -> None:
    files = Encyclopedia(3, 120).write(folder)
    files[7].write_text("# Nobody\n\nNobody is a person.\n")


def _half(folder: Path) -> None:
    for file in Encyclopedia(3, 120).write(folder)[60:]:
        file.unlink()


def _more(folder: Path) -> None:
    Encyclopedia(3, 120).write(folder)
    (folder / "notes.md").write_text("# Notes\n\nMine.\n")


@pytest.mark.parametrize("make", [_other_seed, _edited, _half, _more])
def test_an_index_of_something_else_is_refused_by_name(
    make: Callable[[Path], None], world: Encyclopedia, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    make(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(SearchIndexError, match=r"mine.*seed 3, 120 entities.*Name another folder"):
        WorldEnvironment(world, folder)
    assert sorted(folder.rglob("*")) == before  # not indexed either


@pytest.mark.slow  # two processes import torch
def test_processes_that_begin_at_once_share_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from hanol.agent_training import WorldEnvironment\n"
        "from hanol.worlds import Encyclopedia\n"
        "world = Encyclopedia(3, 300)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "with WorldEnvironment(world, sys.argv[1]) as made:\n"
        "    print(len(made.index.search('person', 400)))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "world")]
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in "ab"
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert ended[0][0] == ended[1][0] != "0\n"
    assert [file.name for file in tmp_path.iterdir()] == ["world"]


# --- What was drawn ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, PreTrainedTokenizerFast]:
    """A random model over bytes of ASCII: whatever it writes is read back as the same tokens."""
    letters = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if "!" <= c <= "~"]
    vocab = {token: i for i, token in enumerate([*letters, "Ġ", "Ċ"])}
    raw = Tokenizer(token_models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    raw.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|end|>", pad_token="<|end|>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant\n{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = models.build(config, seed=5).eval()
    model.generation_config.update(eos_token_id=tokenizer.eos_token_id)
    return model, tokenizer


@pytest.mark.parametrize(("mode", "num_segments"), [("react", 1), ("markov", 4)])
def test_tokens_are_those_of_the_model_with_the_logprobs_that_they_were_drawn_with(
    tiny: tuple[Any, PreTrainedTokenizerFast], mode: Mode, num_segments: int
) -> None:
    model, tokenizer = tiny
    made = environment(
        mode=mode, system_prompt="Answer.",
        sampling=Sampling(temperature=1.0, top_p=1.0, presence_penalty=0.0, max_tokens=24),
    )  # fmt: skip

    async def one() -> Rollout:
        engine = CheckpointEngine(model, tokenizer)
        try:
            return await made.rollout(engine, TASK, seed=11)
        finally:
            await engine.aclose()

    rollout = asyncio.run(one())
    assert rollout.reward == 0.0
    # Noise is no turn: it was refused three times, then the answer was asked for.
    assert ended(rollout).termination == "format_errors"
    assert len(rollout.turns) == 4
    texts = [event.text for event in rollout.events if event.type == "model_answered"]
    assert [
        tokenizer.decode(turn.token_ids, skip_special_tokens=True) for turn in rollout.turns
    ] == texts
    assert len(rollout.segments) == num_segments
    for segment in rollout.segments:
        ids = torch.tensor([segment.input_ids])
        with torch.inference_mode():
            logprobs = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        again = logprobs.gather(1, ids[0, 1:, None])[:, 0]
        mask = torch.tensor(segment.action_mask[1:])
        drawn = torch.tensor(segment.logprobs[1:])
        torch.testing.assert_close(again[mask], drawn[mask], atol=1e-5, rtol=0)
        assert not drawn[~mask].any()
    assert sum(sum(s.action_mask) for s in rollout.segments) == sum(
        len(turn.token_ids) for turn in rollout.turns
    )


def test_an_endpoint_without_tokens_still_gives_an_answer_to_reward() -> None:
    rollout = run(environment(), ScriptedEngine([SEARCH_TURN, ANSWER]))
    assert (rollout.reward, rollout.problem, rollout.turns) == (1.0, None, ())


def test_turns_are_all_there_or_none() -> None:
    whole = with_bytes(searches_then_answers(1))

    class Partly(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            if request.messages[-1].role == "user" and len(request.messages) > 2:
                return Completion.of(ANSWER, usage=Usage(1, 1))
            return await whole.complete(request)

    assert run(environment(), Partly([])).turns == ()


def test_a_restart_begins_a_sequence_and_its_summary_is_no_turn() -> None:
    def write(request: Request) -> str:
        if not request.sampling.stop:
            return "<summary>It rains everywhere.</summary>"
        has_summary = "It rains everywhere." in request.messages[1].content
        return ANSWER if has_summary else searches_then_answers(9)(request)

    class Wordy(Notes):
        async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
            return Observation("rain " * 400)

    made = environment(
        tools=[Wordy()], mode="resum", system_prompt="Answer.", budget=Budget(context_tokens=2000)
    )
    rollout = run(made, with_bytes(write))
    assert rollout.reward == 1.0
    answers = [event for event in rollout.events if event.type == "model_answered"]
    assert [event.purpose for event in answers].count("summary") == 1
    texts = [event.text for event in answers if event.purpose == "turn"]
    assert [bytes(turn.token_ids).decode() for turn in rollout.turns] == texts
    first, second = rollout.segments
    assert bytes(first.input_ids).decode().endswith(texts[-2])
    assert bytes(second.input_ids).decode().endswith(f"assistant\n{ANSWER}")


# --- Faults --------------------------------------------------------------------------------------


def _no_engine(request: Request) -> str:
    raise EngineError("The endpoint is down.")


def _no_memory(request: Request) -> str:
    raise MemoryError("out of memory")


def _no_gpu_memory(request: Request) -> str:
    raise torch.OutOfMemoryError("tried to allocate 2 TiB")


async def _bug() -> None:
    raise KeyError("url")


async def _gone() -> None:
    raise ConnectionRefusedError("nobody listens")


@pytest.mark.parametrize(
    ("script", "act", "problem"),
    [
        (_no_engine, None, "EngineError: The endpoint is down."),
        (_no_memory, None, "MemoryError: out of memory"),
        (_no_gpu_memory, None, "OutOfMemoryError: tried to allocate 2 TiB"),
        (None, _bug, "KeyError: 'url'"),
        (None, _gone, "ConnectionRefusedError: nobody listens"),
    ],
    ids=["engine", "memory", "gpu", "bug", "tool"],
)
def test_what_breaks_around_the_policy_gives_no_reward(
    script: Callable[[Request], str] | None,
    act: Callable[[], Any] | None,
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = with_bytes(searches_then_answers(1)) if script is None else ScriptedEngine(script)
    rollout = run(environment(tools=[Notes(act)]), engine)
    assert (rollout.reward, rollout.problem) == (None, problem)
    assert len(rollout.turns) == (1 if script is None else 0)  # what there was
    assert problem in caplog.text
    assert "'rain'" in caplog.text


def _raises(task: Task, answer: str | None) -> float:
    raise ZeroDivisionError("no judges")


@pytest.mark.parametrize(
    ("reward", "problem"),
    [
        (_raises, "ZeroDivisionError: no judges"),
        (lambda *_: math.nan, "nan"),
        (lambda *_: -math.inf, "-inf"),
        (lambda *_: None, "None"),
        (lambda *_: "1.0", "'1.0'"),
        (lambda *_: 1j, "1j"),
        (lambda *_: [1.0], r"\[1.0\]"),
    ],
    ids=["raises", "nan", "inf", "none", "text", "complex", "list"],
)
def test_a_reward_that_is_no_number_is_no_reward(reward: Any, problem: str) -> None:
    rollout = run(environment(reward), with_bytes(searches_then_answers(1)))
    assert rollout.reward is None
    assert ended(rollout).answer == "Everywhere"
    assert re.search(problem, rollout.problem or "")


@pytest.mark.parametrize(
    "reward", [True, 2, np.float32(0.5), -1.5], ids=["bool", "int", "numpy", "negative"]
)
def test_every_finite_number_is_a_reward(reward: Any) -> None:
    rollout = run(environment(lambda *_: reward), ScriptedEngine([ANSWER]))
    assert rollout.reward == float(reward)
    assert type(rollout.reward) is float


def test_a_rollout_that_never_ends_by_itself_is_ended_by_its_budget() -> None:
    def for_ever(request: Request) -> str:
        return SEARCH_TURN

    rollout = run(environment(budget=Budget(model_calls=5)), with_bytes(for_ever))
    assert (rollout.reward, rollout.problem) == (0.0, None)
    assert ended(rollout).termination == "max_calls"
    assert not rollout.has_answer
    assert len(rollout.turns) == 6  # the forced answer is the policy's as well


def test_the_time_of_the_budget_is_the_policys_and_the_clock_is_the_environments() -> None:
    slow = ScriptedEngine([ANSWER], latency=30.0)
    rollout = run(environment(budget=Budget(seconds=0.1)), slow)
    assert (rollout.reward, rollout.problem) == (0.0, None)
    assert ended(rollout).termination == "max_seconds"
    assert not rollout.has_answer
    rollout = run(environment(timeout_s=0.1), slow)
    assert rollout.reward is None
    assert rollout.problem == "The run timed out after 0.1 s."


def test_a_tool_that_hangs_is_the_environments_fault() -> None:
    async def hang() -> None:
        await asyncio.sleep(3600)

    made = environment(tools=[Notes(hang)], timeout_s=0.2)
    rollout = run(made, with_bytes(searches_then_answers(1)))
    assert rollout.reward is None
    assert "0.2 s" in (rollout.problem or "")
    assert len(rollout.turns) == 1


def test_a_timeout_of_the_engines_own_is_told_as_such() -> None:
    def late(request: Request) -> str:
        raise TimeoutError("no answer in 600 s")

    rollout = run(environment(timeout_s=60), ScriptedEngine(late))
    assert rollout.problem == "TimeoutError: no answer in 600 s"


# --- Many ----------------------------------------------------------------------------------------


def tasks(number: int) -> list[Task]:
    return [
        Task(f"task/{n}", f"Where does it rain on day {n}?", "Everywhere") for n in range(number)
    ]


def test_one_broken_rollout_costs_the_others_nothing() -> None:
    def write(request: Request) -> str:
        if "day 3?" in request.messages[1].content:
            raise MemoryError("out of memory")
        return ANSWER

    told: list[Rollout] = []
    done = asyncio.run(
        environment().rollouts(
            ScriptedEngine(write), tasks(6), seeds=[0] * 6, concurrency=3, on_rollout=told.append
        )
    )
    assert [rollout.task.id for rollout in done] == [task.id for task in tasks(6)]
    assert [rollout.reward for rollout in done] == [1.0, 1.0, 1.0, None, 1.0, 1.0]
    assert Counter(map(id, told)) == Counter(map(id, done))


def test_no_more_than_asked_for_run_at_once_and_the_order_is_that_of_the_tasks() -> None:
    running, most = 0, 0

    class Counting(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01 if "day 0?" in request.messages[1].content else 0.001)
            running -= 1
            return await super().complete(request)

    told: list[str] = []
    done = asyncio.run(
        environment().rollouts(
            Counting([ANSWER]), tasks(9), seeds=range(9), concurrency=3,
            on_rollout=lambda rollout: told.append(rollout.task.id),
        )
    )  # fmt: skip
    assert most == 3
    assert [rollout.task.id for rollout in done] == [task.id for task in tasks(9)]
    assert told[0] != "task/0"


def test_each_rollout_has_its_seed_and_its_folder(tmp_path: Path) -> None:
    seeds: list[int | None] = []

    def write(request: Request) -> str:
        seeds.append(request.sampling.seed)
        return ANSWER

    asked = [TASK, TASK, tasks(1)[0]]
    made = environment()
    asyncio.run(
        made.rollouts(
            ScriptedEngine(write), asked, seeds=[100, 200, 100], concurrency=1, folder=tmp_path
        )
    )
    assert seeds == [100, 200, 100]
    places = [rollout_folder(tmp_path, task, seed) for task, seed in zip(asked, seeds, strict=True)]
    assert len(set(places)) == 3
    assert all(RunFolder(place).answer == "Everywhere" for place in places)


def test_cancelled_rollouts_leave_nothing_running_and_can_be_gone_on_with(tmp_path: Path) -> None:
    made = environment()
    slow = with_bytes(searches_then_answers(2))
    slow._latency = 0.02  # of each turn

    finished: list[str] = []

    async def cancelled() -> int:
        first = asyncio.Event()

        def note(rollout: Rollout) -> None:
            finished.append(rollout.task.question)
            first.set()

        batch = asyncio.create_task(
            made.rollouts(
                slow, tasks(6), seeds=range(6), concurrency=2, folder=tmp_path,
                on_rollout=note,
            )
        )  # fmt: skip
        await first.wait()
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        return len(asyncio.all_tasks()) - 1

    assert asyncio.run(cancelled()) == 0
    asked: list[str] = []

    def write(request: Request) -> str:
        asked.append(request.messages[1].content)
        return searches_then_answers(2)(request)

    done = asyncio.run(
        made.rollouts(with_bytes(write), tasks(6), seeds=range(6), concurrency=2, folder=tmp_path)
    )
    assert [rollout.reward for rollout in done] == [1.0] * 6
    assert all(len(rollout.turns) == 3 for rollout in done)
    assert finished
    assert not set(finished) & set(asked)
    undisturbed = asyncio.run(
        made.rollouts(with_bytes(searches_then_answers(2)), tasks(6), seeds=range(6), concurrency=2)
    )
    assert [rollout.turns for rollout in done] == [rollout.turns for rollout in undisturbed]


def test_an_error_of_the_caller_stops_all_as_itself() -> None:
    def stop(rollout: Rollout) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="^enough$"):
        asyncio.run(
            environment().rollouts(
                ScriptedEngine([ANSWER], latency=0.01),
                tasks(4),
                seeds=range(4),
                concurrency=2,
                on_rollout=stop,
            )
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1]}, "2 tasks, but 1 seeds"),
        ({"concurrency": 0}, "concurrency.* is 0"),
        ({"seeds": [1, 1], "folder": "runs"}, "same task and the same seed"),
    ],
    ids=["seeds", "concurrency", "twice"],
)
def test_batches_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    options = {"seeds": [1, 2], "concurrency": 1, **options}
    with pytest.raises((ConfigError, DataError), match=message):
        asyncio.run(environment().rollouts(ScriptedEngine([ANSWER]), [TASK, TASK], **options))


def test_no_tasks_are_no_rollouts() -> None:
    done = environment().rollouts(ScriptedEngine([]), [], seeds=[], concurrency=4)
    assert asyncio.run(done) == []


# --- Folders -------------------------------------------------------------------------------------


def test_a_finished_rollout_is_read_back_without_any_call(tmp_path: Path) -> None:
    async def never() -> None:
        raise AssertionError("the tool was called")

    first = run(environment(), with_bytes(searches_then_answers(3)), run_folder=tmp_path)
    again = run(environment(tools=[Notes(never)]), ScriptedEngine(refuses), run_folder=tmp_path)
    assert again == first
    assert len(again.turns) == 4


def test_what_the_caller_got_wrong_is_told_at_once() -> None:
    with pytest.raises(RunError, match="'reakt'"):
        run(environment(mode="reakt"), ScriptedEngine([ANSWER]))
    with pytest.raises(RunError, match="Two tools are named 'search'"):
        run(environment(tools=[Notes(), Notes()]), ScriptedEngine([ANSWER]))


def test_an_engine_whose_tokens_do_not_add_up_is_not_learned_from() -> None:
    wrong = Completion.of(ANSWER, usage=Usage(1, 2), prompt_ids=(1,), ids=(2, 3), logprobs=(-1.0,))
    rollout = run(environment(), ScriptedEngine(lambda _: wrong))
    assert rollout.reward is None
    assert "2 tokens, but 1 log-prob" in (rollout.problem or "")


def test_each_token_is_kept_once(tmp_path: Path) -> None:
    rollout = run(environment(), with_bytes(searches_then_answers(6)), run_folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "turns.jsonl").read_text().splitlines()]
    assert len(rows) == 7
    (segment,) = rollout.segments
    assert sum(len(row["prompt"]) + len(row["tokens"]) for row in rows) == len(segment.input_ids)


def test_a_broken_rollout_goes_on_when_the_engine_is_back(tmp_path: Path) -> None:
    script = searches_then_answers(2)

    def breaks(request: Request) -> str:
        if len(request.messages) > 4:
            raise EngineError("The endpoint is down.")
        return script(request)

    made = environment()
    broken = run(made, with_bytes(breaks), run_folder=tmp_path)
    assert (broken.reward, len(broken.turns)) == (None, 2)
    done = run(made, with_bytes(script), run_folder=tmp_path)
    assert done.reward == 1.0
    assert done.turns[:2] == broken.turns
    assert done.turns == run(made, with_bytes(script)).turns


def test_a_run_goes_on_with_the_date_that_it_was_begun_on(tmp_path: Path) -> None:
    engine = with_bytes(searches_then_answers(1))
    first = run(environment(today=date(2020, 2, 29)), engine, run_folder=tmp_path)
    assert "2020-02-29" in bytes(first.turns[0].prompt_ids).decode()
    assert run(environment(), ScriptedEngine(refuses), run_folder=tmp_path) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, r"`settings\.seed` \(was 0, now 1\)"),
        ({"task": Task("rain", "And snow?")}, r"`question` \(was"),
    ],
    ids=["seed", "question"],
)
def test_the_folder_of_another_run_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    engine = with_bytes(searches_then_answers(1))
    run(environment(), engine, run_folder=tmp_path)
    with pytest.raises(RunError, match=message):
        run(environment(), engine, run_folder=tmp_path, **options)
    (tmp_path / "turns.jsonl").write_text('{"request": 1}\n')
    with pytest.raises(RunError, match=r"turns\.jsonl.*line 1 is damaged"):
        run(environment(), engine, run_folder=tmp_path)


@pytest.mark.slow
def test_killed_at_every_turn_a_rollout_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("killed_rollouts.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    whole = json.loads((tmp_path / "whole" / "done.json").read_text())
    assert (whole["reward"], len(whole["turns"])) == (1.0, 3)
    assert any("failed" in text for text in whole["tools"])
    assert any("note" in text for text in whole["tools"])
    expected = Counter((tmp_path / "whole" / "calls.txt").read_text().splitlines())
    killed = [folder for folder in tmp_path.iterdir() if folder.name != "whole"]
    assert len(killed) == 12
    for folder in killed:
        assert json.loads((folder / "done.json").read_text()) == whole, folder
        when, _, place = folder.name.partition("-")
        calls = Counter((folder / "calls.txt").read_text().splitlines())
        again = {} if when == "logged" else {f"model {int(place) - 1}": 1}
        assert calls - expected == Counter(again), folder


# --- Simulated faults ----------------------------------------------------------------------------


def test_faults_follow_the_seed_of_the_rollout_however_many_run(world: Encyclopedia) -> None:
    def flaky(index: Index) -> Sequence[Any]:
        return [UnreliableTool(tool, failures=0.4) for tool in compact_tools(index)]

    def write(request: Request) -> str:
        turn = sum(message.role == "assistant" for message in request.messages)
        return SEARCH_TURN.replace("rain", f"mayor {turn}") if turn < 6 else ANSWER

    def faults(concurrency: int, seeds: Sequence[int]) -> dict[int, list[bool]]:
        with WorldEnvironment(world, tools=flaky) as made:
            task = made.task(world.questions(1)[0])
            done = asyncio.run(
                made.rollouts(
                    ScriptedEngine(write), [task] * len(seeds), seeds=seeds, concurrency=concurrency
                )
            )
        return {
            seed: [e.failed for e in rollout.events if isinstance(e, ToolReturned)]
            for seed, rollout in zip(seeds, done, strict=True)
        }

    together = faults(8, range(8))
    assert together == faults(1, range(8))
    assert len(set(map(tuple, together.values()))) > 4
    assert faults(1, [5])[5] == together[5]
