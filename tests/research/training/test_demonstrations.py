"""Demonstrations: what is learned is what the model will see, and never a mistake."""

import asyncio
from collections.abc import Iterator
from itertools import groupby
from typing import Any, get_args

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hanol import models
from hanol.engines import ChatRequest, CheckpointEngine, Completion, ScriptedEngine
from hanol.errors import DataError, EngineError
from hanol.research import GREEDY, Budget, Mode, Task
from hanol.research._training._demonstrations import Spelled, demonstrations
from hanol.research._training._environment import WorldEnvironment
from hanol.research._training._expert import Expert
from hanol.research._training._rollout import Rollout, TokenSegment
from hanol.research._training._tokenizer import encyclopedia_tokenizer
from hanol.worlds import Encyclopedia, Question

TOKENIZER = encyclopedia_tokenizer()
WORLD = Encyclopedia(0, 60)
QUESTIONS = [
    *WORLD.questions(6, hops=(1, 2, 3)),
    *WORLD.questions(3, hops=1, described=True),
]


@pytest.fixture(scope="module", params=get_args(Mode))
def environment(request: pytest.FixtureRequest) -> Iterator[WorldEnvironment]:
    budget = Budget(model_calls=10)
    with WorldEnvironment(WORLD, mode=request.param, budget=budget, sampling=GREEDY) as made:
        yield made


def written(segment: TokenSegment) -> list[str]:
    """The texts that are learned."""
    pairs = zip(segment.input_ids, segment.action_mask, strict=True)
    return [
        TOKENIZER.decode([token for token, _ in run])
        for acts, run in groupby(pairs, key=lambda pair: pair[1])
        if acts
    ]


def queries(texts: list[str]) -> list[str]:
    marker = '"query": ["'
    return [text.partition(marker)[2].partition('"')[0] for text in texts if marker in text]


def make(environment: WorldEnvironment, engine: Any, **options: Any) -> list[Any]:
    return demonstrations(environment, engine, TOKENIZER, environment.tasks(QUESTIONS), **options)


def test_rows_are_token_by_token_what_a_checkpoint_would_read(
    environment: WorldEnvironment,
) -> None:
    """An engine with a model is asked what the expert was asked: its prompts begin the rows."""
    asked: list[tuple[ChatRequest, str]] = []

    class Watched(Expert):
        async def complete(self, request: ChatRequest) -> Completion:
            completion = await super().complete(request)
            asked.append((request, completion.text))
            return completion

    rows = make(environment, Watched(WORLD, QUESTIONS, detours=0.5))
    config = LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=4096, bos_token_id=None,
        eos_token_id=TOKENIZER.eos_token_id, pad_token_id=0,
    )  # fmt: skip
    engine = CheckpointEngine(models.build(config), TOKENIZER)
    expected = []
    for request, text in asked:
        once = ChatRequest(request.messages, max_tokens=1, temperature=0.0, logprobs=True)
        prompt = asyncio.run(engine.complete(once)).prompt_ids
        assert prompt is not None
        ids = TOKENIZER(text, add_special_tokens=False).input_ids
        expected.append((*prompt, *ids, TOKENIZER.eos_token_id))
    found = [segment.input_ids for segments in rows for segment in segments]
    assert all(rows)
    # Every row ends where a turn does, and every turn that was learned is in one.
    assert set(found) <= set(expected)
    learned = sum(len(written(segment)) for segments in rows for segment in segments)
    detours = sum(
        Expert(WORLD, QUESTIONS, detours=0.5).is_detour(request.messages) for request, _ in asked
    )
    assert detours >= 2
    assert learned == len(asked) - detours
    if environment.mode == "react":
        assert len(found) == len(QUESTIONS)  # one row each


def test_the_mask_is_what_the_expert_wrote(environment: WorldEnvironment) -> None:
    for question, segments in zip(
        QUESTIONS, make(environment, Expert(WORLD, QUESTIONS, detours=0.0)), strict=True
    ):
        turns = [text for segment in segments for text in written(segment)]
        assert len(turns) == question.hops + 2  # a search, the pages, the answer
        assert all(turn.startswith("<think>\n") and turn.endswith("<|im_end|>") for turn in turns)
        for answer in question.answers:
            assert answer in turns[-1].partition("<answer>")[2]
        assert not any("<tool_response>" in turn or "user" in turn for turn in turns)


def test_mistakes_are_read_but_not_learned(environment: WorldEnvironment) -> None:
    straight = make(environment, Expert(WORLD, QUESTIONS, detours=0.0))
    rows = make(environment, Expert(WORLD, QUESTIONS, detours=1.0))
    recovered = 0
    for right, segments in zip(straight, rows, strict=True):
        good = queries([text for segment in right for text in written(segment)])
        turns = [text for segment in segments for text in written(segment)]
        assert queries(turns) in ([], good)  # a bad query may find the page all the same
        whole = queries([TOKENIZER.decode(segment.input_ids) for segment in segments])
        assert whole[0] not in good
        recovered += queries(turns) == good
    assert recovered >= 3


def test_only_right_answers_are_kept_in_the_order_of_the_tasks(
    environment: WorldEnvironment,
) -> None:
    expert = Expert(WORLD, QUESTIONS)
    wrong = {QUESTIONS[1].text, QUESTIONS[4].text}

    class Sloppy(Expert):
        def turn(self, messages: Any) -> str:
            text = expert.turn(messages)
            asked = next(m.content for m in messages if m.role == "user")
            if any(question in asked for question in wrong):
                return text.replace("<answer>\n", "<answer>\nnot ")
            return text

    told: list[Rollout] = []
    one = make(environment, Sloppy(WORLD, QUESTIONS), on_rollout=told.append)
    assert [bool(segments) for segments in one] == [q.text not in wrong for q in QUESTIONS]
    assert sorted(rollout.task.question for rollout in told) == sorted(q.text for q in QUESTIONS)
    assert make(environment, Sloppy(WORLD, QUESTIONS), concurrency=4) == one


def test_what_breaks_makes_no_row(environment: WorldEnvironment) -> None:
    def breaks(request: ChatRequest) -> str:
        raise EngineError("gone")

    told: list[Rollout] = []
    rows = make(environment, ScriptedEngine(breaks), on_rollout=told.append)
    assert rows == [()] * len(QUESTIONS)
    assert all("gone" in str(rollout.problem) for rollout in told)


def test_a_question_of_another_world_makes_no_row(environment: WorldEnvironment) -> None:
    others: list[Question] = Encyclopedia(1, 60).questions(2)
    tasks: list[Task] = environment.tasks(others)
    assert demonstrations(environment, Expert(WORLD, QUESTIONS), TOKENIZER, tasks) == [(), ()]


@pytest.mark.parametrize("missing", ["template", "end"])
def test_a_tokenizer_that_cannot_write_conversations_is_refused(missing: str) -> None:
    raw = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    if missing == "end":
        tokenizer.chat_template = "{{ messages[0].content }}"
    else:
        tokenizer.eos_token = "b"
    with pytest.raises(DataError, match="no chat template or no end token"):
        Spelled(Expert(WORLD, QUESTIONS), tokenizer)
