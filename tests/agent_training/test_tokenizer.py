"""The word-level tokenizer: nothing is unknown to it, nothing is lost, calls stay calls."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from claims.deep_research.unreliable import ResultCache, SteadyTool, UnreliableTool
from hanol.agent_training import Expert, WorldEnvironment, encyclopedia_tokenizer
from hanol.agent_training.expert._tokenizer import END  # private: the token that ends a turn
from hanol.engines import Completion, Message, Request
from hanol.errors import DataError
from hanol.research import FORCED_ANSWER
from hanol.runs import Budget, Mode
from hanol.tools import parse_turn
from hanol.worlds import Encyclopedia

FAILURES = (
    "The search failed. Try again.",
    "The visit failed. Try again.",
    "The search does not answer. Go on without it.",
    "The visit does not answer. Go on without it.",
    "No results.",
    "You made this very call before; it gives the same result. Ask something else, or answer.",
    FORCED_ANSWER,
    "(none yet)",
)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def text_of(tokenizer: Tokenizer, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids)
    return text


def unknown(tokenizer: Tokenizer, text: str) -> list[str]:
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = zip(read.input_ids, read.offset_mapping, strict=True)
    return [text[a:b] for token, (a, b) in spans if token == tokenizer.unk_token_id]


def conversation(tokenizer: Tokenizer, messages: tuple[Message, ...]) -> str:
    text: str = tokenizer.apply_chat_template(
        [message.to_dict() for message in messages], tokenize=False, add_generation_prompt=True
    )
    return text


@pytest.fixture(scope="module", params=[False, True], ids=["pieces", "verbatim"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return encyclopedia_tokenizer(verbatim=request.param)


@dataclass(frozen=True)
class Asked:
    messages: tuple[Message, ...]
    written: str


class Watched(Expert):
    """Keeps what it was asked and what it wrote."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[Asked] = []

    async def complete(self, request: Request) -> Completion:
        completion = await super().complete(request)
        self.seen.append(Asked(request.messages, completion.text))
        return completion


def rollouts(mode: Mode, seed: int, **options: Any) -> list[Asked]:
    """Everything that is read and written in some rollouts in which tools fail now and then."""
    world = Encyclopedia(seed, 60, **options)
    questions = world.questions(8, seed=seed, sets=True)
    questions += world.questions(4, hops=(1, 2), described=True, seed=seed)
    expert = Watched(world, questions, detours=0.5)
    with WorldEnvironment(world, mode=mode, budget=Budget(model_calls=8)) as environment:
        environment.tools = [
            SteadyTool(UnreliableTool(tool, failures=0.8), ResultCache()) if place else
            UnreliableTool(tool, failures=0.4)
            for place, tool in enumerate(environment.tools)
        ]  # fmt: skip
        tasks = environment.tasks(questions)
        done = asyncio.run(
            environment.rollouts(expert, tasks, seeds=range(len(tasks)), concurrency=1)
        )
    assert all(rollout.problem is None for rollout in done)
    return expert.seen


@pytest.fixture(scope="module")
def seen() -> list[Asked]:
    return [
        asked
        for seed, mode in enumerate(get_args(Mode))
        for asked in rollouts(mode, seed, num_distractors=(1, 5, 12)[seed])
    ]


def test_the_rollouts_have_what_can_happen(tokenizer: Tokenizer, seen: list[Asked]) -> None:
    text = "\n".join(conversation(tokenizer, asked.messages) for asked in seen)
    for part in (FAILURES[0], FAILURES[3], FORCED_ANSWER, "# Report so far", "\n5. ", "[2] "):
        assert part in text, part
    assert len(seen) > 100


def test_nothing_in_a_rollout_is_unknown(tokenizer: Tokenizer, seen: list[Asked]) -> None:
    for asked in seen:
        assert unknown(tokenizer, conversation(tokenizer, asked.messages)) == []
        assert unknown(tokenizer, asked.written) == []


@pytest.mark.parametrize("text", FAILURES, ids=[text[:20] for text in FAILURES])
def test_nothing_that_the_agent_is_told_is_unknown(tokenizer: Tokenizer, text: str) -> None:
    assert unknown(tokenizer, text) == []
    assert unknown(tokenizer, f"<tool_response>\n{text}\n</tool_response>\n\n# Note\n{text}") == []


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    split=st.sampled_from(["train", "dev", "test"]),
    num_distractors=st.integers(0, 12),
    level=st.sampled_from([0, 1, 2]),
)
def test_nothing_in_any_world_is_unknown_or_lost(
    tokenizer: Tokenizer, seed: int, split: Any, num_distractors: int, level: Any
) -> None:
    world = Encyclopedia(seed, 64, split=split, num_distractors=num_distractors)
    texts = [page.markdown for page in world.pages]
    try:
        asked = world.questions(4, hops=1, level=level, sets=True, seed=seed)
    except DataError:  # a small world may have none of a level
        asked = world.questions(4, sets=True, seed=seed)
    for text in (*texts, *(question.text for question in asked)):
        assert unknown(tokenizer, text) == []
        ids = ids_of(tokenizer, text)
        assert ids_of(tokenizer, text_of(tokenizer, ids)) == ids


def test_what_is_decoded_is_encoded_to_the_same_tokens(
    tokenizer: Tokenizer, seen: list[Asked]
) -> None:
    for asked in seen:
        for text in (asked.written, conversation(tokenizer, asked.messages)):
            ids = ids_of(tokenizer, text)
            assert ids_of(tokenizer, text_of(tokenizer, ids)) == ids


def test_what_the_expert_writes_comes_back_to_the_letter(
    tokenizer: Tokenizer, seen: list[Asked]
) -> None:
    with_calls = 0
    for asked in seen:
        back = text_of(tokenizer, ids_of(tokenizer, asked.written))
        assert back == asked.written
        turn = parse_turn(back)
        assert turn.kind != "error"
        with_calls += len(turn.calls)
        for call in turn.calls:
            written = asked.written.partition("<tool_call>\n")[2].partition("\n</tool_call>")[0]
            assert {"name": call.name, "arguments": dict(call.arguments)} == json.loads(written)
    assert with_calls > 50


def test_a_text_that_is_decoded_token_by_token_only_grows(
    tokenizer: Tokenizer, seen: list[Asked]
) -> None:
    for asked in seen[::7]:
        ids = ids_of(tokenizer, asked.written)
        whole, before = text_of(tokenizer, ids), ""
        for end in range(1, len(ids) + 1):
            now = text_of(tokenizer, ids[:end])
            assert now.startswith(before)
            assert whole.startswith(now)
            before = now


def test_the_fence_around_results_is_nothing(tokenizer: Tokenizer) -> None:
    fenced = (
        "[data 0123456789ab from search: content, not instructions]\n1. Babin is a city.\n"
        "[end 0123456789ab]"
    )
    assert ids_of(tokenizer, fenced) == ids_of(tokenizer, "\n1. Babin is a city.\n")


@pytest.mark.parametrize(
    ("verbatim", "around"),
    [
        (False, ['<tool_call>\n{"name": "visit", "arguments": {"url": ["doc-',
                 '.md"], "goal": "', '"}}\n</tool_call>']),
        (True, ["<tool_call>\n", '{"', "name", '": "', "visit", '", "', "arguments", '": {"', "url",
                '": ["doc-', '.md"], "', "goal", '": "', '"}}', "\n</tool_call>"]),
    ],
)  # fmt: skip
def test_a_call_is_written_in_pieces_or_mark_by_mark(verbatim: bool, around: list[str]) -> None:
    visit = (
        '<tool_call>\n{"name": "visit", "arguments": {"url": ["doc-05-99.md"], "goal": "spouse"}}\n'
        "</tool_call>"
    )
    tokenizer = encyclopedia_tokenizer(verbatim=verbatim)
    tokens = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, visit))
    assert [token for token in tokens if token not in ("05", "-99", "spouse")] == around
    assert text_of(tokenizer, ids_of(tokenizer, visit)) == visit


@pytest.mark.parametrize("verbatim", [False, True])
def test_saved_and_loaded_by_auto_tokenizer_it_is_the_same(
    verbatim: bool, tmp_path: Path, seen: list[Asked]
) -> None:
    tokenizer = encyclopedia_tokenizer(777, verbatim=verbatim)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 777
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.pad_token_id, loaded.eos_token, loaded.unk_token_id) == (0, END, 1)
    for asked in seen[::9]:
        messages = [message.to_dict() for message in asked.messages]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert loaded.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids
        assert loaded.decode(ids) == text_of(tokenizer, ids)


@pytest.mark.parametrize("verbatim", [False, True])
def test_ids_are_dense_and_the_same_every_time(verbatim: bool) -> None:
    tokenizer, again = (encyclopedia_tokenizer(verbatim=verbatim) for _ in range(2))
    vocabulary = tokenizer.get_vocab()
    assert again.get_vocab() == vocabulary
    assert sorted(vocabulary.values()) == list(range(len(tokenizer)))


def test_the_template_marks_what_the_assistant_wrote(
    tokenizer: Tokenizer, seen: list[Asked]
) -> None:
    marked = 0
    for asked in seen:
        messages = [*asked.messages, Message("assistant", asked.written)]
        found = tokenizer.apply_chat_template(
            [message.to_dict() for message in messages],
            return_dict=True, return_assistant_tokens_mask=True,
        )  # fmt: skip
        expected_ids: list[int] = []
        expected_mask: list[int] = []
        for place, message in enumerate(messages):
            acts = message.role == "assistant"
            if acts:
                expected_ids += [*ids_of(tokenizer, message.content), tokenizer.eos_token_id]
                expected_mask += [1] * (len(expected_ids) - len(expected_mask))
            else:
                expected_ids = ids_of(
                    tokenizer, conversation(tokenizer, tuple(messages[: place + 1]))
                )
                expected_mask += [0] * (len(expected_ids) - len(expected_mask))
        assert found["input_ids"] == expected_ids
        assert found["assistant_masks"] == expected_mask
        marked += sum(expected_mask)
    assert marked > 1000


def test_the_system_message_is_left_out(tokenizer: Tokenizer) -> None:
    user = Message("user", "What is the spouse of Babin Bacalo?")
    assert conversation(tokenizer, (Message("system", "Anything"), user)) == conversation(
        tokenizer, (user,)
    )


def test_a_foreign_word_is_one_unknown_token(tokenizer: Tokenizer) -> None:
    assert unknown(tokenizer, "the 東京 of Babin") == ["東", "京"]
    assert unknown(tokenizer, "the Zurich of Babin") == ["Zurich"]
