"""Rows of the expert: what is learned is what the model will see, and never a mistake."""

import asyncio
from itertools import groupby
from typing import Any, get_args

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hanol import models
from hanol.agent_training import Expert, encyclopedia_tokenizer, expert_rows
from hanol.agent_training.stages._rows import (
    chat_rows,
)  # private: the rows that a stage learns from, without training
from hanol.engines import CheckpointEngine, Completion, Message, Request, Sampling
from hanol.errors import DataError, EngineError
from hanol.runs import Mode
from hanol.training import SftRow
from hanol.worlds import Encyclopedia

TOKENIZER = encyclopedia_tokenizer()
WORLD = Encyclopedia(0, 60)
QUESTIONS = [
    *WORLD.questions(6, hops=(1, 2, 3)),
    *WORLD.questions(3, hops=1, described=True),
]


@pytest.fixture(params=get_args(Mode))
def mode(request: pytest.FixtureRequest) -> Mode:
    return request.param


def written(segment: SftRow) -> list[str]:
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


def rows_of_one(question: Any, mode: Mode, detours: float) -> list[SftRow]:
    return expert_rows(Expert(WORLD, [question], detours=detours), TOKENIZER, mode=mode)


def test_rows_are_token_by_token_what_a_checkpoint_would_read(mode: Mode) -> None:
    """An engine with a model is asked what the expert was asked: its prompts begin the rows."""
    asked: list[tuple[Request, str]] = []

    class Watched(Expert):
        async def complete(self, request: Request) -> Completion:
            completion = await super().complete(request)
            asked.append((request, completion.text))
            return completion

    expert = Watched(WORLD, QUESTIONS, detours=0.5)
    rows = expert_rows(expert, TOKENIZER, mode=mode)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=4096, bos_token_id=None,
        eos_token_id=TOKENIZER.eos_token_id, pad_token_id=0,
    )  # fmt: skip
    engine = CheckpointEngine(models.build(config), TOKENIZER)
    expected = []
    for request, text in asked:
        once = Request(request.messages, Sampling(max_tokens=1, temperature=0.0), top_logprobs=0)
        prompt = asyncio.run(engine.complete(once)).prompt_ids
        assert prompt is not None
        ids = TOKENIZER(text, add_special_tokens=False).input_ids
        expected.append((*prompt, *ids, TOKENIZER.eos_token_id))
    found = [row.input_ids for row in rows]
    # Every row ends where a turn does, and every turn that was learned is in one.
    assert set(found) <= set(expected)
    learned = sum(len(written(row)) for row in rows)
    detours = sum(expert.is_detour(request.messages) for request, _ in asked)
    assert detours >= 2
    assert learned == len(asked) - detours
    if mode == "react":
        assert len(found) == len(QUESTIONS)  # one row each


def test_the_mask_is_what_the_expert_wrote(mode: Mode) -> None:
    for question in QUESTIONS:
        rows = rows_of_one(question, mode, 0.0)
        turns = [text for row in rows for text in written(row)]
        assert len(turns) == question.hops + 2  # a search, the pages, the answer
        assert all(turn.startswith("<think>\n") and turn.endswith("<|im_end|>") for turn in turns)
        for answer in question.answers:
            assert answer in turns[-1].partition("<answer>")[2]
        assert not any("<tool_response>" in turn or "user" in turn for turn in turns)


def test_mistakes_are_read_but_not_learned(mode: Mode) -> None:
    recovered = 0
    for question in QUESTIONS:
        straight = rows_of_one(question, mode, 0.0)
        good = queries([text for row in straight for text in written(row)])
        rows = rows_of_one(question, mode, 1.0)
        turns = [text for row in rows for text in written(row)]
        assert queries(turns) in ([], good)  # a bad query may find the page all the same
        whole = queries([TOKENIZER.decode(row.input_ids) for row in rows])
        assert not whole or whole[0] not in good
        recovered += queries(turns) == good
    assert recovered >= 3


def test_only_right_answers_make_rows(mode: Mode) -> None:
    expert = Expert(WORLD, QUESTIONS)
    wrong = {QUESTIONS[1].text, QUESTIONS[4].text}

    class Sloppy(Expert):
        def turn(self, messages: Any) -> str:
            text = expert.turn(messages)
            asked = next(m.content for m in messages if m.role == "user")
            if any(question in asked for question in wrong):
                return text.replace("<answer>\n", "<answer>\nnot ")
            return text

    rows = expert_rows(Sloppy(WORLD, QUESTIONS), TOKENIZER, mode=mode)
    texts = [TOKENIZER.decode(row.input_ids) for row in rows]
    for question in QUESTIONS:
        asked = TOKENIZER.decode(TOKENIZER(question.text, add_special_tokens=False).input_ids)
        assert any(asked in text for text in texts) is (question.text not in wrong)


def test_what_breaks_makes_no_row() -> None:
    class Broken(Expert):
        async def complete(self, request: Request) -> Completion:
            raise EngineError("gone")

    assert expert_rows(Broken(WORLD, QUESTIONS), TOKENIZER) == []


@pytest.mark.parametrize("missing", ["template", "end"])
def test_a_tokenizer_that_cannot_write_conversations_is_refused(missing: str) -> None:
    raw = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    if missing == "end":
        tokenizer.chat_template = "{{ messages[0].content }}"
    else:
        tokenizer.eos_token = "b"
    with pytest.raises(DataError, match="no chat template or no end token"):
        chat_rows([Message("user", "a"), Message("assistant", "b")], tokenizer)
