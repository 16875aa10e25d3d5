"""Conversations: what the model reads of them, what stays after a stop or an error, and files."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from hanol import autodeco, models
from hanol.engines import Conversation, Message, Reply, Sampling, ScriptedEngine, open_engine
from hanol.errors import DataError, EngineError
from hanol.rows import read_rows, replace_rows
from hanol.runs import synchronous

from .conftest import KINDS

SHORT = Sampling(temperature=0.0, max_tokens=12)


def said(talk: Conversation, question: str, **options: Any) -> str:
    return "".join(piece.text for piece in synchronous(talk.ask)(question, **options))


def usage(talk: Conversation, question: str, sampling: Sampling = SHORT) -> Any:
    pieces = list(synchronous(talk.ask)(question, sampling))
    assert pieces[-1].completion is not None
    return pieces[-1].completion.usage


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_turn_reads_only_what_is_new(kind: str, folders: dict[str, Path]) -> None:
    engine = open_engine(str(folders[kind]))
    talk = Conversation(engine, system="You are a helpful engine of a few words. " * 4)
    try:
        first = usage(talk, "tell me of the sea " * 8)
        second = usage(talk, "and more")
    finally:
        asyncio.run(engine.aclose())
    # The last token of an answer was never read, and what follows it is new.
    read = first.prompt_tokens + first.generated_tokens - 1
    assert second.cached_tokens >= read
    assert second.prompt_tokens - second.cached_tokens < 40


@pytest.mark.parametrize("kind", ["llama", "kimi"])
def test_a_stopped_answer_stays_and_is_not_read_again(kind: str, folders: dict[str, Path]) -> None:
    engine = open_engine(str(folders[kind]))
    talk = Conversation(engine)

    async def stop_after(pieces: int) -> str:
        text, answer = "", talk.ask("tell me of the sea " * 8, Sampling(temperature=0.0))
        async for piece in answer:
            text += piece.text
            pieces -= 1
            if not pieces:
                break
        await answer.aclose()  # type: ignore[attr-defined]
        return text

    try:
        text = asyncio.run(stop_after(5))
        assert [message.role for message in talk.messages] == ["user", "assistant"]
        assert talk.messages[-1].text == text
        assert talk.stopped == {1}
        assert talk.to_dict()["messages"][1] == {
            "role": "assistant", "content": text, "stopped": True,
        }  # fmt: skip
        again = usage(talk, "go on")
        assert again.prompt_tokens - again.cached_tokens < 60  # of 186, and what was written ahead
    finally:
        asyncio.run(engine.aclose())


def test_the_oldest_turns_leave_and_the_system_message_stays() -> None:
    engine = ScriptedEngine(lambda request: "word " * 20, context_window=400)
    talk = Conversation(engine, system="Never forget this. " * 4)
    starts = set()
    for i in range(20):
        said(talk, f"question {i}", sampling=Sampling(max_tokens=60))
        assert talk.read[0] == Message("system", talk.system or "")
        assert talk.read[1].role == "user"
        assert engine.count_tokens(talk.read) <= 400
        starts.add(talk.start)
    assert 2 <= len(starts) <= 8, "several turns leave at once: what stays is read anew"
    assert len(talk.messages) == 40
    assert len(talk.to_dict()["messages"]) == 41


def test_a_question_longer_than_the_window_changes_nothing() -> None:
    talk = Conversation(ScriptedEngine(lambda request: "fine", context_window=100), system="s")
    for question in "abc":
        said(talk, question * 40)
    before, start = talk.messages[:], talk.start
    with pytest.raises(EngineError, match=r"The prompt has \d+ tokens"):
        said(talk, "x" * 1000)
    assert (talk.messages, talk.start) == (before, start)
    assert said(talk, "again") == "fine"


def test_an_error_changes_nothing() -> None:
    talk = Conversation(ScriptedEngine([Reply("fine", match="good")]))
    with pytest.raises(EngineError, match="no answer"):
        said(talk, "bad")
    assert talk.messages == []
    assert said(talk, "good") == "fine"
    assert talk.undo() == "good"
    assert talk.undo() is None


def test_another_of_several_answers_can_be_kept(folders: dict[str, Path]) -> None:
    engine = open_engine(str(folders["llama"]))
    talk = Conversation(engine)
    try:
        said(talk, "hello", sampling=Sampling(temperature=2.0, max_tokens=8, seed=1), n=3)
    finally:
        asyncio.run(engine.aclose())
    assert len(set(talk.answers)) == 3
    assert talk.messages[-1].text == talk.answers[0]
    talk.keep(2)
    assert talk.messages[-1].text == talk.answers[2]
    with pytest.raises(DataError, match="no answer 4: the last question has 3"):
        talk.keep(3)


def test_a_conversation_survives_a_file(tmp_path: Path) -> None:
    talk = Conversation(ScriptedEngine(["a\u2028b", "c"]), system="s")
    said(talk, "one")
    replace_rows(tmp_path / "chat.jsonl", [talk.to_dict()])
    [(_, row)] = read_rows(tmp_path / "chat.jsonl")
    other = Conversation(talk.engine)
    other.restore(row)
    assert (other.system, other.messages) == ("s", talk.messages)
    assert said(other, "two") == "c"


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"messages": []},
        {"messages": "hello"},
        {"messages": ["hello"]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": ["user"], "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]},
    ],
)
def test_rows_that_are_no_conversation_are_refused(row: dict[str, Any]) -> None:
    talk = Conversation(ScriptedEngine(["fine"]), system="s")
    said(talk, "hi")
    with pytest.raises(DataError):
        talk.restore(row)
    assert (talk.system, len(talk.messages)) == ("s", 2)


def test_pieces_tell_the_temperatures_that_heads_chose(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    base, text = models.load(folders["llama"])
    model = autodeco.AutoDecoForCausalLM.from_base(base)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.head_parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(tmp_path / "heads")
    text.save_pretrained(tmp_path / "heads")
    engine: Any = open_engine(str(tmp_path / "heads"))
    assert engine.default_sampling == Sampling()
    talk = Conversation(engine)
    try:
        drawn = Sampling(seed=1, max_tokens=20)
        pieces = list(synchronous(talk.ask)("tell me of the sea", drawn))
        fixed = list(synchronous(talk.ask)("more", Sampling(temperature=0.5, max_tokens=5)))
        prompt = engine.encode(engine._chat.render(talk.messages[:1]))  # private: the template
    finally:
        asyncio.run(engine.aclose())
    completion = pieces[-1].completion
    assert completion is not None
    assert completion.ids is not None
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([[*prompt, *completion.ids]]))
    chosen = out.temperature[0, len(prompt) - 1 : -1].tolist()
    # Where each token is a piece of its own, they are one to one.
    told = [piece.temperature for piece in pieces if piece.text]
    assert len(told) > 10
    for temperature in told:
        assert min(abs(temperature - other) for other in chosen) < 1e-4
    assert len({round(temperature, 3) for temperature in told}) > 5
    assert {piece.temperature for piece in fixed} == {None}
